/* table.c - the CPU backend's table: memory, open, close, and what surrounds a call. */
#include "core/cpu/model.h"

#include "core/size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- memory -------------------------------------------------------------------- */

/* A block handed out piece by piece. With base == NULL it only adds up, so the same
 * code says how much is needed and then divides it. */
typedef struct {
    unsigned char *base;
    size_t used;
    bool overflow;
} arena;

enum {
    ALIGN = 64,
    LARGE_MODEL = 500000000, /* weights; smaller ones prefill in a moment anyway */
};

static float *take(arena *a, size_t rows, size_t cols) {
    size_t n, from = a->used;
    if (!pali_size_mul(rows, cols, &n) || !pali_size_mul(n, sizeof(float), &n) ||
        !pali_size_add(n, ALIGN - 1, &n) || !pali_size_add(from, n / ALIGN * ALIGN, &a->used)) {
        a->overflow = true;
        return NULL;
    }
    return a->base ? (float *)(void *)(a->base + from) : NULL;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

int pali_block_strips(const pali_model *m, int tokens) {
    int strips = pali_strips(m, tokens), most = PALI_BLOCK_TOKENS / m->k->lanes;
    int blocks = (strips + most - 1) / most;
    return blocks ? (strips + blocks - 1) / blocks : 1;
}

/* Activations in strips of `tokens` tokens: widths of the residual stream, of the
 * queries, of a product's input, of the keys and values together, of the MLP. */
static pali_activations plan_strips(const pali_model *m, arena *a, int tokens, size_t x, size_t q,
                                    size_t in, size_t kv, size_t hidden) {
    size_t all = (size_t)pali_strips(m, tokens) * (size_t)m->k->lanes, h1 = 0, h2 = 0;
    /* Not pali_block_strips(tokens): fewer tokens may go in a larger block. */
    size_t block = all < PALI_BLOCK_TOKENS ? all : PALI_BLOCK_TOKENS;
    if (!pali_size_mul(all, kv, &h1) || !pali_size_mul(block, hidden, &h2))
        a->overflow = true;
    pali_activations s;
    s.x = take(a, all, x);
    s.q = take(a, all, q);
    s.a = take(a, all, in);
    s.h = take(a, 1, larger(h1, h2));
    return s;
}

/* The largest x of a product. */
static uint32_t *plan_packed(const pali_model *m, arena *a) {
    const pali_vision_config *v = &m->w->config.vision;
    const pali_text_config *t = &m->w->config.text;
    size_t patch = (size_t)v->channels * (size_t)v->patch * (size_t)v->patch;
    size_t wide[] = {larger((size_t)v->D, patch),
                     larger((size_t)t->D, (size_t)t->H * (size_t)t->E)};
    size_t hidden[] = {(size_t)v->F, (size_t)t->F}, most = 0;
    for (int i = 0; i < 2; i++) {
        size_t all = (size_t)pali_strips(m, i ? m->positions : v->P) * (size_t)m->k->lanes, n, h;
        size_t block = all < PALI_BLOCK_TOKENS ? all : PALI_BLOCK_TOKENS;
        if (!pali_size_mul(all, wide[i], &n) || !pali_size_mul(block, hidden[i], &h)) {
            a->overflow = true;
            return NULL;
        }
        most = larger(most, larger(n, h));
    }
    return (uint32_t *)(void *)take(a, 1, most / 2 + 1);
}

/* Says how large both blocks must be, or divides them. */
static void plan(pali_model *m, arena *kv, arena *work, int threads) {
    const pali_vision_config *v = &m->w->config.vision;
    const pali_text_config *t = &m->w->config.text;
    size_t HE = (size_t)t->H * (size_t)t->E, KE = (size_t)t->K * (size_t)t->E;
    size_t tD = (size_t)t->D, vD = (size_t)v->D, F = (size_t)t->F;
    size_t patch = (size_t)v->channels * (size_t)v->patch * (size_t)v->patch;
    size_t all_positions = (size_t)pali_strips(m, m->positions) * (size_t)m->k->lanes;

    size_t cells = 0; /* of one layer */
    if (!pali_size_mul((size_t)m->positions, 2 * KE, &cells))
        kv->overflow = true;
    m->kv = take(kv, (size_t)t->layers, cells);

    m->logits = take(work, 1, (size_t)t->V);
    m->top = take(work, 1, PALI_BLOCK_TOKENS);
    m->sum = take(work, 1, PALI_BLOCK_TOKENS);
    m->aim = take(work, 1, PALI_BLOCK_TOKENS);
    m->row_x = take(work, 1, tD);
    m->row_y = take(work, 1, tD);
    m->row_a = take(work, 1, larger(tD, HE));
    m->row_q = take(work, 1, HE);
    m->row_k = take(work, 1, KE);
    m->row_v = take(work, 1, KE);
    m->row_h = take(work, 1, F);
    size_t room = pali_room16(larger(F, larger(tD, HE)));
    m->row_q16 = (int16_t *)(void *)take(work, 1, room / 2);
    m->row_q16_scale = take(work, 1, room / PALI_NF4_BLOCK);
    m->rope = take(work, all_positions, (size_t)t->E);

    int keys = m->positions > v->P ? m->positions : v->P;
    size_t n = larger(pali_linear_scratch(m->k),
                      pali_attend_scratch(m->k, keys, t->E > v->E ? t->E : v->E));
    n = larger(n, 2 * larger(tD, vD)); /* weights of a norm, a row of a table */
    m->scratch_len = (n + ALIGN - 1) / ALIGN * ALIGN;
    m->scratch = take(work, (size_t)threads, m->scratch_len);

    m->packed = NULL;
    if (m->bf16_products)
        m->packed = plan_packed(m, work);
    arena encoder = *work, decoder = *work; /* take turns with the same space */
    m->image_k = take(&encoder, (size_t)v->P, vD);
    m->image_v = take(&encoder, (size_t)v->P, vD);
    m->enc =
        plan_strips(m, &encoder, v->P, vD, larger(vD, tD), larger(vD, patch), 2 * vD, (size_t)v->F);
    m->dec = plan_strips(m, &decoder, m->positions, tD, larger(HE, tD), larger(tD, HE), 2 * KE, F);
    work->used = larger(encoder.used, decoder.used);
    work->overflow = encoder.overflow || decoder.overflow;
}

/* --- what must hold for the code to be safe --------------------------------------- */

static bool is(const pali_matrix *m, int rows, int cols) {
    return m->data && pali_dtype_size(m->dtype) > 0 && m->rows == rows && m->cols == cols;
}

/* The same for a matrix that may be quantised. */
static bool is_weight(const pali_matrix *m, int rows, int cols) {
    bool coded = m->scales && (m->dtype == PALI_INT8 || (m->dtype == PALI_NF4 && m->scale_codes));
    return is(m, rows, cols) || (coded && m->data && m->rows == rows && m->cols == cols);
}

static bool vision_fits(const pali_weights *w) {
    const pali_vision_config *c = &w->config.vision;
    int64_t side = c->patch > 0 ? c->S / c->patch : 0, D = c->D;
    if (c->layers < 1 || c->D < 1 || c->F < 1 || c->H < 1 || c->E < 1 || c->channels < 1 ||
        c->channels > 16 || c->patch < 1 || c->patch > 1024 || c->S > 65536 ||
        (int64_t)c->H * c->E != D || side * side != c->P || c->P < 1)
        return false;
    if (!is(&w->patch_w, c->D, c->channels * c->patch * c->patch) || !is(&w->patch_b, 1, c->D) ||
        !is(&w->position, c->P, c->D) || !is(&w->post_ln_w, 1, c->D) ||
        !is(&w->post_ln_b, 1, c->D) || !is_weight(&w->proj_w, w->config.text.D, c->D) ||
        !is(&w->proj_b, 1, w->config.text.D))
        return false;
    for (int i = 0; i < c->layers; i++) {
        const pali_vision_layer *l = &w->vision[i];
        const pali_matrix *square[] = {&l->q_w, &l->k_w, &l->v_w, &l->o_w};
        const pali_matrix *vector[] = {&l->ln1_w, &l->ln1_b, &l->ln2_w, &l->ln2_b, &l->q_b,
                                       &l->k_b,   &l->v_b,   &l->o_b,   &l->fc2_b};
        for (size_t k = 0; k < sizeof square / sizeof *square; k++)
            if (!is_weight(square[k], c->D, c->D))
                return false;
        for (size_t k = 0; k < sizeof vector / sizeof *vector; k++)
            if (!is(vector[k], 1, c->D))
                return false;
        if (!is_weight(&l->fc1_w, c->F, c->D) || !is(&l->fc1_b, 1, c->F) ||
            !is_weight(&l->fc2_w, c->D, c->F))
            return false;
    }
    return true;
}

static bool text_fits(const pali_weights *w) {
    const pali_text_config *c = &w->config.text;
    if (c->layers < 1 || c->D < 1 || c->F < 1 || c->V < 1 || c->H < 1 || c->K < 1 || c->E < 2 ||
        c->E % 2 != 0 || c->H % c->K != 0 || (int64_t)c->H * c->E > INT32_MAX)
        return false;
    if (!is(&w->embed, c->V, c->D) || !is(&w->norm, 1, c->D))
        return false;
    for (int i = 0; i < c->layers; i++) {
        const pali_text_layer *l = &w->text[i];
        const pali_matrix *post[] = {&l->post_attn_norm, &l->post_mlp_norm};
        for (size_t k = 0; k < sizeof post / sizeof *post; k++)
            if (c->gemma == 2 ? !is(post[k], 1, c->D) : post[k]->data != NULL)
                return false;
        if (!is(&l->attn_norm, 1, c->D) || !is(&l->mlp_norm, 1, c->D) ||
            !is_weight(&l->q_w, c->H * c->E, c->D) || !is_weight(&l->k_w, c->K * c->E, c->D) ||
            !is_weight(&l->v_w, c->K * c->E, c->D) || !is_weight(&l->o_w, c->D, c->H * c->E) ||
            !is_weight(&l->gate_w, c->F, c->D) || !is_weight(&l->up_w, c->F, c->D) ||
            !is_weight(&l->down_w, c->D, c->F))
            return false;
    }
    return true;
}

/* A model with everything but memory and threads; how much memory it needs. */
static int prepare(const pali_weights *w, const pali_backend_options *o, const pali_kernels *k,
                   pali_model *m, pali_memory *need, pali_error *err) {
    *m = (pali_model){.w = w, .k = k, .positions = o->positions};
    m->bf16_products = k->tile_pairs && (o->math == PALI_MATH_BF16 ||
                                         (o->math == PALI_MATH_AUTO && w->params >= LARGE_MODEL));
    if (!vision_fits(w) || !text_fits(w))
        return pali_fail(err, PALI_EFORMAT, "download the model again",
                         "the model's tensors do not fit its configuration");
    if (o->positions < 1 || o->positions > (1 << 24))
        return pali_fail(err, PALI_EARG, "choose a context of a few thousand positions",
                         "a context of %d positions is not possible", o->positions);
    arena kv = {0}, work = {0};
    plan(m, &kv, &work, pali_pool_count(o->threads));
    if (kv.overflow || work.overflow)
        return pali_fail(err, PALI_ELIMIT, "choose a smaller context",
                         "a context of %d positions needs more memory than can be addressed",
                         o->positions);
    *need = (pali_memory){.kv = kv.used, .workspace = work.used};
    return pali_quantise_plan(w, o, &need->weights, err);
}

/* --- the table ---------------------------------------------------------------------- */

static int cpu_memory(const pali_weights *w, const pali_backend_options *o, pali_memory *out,
                      pali_error *err) {
    pali_model m;
    return prepare(w, o, pali_kernels_pick(), &m, out, err);
}

static void cpu_close(pali_model *m) {
    if (!m)
        return;
    pali_pool_close(m->pool);
    pali_quantise_close(m);
    free(m->kv_block);
    free(m->work_block);
    free(m);
}

static const pali_run no_run = {0};

static void enter(pali_model *m, const pali_run *run) {
    m->run = run ? run : &no_run;
    pali_pool_enter(m->pool);
}

static int leave(pali_model *m, int rc) {
    pali_pool_leave(m->pool);
    m->run = NULL;
    return rc;
}

/* Zeroed, ALIGN-aligned inside; *base is what to free. Untouched pages cost nothing. */
static bool block_open(size_t n, void **base, arena *out) {
    *base = n <= SIZE_MAX - ALIGN ? calloc(1, n + ALIGN) : NULL;
    if (!*base)
        return false;
    *out = (arena){.base = (unsigned char *)(((uintptr_t)*base + ALIGN - 1) / ALIGN * ALIGN)};
    return true;
}

int pali_cpu_open(const pali_weights *w, const pali_backend_options *o, const pali_kernels *k,
                  const pali_run *run, pali_model **out, pali_error *err) {
    *out = NULL;
    pali_model *m = malloc(sizeof *m);
    if (!m)
        return pali_fail_nomem(err, "opening the model");
    pali_memory need;
    int rc = prepare(w, o, k, m, &need, err);
    if (rc != 0) {
        free(m);
        return rc;
    }
    arena kv, work;
    if (!block_open(need.kv, &m->kv_block, &kv) ||
        !block_open(need.workspace, &m->work_block, &work)) {
        rc = pali_fail(err, PALI_ENOMEM, "choose a smaller context or close other programs",
                       "no memory for a context of %d positions: it needs %zu MB", o->positions,
                       (need.kv + need.workspace) >> 20);
        cpu_close(m);
        return rc;
    }
    rc = pali_pool_open(o->threads, &m->pool, err);
    if (rc != 0) {
        cpu_close(m);
        return rc;
    }
    plan(m, &kv, &work, pali_pool_threads(m->pool));
    pali_decoder_rope(m);
    enter(m, run);
    rc = pali_quantise_weights(m, o, err);
    if (rc == 0)
        pali_progress(m, PALI_STAGE_LOAD, 1, 1);
    leave(m, rc);
    if (rc != 0) {
        cpu_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

static int cpu_open(const pali_weights *w, const pali_backend_options *o, const pali_run *run,
                    pali_model **out, pali_error *err) {
    return pali_cpu_open(w, o, pali_kernels_pick(), run, out, err);
}

int pali_stopped(pali_error *err) {
    return pali_fail(err, PALI_ECANCEL, NULL, "stopped");
}

/* Without numbers in them yet. */
static int new_embeds(const pali_model *m, pali_embeds **out, pali_error *err) {
    size_t rows = (size_t)m->w->config.vision.P, n;
    pali_embeds *e = NULL;
    if (pali_size_mul(rows, (size_t)m->w->config.text.D, &n) &&
        pali_size_mul(n, sizeof(float), &n) && pali_size_add(n, sizeof *e, &n))
        e = malloc(n);
    *out = e;
    if (!e)
        return pali_fail_nomem(err, "encoding the image");
    e->rows = (int)rows;
    return 0;
}

static int cpu_encode_image(pali_model *m, const float *pixels, const pali_run *run,
                            pali_embeds **out, pali_error *err) {
    pali_embeds *e;
    *out = NULL;
    if (new_embeds(m, &e, err))
        return PALI_ENOMEM;
    enter(m, run);
    int rc = leave(m, pali_vision_encode(m, pixels, e->data, err));
    if (rc != 0) {
        free(e);
        return rc;
    }
    *out = e;
    return 0;
}

static int cpu_embeds_read(pali_model *m, const pali_embeds *e, float *out, pali_error *err) {
    (void)err;
    memcpy(out, e->data, (size_t)e->rows * (size_t)m->w->config.text.D * sizeof *out);
    return 0;
}

static void cpu_embeds_free(pali_model *m, pali_embeds *e) {
    (void)m;
    free(e);
}

static int cpu_embeds_write(pali_model *m, const float *rows, pali_embeds **out, pali_error *err) {
    int rc = new_embeds(m, out, err);
    if (!rc)
        memcpy((*out)->data, rows,
               (size_t)(*out)->rows * (size_t)m->w->config.text.D * sizeof *rows);
    return rc;
}

/* Not the number of threads: it changes no bit. Nor the decoder's weights; the tower's do. */
static void cpu_arithmetic(const pali_model *m, char line[PALI_ARITHMETIC]) {
    snprintf(line, PALI_ARITHMETIC, "%s kernels, %s products, %s tower, %s projector", m->k->name,
             m->bf16_products ? "bfloat16" : "float32", pali_dtype_name(m->vision[0].q_w.dtype),
             pali_dtype_name(m->proj.dtype));
}

static int cpu_prefill(pali_model *m, const pali_embeds *const *embeds, int nembeds,
                       const int32_t *ids, int n, const pali_run *run, pali_error *err) {
    enter(m, run);
    return leave(m, pali_decoder_prefill(m, embeds, nembeds, ids, n, err));
}

static int cpu_decode(pali_model *m, int32_t token, const pali_run *run, pali_error *err) {
    enter(m, run);
    return leave(m, pali_decoder_step(m, token, err));
}

static const float *cpu_logits(pali_model *m) {
    return m->logits;
}

static int cpu_extend(pali_model *m, const int32_t *ids, int n, const int32_t *targets, int vocab,
                      float *logprobs, const pali_run *run, pali_error *err) {
    enter(m, run);
    return leave(m, pali_decoder_extend(m, ids, n, targets, vocab, logprobs, err));
}

const pali_backend *pali_backend_cpu(void) {
    static const pali_backend table = {
        .name = "cpu",
        .memory = cpu_memory,
        .open = cpu_open,
        .close = cpu_close,
        .encode_image = cpu_encode_image,
        .embeds_read = cpu_embeds_read,
        .embeds_free = cpu_embeds_free,
        .embeds_write = cpu_embeds_write,
        .arithmetic = cpu_arithmetic,
        .prefill = cpu_prefill,
        .decode = cpu_decode,
        .logits = cpu_logits,
        .extend = cpu_extend,
        .rewind = pali_decoder_rewind,
    };
    return &table;
}
