/* layout.cu - where everything lies on the device: one list of the weights, which sizes the
 * block, places the pointers and drives the upload, and the cache and workspace likewise.
 * What is refused for lack of memory is therefore exactly what would be allocated.
 *
 * Placing a matrix may join several: q, k and v become one matrix of rows below each other;
 * gate and up alternate row by row, so that one warp of a decode step has both halves of
 * a result. Rows start at multiples of 8 elements and are zero behind their columns.
 *
 * The upload goes through two pinned buffers: while one is on its way, the processor fills
 * the other from the file's mapping, converting where the types differ. Not measured.   */
#include "gpu/port.cuh"

#include "gpu/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t pali_cuda_tile_bytes = (size_t)64 << 20;

/* --- placing ------------------------------------------------------------------------- */

typedef struct {
    unsigned char *base; /* NULL: only count */
    size_t used;
    bool overflow;
} arena;

static void *take(arena *a, int64_t count, size_t size) {
    size_t n, end;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &n) ||
        __builtin_add_overflow(a->used, n, &end) || end > SIZE_MAX / 2) {
        a->overflow = true;
        return NULL;
    }
    void *p = a->base ? a->base + a->used : NULL;
    a->used = (end + 255) / 256 * 256;
    return p;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* --- the list of weights ----------------------------------------------------------------- */

/* One destination: `parts` matrices of rows[i] x cols, below each other or alternating. A
 * vector's parts are simply joined. */
typedef struct {
    void **to;
    bool wide; /* float32, else the model's 16-bit type */
    bool vector, alternate;
    int parts, cols, rows[3];
    const pali_matrix *part[3];
} item;

typedef int item_visit(void *user, const item *i, pali_error *err);

static item matrix(void **to, int rows, int cols, const pali_matrix *m) {
    item i = {};
    i.to = to;
    i.parts = 1;
    i.cols = cols;
    i.rows[0] = rows;
    i.part[0] = m;
    return i;
}

static void join(item *i, int rows, const pali_matrix *m) {
    i->rows[i->parts] = rows;
    i->part[i->parts++] = m;
}

static item vector(void **to, bool wide, int n, const pali_matrix *m) {
    item i = matrix(to, 1, n, m);
    i.vector = true;
    i.wide = wide;
    return i;
}
static item floats(float **to, int n, const pali_matrix *m) {
    return vector((void **)to, true, n, m);
}

static int visit_vision(pali_model *m, item_visit *f, void *user, pali_error *err) {
    const pali_weights *w = m->w;
    const pali_vision_config *c = &w->config.vision;
    item first[] = {matrix(&m->patch_w, c->D, c->channels * c->patch * c->patch, &w->patch_w),
                    floats(&m->patch_b, c->D, &w->patch_b),
                    matrix((void **)&m->position, c->P, c->D, &w->position)};
    first[2].wide = true;
    int rc = 0;
    for (int i = 0; i < 3 && rc == 0; i++)
        rc = f(user, &first[i], err);
    for (int i = 0; i < c->layers && rc == 0; i++) {
        const pali_vision_layer *l = &w->vision[i];
        vision_layer *to = &m->vision[i];
        item all[] = {
            floats(&to->ln1_w, c->D, &l->ln1_w),     floats(&to->ln1_b, c->D, &l->ln1_b),
            matrix(&to->qkv, c->D, c->D, &l->q_w),   vector(&to->qkv_b, false, c->D, &l->q_b),
            matrix(&to->o, c->D, c->D, &l->o_w),     floats(&to->o_b, c->D, &l->o_b),
            floats(&to->ln2_w, c->D, &l->ln2_w),     floats(&to->ln2_b, c->D, &l->ln2_b),
            matrix(&to->fc1, c->F, c->D, &l->fc1_w), vector(&to->fc1_b, false, c->F, &l->fc1_b),
            matrix(&to->fc2, c->D, c->F, &l->fc2_w), floats(&to->fc2_b, c->D, &l->fc2_b)};
        join(&all[2], c->D, &l->k_w);
        join(&all[2], c->D, &l->v_w);
        join(&all[3], 1, &l->k_b);
        join(&all[3], 1, &l->v_b);
        for (size_t k = 0; k < sizeof all / sizeof *all && rc == 0; k++)
            rc = f(user, &all[k], err);
    }
    item rest[] = {floats(&m->post_ln_w, c->D, &w->post_ln_w),
                   floats(&m->post_ln_b, c->D, &w->post_ln_b),
                   matrix(&m->proj_w, w->config.text.D, c->D, &w->proj_w),
                   floats(&m->proj_b, w->config.text.D, &w->proj_b)};
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = f(user, &rest[i], err);
    return rc;
}

