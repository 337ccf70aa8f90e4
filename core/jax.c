/* jax.c - see jax.h.
 *
 * Names and shapes: the table below, as the converters of transformers read them
 * (convert_paligemma_weights_to_hf.py and convert_paligemma2_weights_to_hf.py). [L] is a stacked layer, then
 *
 *     q_einsum [H][D][E]   kv_einsum [2][K][D][E]   attn_vec_einsum [H][E][D]
 *     gating_einsum [2][D][F]   linear [F][D]   kernel [in][out]   patches [y][x][c][out]
 *
 * Three ways lead from such an array to rows of a matrix [out][in]: as it is; turned as one
 * matrix; or turned head by head. Turning goes tile by tile, so that both sides stay in the
 * cache.                                                                              */
#include "core/jax.h"

#include "core/cpu/pool.h"
#include "core/file.h"
#include "core/npz.h"
#include "core/size.h"

#include <dirent.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    LAYERS_MAX = 1024,
    NAME_BYTES = 128,
    TILE = 32,
    ALIGN = 64
};

typedef enum {
    VECTOR, /* all of it, in order */
    ROWS,   /* the last axis is a row */
    TURN,   /* [in..][out..]: the first axis is `in` */
    TURN2,  /* the first two axes are `in` */
    HEADS,  /* [head][in][out] */
    PATCH,  /* [y][x][c][out] -> [out][c][y][x] */
} way;

typedef struct {
    const char *array;
    int axes; /* without those of layer and half */
    way way;
    bool stacked;     /* a first axis of layers */
    int half;         /* 0, or 1 and 2: the axis behind is two halves, this one is meant */
    int gemma;        /* 0: of both generations */
    const char *name; /* #: the layer */
} rule;

#define V         "vision_tower.vision_model."
#define L         V "encoder.layers.#."
#define T         "language_model.model."
#define B         T "layers.#."
#define BLOCK     "img/Transformer/encoderblock/"
#define ATTENTION BLOCK "MultiHeadDotProductAttention_0/"

