/* layout.cu - where everything lies on the device: one list of the weights, which sizes the
 * block, places the pointers and drives the upload, and the cache and workspace likewise.
 * What is refused for lack of memory is therefore exactly what would be allocated.
 *
 * Placing a matrix may join several: q, k and v become one matrix of rows below each other;
 * gate and up alternate row by row, so that one warp of a decode step has both halves of
 * a result. Rows start at multiples of 8 elements and are zero behind their columns.
 *
 * Loading has four things under way at once: the system reads the files ahead, the processor
 * copies a piece from the mapping into one of two pinned buffers, the other is on its way to
 * the device in a stream of its own, and kernels (load.cu) turn the piece before into what
 * lies in the weights' block: rows in their places, of the right type, quantised if asked for.
 * Pieces travel as they are in the file, so that neither the processor nor the bus sees more
 * than that. Events hand the buffers on; the host waits only for a pinned buffer. Not measured. */
#include "gpu/port.cuh"

#include "core/quant.h"
#include "gpu/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t pali_cuda_tile_bytes = (size_t)64 << 20, pali_cuda_slab_bytes = (size_t)64 << 20,
       pali_cuda_stage_bytes = (size_t)16 << 20;

static const char use_cpu[] = "use the CPU: --backend cpu";

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
    weight *w; /* set too, for a matrix that may be quantised, into form; else NULL */
    weight_form form;
    bool wide;  /* float32, else the model's 16-bit type */
    bool tower; /* may be quantised in the file, or is to be: its values are kept (values_of) */
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

static item tower(void **to, int rows, int cols, const pali_matrix *m) {
    item i = matrix(to, rows, cols, m);
    i.tower = true;
    return i;
}

static item stream(weight *w, weight_form form, int rows, int cols, const pali_matrix *m) {
    item i = matrix((void **)(uintptr_t)&w->w, rows, cols, m);
    i.w = w;
    i.form = form;
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
            floats(&to->ln1_w, c->D, &l->ln1_w),    floats(&to->ln1_b, c->D, &l->ln1_b),
            tower(&to->qkv, c->D, c->D, &l->q_w),   vector(&to->qkv_b, false, c->D, &l->q_b),
            tower(&to->o, c->D, c->D, &l->o_w),     floats(&to->o_b, c->D, &l->o_b),
            floats(&to->ln2_w, c->D, &l->ln2_w),    floats(&to->ln2_b, c->D, &l->ln2_b),
            tower(&to->fc1, c->F, c->D, &l->fc1_w), vector(&to->fc1_b, false, c->F, &l->fc1_b),
            tower(&to->fc2, c->D, c->F, &l->fc2_w), floats(&to->fc2_b, c->D, &l->fc2_b)};
        join(&all[2], c->D, &l->k_w);
        join(&all[2], c->D, &l->v_w);
        join(&all[3], 1, &l->k_b);
        join(&all[3], 1, &l->v_b);
        for (size_t k = 0; k < sizeof all / sizeof *all && rc == 0; k++)
            rc = f(user, &all[k], err);
    }
    item rest[] = {floats(&m->post_ln_w, c->D, &w->post_ln_w),
                   floats(&m->post_ln_b, c->D, &w->post_ln_b),
                   tower(&m->proj_w, w->config.text.D, c->D, &w->proj_w),
                   floats(&m->proj_b, w->config.text.D, &w->proj_b)};
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = f(user, &rest[i], err);
    return rc;
}