static int visit_text(pali_model *m, item_visit *f, void *user, pali_error *err) {
    const pali_weights *w = m->w;
    const pali_text_config *c = &w->config.text;
    item embed = matrix(&m->embed, c->V, c->D, &w->embed), norm = floats(&m->norm, c->D, &w->norm);
    int rc = f(user, &embed, err), HE = c->H * c->E, KE = c->K * c->E;
    for (int i = 0; i < c->layers && rc == 0; i++) {
        const pali_text_layer *l = &w->text[i];
        text_layer *to = &m->text[i];
        item all[8] = {floats(&to->attn_norm, c->D, &l->attn_norm),
                       matrix(&to->qkv, HE, c->D, &l->q_w),
                       matrix(&to->o, c->D, HE, &l->o_w),
                       floats(&to->mlp_norm, c->D, &l->mlp_norm),
                       matrix(&to->gate_up, c->F, c->D, &l->gate_w),
                       matrix(&to->down, c->D, c->F, &l->down_w),
                       floats(&to->post_attn_norm, c->D, &l->post_attn_norm),
                       floats(&to->post_mlp_norm, c->D, &l->post_mlp_norm)};
        join(&all[1], KE, &l->k_w);
        join(&all[1], KE, &l->v_w);
        join(&all[4], c->F, &l->up_w);
        all[4].alternate = true;
        for (int k = 0; k < (c->gemma == 2 ? 8 : 6) && rc == 0; k++)
            rc = f(user, &all[k], err);
    }
    return rc ? rc : f(user, &norm, err);
}

static int visit(pali_model *m, item_visit *f, void *user, pali_error *err) {
    int rc = visit_vision(m, f, user, err);
    return rc ? rc : visit_text(m, f, user, err);
}

static int64_t item_rows(const item *i) {
    int64_t n = 0;
    for (int p = 0; p < i->parts; p++)
        n += i->rows[p];
    return n;
}
static int64_t item_ld(const item *i) {
    return i->vector ? i->cols : ld8(i->cols);
}
static size_t item_size(const item *i) {
    return i->wide ? sizeof(float) : 2;
}

static int check_item(void *user, const item *i, pali_error *err) {
    int *n = (int *)user;
    for (int p = 0; p < i->parts; p++)
        if (!i->part[p]->data || i->part[p]->dtype > PALI_F16 || i->part[p]->rows != i->rows[p] ||
            i->part[p]->cols != i->cols)
            return pali_fail(err, PALI_EFORMAT, "download the model again",
                             "the model's tensors do not fit its configuration");
    ++*n;
    return 0;
}

/* All matrices as f16 in the file: they stay that. Anything else is held as bf16. */
static int find_type(void *user, const item *i, pali_error *err) {
    (void)err;
    bool *f16_only = (bool *)user;
    for (int p = 0; p < i->parts; p++)
        if (!i->vector && i->part[p]->dtype != PALI_F16)
            *f16_only = false;
    return 0;
}

static int place_item(void *user, const item *i, pali_error *err) {
    (void)err;
    *i->to = take((arena *)user, item_rows(i) * item_ld(i), item_size(i));
    return 0;
}

/* --- cache and workspace -------------------------------------------------------------------- */

static void place_kv(pali_model *m, arena *a) {
    const pali_text_config *c = &m->w->config.text;
    m->kv = (unsigned char *)take(a, (int64_t)c->layers * 2 * c->K * m->positions, ld8(c->E) * 2);
}

/* The smaller of what all queries need and a tile's bytes, but one query at least. */
static int64_t score_room(int H, int64_t tokens) {
    int64_t row = H * ld8(tokens);
    return most(row, least(row * tokens, (int64_t)(pali_cuda_tile_bytes / sizeof(float))));
}