/* Rows of one array stand together. */
static const rule rules[] = {
    {"img/embedding/kernel", 4, PATCH, false, 0, 0, V "embeddings.patch_embedding.weight"},
    {"img/embedding/bias", 1, VECTOR, false, 0, 0, V "embeddings.patch_embedding.bias"},
    {"img/pos_embedding", 3, ROWS, false, 0, 0, V "embeddings.position_embedding.weight"},
    {BLOCK "LayerNorm_0/scale", 1, VECTOR, true, 0, 0, L "layer_norm1.weight"},
    {BLOCK "LayerNorm_0/bias", 1, VECTOR, true, 0, 0, L "layer_norm1.bias"},
    {BLOCK "LayerNorm_1/scale", 1, VECTOR, true, 0, 0, L "layer_norm2.weight"},
    {BLOCK "LayerNorm_1/bias", 1, VECTOR, true, 0, 0, L "layer_norm2.bias"},
    {ATTENTION "query/kernel", 3, TURN, true, 0, 0, L "self_attn.q_proj.weight"},
    {ATTENTION "query/bias", 2, VECTOR, true, 0, 0, L "self_attn.q_proj.bias"},
    {ATTENTION "key/kernel", 3, TURN, true, 0, 0, L "self_attn.k_proj.weight"},
    {ATTENTION "key/bias", 2, VECTOR, true, 0, 0, L "self_attn.k_proj.bias"},
    {ATTENTION "value/kernel", 3, TURN, true, 0, 0, L "self_attn.v_proj.weight"},
    {ATTENTION "value/bias", 2, VECTOR, true, 0, 0, L "self_attn.v_proj.bias"},
    {ATTENTION "out/kernel", 3, TURN2, true, 0, 0, L "self_attn.out_proj.weight"},
    {ATTENTION "out/bias", 1, VECTOR, true, 0, 0, L "self_attn.out_proj.bias"},
    {BLOCK "MlpBlock_0/Dense_0/kernel", 2, TURN, true, 0, 0, L "mlp.fc1.weight"},
    {BLOCK "MlpBlock_0/Dense_0/bias", 1, VECTOR, true, 0, 0, L "mlp.fc1.bias"},
    {BLOCK "MlpBlock_0/Dense_1/kernel", 2, TURN, true, 0, 0, L "mlp.fc2.weight"},
    {BLOCK "MlpBlock_0/Dense_1/bias", 1, VECTOR, true, 0, 0, L "mlp.fc2.bias"},
    {"img/Transformer/encoder_norm/scale", 1, VECTOR, false, 0, 0, V "post_layernorm.weight"},
    {"img/Transformer/encoder_norm/bias", 1, VECTOR, false, 0, 0, V "post_layernorm.bias"},
    {"img/head/kernel", 2, TURN, false, 0, 0, "multi_modal_projector.linear.weight"},
    {"img/head/bias", 1, VECTOR, false, 0, 0, "multi_modal_projector.linear.bias"},
    {"llm/embedder/input_embedding", 2, ROWS, false, 0, 0, T "embed_tokens.weight"},
    {"llm/layers/attn/q_einsum/w", 3, HEADS, true, 0, 0, B "self_attn.q_proj.weight"},
    {"llm/layers/attn/kv_einsum/w", 3, HEADS, true, 1, 0, B "self_attn.k_proj.weight"},
    {"llm/layers/attn/kv_einsum/w", 3, HEADS, true, 2, 0, B "self_attn.v_proj.weight"},
    {"llm/layers/attn/attn_vec_einsum/w", 3, TURN2, true, 0, 0, B "self_attn.o_proj.weight"},
    {"llm/layers/mlp/gating_einsum", 2, TURN, true, 1, 0, B "mlp.gate_proj.weight"},
    {"llm/layers/mlp/gating_einsum", 2, TURN, true, 2, 0, B "mlp.up_proj.weight"},
    {"llm/layers/mlp/linear", 2, TURN, true, 0, 0, B "mlp.down_proj.weight"},
    {"llm/layers/pre_attention_norm/scale", 1, VECTOR, true, 0, 0, B "input_layernorm.weight"},
    /* The trap of the names: what precedes the MLP is called otherwise in Gemma 1. */
    {"llm/layers/pre_ffw_norm/scale", 1, VECTOR, true, 0, 1, B "post_attention_layernorm.weight"},
    {"llm/layers/pre_ffw_norm/scale", 1, VECTOR, true, 0, 2, B "pre_feedforward_layernorm.weight"},
    {"llm/layers/post_attention_norm/scale", 1, VECTOR, true, 0, 2,
     B "post_attention_layernorm.weight"},
    {"llm/layers/post_ffw_norm/scale", 1, VECTOR, true, 0, 2,
     B "post_feedforward_layernorm.weight"},
    {"llm/final_norm/scale", 1, VECTOR, false, 0, 0, T "norm.weight"},
};
enum {
    RULES = sizeof rules / sizeof *rules
};

/* A tensor, and how it comes about. */
typedef struct {
    pali_tensor t; /* first: a tensor handed out is its output */
    char name[NAME_BYTES];
    const pali_tensor *source;
    size_t offset; /* in the source, in bytes */
    bool in_place;
    size_t blocks, m, n; /* source [blocks][m][n], tensor [blocks][n][m] */
    int kernel; /* PATCH: pixels of a patch, then [n][m] = [n][pixels][c] -> [n][c][pixels] */
} output;

struct pali_jax {
    pali_npz *file;
    char *path;
    output *outputs;
    const output **by_name;
    size_t count;
    unsigned char *memory; /* of what is converted */
    size_t memory_bytes;
    bool converted;
};

/* --- files ---------------------------------------------------------------------------------- */

int pali_jax_in_folder(const char *dir, char **path) {
    int count = 0;
    *path = NULL;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && count < 2 && (e = readdir(d));) {
        if (!pali_file_has_ending(e->d_name, ".npz") || !strcmp(e->d_name, "vae-oid.npz") ||
            !strcmp(e->d_name, "mask.npz"))
            continue;
        char *full = pali_file_join(dir, e->d_name);
        if (full && pali_file_exists(full) && count++ == 0)
            *path = full;
        else
            free(full);
    }
    if (d)
        closedir(d);
    if (count > 1) {
        free(*path);
        *path = NULL;
    }
    return count;
}

/* --- what there is --------------------------------------------------------------------------- */