static int visit_text(pali_model *m, item_visit *f, void *user, pali_error *err) {
    const pali_weights *w = m->w;
    const pali_text_config *c = &w->config.text;
    item embed = matrix(&m->embed, c->V, c->D, &w->embed), norm = floats(&m->norm, c->D, &w->norm);
    item head = stream(&m->head, FORM_INT8, c->V, c->D, &w->embed);
    int rc = f(user, &embed, err), HE = c->H * c->E, KE = c->K * c->E;
    if (!rc && m->head8)
        rc = f(user, &head, err);
    for (int i = 0; i < c->layers && rc == 0; i++) {
        const pali_text_layer *l = &w->text[i];
        text_layer *to = &m->text[i];
        item all[8] = {floats(&to->attn_norm, c->D, &l->attn_norm),
                       stream(&to->qkv, m->form, HE, c->D, &l->q_w),
                       stream(&to->o, m->form, c->D, HE, &l->o_w),
                       floats(&to->mlp_norm, c->D, &l->mlp_norm),
                       stream(&to->gate_up, m->form, c->F, c->D, &l->gate_w),
                       stream(&to->down, m->form, c->D, c->F, &l->down_w),
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

/* Bytes of n elements of it; of whole rows, when it is quantised. */
static int64_t raw_bytes(const pali_matrix *m, int64_t n) {
    return m->dtype == PALI_F32    ? 4 * n
           : m->dtype == PALI_INT8 ? n
           : m->dtype == PALI_NF4  ? n / 2
                                   : 2 * n;
}

static weight_form stored_form(const pali_matrix *m) {
    return m->dtype == PALI_INT8 ? FORM_INT8 : m->dtype == PALI_NF4 ? FORM_NF4 : FORM_HALF;
}

/* Plain numbers, or what the file has quantised already: then all of the decoder's matrices,
 * in one form. Those of the tower may be any. */
static int check_item(void *user, const item *i, pali_error *err) {
    const pali_model *m = (const pali_model *)user;
    weight_form want = i->w && i->w != &m->head ? m->stored : FORM_HALF;
    for (int p = 0; p < i->parts; p++) {
        const pali_matrix *part = i->part[p];
        want = i->tower ? stored_form(part) : want;
        if (!part->data || part->dtype > PALI_NF4 || part->rows != i->rows[p] ||
            part->cols != i->cols || (want != FORM_HALF && !part->scales) ||
            (want == FORM_NF4 && !part->scale_codes))
            return pali_fail(err, PALI_EFORMAT, "download the model again",
                             "the model's tensors do not fit its configuration");
        if (stored_form(part) != want)
            return pali_fail(err, PALI_EUNSUPPORTED, use_cpu,
                             "the CUDA backend takes quantised weights only when all of the "
                             "decoder's matrices are, in one way");
    }
    return 0;
}

/* All matrices as f16 in the file: they stay that. Anything else is held as bf16. */
static int find_type(void *user, const item *i, pali_error *err) {
    (void)err;
    bool *f16_only = (bool *)user;
    for (int p = 0; p < i->parts; p++)
        if (!i->vector && i->part[p]->dtype != PALI_F16 && stored_form(i->part[p]) == FORM_HALF)
            *f16_only = false;
    return 0;
}

typedef struct {
    pali_model *m;
    arena a;
} placing;

static int place_item(void *user, const item *i, pali_error *err) {
    (void)err;
    placing *p = (placing *)user;
    int64_t rows = item_rows(i), ld = item_ld(i);
    weight_form form = i->form;
    if (form == FORM_INT8)
        ld = ((int64_t)i->cols + 15) / 16 * 16;
    if (form == FORM_HALF)
        *i->to = take(&p->a, rows * ld, item_size(i));
    else
        *i->to = take(&p->a, form == FORM_NF4 ? rows * (ld / 2) : rows * ld, 1);
    if (!i->w)
        return 0;
    i->w->form = form;
    i->w->ld = ld;
    if (form != FORM_HALF)
        i->w->scales = (float *)take(&p->a, rows * (form == FORM_NF4 ? nf4_head(ld) : 1), 4);
    if (form == FORM_NF4)
        i->w->scale_codes = (unsigned char *)take(&p->a, rows * (ld / NF4_BLOCK), 1);
    i->w->tables = p->m->tables;
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

/* What loading and prefill must have room for, of the largest matrix. */
typedef struct {
    const pali_model *m;
    int64_t bytes, row, blocks, elements; /* of all files; of a row there; NF4; of a slab */
} measures;

static int measure_item(void *user, const item *i, pali_error *err) {
    (void)err;
    measures *s = (measures *)user;
    for (int p = 0; p < i->parts; p++) {
        int64_t n = (int64_t)i->rows[p] * i->cols;
        s->bytes += raw_bytes(i->part[p], n);
        s->row = most(s->row, raw_bytes(i->part[p], i->cols));
        if (i->form == FORM_NF4)
            s->blocks = most(s->blocks, n / NF4_BLOCK);
    }
    if (i->form != FORM_HALF && i->w != &s->m->head)
        s->elements = most(s->elements, item_rows(i) * ld8(i->cols));
    return 0;
}

static int64_t nf4_groups(int64_t blocks) {
    return (blocks + NF4_GROUP - 1) / NF4_GROUP;
}

/* Stages of an eighth of the files, so that small models take little for it. */
static void place_load(pali_model *m, arena *a, const measures *s) {
    int64_t bytes = least(s->bytes / 8, (int64_t)pali_cuda_stage_bytes);
    bytes = (most(bytes, most(s->row, 256)) + 255) / 256 * 256;
    m->load.bytes = (size_t)bytes;
    for (int i = 0; i < STAGES; i++)
        m->load.stage[i] = (unsigned char *)take(a, bytes, 1);
    m->load.absmax = (float *)take(a, s->blocks, sizeof(float));
    m->load.tops = (float *)take(a, nf4_groups(s->blocks) + 1, sizeof(float));
    m->load.sums = (double *)take(a, nf4_groups(s->blocks), sizeof(double));
}

/* As many pictures as one prefix can have; and while they take little, the 16 that core keeps
 * (reuse.c), which are then not encoded again. */
static int64_t picture_places(int64_t positions, int64_t P, int64_t each) {
    const int64_t kept = 16, little = (int64_t)64 << 20;
    return most(most(positions / P, 1), least(kept, little / each));
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
    int64_t picture = P * ld8(t->D);
    m->places = (int)picture_places(T, P, picture * (int64_t)sizeof(float));
    m->pictures = (float *)take(a, m->places, (size_t)picture * sizeof(float));
    float **rows[] = {&m->row_x, &m->row_y, &m->row_q, &m->row_a, &m->row_h, &m->logits};
    int64_t widths[] = {t->D, t->D, HE, HE, t->F, t->V};
    for (int i = 0; i < 6; i++)
        *rows[i] = (float *)take(a, ld8(widths[i]), sizeof(float));
    m->partial = (float *)take(a, attend_scratch(t->H, t->E), sizeof(float));
    /* Scores are in memory only where flash.cu does not run. */
    bool encoder = !m->tune.flash || v->E > ATTEND_MAX_E;
    m->score_floats =
        (size_t)most(encoder ? score_room(v->H, P) : 0, m->tune.flash ? 0 : score_room(t->H, T));
    m->scores = (float *)take(a, (int64_t)m->score_floats, sizeof(float));
    m->probs = take(a, (int64_t)m->score_floats, 2);

    size_t common = a->used;
    measures s = {};
    s.m = m;
    visit(m, measure_item, &s, NULL);
    place_load(m, a, &s);
    size_t end = a->used;

    a->used = common;
    int64_t n = (int64_t)v->channels * v->patch * v->patch;
    m->enc.pixels = (float *)take(a, (int64_t)v->channels * v->S * v->S, sizeof(float));
    m->enc.x = (float *)take(a, P * ld8(v->D), sizeof(float));
    m->enc.a = take(a, P * most(ld8(v->D), ld8(n)), 2);
    m->enc.qkv = take(a, P * ld8(3 * (int64_t)v->D), 2);
    m->enc.h = take(a, least(P, CHUNK_ROWS) * ld8(v->F), 2);
    end = a->used > end ? a->used : end;

    a->used = common;
    m->dec.x = (float *)take(a, T * ld8(t->D), sizeof(float));
    m->dec.a = take(a, T * most(ld8(t->D), ld8(HE)), 2);
    m->dec.qkv = (float *)take(a, T * ld8(HE + 2 * KE), sizeof(float));
    m->dec.q = take(a, T * ld8(HE), 2);
    m->dec.y = (float *)take(a, t->gemma == 2 ? T * ld8(t->D) : 0, sizeof(float));
    m->dec.gu = (float *)take(a, least(T, CHUNK_ROWS) * ld8(2 * (int64_t)t->F), sizeof(float));
    m->dec.h = take(a, least(T, CHUNK_ROWS) * ld8(t->F), 2);
    int64_t ld = most(ld8(t->D), most(ld8(HE), ld8(t->F)));
    m->slab_elements = least(s.elements, most(8 * ld, (int64_t)(pali_cuda_slab_bytes / 2)));
    m->dec.slab = take(a, m->slab_elements, 2);
    a->used = a->used > end ? a->used : end;
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
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu,
                         "the CUDA backend takes heads of up to %d and a width of up to %d; this "
                         "model has %d and %d",
                         (int)ATTEND_MAX_E, (int)STEP_MAX_D, t->E, t->D);
    /* Tensor cores read 16 bytes at a time: every head must begin at such a step. */
    if (t->E % 8 != 0 || v->E % 8 != 0)
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu,
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
    m->stored = stored_form(&w->text[0].q_w);
    int rc = visit(m, check_item, m, err);
    if (rc)
        return rc;
    bool f16_only = true;
    visit(m, find_type, &f16_only, NULL);
    m->half = f16_only ? HALF_F16 : HALF_BF16;
    m->head8 = o->head8;
    weight_form asked = o->quant == PALI_QUANT_INT8  ? FORM_INT8
                        : o->quant == PALI_QUANT_NF4 ? FORM_NF4
                                                     : FORM_HALF;
    if (m->stored != FORM_HALF && asked != FORM_HALF && asked != m->stored)
        return pali_fail(err, PALI_EUNSUPPORTED, "leave the precision as it is stored",
                         "the weights are stored as %s already",
                         m->stored == FORM_INT8 ? "INT8" : "NF4");
    m->form = m->stored != FORM_HALF ? m->stored : asked;
    m->tower = o->quant_all ? asked : FORM_HALF;
    if (m->form == FORM_NF4 && (t->D % NF4_BLOCK || t->F % NF4_BLOCK || t->H * t->E % NF4_BLOCK))
        return pali_fail(err, PALI_EUNSUPPORTED,
                         m->stored == FORM_NF4 ? use_cpu : "use -q int8, or the CPU: --backend cpu",
                         "the CUDA backend takes 4-bit weights in rows of a multiple of %d; this "
                         "model has %d, %d and %d",
                         (int)NF4_BLOCK, t->D, t->F, t->H * t->E);
    return 0;
}

int layout_place(pali_model *m, pali_memory *need, pali_error *err) {
    placing w = {};
    arena kv = {}, work = {};
    w.m = m;
    w.a.base = (unsigned char *)m->weight_block;
    kv.base = (unsigned char *)m->kv_block;
    work.base = (unsigned char *)m->work_block;
    if (m->form == FORM_NF4)
        m->tables = (float *)take(&w.a, NF4_TABLES + NF4_MIDDLES, sizeof(float));
    visit(m, place_item, &w, NULL);
    if (!m->head8) {
        m->head.w = m->embed;
        m->head.ld = ld8(m->w->config.text.D);
    }
    place_kv(m, &kv);
    place_work(m, &work);
    if (w.a.overflow || kv.overflow || work.overflow)
        return pali_fail(err, PALI_ELIMIT, "choose a smaller context",
                         "a context of %d positions needs more memory than can be addressed",
                         m->positions);
    need->weights = w.a.used;
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

static const char loading[] = "copying the weights";

typedef struct {
    pali_model *m;
    unsigned char *pinned[STAGES];
    cudaStream_t copies;
    cudaEvent_t copied[STAGES]; /* what was in the pinned buffer has arrived */
    cudaEvent_t used[STAGES];   /* what was in the stage is in its place */
    int next, done, total;
} upload;

/* Elements of a piece of p: all that a stage holds, of whole rows or blocks where the kernels
 * want them. */
static int64_t piece_elements(const pali_model *m, const item *it, const pali_matrix *p) {
    int64_t n = (int64_t)m->load.bytes / raw_bytes(p, 1);
    weight_form form = it->form;
    int64_t whole = form == FORM_INT8 ? p->cols : form == FORM_NF4 ? NF4_BLOCK : 1;
    return n / whole * whole;
}

/* Rows of so many bytes of a piece. */
static int64_t piece_rows(const pali_model *m, size_t row) {
    return (int64_t)(m->load.bytes / row);
}

/* Whether a part goes up as the values of its codes: those in the file, or those that it would
 * have there. */
static bool goes_by_value(const pali_model *m, const item *it, int p) {
    return it->tower && (m->tower != FORM_HALF || stored_form(it->part[p]) != FORM_HALF);
}

static int count_pieces(void *user, const item *it, pali_error *err) {
    (void)err;
    upload *u = (upload *)user;
    for (int p = 0; p < it->parts; p++) {
        int64_t n = it->rows[p], step;
        if (goes_by_value(u->m, it, p)) {
            step = (int64_t)(u->m->load.bytes / sizeof(float));
            n *= it->cols;
        } else if (stored_form(it->part[p]) == FORM_HALF) {
            step = piece_elements(u->m, it, it->part[p]);
            n *= it->cols;
        } else {
            step = piece_rows(u->m, (size_t)raw_bytes(it->part[p], it->cols));
        }
        u->total += (int)((n + step - 1) / step);
    }
    return 0;
}

/* n bytes to the device in stage s, when both buffers are free; m->stream goes on behind it. */
static int send_stage(upload *u, int s, const void *from, size_t n, pali_error *err) {
    pali_model *m = u->m;
    int rc = check_cuda(cudaEventSynchronize(u->copied[s]), loading, err);
    if (rc)
        return rc;
    memcpy(u->pinned[s], from, n);
    if ((rc = check_cuda(cudaStreamWaitEvent(u->copies, u->used[s], 0), loading, err)) ||
        (rc = check_cuda(
             cudaMemcpyAsync(m->load.stage[s], u->pinned[s], n, cudaMemcpyHostToDevice, u->copies),
             loading, err)) ||
        (rc = check_cuda(cudaEventRecord(u->copied[s], u->copies), loading, err)))
        return rc;
    return check_cuda(cudaStreamWaitEvent(m->stream, u->copied[s], 0), loading, err);
}

/* Stage s is free when the stream gets here. */
static int stage_used(upload *u, int s, pali_error *err) {
    int rc = check_cuda(cudaGetLastError(), loading, err);
    return rc ? rc : check_cuda(cudaEventRecord(u->used[s], u->m->stream), loading, err);
}

static int piece_done(upload *u, pali_error *err) {
    const pali_run *run = u->m->run;
    u->done++;
    if (run->progress)
        run->progress(run->user, PALI_STAGE_LOAD, u->done, u->total);
    if (run->cancel && run->cancel->load())
        return pali_fail(err, PALI_ECANCEL, NULL, "stopped");
    return 0;
}

/* Rows of `row` bytes as they are, `pitch` bytes apart. */
static int send_rows(upload *u, const void *from, size_t row, int64_t rows, void *to, size_t pitch,
                     bool told, pali_error *err) {
    int64_t step = piece_rows(u->m, row);
    int rc = 0;
    for (int64_t at = 0; at < rows && rc == 0; at += step) {
        int s = u->next;
        u->next = (u->next + 1) % STAGES;
        int64_t n = least(rows - at, step);
        rc = send_stage(u, s, (const unsigned char *)from + (size_t)at * row, (size_t)n * row, err);
        if (!rc)
            rc = check_cuda(cudaMemcpy2DAsync((unsigned char *)to + (size_t)at * pitch, pitch,
                                              u->m->load.stage[s], row, row, (size_t)n,
                                              cudaMemcpyDeviceToDevice, u->m->stream),
                            loading, err);
        if (!rc)
            rc = stage_used(u, s, err);
        if (!rc && told)
            rc = piece_done(u, err);
    }
    return rc;
}

/* The second level of an NF4 part, whose tables lie in m->load. */
static nf4_finish second_level(pali_model *m, const item *it, int p, int64_t row_first,
                               int64_t row_step) {
    nf4_finish f = {};
    f.cols = it->cols;
    f.blocks = (int64_t)it->rows[p] * it->cols / NF4_BLOCK;
    f.groups = nf4_groups(f.blocks);
    f.row_first = row_first;
    f.row_step = row_step;
    f.absmax = m->load.absmax;
    f.tables = m->tables;
    f.sums = m->load.sums;
    f.tops = m->load.tops;
    f.scale_codes = (unsigned char *)(uintptr_t)it->w->scale_codes;
    f.heads = (float *)(uintptr_t)it->w->scales;
    return f;
}

/* A part that is quantised in the file: only its rows move. */
static int upload_stored(upload *u, const item *it, int p, int64_t row_first, int64_t row_step,
                         pali_error *err) {
    pali_model *m = u->m;
    const pali_matrix *from = it->part[p];
    const weight *w = it->w;
    size_t row = (size_t)raw_bytes(from, from->cols);
    size_t pitch = w->form == FORM_NF4 ? (size_t)w->ld / 2 : (size_t)w->ld;
    int rc = send_rows(u, from->data, row, from->rows,
                       (unsigned char *)(uintptr_t)w->w + (size_t)row_first * pitch,
                       pitch * (size_t)row_step, true, err);
    if (!rc && w->form == FORM_INT8)
        rc = send_rows(u, from->scales, sizeof(float), from->rows,
                       (float *)(uintptr_t)w->scales + row_first, sizeof(float) * (size_t)row_step,
                       false, err);
    if (rc || w->form == FORM_INT8)
        return rc;
    size_t blocks = (size_t)from->cols / NF4_BLOCK;
    nf4_finish f = second_level(m, it, p, row_first, row_step);
    rc = send_rows(u, from->scale_codes, blocks, from->rows,
                   f.scale_codes + (size_t)row_first * blocks, blocks * (size_t)row_step, false,
                   err);
    if (!rc)
        rc =
            check_cuda(cudaMemcpyAsync(f.tops, from->scales, (size_t)(f.groups + 1) * sizeof(float),
                                       cudaMemcpyHostToDevice, m->stream),
                       loading, err);
    if (!rc)
        place_nf4_heads(&f, m->stream);
    return rc ? rc : check_cuda(cudaGetLastError(), loading, err);
}

/* Part p of an item: its rows go to row_first, row_first + row_step, .. of the destination. */
static int upload_part(upload *u, const item *it, int p, int64_t row_first, int64_t row_step,
                       pali_error *err) {
    pali_model *m = u->m;
    const pali_matrix *from = it->part[p];
    size_t size = (size_t)raw_bytes(from, 1);
    int64_t all = (int64_t)from->rows * from->cols, step = piece_elements(m, it, from);
    weight_form form = it->form;
    raw_piece piece = {};
    piece.type = from->dtype == PALI_F32 ? RAW_F32 : from->dtype == PALI_F16 ? RAW_F16 : RAW_BF16;
    piece.cols = it->cols;
    piece.row_first = row_first;
    piece.row_step = row_step;
    for (int64_t at = 0; at < all; at += step) {
        int s = u->next;
        u->next = (u->next + 1) % STAGES;
        piece.raw = m->load.stage[s];
        piece.first = at;
        piece.n = least(all - at, step);
        int rc = send_stage(u, s, (const unsigned char *)from->data + (size_t)at * size,
                            (size_t)piece.n * size, err);
        if (rc)
            return rc;
        if (form == FORM_INT8)
            place_int8(&piece, it->w, m->stream);
        else if (form == FORM_NF4)
            place_nf4(&piece, it->w, m->load.absmax, m->stream);
        else if (it->wide)
            place_floats(&piece, (float *)*it->to, item_ld(it), m->stream);
        else
            place_halves(m->half, &piece, *it->to, item_ld(it), m->stream);
        rc = stage_used(u, s, err);
        if (!rc)
            rc = piece_done(u, err);
        if (rc)
            return rc;
    }
    if (form != FORM_NF4)
        return 0;
    nf4_finish f = second_level(m, it, p, row_first, row_step);
    finish_nf4(&f, m->stream);
    return check_cuda(cudaGetLastError(), loading, err);
}

/* The values of the codes of part p, which the host makes, one matrix at a time. */
static int upload_values(upload *u, const item *it, int p, int64_t row_first, int64_t row_step,
                         pali_error *err) {
    const pali_matrix *m = it->part[p];
    pali_matrix coded = *m, wide = *m;
    size_t n = (size_t)m->rows * (size_t)m->cols, bytes = 0;
    if (stored_form(m) == FORM_HALF) {
        pali_dtype dtype = u->m->tower == FORM_NF4 ? PALI_NF4 : PALI_INT8;
        bytes = pali_quant_bytes(dtype, m->rows, m->cols);
        coded.dtype = dtype;
    }
    void *codes = bytes ? aligned_alloc(PALI_QUANT_ALIGN, bytes) : NULL;
    float *values = (float *)malloc(n * sizeof *values);
    int rc = 0;
    if (!values || (bytes && !codes))
        rc = pali_fail_nomem(err, loading);
    if (!rc && codes) {
        pali_quant_parts q = pali_quant_place(coded.dtype, m->rows, m->cols, codes);
        rc = pali_quantize(m, &q, err);
        coded = pali_quant_matrix(&q);
    }
    if (!rc) {
        pali_matrix_read(&coded, 0, n, values);
        wide.dtype = PALI_F32;
        wide.data = values;
        item as = *it;
        as.part[p] = &wide;
        rc = upload_part(u, &as, p, row_first, row_step, err);
    }
    free(values);
    free(codes);
    return rc;
}

static int upload_item(void *user, const item *it, pali_error *err) {
    upload *u = (upload *)user;
    int64_t row = 0;
    int rc = 0;
    for (int p = 0; p < it->parts && rc == 0; p++) {
        int64_t first = it->alternate ? p : row, step = it->alternate ? it->parts : 1;
        rc = goes_by_value(u->m, it, p)              ? upload_values(u, it, p, first, step, err)
             : stored_form(it->part[p]) == FORM_HALF ? upload_part(u, it, p, first, step, err)
                                                     : upload_stored(u, it, p, first, step, err);
        row += it->rows[p];
    }
    return rc;
}

static int upload_all(upload *u, pali_error *err) {
    pali_model *m = u->m;
    int rc = check_cuda(cudaStreamCreateWithFlags(&u->copies, cudaStreamNonBlocking), loading, err);
    for (int i = 0; i < STAGES && rc == 0; i++)
        if (!(rc = check_cuda(cudaMallocHost((void **)&u->pinned[i], m->load.bytes), loading,
                              err)) &&
            !(rc = check_cuda(cudaEventCreateWithFlags(&u->copied[i], cudaEventDisableTiming),
                              loading, err)))
            rc = check_cuda(cudaEventCreateWithFlags(&u->used[i], cudaEventDisableTiming), loading,
                            err);
    if (rc)
        return rc;
    if (m->form == FORM_NF4) {
        float tables[NF4_TABLES + NF4_MIDDLES];
        memcpy(tables, pali_nf4_code, sizeof pali_nf4_code);
        memcpy(tables + 16, pali_nf4_map, sizeof pali_nf4_map);
        memcpy(tables + NF4_TABLES, pali_nf4_middle, sizeof pali_nf4_middle);
        rc = check_cuda(
            cudaMemcpyAsync(m->tables, tables, sizeof tables, cudaMemcpyHostToDevice, m->stream),
            loading, err);
    }
    if (m->run->progress)
        m->run->progress(m->run->user, PALI_STAGE_LOAD, 0, u->total);
    return rc ? rc : visit(m, upload_item, u, err);
}

int layout_upload(pali_model *m, pali_error *err) {
    upload u = {};
    u.m = m;
    visit(m, count_pieces, &u, NULL);
    int rc = upload_all(&u, err);
    int end = u.copies ? check_cuda(cudaStreamSynchronize(u.copies), loading, err) : 0;
    int late = check_cuda(cudaStreamSynchronize(m->stream), loading, err);
    for (int i = 0; i < STAGES; i++) {
        cudaFreeHost(u.pinned[i]);
        if (u.copied[i])
            cudaEventDestroy(u.copied[i]);
        if (u.used[i])
            cudaEventDestroy(u.used[i]);
    }
    if (u.copies)
        cudaStreamDestroy(u.copies);
    return rc ? rc : end ? end : late;
}

/* (cos, sin) by position and pair, in double as the CPU backend has them. */
int layout_upload_rope(pali_model *m, pali_error *err) {
    const pali_text_config *c = &m->w->config.text;
    size_t half = (size_t)c->E / 2, n = (size_t)m->positions * half;
    float2 *angles = (float2 *)malloc(n * sizeof *angles);
    if (!angles)
        return pali_fail_nomem(err, "opening the model");
    for (size_t i = 0; i < n; i++) {
        double angle = (double)(i / half) *
                       pow((double)c->rope_theta, -2.0 * (double)(i % half) / (double)c->E);
        angles[i] = make_float2((float)cos(angle), (float)sin(angle));
    }
    int rc = check_cuda(
        cudaMemcpyAsync(m->rope, angles, n * sizeof *angles, cudaMemcpyHostToDevice, m->stream),
        loading, err);
    if (!rc)
        rc = check_cuda(cudaStreamSynchronize(m->stream), loading, err);
    free(angles);
    return rc;
}