static void place_work(pali_model *m, arena *a) {
    const pali_vision_config *v = &m->w->config.vision;
    const pali_text_config *t = &m->w->config.text;
    int64_t T = m->positions, P = v->P, HE = (int64_t)t->H * t->E, KE = (int64_t)t->K * t->E;
    m->state = (step_state *)take(a, 1, sizeof(step_state));
    m->draw = (draw_state *)take(a, 1, sizeof(draw_state));
    m->draw_keys = (unsigned long long *)take(a, t->V, sizeof(unsigned long long));
    m->counters = (unsigned *)take(a, t->H, sizeof(unsigned));
    m->rope = (float2 *)take(a, T * (t->E / 2), sizeof(float2));
    m->ids = (int32_t *)take(a, T, sizeof(int32_t));
    m->gemm_space = take(a, (int64_t)gemm_workspace(), 1);
    m->first_embeds = (float *)take(a, P * ld8(t->D), sizeof(float));
    float **rows[] = {&m->row_x, &m->row_y, &m->row_q, &m->row_a, &m->row_h, &m->logits};
    int64_t widths[] = {t->D, t->D, HE, HE, t->F, t->V};
    for (int i = 0; i < 6; i++)
        *rows[i] = (float *)take(a, ld8(widths[i]), sizeof(float));
    m->partial = (float *)take(a, attend_scratch(t->H, t->E), sizeof(float));
    m->score_floats = (size_t)most(score_room(v->H, P), score_room(t->H, T));
    m->scores = (float *)take(a, (int64_t)m->score_floats, sizeof(float));
    m->probs = take(a, (int64_t)m->score_floats, 2);

    size_t common = a->used;
    int64_t n = (int64_t)v->channels * v->patch * v->patch;
    m->enc.pixels = (float *)take(a, (int64_t)v->channels * v->S * v->S, sizeof(float));
    m->enc.x = (float *)take(a, P * ld8(v->D), sizeof(float));
    m->enc.a = take(a, P * most(ld8(v->D), ld8(n)), 2);
    m->enc.qkv = take(a, P * ld8(3 * (int64_t)v->D), 2);
    m->enc.h = take(a, least(P, CHUNK_ROWS) * ld8(v->F), 2);
    size_t encoder = a->used;

    a->used = common;
    m->dec.x = (float *)take(a, T * ld8(t->D), sizeof(float));
    m->dec.a = take(a, T * most(ld8(t->D), ld8(HE)), 2);
    m->dec.qkv = (float *)take(a, T * ld8(HE + 2 * KE), sizeof(float));
    m->dec.q = take(a, T * ld8(HE), 2);
    m->dec.y = (float *)take(a, t->gemma == 2 ? T * ld8(t->D) : 0, sizeof(float));
    m->dec.gu = (float *)take(a, least(T, CHUNK_ROWS) * ld8(2 * (int64_t)t->F), sizeof(float));
    m->dec.h = take(a, least(T, CHUNK_ROWS) * ld8(t->F), 2);
    a->used = a->used > encoder ? a->used : encoder;
}

int layout_prepare(pali_model *m, const pali_weights *w, const pali_backend_options *o,
                   pali_error *err) {
    const pali_vision_config *v = &w->config.vision;
    const pali_text_config *t = &w->config.text;
    m->w = w;
    m->positions = o->positions;
    int side = v->patch > 0 ? v->S / v->patch : 0;
    if (v->S < 1 || v->S > 65536 || side * side != v->P || v->P < 1 || v->channels < 1 ||
        v->layers < 1 || v->D < 1 || v->F < 1 || v->H < 1 || (int64_t)v->H * v->E != v->D ||
        t->layers < 1 || t->D < 1 || t->F < 1 || t->V < 1 || t->H < 1 || t->K < 1 || t->E < 2 ||
        t->E % 2 != 0 || t->H % t->K != 0 || ((int64_t)t->H + 2 * t->K) * t->E > INT32_MAX / 2 ||
        t->F > PALI_MAX_WIDTH || v->D > PALI_MAX_WIDTH || v->F > PALI_MAX_WIDTH ||
        v->channels > 64 || (int64_t)v->channels * v->patch * v->patch > PALI_MAX_WIDTH)
        return pali_fail(err, PALI_EFORMAT, "download the model again",
                         "the model's tensors do not fit its configuration");
    if (t->E > ATTEND_MAX_E || t->D > STEP_MAX_D || t->H > 65535)
        return pali_fail(err, PALI_EUNSUPPORTED, "use the CPU: --backend cpu",
                         "the CUDA backend takes heads of up to %d and a width of up to %d; this "
                         "model has %d and %d",
                         (int)ATTEND_MAX_E, (int)STEP_MAX_D, t->E, t->D);
    /* Tensor cores read 16 bytes at a time: every head must begin at such a step. */
    if (t->E % 8 != 0 || v->E % 8 != 0)
        return pali_fail(err, PALI_EUNSUPPORTED, "use the CPU: --backend cpu",
                         "the CUDA backend takes heads of a multiple of 8; this model has %d "
                         "and %d",
                         v->E, t->E);
    if (o->positions < 1 || o->positions > (1 << 24))
        return pali_fail(err, PALI_EARG, "choose a context of a few thousand positions",
                         "a context of %d positions is not possible", o->positions);
    m->vision = (vision_layer *)calloc((size_t)v->layers, sizeof *m->vision);
    m->text = (text_layer *)calloc((size_t)t->layers, sizeof *m->text);
    if (!m->vision || !m->text)
        return pali_fail_nomem(err, "opening the model");
    int items = 0;
    int rc = visit(m, check_item, &items, err);
    if (rc)
        return rc;
    bool f16_only = true;
    visit(m, find_type, &f16_only, NULL);
    m->half = f16_only ? HALF_F16 : HALF_BF16;
    return 0;
}