static const pali_tensor *find_array(const pali_npz *file, const char *name) {
    char with[160];
    const pali_tensor *t = pali_npz_find(file, name);
    if (!t && snprintf(with, sizeof with, "params/%s", name) < (int)sizeof with)
        t = pali_npz_find(file, with);
    return t;
}

static int generation(const pali_npz *file) {
    return find_array(file, "llm/layers/post_attention_norm/scale") ||
                   find_array(file, "llm/layers/post_ffw_norm/scale")
               ? 2
               : 1;
}

static int wrong(const pali_jax *j, const pali_tensor *t, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, "download it again, or another PaliGemma",
                     "%s: array %.80s %s", pali_file_brief(j->path), t->name, what);
}

/* The tensor of one layer (0 when nothing is stacked). Its shape: */
static int describe(pali_jax *j, const rule *r, const pali_tensor *s, int layer, output *o,
                    pali_error *err) {
    const int64_t *shape = s->shape + r->stacked + (r->half > 0);
    size_t all = 1, last = (size_t)shape[r->axes - 1], first = (size_t)shape[0];
    for (int i = 0; i < r->axes; i++)
        if (!pali_size_mul(all, (size_t)shape[i], &all))
            return wrong(j, s, "is too large", err);
    /* No overflow from here on: the array itself fits, and these are its parts. */
    size_t element = pali_dtype_size(s->dtype), part = all * element;
    size_t index = (size_t)layer * (r->half ? 2 : 1) + (r->half == 2);
    *o = (output){.source = s, .offset = index * part, .blocks = 1, .n = 1, .m = all};
    int64_t rows = (int64_t)all, cols = 0;
    switch (r->way) {
    case VECTOR:
        break;
    case ROWS:
        cols = (int64_t)last;
        break;
    case TURN:
        cols = (int64_t)first;
        break;
    case TURN2:
        cols = (int64_t)(first * (size_t)shape[1]);
        break;
    case HEADS:
        o->blocks = first;
        cols = shape[1];
        break;
    case PATCH:
        cols = (int64_t)(all / last);
        o->kernel = (int)(first * (size_t)shape[1]);
        break;
    }
    if (cols) {
        rows = (int64_t)all / cols;
        o->m = (size_t)cols;
        o->n = (size_t)rows / o->blocks;
    }
    o->t = (pali_tensor){
        .dtype = s->dtype, .ndim = cols ? 2 : 1, .shape = {rows, cols}, .bytes = part};
    if (r->way == PATCH)
        o->t = (pali_tensor){.dtype = s->dtype,
                             .ndim = 4,
                             .shape = {rows, shape[2], shape[0], shape[1]},
                             .bytes = part};
    o->in_place = s->data && (r->way == VECTOR || r->way == ROWS);
    if (r->way == VECTOR || r->way == ROWS)
        o->n = 1, o->m = all;
    return 0;
}

/* All tensors of one rule. */
static int apply(pali_jax *j, const rule *r, pali_error *err) {
    const pali_tensor *s = find_array(j->file, r->array);
    if (!s)
        return 0;
    if (s->dtype == PALI_DTYPE_OTHER)
        return pali_fail(err, PALI_EUNSUPPORTED, "use float32, float16 or bfloat16",
                         "%s: array %.80s is in a number format pali does not compute with",
                         pali_file_brief(j->path), s->name);
    if (s->ndim != r->axes + r->stacked + (r->half > 0))
        return wrong(j, s, "has not as many dimensions as it should", err);
    for (int i = 0; i < s->ndim; i++)
        if (s->shape[i] < 1 || s->shape[i] > INT32_MAX)
            return wrong(j, s, "has a dimension that cannot be", err);
    if (r->stacked && s->shape[0] > LAYERS_MAX)
        return wrong(j, s, "has too many layers", err);
    if (r->half && s->shape[1] != 2)
        return wrong(j, s, "should have two halves", err);
    int layers = r->stacked ? (int)s->shape[0] : 1;
    for (int i = 0; i < layers; i++) {
        output *o = &j->outputs[j->count];
        int rc = describe(j, r, s, i, o, err);
        if (rc)
            return rc;
        const char *number = strchr(r->name, '#');
        if (number)
            snprintf(o->name, sizeof o->name, "%.*s%d%s", (int)(number - r->name), r->name, i,
                     number + 1);
        else
            snprintf(o->name, sizeof o->name, "%s", r->name);
        j->count++;
        size_t padded;
        if (!o->in_place &&
            (!pali_size_add(o->t.bytes, ALIGN - 1, &padded) ||
             !pali_size_add(j->memory_bytes, padded / ALIGN * ALIGN, &j->memory_bytes)))
            return wrong(j, s, "is too large", err);
    }
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const output *const *)a)->name, (*(const output *const *)b)->name);
}

