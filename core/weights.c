/* weights.c - see weights.h.
 *
 * Order of work: config.json, then the shards (mapped, headers checked), then sizes
 * from the tensors that show them (merged with the config, which must agree), then
 * every tensor by name with the shape those sizes demand.
 *
 * A tensor is named by its part of the model and a suffix; the prefixes of a part that
 * released files, newer libraries and hand-made files use are tried in turn. Tensors
 * that the model does not need (a tied lm_head, buffers) are ignored.               */
#include "core/weights.h"

#include "core/file.h"
#include "core/jax.h"
#include "core/json.h"
#include "core/quant.h"
#include "core/size.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weights are used as they are stored");

enum {
    INDEX_MAX = 2 << 20,
    SHARDS_MAX = 512,
    NAME_MAX_BYTES = 192
};

static const char redo[] = "download the model again; a file may be missing or damaged";

struct pali_shard {
    char *name; /* file name within the model's folder */
    pali_file_stamp stamp;
    pali_safetensors *file;
    pali_jax *jax; /* in place of file: the one shard of such a model */
};

static size_t shard_count(const struct pali_shard *s) {
    return s->jax ? pali_jax_count(s->jax) : pali_safetensors_count(s->file);
}

static const pali_tensor *shard_peek(const struct pali_shard *s, size_t i) {
    return s->jax ? pali_jax_peek(s->jax, i) : pali_safetensors_peek(s->file, i);
}

static const pali_tensor *shard_find(const struct pali_shard *s, const char *name) {
    return s->jax ? pali_jax_find(s->jax, name) : pali_safetensors_find(s->file, name);
}

struct pali_prefetch {
    pthread_t thread;
    atomic_int stop;
};

typedef enum {
    VISION,
    PROJECTOR,
    TEXT,
    PARTS
} part;

/* The first of each is what the released files say and what messages show. */
static const char *const prefixes[PARTS][5] = {
    [VISION] = {"vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower.",
                "model.vision_tower.", NULL},
    [PROJECTOR] = {"multi_modal_projector.", "model.multi_modal_projector.", NULL},
    [TEXT] = {"language_model.model.", "model.language_model.", "language_model.",
              "model.language_model.model.", NULL},
};

typedef struct {
    pali_weights *w;
    const char *dir;   /* for messages */
    int prefix[PARTS]; /* the one that worked last */
    pali_error *err;
} loader;

/* --- shards -------------------------------------------------------------------- */

/* A plain file name that can only lie in the model's folder. */
static bool is_shard_name(const char *s) {
    size_t n = strlen(s);
    if (n < 13 || n > 255 || s[0] == '.' || strcmp(s + n - 12, ".safetensors") != 0)
        return false;
    for (; *s; s++)
        if (!(*s >= 'a' && *s <= 'z') && !(*s >= 'A' && *s <= 'Z') && !(*s >= '0' && *s <= '9') &&
            !strchr("._-+@=", *s))
            return false;
    return true;
}

static int add_shard(loader *l, const char *name) {
    pali_weights *w = l->w;
    for (size_t i = 0; i < w->nshards; i++)
        if (strcmp(w->shards[i].name, name) == 0)
            return 0;
    if (w->nshards == SHARDS_MAX)
        return pali_fail(l->err, PALI_ELIMIT, redo, "%s: the model has more than %d files", l->dir,
                         SHARDS_MAX);
    struct pali_shard *s = &w->shards[w->nshards];
    s->name = strdup(name);
    if (!s->name)
        return pali_fail_nomem(l->err, "opening a model");
    w->nshards++;
    return 0;
}

/* Names the files of weight_map, each once. */
static int read_index(loader *l, const char *path) {
    char *text;
    size_t n;
    json_t *root = NULL;
    int rc = pali_file_read(path, INDEX_MAX, &text, &n, l->err);
    if (!rc)
        rc = pali_json_parse(text, n, path, &root, l->err);
    free(text);
    if (rc)
        return rc;
    const char *brief = pali_file_brief(path), *key;
    json_t *map = json_object_get(root, "weight_map"), *file;
    if (!json_is_object(map) || json_object_size(map) == 0)
        rc = pali_fail(l->err, PALI_EFORMAT, redo, "%s: has no weight_map", brief);
    else
        json_object_foreach(map, key, file) {
            const char *name = json_string_value(file);
            if (!name || !is_shard_name(name))
                rc = pali_fail(l->err, PALI_EFORMAT, redo,
                               "%s: tensor %.80s is not in a .safetensors file of this folder",
                               brief, key);
            else
                rc = add_shard(l, name);
            if (rc)
                break;
        }
    json_decref(root);
    return rc;
}