int layout_place(pali_model *m, pali_memory *need, pali_error *err) {
    arena weights = {}, kv = {}, work = {};
    weights.base = (unsigned char *)m->weight_block;
    kv.base = (unsigned char *)m->kv_block;
    work.base = (unsigned char *)m->work_block;
    visit(m, place_item, &weights, NULL);
    place_kv(m, &kv);
    place_work(m, &work);
    if (weights.overflow || kv.overflow || work.overflow)
        return pali_fail(err, PALI_ELIMIT, "choose a smaller context",
                         "a context of %d positions needs more memory than can be addressed",
                         m->positions);
    need->weights = weights.used;
    need->kv = kv.used;
    need->workspace = work.used;
    return 0;
}

void layout_done(pali_model *m) {
    free(m->vision);
    free(m->text);
    m->vision = NULL;
    m->text = NULL;
}

/* --- upload ------------------------------------------------------------------------------------ */

enum {
    STAGES = 2,
    STAGE_BYTES = 16 << 20 /* at most; holds a row of PALI_MAX_WIDTH */
};

typedef struct {
    pali_model *m;
    unsigned char *stage[STAGES]; /* pinned */
    size_t bytes;                 /* of each */
    int next, done, total;
} upload;

static float read_element(const pali_matrix *p, size_t i) {
    const unsigned char *from = (const unsigned char *)p->data;
    if (p->dtype == PALI_F32) {
        float x;
        memcpy(&x, from + i * 4, 4);
        return x;
    }
    uint16_t bits;
    memcpy(&bits, from + i * 2, 2);
    if (p->dtype == PALI_F16) {
        f16 x;
        x.bits = bits;
        return f16_to_float(x);
    }
    bf16 x;
    x.bits = bits;
    return bf16_to_float(x);
}

/* Row r of part p to `to`, converted, zeros up to ld. */
static void fill_row(const pali_model *m, const item *it, const pali_matrix *p, int64_t r,
                     unsigned char *to) {
    size_t n = (size_t)it->cols, from = (size_t)r * n, size = item_size(it);
    pali_dtype same = it->wide ? PALI_F32 : m->half == HALF_F16 ? PALI_F16 : PALI_BF16;
    if (p->dtype == same) {
        memcpy(to, (const unsigned char *)p->data + from * size, n * size);
    } else if (it->wide) {
        float *out = (float *)to;
        for (size_t i = 0; i < n; i++)
            out[i] = read_element(p, from + i);
    } else if (same == PALI_BF16) {
        bf16 *out = (bf16 *)to;
        for (size_t i = 0; i < n; i++)
            out[i] = float_to_bf16(read_element(p, from + i));
    } else {
        f16 *out = (f16 *)to;
        for (size_t i = 0; i < n; i++)
            out[i] = float_to_f16(read_element(p, from + i));
    }
    memset(to + n * size, 0, ((size_t)item_ld(it) - n) * size);
}