/* Says where every tensor lies: in the file, or in memory that nothing uses yet. */
static int place(pali_jax *j, pali_error *err) {
    if (j->memory_bytes) {
        void *m = mmap(NULL, j->memory_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (m == MAP_FAILED)
            return pali_fail_nomem(err, "opening a model of JAX's");
        j->memory = m;
        madvise(m, j->memory_bytes, MADV_HUGEPAGE);
    }
    size_t at = 0;
    j->by_name = calloc(j->count + 1, sizeof *j->by_name);
    if (!j->by_name)
        return pali_fail_nomem(err, "opening a model of JAX's");
    for (size_t i = 0; i < j->count; i++) {
        output *o = &j->outputs[i];
        o->t.name = o->name;
        o->t.data =
            o->in_place ? (const unsigned char *)o->source->data + o->offset : j->memory + at;
        if (!o->in_place)
            at += (o->t.bytes + ALIGN - 1) / ALIGN * ALIGN;
        j->by_name[i] = o;
    }
    qsort(j->by_name, j->count, sizeof *j->by_name, by_name);
    return 0;
}

int pali_jax_open(const char *path, pali_jax **out, pali_error *err) {
    *out = NULL;
    pali_jax *j = calloc(1, sizeof *j);
    if (!j || !(j->path = strdup(path))) {
        free(j);
        return pali_fail_nomem(err, "opening a model of JAX's");
    }
    int rc = pali_npz_open(path, &j->file, err);
    int gemma = rc ? 0 : generation(j->file);
    size_t most = 0; /* tensors */
    for (size_t i = 0; !rc && i < RULES; i++) {
        const pali_tensor *s = find_array(j->file, rules[i].array);
        most += s && rules[i].stacked && s->ndim > 0 && s->shape[0] > 0 && s->shape[0] <= LAYERS_MAX
                    ? (size_t)s->shape[0]
                    : 1;
    }
    if (!rc && !(j->outputs = calloc(most, sizeof *j->outputs)))
        rc = pali_fail_nomem(err, "opening a model of JAX's");
    for (size_t i = 0; !rc && i < RULES; i++)
        if (!rules[i].gemma || rules[i].gemma == gemma)
            rc = apply(j, &rules[i], err);
    if (!rc)
        rc = place(j, err);
    if (rc) {
        pali_jax_close(j);
        return rc;
    }
    *out = j;
    return 0;
}

void pali_jax_close(pali_jax *j) {
    if (!j)
        return;
    if (j->memory)
        munmap(j->memory, j->memory_bytes);
    pali_npz_close(j->file);
    free(j->outputs);
    free(j->by_name);
    free(j->path);
    free(j);
}

size_t pali_jax_count(const pali_jax *j) {
    return j->count;
}

const pali_tensor *pali_jax_peek(const pali_jax *j, size_t i) {
    return &j->outputs[i].t;
}

const pali_tensor *pali_jax_find(const pali_jax *j, const char *name) {
    size_t low = 0, high = j->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, j->by_name[middle]->name);
        if (order == 0)
            return &j->by_name[middle]->t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* --- turning ------------------------------------------------------------------------------------ */

/* in [m][n] -> out [n][m], elements of 2 or 4 bytes. */
#define TURN_TILES(type)                                                                           \
    for (size_t r = 0; r < m; r += TILE)                                                           \
        for (size_t c = 0; c < n; c += TILE)                                                       \
            for (size_t x = c; x < n && x < c + TILE; x++)                                         \
                for (size_t y = r; y < m && y < r + TILE; y++)                                     \
    memcpy(out + (x * m + y) * sizeof(type), in + (y * n + x) * sizeof(type), sizeof(type))

static void turn(const unsigned char *in, unsigned char *out, size_t m, size_t n, size_t element) {
    if (element == 4)
        TURN_TILES(uint32_t);
    else
        TURN_TILES(uint16_t);
}

static void make(const output *o, const unsigned char *source) {
    size_t element = pali_dtype_size(o->t.dtype), block = o->m * o->n * element;
    const unsigned char *in = source + o->offset;
    unsigned char *out = (unsigned char *)(uintptr_t)o->t.data;
    if (o->kernel) { /* [p][c][n] -> [n][c][p]: small */
        size_t pixels = (size_t)o->kernel, c = o->m / pixels;
        for (size_t x = 0; x < o->n; x++)
            for (size_t k = 0; k < c; k++)
                for (size_t p = 0; p < pixels; p++)
                    memcpy(out + ((x * c + k) * pixels + p) * element,
                           in + ((p * c + k) * o->n + x) * element, element);
    } else if (o->n == 1 || o->m == 1) {
        memcpy(out, in, o->blocks * block);
    } else {
        for (size_t b = 0; b < o->blocks; b++)
            turn(in + b * block, out + b * block, o->m, o->n, element);
    }
}

/* Outputs from the first-th on whose source lies in `source`, or in the file where that is NULL. */
typedef struct {
    pali_jax *j;
    const unsigned char *source;
    size_t first;
    atomic_size_t done; /* bytes */
} work;

/* Tells the system of a stretch of the file: that it comes now, or that it will not come again.
 * Turning reads it in a way that looks like chance, which would be read page by page. */
static void advise(const output *o, const unsigned char *source, int advice) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)(source + o->offset);
    uintptr_t to = from + o->t.bytes;
    from = from / page * page;
    madvise((void *)from, to - from, advice);
}