static int by_shard_name(const void *a, const void *b) {
    return strcmp(((const struct pali_shard *)a)->name, ((const struct pali_shard *)b)->name);
}

/* Whether dir/name is there. */
static bool has_file(const char *dir, const char *name) {
    char *path = pali_file_join(dir, name);
    bool there = path && pali_file_exists(path);
    free(path);
    return there;
}

static const char single[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

/* The .npz that dir is, or holds when it has no safetensors; *path NULL: none. */
static int find_npz(loader *l, const char *dir, char **path) {
    *path = NULL;
    if (pali_file_has_ending(dir, ".npz") && pali_file_exists(dir))
        return (*path = strdup(dir)) ? 0 : pali_fail_nomem(l->err, "opening a model");
    if (has_file(dir, single) || has_file(dir, index_name) || pali_jax_in_folder(dir, path) < 2)
        return 0;
    return pali_fail(l->err, PALI_EARG, "name the file: -m FOLDER/FILE.npz",
                     "%s: there is more than one .npz in this folder", l->dir);
}

static int open_jax(loader *l, const char *path) {
    int rc = add_shard(l, path);
    if (rc)
        return rc;
    pali_file_look(path, &l->w->shards[0].stamp);
    return pali_jax_open(path, &l->w->shards[0].jax, l->err);
}

static int open_shards(loader *l, const char *dir) {
    pali_weights *w = l->w;
    int rc;
    if (has_file(dir, single) || !has_file(dir, index_name)) {
        if (!has_file(dir, single) &&
            (has_file(dir, "pytorch_model.bin") || has_file(dir, "pytorch_model.bin.index.json")))
            return pali_fail(l->err, PALI_EUNSUPPORTED, "convert the model to safetensors",
                             "%s: holds its weights as PyTorch .bin files", l->dir);
        rc = add_shard(l, single);
    } else {
        char *path = pali_file_join(dir, index_name);
        rc = path ? read_index(l, path) : pali_fail_nomem(l->err, "opening a model");
        free(path);
        if (!rc)
            qsort(w->shards, w->nshards, sizeof *w->shards, by_shard_name);
    }
    for (size_t i = 0; !rc && i < w->nshards; i++) {
        char *path = pali_file_join(dir, w->shards[i].name);
        if (!path)
            return pali_fail_nomem(l->err, "opening a model");
        if (!pali_file_look(path, &w->shards[i].stamp) && !pali_file_is_folder(path))
            rc = pali_fail(l->err, PALI_EIO,
                           "download the model again; the download is not complete",
                           "%s: the weights file %.100s is not there", l->dir, w->shards[i].name);
        else
            rc = pali_safetensors_open(path, &w->shards[i].file, l->err);
        free(path);
    }
    return rc;
}

/* --- tensors by name -------------------------------------------------------------- */

/* The tensor of that full name in any shard; *twice when two files have one. */
static const pali_tensor *find_full(const loader *l, const char *name, bool *twice) {
    const pali_tensor *hit = NULL;
    for (size_t i = 0; i < l->w->nshards; i++) {
        const pali_tensor *t = shard_find(&l->w->shards[i], name);
        if (t && hit)
            *twice = true;
        if (t && !hit)
            hit = t;
    }
    return hit;
}

/* The tensor suffix of part p; *out stays NULL when there is none. name: room for
 * NAME_MAX_BYTES, gets the name found or the one to complain about. */
static int find(loader *l, part p, const char *suffix, const pali_tensor **out, char *name) {
    bool twice = false;
    *out = NULL;
    int n = 0;
    while (prefixes[p][n])
        n++;
    for (int k = 0; k < n && !*out; k++) {
        int at = (l->prefix[p] + k) % n; /* begin with the one that worked last */
        snprintf(name, NAME_MAX_BYTES, "%s%s", prefixes[p][at], suffix);
        *out = find_full(l, name, &twice);
        if (*out)
            l->prefix[p] = at;
    }
    if (!*out)
        snprintf(name, NAME_MAX_BYTES, "%s%s", prefixes[p][l->prefix[p]], suffix);
    if (twice)
        return pali_fail(l->err, PALI_EFORMAT, redo, "%s: tensor %s is in two files", l->dir, name);
    return 0;
}

/* Whether suffix names a matrix that can be quantised (quant.h lists them). */
static bool can_be_coded(part p, const char *suffix) {
    if (p == PROJECTOR)
        return strcmp(suffix, "linear.weight") == 0;
    return strstr(suffix, "_proj.weight") ||
           (p == VISION && (strstr(suffix, ".fc1.weight") || strstr(suffix, ".fc2.weight")));
}

/* Whether t are the codes of such a matrix: only in files of pali's own, by a version that it
 * knows (quant.h says how they look). */
static bool are_codes(const loader *l, part p, const char *suffix, const pali_tensor *t) {
    const struct pali_shard *s = l->w->shards;
    const char *version = s->file ? pali_safetensors_metadata(s->file, PALI_QUANT_KEY) : NULL;
    return (t->dtype == PALI_I8 || t->dtype == PALI_U8) && can_be_coded(p, suffix) && version &&
           strcmp(version, PALI_QUANT_VERSION) == 0;
}

/* The same for a tensor that must be there, of ndim dimensions, none of them zero or
 * beyond what an int holds, in a dtype that pali computes with. */
static int need(loader *l, part p, const char *suffix, int ndim, const pali_tensor **out) {
    char name[NAME_MAX_BYTES];
    int rc = find(l, p, suffix, out, name);
    if (rc)
        return rc;
    const pali_tensor *t = *out;
    if (!t)
        return pali_fail(l->err, PALI_EFORMAT, redo, "%s: tensor %s is not in the model", l->dir,
                         name);
    if (pali_dtype_size(t->dtype) == 0 && !are_codes(l, p, suffix, t))
        return pali_fail(
            l->err, PALI_EUNSUPPORTED,
            "use a model that is not quantised (F32, BF16 or F16), or one that pali did",
            "%s: tensor %s is in a number format pali does not compute with", l->dir, name);
    if (t->ndim != ndim)
        return pali_fail(l->err, PALI_EFORMAT, redo, "%s: tensor %s has %d dimensions, expected %d",
                         l->dir, name, t->ndim, ndim);
    for (int i = 0; i < ndim; i++)
        if (t->shape[i] < 1 || t->shape[i] > PALI_MAX_VOCAB)
            return pali_fail(l->err, PALI_EFORMAT, redo, "%s: tensor %s has a dimension of %lld",
                             l->dir, name, (long long)t->shape[i]);
    return 0;
}

static int wrong_shape(loader *l, const pali_tensor *t, const char *expected) {
    char got[96] = "";
    for (int i = 0, at = 0; i < t->ndim && at < (int)sizeof got; i++)
        at += snprintf(got + at, sizeof got - (size_t)at, i ? ", %lld" : "%lld",
                       (long long)t->shape[i]);
    return pali_fail(l->err, PALI_EFORMAT, redo, "%s: tensor %.110s is [%s], expected [%s]", l->dir,
                     t->name, got, expected);
}

/* Puts t, the tensor suffix of part p, into *m as rows x cols, and into the totals and the list. */
static int take(loader *l, part p, const char *suffix, const pali_tensor *t, int rows, int cols,
                pali_matrix *m) {
    pali_weights *w = l->w;
    if ((w->ntensors & (w->ntensors - 1)) == 0) { /* a power of two, or 0: it is full */
        void *more = realloc(w->tensors, (w->ntensors ? 2 * w->ntensors : 1) * sizeof *w->tensors);
        if (!more)
            return pali_fail_nomem(l->err, "opening a model");
        w->tensors = more;
    }
    pali_weights_tensor *n = &w->tensors[w->ntensors++];
    *n = (pali_weights_tensor){.matrix = m, .ndim = t->ndim};
    snprintf(n->name, sizeof n->name, "%s%s", prefixes[p][0], suffix);
    memcpy(n->shape, t->shape, sizeof n->shape);
    *m = (pali_matrix){.dtype = t->dtype, .rows = rows, .cols = cols, .data = t->data};
    l->w->bytes += t->bytes;
    l->w->params += (uint64_t)rows * (uint64_t)cols;
    return 0;
}

static int load_vector(loader *l, part p, const char *suffix, int n, pali_matrix *m) {
    const pali_tensor *t;
    int rc = need(l, p, suffix, 1, &t);
    if (rc)
        return rc;
    if (t->shape[0] != n || pali_dtype_size(t->dtype) == 0) {
        char expected[16];
        snprintf(expected, sizeof expected, "%d", n);
        return wrong_shape(l, t, expected);
    }
    return take(l, p, suffix, t, 1, n, m);
}

/* One of the tensors beside codes: n elements of dtype. */
static int load_scales(loader *l, part p, const char *suffix, const char *more, pali_dtype dtype,
                       size_t n, const void **out) {
    char name[NAME_MAX_BYTES], full[NAME_MAX_BYTES];
    const pali_tensor *t;
    snprintf(full, sizeof full, "%s%s", suffix, more);
    int rc = find(l, p, full, &t, name);
    if (rc)
        return rc;
    size_t align = dtype == PALI_F32 ? sizeof(float) : 1;
    if (!t || t->dtype != dtype || t->ndim != 1 || (uint64_t)t->shape[0] != n ||
        (uintptr_t)t->data % align)
        return pali_fail(l->err, PALI_EFORMAT, "convert the model again",
                         "%s: tensor %s, scales of quantised weights, is missing or damaged",
                         l->dir, name);
    l->w->bytes += t->bytes;
    *out = t->data;
    return 0;
}

/* m, taken with the shape of its codes, becomes the matrix that they mean. */
static int load_coded(loader *l, part p, const char *suffix, int cols, pali_matrix *m) {
    const void *scales = NULL, *scale_codes = NULL;
    l->w->params += (uint64_t)m->rows * (uint64_t)(cols - m->cols);
    l->w->tensors[l->w->ntensors - 1].shape[1] = cols;
    m->cols = cols;
    m->dtype = m->dtype == PALI_U8 ? PALI_NF4 : PALI_INT8;
    size_t n = (size_t)m->rows, blocks = (n * (size_t)cols + PALI_NF4_BLOCK - 1) / PALI_NF4_BLOCK;
    int rc = 0;
    if (m->dtype == PALI_NF4) {
        n = (blocks + PALI_NF4_GROUP - 1) / PALI_NF4_GROUP + 1;
        rc = load_scales(l, p, suffix, PALI_QUANT_CODES, PALI_U8, blocks, &scale_codes);
    }
    if (!rc)
        rc = load_scales(l, p, suffix, PALI_QUANT_SCALES, PALI_F32, n, &scales);
    m->scales = scales;
    m->scale_codes = scale_codes;
    return rc;
}

static int load_matrix(loader *l, part p, const char *suffix, int rows, int cols, pali_matrix *m) {
    const pali_tensor *t;
    int rc = need(l, p, suffix, 2, &t);
    if (rc)
        return rc;
    int stored = t->dtype == PALI_U8 ? cols / 2 : cols; /* two codes a byte */
    if (t->shape[0] != rows || t->shape[1] != stored || (stored != cols && cols % 2)) {
        char expected[32];
        snprintf(expected, sizeof expected, "%d, %d", rows, stored);
        return wrong_shape(l, t, expected);
    }
    rc = take(l, p, suffix, t, rows, stored, m);
    return rc || pali_dtype_size(t->dtype) > 0 ? rc : load_coded(l, p, suffix, cols, m);
}

/* --- sizes ------------------------------------------------------------------------- */

/* Merges one size that the tensors show into what the config said (0: nothing). */
static int agree(loader *l, int *size, int64_t shown, const char *key, int max) {
    if (shown < 1 || shown > max)
        return pali_fail(l->err, PALI_EFORMAT, redo,
                         "%s: the tensors say that %s is %lld, which is not from 1 to %d", l->dir,
                         key, (long long)shown, max);
    if (*size && *size != shown)
        return pali_fail(
            l->err, PALI_EFORMAT,
            "config.json and the weights are not of the same model; download both again",
            "%s: config.json says that %s is %d, the tensors say %lld", l->dir, key, *size,
            (long long)shown);
    *size = (int)shown;
    return 0;
}

/* How many layers part p has: one more than the highest number in its names. */
static int count_layers(const loader *l, part p, const char *word) {
    int count = 0;
    for (size_t s = 0; s < l->w->nshards; s++) {
        const struct pali_shard *shard = &l->w->shards[s];
        for (size_t i = 0; i < shard_count(shard); i++) {
            const char *name = shard_peek(shard, i)->name;
            for (int k = 0; prefixes[p][k]; k++) {
                size_t np = strlen(prefixes[p][k]), nw = strlen(word);
                if (strncmp(name, prefixes[p][k], np) || strncmp(name + np, word, nw))
                    continue;
                char *end;
                long layer = strtol(name + np + nw, &end, 10);
                if (end != name + np + nw && *end == '.' && layer >= count && layer < 1 << 20)
                    count = (int)layer + 1;
            }
        }
    }
    return count;
}

static int size_vision(loader *l) {
    pali_vision_config *v = &l->w->config.vision;
    const pali_tensor *patch, *position, *fc1;
    int rc = need(l, VISION, "embeddings.patch_embedding.weight", 4, &patch);
    if (!rc)
        rc = need(l, VISION, "embeddings.position_embedding.weight", 2, &position);
    if (!rc)
        rc = need(l, VISION, "encoder.layers.0.mlp.fc1.weight", 2, &fc1);
    if (!rc)
        rc = agree(l, &v->D, patch->shape[0], "vision_config.hidden_size", PALI_MAX_WIDTH);
    if (!rc)
        rc = agree(l, &v->channels, patch->shape[1], "vision_config.num_channels", 3);
    if (!rc)
        rc = agree(l, &v->patch, patch->shape[2], "vision_config.patch_size", 1024);
    if (!rc)
        rc = agree(l, &v->F, fc1->shape[0], "vision_config.intermediate_size", PALI_MAX_WIDTH);
    if (!rc)
        rc = agree(l, &v->layers, count_layers(l, VISION, "encoder.layers."),
                   "vision_config.num_hidden_layers", PALI_MAX_LAYERS);
    if (rc)
        return rc;
    if (v->D % v->H)
        return pali_fail(l->err, PALI_EFORMAT, redo,
                         "%s: the vision tower is %d wide, which is not a multiple of its %d heads",
                         l->dir, v->D, v->H);
    v->E = v->D / v->H;

    int side = 0; /* in patches */
    while ((int64_t)(side + 1) * (side + 1) <= position->shape[0])
        side++;
    if ((int64_t)side * side != position->shape[0])
        return pali_fail(l->err, PALI_EFORMAT, redo,
                         "%s: tensor %.110s has %lld rows, which is not a square number", l->dir,
                         position->name, (long long)position->shape[0]);
    v->P = side * side;
    return agree(l, &v->S, (int64_t)side * v->patch, "vision_config.image_size", 1 << 14);
}

/* Heads from the rows of a projection: rows = heads * E. */
static int agree_heads(loader *l, int *heads, const pali_tensor *t, const char *key) {
    int E = l->w->config.text.E;
    if (t->shape[0] % E)
        return pali_fail(l->err, PALI_EFORMAT, redo,
                         "%s: tensor %.110s has %lld rows, which is not a multiple of head_dim %d",
                         l->dir, t->name, (long long)t->shape[0], E);
    return agree(l, heads, t->shape[0] / E, key, 1024);
}

/* Which Gemma it is shows in the norms around the MLP. */
static int agree_gemma(loader *l) {
    char name[NAME_MAX_BYTES];
    const pali_tensor *pre, *post;
    int rc = find(l, TEXT, "layers.0.pre_feedforward_layernorm.weight", &pre, name);
    if (!rc)
        rc = find(l, TEXT, "layers.0.post_feedforward_layernorm.weight", &post, name);
    if (rc)
        return rc;
    pali_text_config *t = &l->w->config.text;
    int shown = pre || post ? 2 : 1;
    if (!t->gemma)
        pali_config_set_gemma(&l->w->config, shown);
    if (t->gemma == shown)
        return 0;
    return pali_fail(l->err, PALI_EFORMAT,
                     "config.json and the weights are not of the same model; download both again",
                     "%s: config.json says that the text model is Gemma %d, the tensors are "
                     "Gemma %d's",
                     l->dir, t->gemma, shown);
}

static int size_text(loader *l) {
    pali_text_config *t = &l->w->config.text;
    const pali_tensor *embed, *q, *k, *gate;
    int rc = need(l, TEXT, "embed_tokens.weight", 2, &embed);
    if (!rc)
        rc = need(l, TEXT, "layers.0.self_attn.q_proj.weight", 2, &q);
    if (!rc)
        rc = need(l, TEXT, "layers.0.self_attn.k_proj.weight", 2, &k);
    if (!rc)
        rc = need(l, TEXT, "layers.0.mlp.gate_proj.weight", 2, &gate);
    if (!rc)
        rc = agree(l, &t->V, embed->shape[0], "text_config.vocab_size", PALI_MAX_VOCAB);
    if (!rc)
        rc = agree(l, &t->D, embed->shape[1], "text_config.hidden_size", PALI_MAX_WIDTH);
    if (!rc)
        rc = agree(l, &t->F, gate->shape[0], "text_config.intermediate_size", PALI_MAX_WIDTH);
    if (!rc)
        rc = agree(l, &t->layers, count_layers(l, TEXT, "layers."), "text_config.num_hidden_layers",
                   PALI_MAX_LAYERS);
    if (!rc)
        rc = agree_heads(l, &t->H, q, "text_config.num_attention_heads");
    if (!rc)
        rc = agree_heads(l, &t->K, k, "text_config.num_key_value_heads");
    if (!rc && t->H % t->K)
        rc = pali_fail(l->err, PALI_EFORMAT, redo,
                       "%s: the text model has %d heads, which is not a multiple of its %d "
                       "key/value heads",
                       l->dir, t->H, t->K);
    if (!rc)
        rc = agree_gemma(l);
    return rc;
}

/* What the sizes must still satisfy together. */
static int check_rest(loader *l) {
    const pali_config *c = &l->w->config;
    const int ids[] = {c->bos, c->eos, c->pad};
    for (int i = 0; i < 3; i++)
        if (ids[i] >= c->text.V)
            return pali_fail(l->err, PALI_EFORMAT, redo,
                             "%s: config.json names token %d, but the model has only %d", l->dir,
                             ids[i], c->text.V);
    bool twice = false;
    if (c->untied && (find_full(l, "language_model.lm_head.weight", &twice) ||
                      find_full(l, "lm_head.weight", &twice)))
        return pali_fail(l->err, PALI_EUNSUPPORTED, "use a PaliGemma or PaliGemma 2 as released",
                         "%s: its output layer is not tied to the embedding, as every PaliGemma's "
                         "is",
                         l->dir);
    return 0;
}

/* --- everything by meaning ------------------------------------------------------------ */

/* One tensor of a layer: where it goes, its suffix, [rows][cols] (cols 0: a vector). */
typedef struct {
    pali_matrix *m;
    const char *suffix;
    int rows, cols;
} wanted;

static int load_all(loader *l, part p, const char *layers, int layer, const wanted *list,
                    size_t n) {
    for (size_t i = 0; i < n; i++) {
        char suffix[96];
        if (layers)
            snprintf(suffix, sizeof suffix, "%s.%d.%s", layers, layer, list[i].suffix);
        else
            snprintf(suffix, sizeof suffix, "%s", list[i].suffix);
        int rc = list[i].cols ? load_matrix(l, p, suffix, list[i].rows, list[i].cols, list[i].m)
                              : load_vector(l, p, suffix, list[i].rows, list[i].m);
        if (rc)
            return rc;
    }
    return 0;
}

static int load_vision(loader *l) {
    pali_weights *w = l->w;
    const pali_vision_config *v = &w->config.vision;
    int D = v->D, F = v->F;
    const pali_tensor *patch;
    int rc = need(l, VISION, "embeddings.patch_embedding.weight", 4, &patch);
    if (rc)
        return rc;
    if (patch->shape[3] != v->patch) {
        char expected[64];
        snprintf(expected, sizeof expected, "%d, %d, %d, %d", D, v->channels, v->patch, v->patch);
        return wrong_shape(l, patch, expected);
    }
    rc = take(l, VISION, "embeddings.patch_embedding.weight", patch, D,
              v->channels * v->patch * v->patch, &w->patch_w);
    if (rc)
        return rc;

    const wanted rest[] = {
        {&w->patch_b, "embeddings.patch_embedding.bias", D, 0},
        {&w->position, "embeddings.position_embedding.weight", v->P, D},
        {&w->post_ln_w, "post_layernorm.weight", D, 0},
        {&w->post_ln_b, "post_layernorm.bias", D, 0},
    };
    rc = load_all(l, VISION, NULL, 0, rest, sizeof rest / sizeof *rest);
    w->vision = calloc((size_t)v->layers, sizeof *w->vision);
    if (!rc && !w->vision)
        rc = pali_fail_nomem(l->err, "opening a model");
    for (int i = 0; !rc && i < v->layers; i++) {
        pali_vision_layer *y = &w->vision[i];
        const wanted layer[] = {
            {&y->ln1_w, "layer_norm1.weight", D, 0},
            {&y->ln1_b, "layer_norm1.bias", D, 0},
            {&y->ln2_w, "layer_norm2.weight", D, 0},
            {&y->ln2_b, "layer_norm2.bias", D, 0},
            {&y->q_w, "self_attn.q_proj.weight", D, D},
            {&y->q_b, "self_attn.q_proj.bias", D, 0},
            {&y->k_w, "self_attn.k_proj.weight", D, D},
            {&y->k_b, "self_attn.k_proj.bias", D, 0},
            {&y->v_w, "self_attn.v_proj.weight", D, D},
            {&y->v_b, "self_attn.v_proj.bias", D, 0},
            {&y->o_w, "self_attn.out_proj.weight", D, D},
            {&y->o_b, "self_attn.out_proj.bias", D, 0},
            {&y->fc1_w, "mlp.fc1.weight", F, D},
            {&y->fc1_b, "mlp.fc1.bias", F, 0},
            {&y->fc2_w, "mlp.fc2.weight", D, F},
            {&y->fc2_b, "mlp.fc2.bias", D, 0},
        };
        rc = load_all(l, VISION, "encoder.layers", i, layer, sizeof layer / sizeof *layer);
    }
    return rc;
}

static int load_projector(loader *l) {
    pali_weights *w = l->w;
    const wanted both[] = {
        {&w->proj_w, "linear.weight", w->config.text.D, w->config.vision.D},
        {&w->proj_b, "linear.bias", w->config.text.D, 0},
    };
    return load_all(l, PROJECTOR, NULL, 0, both, sizeof both / sizeof *both);
}

static int load_text(loader *l) {
    pali_weights *w = l->w;
    const pali_text_config *t = &w->config.text;
    int D = t->D, F = t->F, q = t->H * t->E, kv = t->K * t->E;
    const wanted rest[] = {
        {&w->embed, "embed_tokens.weight", t->V, D},
        {&w->norm, "norm.weight", D, 0},
    };
    int rc = load_all(l, TEXT, NULL, 0, rest, sizeof rest / sizeof *rest);
    w->text = calloc((size_t)t->layers, sizeof *w->text);
    if (!rc && !w->text)
        rc = pali_fail_nomem(l->err, "opening a model");
    for (int i = 0; !rc && i < t->layers; i++) {
        pali_text_layer *y = &w->text[i];
        const wanted layer[] = {
            {&y->attn_norm, "input_layernorm.weight", D, 0},
            {&y->q_w, "self_attn.q_proj.weight", q, D},
            {&y->k_w, "self_attn.k_proj.weight", kv, D},
            {&y->v_w, "self_attn.v_proj.weight", kv, D},
            {&y->o_w, "self_attn.o_proj.weight", D, q},
            {&y->gate_w, "mlp.gate_proj.weight", F, D},
            {&y->up_w, "mlp.up_proj.weight", F, D},
            {&y->down_w, "mlp.down_proj.weight", D, F},
        };
        /* The trap of the names: Gemma 1 calls the norm before its MLP
         * post_attention_layernorm; in Gemma 2 that is the norm on the attention's output. */
        const wanted gemma1[] = {
            {&y->mlp_norm, "post_attention_layernorm.weight", D, 0},
        };
        const wanted gemma2[] = {
            {&y->post_attn_norm, "post_attention_layernorm.weight", D, 0},
            {&y->mlp_norm, "pre_feedforward_layernorm.weight", D, 0},
            {&y->post_mlp_norm, "post_feedforward_layernorm.weight", D, 0},
        };
        rc = load_all(l, TEXT, "layers", i, layer, sizeof layer / sizeof *layer);
        if (!rc && t->gemma == 1)
            rc = load_all(l, TEXT, "layers", i, gemma1, sizeof gemma1 / sizeof *gemma1);
        if (!rc && t->gemma == 2)
            rc = load_all(l, TEXT, "layers", i, gemma2, sizeof gemma2 / sizeof *gemma2);
    }
    return rc;
}

/* --- public ---------------------------------------------------------------------------- */

/* The config of a model of JAX's: config.json where there is one, else what the arrays show. They
 * have no rows for the placeholder of images, which config.json counts. */
static int config_of_jax(loader *l, const char *dir) {
    pali_weights *w = l->w;
    char *path = has_file(dir, "config.json") ? pali_file_join(dir, "config.json") : NULL;
    int rc = path ? pali_config_open(path, &w->config, l->err)
                  : pali_jax_config(w->shards[0].jax, &w->config_json, l->err);
    if (!path && !rc)
        rc = pali_config_parse(w->config_json, strlen(w->config_json), l->dir, &w->config, l->err);
    w->config.text.V = 0;
    free(path);
    return rc;
}

static int open_config(loader *l, const char *dir) {
    if (!pali_file_is_folder(dir))
        return pali_fail(l->err, PALI_EIO, "name the folder that has config.json in it",
                         "%s: no such folder", l->dir);
    if (!has_file(dir, "config.json") && has_file(dir, "adapter_config.json"))
        return pali_fail(l->err, PALI_EUNSUPPORTED,
                         "merge the adapter into its base model and save that",
                         "%s: holds an adapter (LoRA), not a whole model", l->dir);
    char *path = pali_file_join(dir, "config.json");
    if (!path)
        return pali_fail_nomem(l->err, "opening a model");
    int rc = pali_config_open(path, &l->w->config, l->err);
    free(path);
    return rc;
}

int pali_weights_open(const char *dir, pali_weights **out, pali_error *err) {
    *out = NULL;
    loader l = {.w = calloc(1, sizeof(pali_weights)), .dir = pali_file_brief(dir), .err = err};
    if (!l.w)
        return pali_fail_nomem(err, "opening a model");
    l.w->shards = calloc(SHARDS_MAX, sizeof *l.w->shards);
    char *npz = NULL;
    int rc = l.w->shards ? find_npz(&l, dir, &npz) : pali_fail_nomem(err, "opening a model");
    if (!rc && npz) {
        rc = open_jax(&l, npz);
        if (!rc)
            rc = config_of_jax(&l, dir);
    } else if (!rc) {
        rc = open_config(&l, dir);
        if (!rc)
            rc = open_shards(&l, dir);
    }
    free(npz);
    if (!rc)
        rc = size_vision(&l);
    if (!rc)
        rc = size_text(&l);
    if (!rc)
        rc = check_rest(&l);
    if (!rc)
        rc = load_vision(&l);
    if (!rc)
        rc = load_projector(&l);
    if (!rc)
        rc = load_text(&l);
    if (rc) {
        pali_weights_close(l.w);
        return rc;
    }
    *out = l.w;
    return 0;
}

void pali_weights_close(pali_weights *w) {
    if (!w)
        return;
    if (w->prefetch) {
        atomic_store(&w->prefetch->stop, 1);
        pthread_join(w->prefetch->thread, NULL);
        free(w->prefetch);
    }
    for (size_t i = 0; i < w->nshards; i++) {
        pali_safetensors_close(w->shards[i].file);
        pali_jax_close(w->shards[i].jax);
        free(w->shards[i].name);
    }
    if (w->block)
        munmap(w->block, w->block_bytes);
    free(w->config_json);
    free(w->tensors);
    free(w->shards);
    free(w->vision);
    free(w->text);
    free(w);
}

/* --- prefetch ---------------------------------------------------------------------------- */

static void *prefetch_all(void *user) {
    const pali_weights *w = user;
    for (size_t i = 0; i < w->nshards; i++) {
        size_t at = 0;
        do {
            if (atomic_load(&w->prefetch->stop))
                return NULL;
            at = w->shards[i].file ? pali_safetensors_prefetch(w->shards[i].file, at) : 0;
        } while (at);
    }
    return NULL;
}

void pali_weights_prefetch(pali_weights *w) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    /* Reading ahead what pushes out the beginning again would only cost. */
    if (w->prefetch || pages < 1 || page < 1 || w->bytes / 3 > (uint64_t)pages / 4 * (uint64_t)page)
        return;
    w->prefetch = calloc(1, sizeof *w->prefetch);
    if (!w->prefetch)
        return;
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (pthread_create(&w->prefetch->thread, NULL, prefetch_all, w) != 0) {
        free(w->prefetch);
        w->prefetch = NULL;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void pali_weights_release(const pali_weights *w, const pali_matrix *m) {
    size_t n = (size_t)m->rows * (size_t)m->cols * pali_dtype_size(m->dtype);
    for (size_t i = 0; i < w->nshards; i++)
        if (w->shards[i].jax)
            pali_jax_release(w->shards[i].jax, m->data, n);
        else
            pali_safetensors_release(w->shards[i].file, m->data, n);
}

int pali_weights_prepare(pali_weights *w, int threads, const pali_run *run, pali_error *err) {
    int rc = 0;
    for (size_t i = 0; i < w->nshards && !rc; i++)
        if (w->shards[i].jax)
            rc = pali_jax_convert(w->shards[i].jax, threads, run, err);
    return rc;
}

uint64_t pali_weights_converted(const pali_weights *w) {
    return w->nshards && w->shards[0].jax ? pali_jax_converted_bytes(w->shards[0].jax) : 0;
}

const pali_file_stamp *pali_weights_stamp(const pali_weights *w, size_t i) {
    return i < w->nshards ? &w->shards[i].stamp : NULL;
}

const char *pali_weights_config_json(const pali_weights *w) {
    return w->config_json;
}