static int upload_item(void *user, const item *it, pali_error *err) {
    upload *u = (upload *)user;
    pali_model *m = u->m;
    int64_t rows = item_rows(it), r = 0;
    size_t pitch = (size_t)item_ld(it) * item_size(it);
    int64_t chunk = (int64_t)(u->bytes / pitch);
    if (m->run->cancel && m->run->cancel->load())
        return pali_fail(err, PALI_ECANCEL, NULL, "stopped");
    while (r < rows) {
        int s = u->next;
        u->next = (u->next + 1) % STAGES;
        int rc = check_cuda(cudaEventSynchronize(m->events[s]), "copying the weights", err);
        if (rc)
            return rc;
        int64_t first = r, end = r + chunk < rows ? r + chunk : rows;
        for (; r < end; r++) {
            int p = 0;
            int64_t row = r;
            if (it->alternate) {
                p = (int)(r % it->parts);
                row = r / it->parts;
            } else {
                while (row >= it->rows[p])
                    row -= it->rows[p++];
            }
            fill_row(m, it, it->part[p], row, u->stage[s] + (size_t)(r - first) * pitch);
        }
        rc = check_cuda(cudaMemcpyAsync((unsigned char *)*it->to + (size_t)first * pitch,
                                        u->stage[s], (size_t)(end - first) * pitch,
                                        cudaMemcpyHostToDevice, m->stream),
                        "copying the weights", err);
        if (!rc)
            rc = check_cuda(cudaEventRecord(m->events[s], m->stream), "copying the weights", err);
        if (rc)
            return rc;
        if (m->run->cancel && m->run->cancel->load())
            return pali_fail(err, PALI_ECANCEL, NULL, "stopped");
    }
    u->done++;
    if (m->run->progress)
        m->run->progress(m->run->user, PALI_STAGE_LOAD, u->done, u->total);
    return 0;
}

/* (cos, sin) by position and pair, in double as the CPU backend has them. */
static int upload_rope(upload *u, pali_error *err) {
    pali_model *m = u->m;
    const pali_text_config *c = &m->w->config.text;
    size_t half = (size_t)c->E / 2, n = (size_t)m->positions * half;
    size_t chunk = u->bytes / sizeof(float2);
    for (size_t i = 0; i < n;) {
        int s = u->next;
        u->next = (u->next + 1) % STAGES;
        int rc = check_cuda(cudaEventSynchronize(m->events[s]), "copying the weights", err);
        float2 *to = (float2 *)u->stage[s];
        size_t first = i, end = n - i < chunk ? n : i + chunk;
        for (; i < end && rc == 0; i++) {
            double angle = (double)(i / half) *
                           pow((double)c->rope_theta, -2.0 * (double)(i % half) / (double)c->E);
            to[i - first] = make_float2((float)cos(angle), (float)sin(angle));
        }
        if (!rc)
            rc = check_cuda(cudaMemcpyAsync(m->rope + first, to, (end - first) * sizeof *to,
                                            cudaMemcpyHostToDevice, m->stream),
                            "copying the weights", err);
        if (!rc)
            rc = check_cuda(cudaEventRecord(m->events[s], m->stream), "copying the weights", err);
        if (rc)
            return rc;
    }
    return 0;
}

int layout_upload(pali_model *m, size_t weights, pali_error *err) {
    upload u = {};
    u.m = m;
    u.bytes = STAGE_BYTES;
    if (weights < u.bytes)
        u.bytes = weights;
    int rc = visit(m, check_item, &u.total, err);
    for (int i = 0; i < STAGES && rc == 0; i++) {
        rc = check_cuda(cudaMallocHost((void **)&u.stage[i], u.bytes), "copying the weights", err);
        if (!rc)
            rc = check_cuda(cudaEventRecord(m->events[i], m->stream), "copying the weights", err);
    }
    if (!rc && m->run->progress)
        m->run->progress(m->run->user, PALI_STAGE_LOAD, 0, u.total);
    if (!rc)
        rc = visit(m, upload_item, &u, err);
    if (!rc)
        rc = upload_rope(&u, err);
    int end = check_cuda(cudaStreamSynchronize(m->stream), "copying the weights", err);
    for (int i = 0; i < STAGES; i++)
        cudaFreeHost(u.stage[i]);
    return rc ? rc : end;
}