static void make_one(void *arg, int task, int worker) {
    (void)worker;
    work *w = arg;
    const output *o = &w->j->outputs[w->first + (size_t)task];
    if (o->in_place || (!w->source && !o->source->data))
        return;
    const unsigned char *source = w->source ? w->source : o->source->data;
    if (!w->source)
        advise(o, source, MADV_WILLNEED);
    make(o, source);
    if (!w->source) /* memory for what follows: the page that another still uses is read again */
        advise(o, source, MADV_DONTNEED);
    atomic_fetch_add(&w->done, o->t.bytes);
}

/* Outputs [from, to); false when it was stopped. */
static bool make_all(work *w, pali_pool *pool, size_t from, size_t to, const pali_run *run) {
    w->first = from;
    bool whole = pali_pool_run(pool, (int)(to - from), make_one, w, run ? run->cancel : NULL);
    if (run && run->progress)
        run->progress(run->user, PALI_STAGE_LOAD, (int)(atomic_load(&w->done) >> 20),
                      (int)(w->j->memory_bytes >> 20) + 1);
    return whole;
}

int pali_jax_convert(pali_jax *j, int threads, const pali_run *run, pali_error *err) {
    work w = {.j = j};
    pali_pool *pool;
    if (j->converted || !j->memory)
        return 0;
    int rc = pali_pool_open(threads, &pool, err);
    if (rc)
        return rc;
    /* Straight from the file, a part at a time to be able to tell of it. */
    bool whole = true;
    for (size_t from = 0, to; from < j->count && whole; from = to) {
        to = from + 64 < j->count ? from + 64 : j->count;
        whole = make_all(&w, pool, from, to, run);
    }
    /* Of the rest an array is unpacked, used, and dropped. */
    for (size_t i = 0, end; i < j->count && whole && !rc; i = end) {
        const pali_tensor *s = j->outputs[i].source;
        for (end = i + 1; end < j->count && j->outputs[end].source == s; end++)
            ;
        if (s->data)
            continue;
        unsigned char *bytes = malloc(s->bytes);
        rc = bytes ? pali_npz_read(j->file, s, bytes, err)
                   : pali_fail_nomem(err, "unpacking a model of JAX's");
        w.source = bytes;
        if (!rc)
            whole = make_all(&w, pool, i, end, run);
        free(bytes);
    }
    pali_pool_close(pool);
    if (!rc && !whole)
        rc = pali_fail(err, PALI_ECANCEL, NULL, "stopped while loading the model");
    j->converted = !rc;
    return rc;
}

uint64_t pali_jax_converted_bytes(const pali_jax *j) {
    return j->memory_bytes;
}

void pali_jax_release(const pali_jax *j, const void *data, size_t n) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)j->memory;
    uintptr_t from = (uintptr_t)data, to = from + n;
    if (!j->memory || from < start || to > start + j->memory_bytes)
        return;
    from = (from + page - 1) / page * page;
    to = to / page * page;
    if (from < to)
        madvise((void *)from, to - from, MADV_DONTNEED);
}

/* --- config.json ---------------------------------------------------------------------------------- */

/* The array's size along an axis; PALI_EFORMAT when it is not there. */
static int size_along(const pali_jax *j, const char *name, int axes, int axis, json_int_t *out,
                      pali_error *err) {
    const pali_tensor *t = find_array(j->file, name);
    if (!t || t->ndim != axes)
        return pali_fail(err, PALI_EFORMAT, "download it again, or another PaliGemma",
                         "%s: array %s is %s: no PaliGemma of JAX's", pali_file_brief(j->path),
                         name, t ? "of another shape" : "missing");
    *out = t->shape[axis];
    return 0;
}

int pali_jax_config(const pali_jax *j, char **json, pali_error *err) {
    static const char kernel[] = "img/embedding/kernel", fc1[] = BLOCK "MlpBlock_0/Dense_0/kernel",
                      query[] = ATTENTION "query/kernel", q[] = "llm/layers/attn/q_einsum/w",
                      kv[] = "llm/layers/attn/kv_einsum/w", gate[] = "llm/layers/mlp/gating_einsum";
    json_int_t patch = 0, positions = 0, vD = 0, vF = 0, vL = 0, vH = 0, D = 0, F = 0, layers = 0,
               H = 0, K = 0, E = 0, vocab = 0;
    const struct {
        const char *name;
        int axes, axis;
        json_int_t *to;
    } sizes[] = {
        {kernel, 4, 0, &patch},
        {kernel, 4, 3, &vD},
        {"img/pos_embedding", 3, 1, &positions},
        {fc1, 3, 0, &vL},
        {fc1, 3, 2, &vF},
        {query, 4, 2, &vH},
        {q, 4, 0, &layers},
        {q, 4, 1, &H},
        {q, 4, 2, &D},
        {q, 4, 3, &E},
        {kv, 5, 2, &K},
        {gate, 4, 3, &F},
        {"llm/embedder/input_embedding", 2, 0, &vocab},
    };
    *json = NULL;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int rc = size_along(j, sizes[i].name, sizes[i].axes, sizes[i].axis, sizes[i].to, err);
        if (rc)
            return rc;
    }
    json_int_t side = 0; /* in patches; a position is below 2^24 or no model opens */
    while (side < 4096 && (side + 1) * (side + 1) <= positions)
        side++;
    bool second = generation(j->file) == 2;
    pali_dtype dtype = find_array(j->file, "llm/embedder/input_embedding")->dtype;
    const char *word = dtype == PALI_F32 ? "float32" : dtype == PALI_F16 ? "float16" : "bfloat16";
    json_t *o = json_pack(
        "{s:[s], s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:I},"
        " s:{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b}}",
        "architectures", "PaliGemmaForConditionalGeneration", "model_type", "paligemma",
        "torch_dtype", word, "bos_token_id", 2, "eos_token_id", 1, "pad_token_id", 0,
        "image_token_index", vocab, "projection_dim", D, "text_config", "model_type",
        second ? "gemma2" : "gemma", "hidden_size", D, "intermediate_size", F, "num_hidden_layers",
        layers, "num_attention_heads", H, "num_key_value_heads", K, "head_dim", E, "vocab_size",
        vocab, "num_image_tokens", positions, "vision_config", "model_type", "siglip_vision_model",
        "hidden_size", vD, "intermediate_size", vF, "num_hidden_layers", vL, "num_attention_heads",
        vH, "patch_size", patch, "image_size", side * patch, "vision_use_head", 0);
    *json = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    return *json ? 0 : pali_fail_nomem(err, "describing a model of JAX's");
}
