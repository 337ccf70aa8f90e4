/* Products with int8 and NF4 weights: every kernel of every table against plain loops, and
 * whole models against the same weights dequantised to float32.                        */
#include "tests/core/random_model.h"

#include "core/cpu/model.h"

/* --- kernels ---------------------------------------------------------------------- */

typedef struct {
    float *source;
    void *mem; /* to the byte, but for the alignment */
    pali_matrix m;
} quantised;

static quantised quantise(pali_dtype dtype, int rows, int cols) {
    size_t n = (size_t)rows * (size_t)cols;
    quantised z = {.source = malloc(n * sizeof(float)),
                   .mem = aligned_alloc(PALI_QUANT_ALIGN, pali_quant_bytes(dtype, rows, cols))};
    assert_true(z.source && z.mem);
    for (size_t i = 0; i < n; i++) /* blocks of different size, some zero */
        z.source[i] = (float)(uniform() * (double)(i / 64 % 5) * (i / 1000 % 3 ? 1 : 50));
    pali_matrix src = {.dtype = PALI_F32, .rows = rows, .cols = cols, .data = z.source};
    pali_quant_parts q = pali_quant_place(dtype, rows, cols, z.mem);
    pali_error err = {0};
    assert_ok(pali_quantize(&src, &q, &err), err);
    z.m = pali_quant_matrix(&q);
    return z;
}

static void quantised_drop(quantised *z) {
    free(z->source);
    free(z->mem);
}

static void cpu_quant_reads_as_the_plain_reader(void **unused) {
    (void)unused;
    static const int sizes[][2] = {{3, 64}, {7, 67}, {5, 4304}, {1, 5}, {70, 320}};
    const pali_kernels *k;
    for (int s = 0; s < 5; s++)
        for (pali_dtype d = PALI_INT8; d <= PALI_NF4; d++) {
            quantised z = quantise(d, sizes[s][0], sizes[s][1]);
            size_t n = (size_t)sizes[s][0] * (size_t)sizes[s][1];
            float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
            assert_true(want && got);
            pali_matrix_read(&z.m, 0, n, want);
            for (int t = 0; (k = pali_kernels_at(t)); t++)
                for (size_t from = 0; from < n; from += from % 3 ? 61 : 64)
                    for (size_t len = 1; len <= n - from; len = len * 3 + 1) {
                        memset(got, 0xff, len * sizeof *got);
                        k->read(&z.m, from, len, got);
                        assert_memory_equal(got, want + from, len * sizeof *got);
                    }
            free(want), free(got);
            quantised_drop(&z);
        }
}

static void cpu_quant_dot_any_shape(void **unused) {
    (void)unused;
    /* 2304: a row's scales lie in two groups; 9 of 64: a vector of scales that is not full */
    static const int sizes[] = {64, 128, 192, 576, 1024, 1152, 2048, 2304, 4096};
    enum {
        ROWS = 9
    };
    const pali_kernels *k;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (pali_dtype d = PALI_INT8; d <= PALI_NF4; d++) {
            int cols = sizes[s];
            size_t n = (size_t)cols, room = pali_room16(n);
            quantised z = quantise(d, ROWS, cols);
            float *x = malloc(n * sizeof *x), *row = malloc(n * sizeof *row);
            float *scale = malloc(room / 64 * sizeof *scale), y[ROWS], one;
            int16_t *q = malloc(room * sizeof *q);
            assert_true(x && row && scale && q);
            for (size_t i = 0; i < n; i++)
                x[i] = (float)(uniform() * (i % 200 == 7 ? 100 : 1)); /* outliers */
            for (int t = 0; (k = pali_kernels_at(t)); t++) {
                k->round16(n, x, d, q, scale);
                void (*dot)(const pali_matrix *, int, int, const int16_t *, const float *,
                            float *) = d == PALI_INT8 ? k->dot_int8 : k->dot_nf4;
                dot(&z.m, 0, ROWS, q, scale, y);
                for (int r = 0; r < ROWS; r++) {
                    double want = 0, size = 0;
                    pali_matrix_read(&z.m, (size_t)r * n, n, row);
                    for (size_t i = 0; i < n; i++) {
                        double top = 0; /* of x's block: what the rounding is relative to */
                        for (size_t j = i / 64 * 64; j < i / 64 * 64 + 64; j++)
                            top = fmax(top, fabs((double)x[j]));
                        want += (double)row[i] * (double)x[i];
                        size += fabs((double)row[i]) * top;
                    }
                    /* Seen: 6e-6 (half a unit of 1 / 16383 on either side is 3e-5 each, most of
                     * it cancels). A wrong element: 1 / n, 2e-4 at the largest n. */
                    if (!(fabs((double)y[r] - want) <= 2e-5 * size))
                        fail_msg("%s %s: %d columns, row %d: off by %g", k->name,
                                 pali_dtype_name(d), cols, r, fabs((double)y[r] - want) / size);
                    dot(&z.m, r, 1, q, scale, &one);
                    assert_memory_equal(&one, &y[r], sizeof one);
                }
            }
            free(x), free(row), free(scale), free(q);
            quantised_drop(&z);
        }
}

/* What is not a number must not come out as one. */
static void cpu_quant_passes_on_nan(void **unused) {
    (void)unused;
    quantised z = quantise(PALI_NF4, 1, 128);
    float x[128] = {0}, scale[1024 / 64], y;
    int16_t q[1024];
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++)
        for (int i = 0; i < 128; i += 5) {
            x[i] = i % 2 ? NAN : -INFINITY;
            k->round16(128, x, PALI_NF4, q, scale);
            k->dot_nf4(&z.m, 0, 1, q, scale, &y);
            assert_true(isnan(y));
            x[i] = 0;
        }
    quantised_drop(&z);
}

/* --- models ------------------------------------------------------------------------- */

/* Every row of a product a whole number of blocks, and none (small.text.D = 44). */
static pali_config config_of(int gemma, bool blocks) {
    pali_config c = {
        .vision = {.S = 12,
                   .patch = 4,
                   .channels = 3,
                   .P = 9,
                   .layers = 1,
                   .D = 24,
                   .H = 2,
                   .E = 12,
                   .F = 30,
                   .eps = 1e-6f},
        .text = {.gemma = gemma,
                 .layers = 3,
                 .D = blocks ? 192 : 44,
                 .F = blocks ? 320 : 70,
                 .H = 4,
                 .K = 2,
                 .E = blocks ? 32 : 10,
                 .V = 97,
                 .max_positions = 64,
                 .eps = 1e-6f,
                 .rope_theta = 10000,
                 .query_scale = 0.2f},
    };
    if (gemma == 2) {
        c.text.attn_softcap = 20;
        c.text.final_softcap = 10;
    }
    return c;
}

/* w with the decoder's matrices quantised, or all that can be, and then read back as `back`
 * unless that is `to`; free with undo. */
typedef struct {
    pali_weights w;
    void *owned[128];
    int n;
} changed;

static void *keep(changed *c, size_t n) {
    void *p = aligned_alloc(PALI_QUANT_ALIGN,
                            (n + PALI_QUANT_ALIGN - 1) / PALI_QUANT_ALIGN * PALI_QUANT_ALIGN);
    assert_true(p && c->n < 128);
    return c->owned[c->n++] = p;
}

static changed change(const pali_weights *w, bool all, pali_dtype to, pali_dtype back) {
    changed c = {.w = *w};
    size_t layers = (size_t)w->config.text.layers, tower = (size_t)w->config.vision.layers;
    c.w.text = keep(&c, layers * sizeof *w->text);
    memcpy(c.w.text, w->text, layers * sizeof *w->text);
    c.w.vision = keep(&c, tower * sizeof *w->vision);
    memcpy(c.w.vision, w->vision, tower * sizeof *w->vision);
    pali_quant_set set = pali_quant_set_of(&c.w, all);
    set.proj = all ? &c.w.proj_w : NULL;
    pali_matrix *list[PALI_QUANT_PER_LAYER];
    pali_error err = {0};
    for (int i = 0, count; (count = pali_quant_layer(&set, i, list)); i++) {
        for (int k = 0; k < count; k++) {
            pali_matrix *m = list[k];
            size_t n = (size_t)m->rows * (size_t)m->cols;
            pali_quant_parts q = pali_quant_place(to, m->rows, m->cols,
                                                  keep(&c, pali_quant_bytes(to, m->rows, m->cols)));
            assert_ok(pali_quantize(m, &q, &err), err);
            *m = pali_quant_matrix(&q);
            if (back == to)
                continue;
            float *x = keep(&c, n * sizeof *x);
            pali_matrix_read(m, 0, n, x);
            for (size_t e = 0; back == PALI_BF16 && e < n; e++) { /* in place: half as large */
                uint32_t bits;
                memcpy(&bits, &x[e], 4);
                bits += 0x7fff + (bits >> 16 & 1);
                memcpy((uint16_t *)(void *)x + e, (unsigned char *)&bits + 2, 2);
            }
            *m = (pali_matrix){.dtype = back, .rows = m->rows, .cols = m->cols, .data = x};
        }
    }
    return c;
}

static void undo(changed *c) {
    while (c->n)
        free(c->owned[--c->n]);
}

enum {
    STEPS = 4
};

/* Logits of a prefix (image and 7 ids) and of STEPS tokens, [1 + STEPS][V], and then the log
 * probabilities of the same tokens appended together. */
static float *answer_with(const pali_weights *w, const pali_backend_options *o,
                          const pali_kernels *k) {
    const pali_backend *be = pali_backend_cpu();
    pali_error err = {0};
    pali_model *m;
    pali_embeds *e;
    size_t V = (size_t)w->config.text.V;
    int32_t ids[7 + STEPS];
    state = 99; /* the same question every time */
    float *pixels = random_pixels(w), *out = malloc(((1 + STEPS) * V + STEPS) * sizeof *out);
    assert_non_null(out);
    random_ids(w, 7 + STEPS, ids);
    assert_ok(pali_cpu_open(w, o, k, NULL, &m, &err), err);
    assert_ok(be->encode_image(m, pixels, NULL, &e, &err), err);
    const pali_embeds *one = e;
    assert_ok(be->prefill(m, &one, 1, ids, 7, NULL, &err), err);
    memcpy(out, be->logits(m), V * sizeof *out);
    for (size_t s = 0; s < STEPS; s++) {
        assert_ok(be->decode(m, ids[7 + s], NULL, &err), err);
        memcpy(out + (1 + s) * V, be->logits(m), V * sizeof *out);
    }
    assert_ok(be->rewind(m, w->config.vision.P + 7, &err), err);
    assert_ok(be->extend(m, ids + 7, STEPS, ids + 7, (int)V, out + (1 + STEPS) * V, NULL, &err),
              err);
    be->embeds_free(m, e);
    be->close(m);
    free(pixels);
    return out;
}

static float *answer(const pali_weights *w, pali_quant quant, bool all, const pali_kernels *k,
                     int threads, pali_math math) {
    pali_backend_options o = {
        .threads = threads, .positions = 40, .quant = quant, .quant_all = all, .math = math};
    return answer_with(w, &o, k);
}

/* The largest |got - want| over the largest |want|, of n. */
static double apart(const float *got, const float *want, size_t n) {
    double worst = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        top = fmax(top, fabs((double)want[i]));
    }
    return worst / top;
}

static void compare(int gemma, bool blocks, pali_dtype source, pali_quant quant, bool all) {
    pali_dtype to = quant == PALI_QUANT_NF4 ? PALI_NF4 : PALI_INT8;
    random_model *r = make(config_of(gemma, blocks), source);
    changed plain = change(&r->w, all, to, PALI_F32), coded = change(&r->w, all, to, to);
    size_t n = (1 + STEPS) * (size_t)r->w.config.text.V;
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        float *want = answer(&plain.w, PALI_QUANT_NONE, false, k, 1, PALI_MATH_F32),
              *got = answer(&r->w, quant, all, k, 1, PALI_MATH_F32);
        double off = apart(got, want, n);
        /* Seen: 7e-5 where products are by integers, 0 where rows are no whole number of
         * blocks and all is float. Two codes swapped, or a scale of the next block: 1e-2. */
        if (!(off <= (blocks ? 5e-4 : 1e-5)))
            fail_msg("%s, Gemma %d, %s: off by %g", k->name, gemma, pali_dtype_name(to), off);
        /* Any number of threads, and matrices that come quantised: the same bits. */
        for (int threads = 2; threads <= 5; threads += 3) {
            float *again = answer(&r->w, quant, all, k, threads, PALI_MATH_F32);
            assert_memory_equal(got, again, n * sizeof *got);
            free(again);
        }
        float *stored = answer(&coded.w, PALI_QUANT_NONE, false, k, 2, PALI_MATH_F32);
        assert_memory_equal(got, stored, n * sizeof *got);
        float *other = answer(&r->w, quant, !all, k, 2, PALI_MATH_F32); /* the tower counts */
        assert_memory_not_equal(got, other, n * sizeof *got);
        free(other), free(stored), free(want), free(got);
    }
    undo(&plain), undo(&coded);
    drop(r);
}

static void cpu_quant_models_are_their_dequantised_ones(void **unused) {
    (void)unused;
    compare(1, true, PALI_BF16, PALI_QUANT_INT8, false);
    compare(1, true, PALI_F32, PALI_QUANT_NF4, false);
    compare(2, true, PALI_F16, PALI_QUANT_NF4, false);
    compare(2, true, PALI_BF16, PALI_QUANT_INT8, false);
    compare(1, false, PALI_F16, PALI_QUANT_INT8, false);
    compare(2, false, PALI_BF16, PALI_QUANT_NF4, false);
}

/* With the tower and the projector, whose rows (24 and 30) are no blocks. */
static void cpu_quant_models_with_all_modules(void **unused) {
    (void)unused;
    compare(1, true, PALI_BF16, PALI_QUANT_INT8, true);
    compare(2, true, PALI_F32, PALI_QUANT_NF4, true);
    compare(1, false, PALI_F16, PALI_QUANT_NF4, true);
}

/* Prefill by products of bfloat16 takes quantised weights rounded to that. */
static void cpu_quant_models_with_bf16_products(void **unused) {
    (void)unused;
    const pali_kernels *k = pali_kernels_pick();
    if (!k->tile_pairs)
        skip();
    for (pali_quant q = PALI_QUANT_INT8; q <= PALI_QUANT_NF4; q++) {
        random_model *r = make(config_of(2, true), PALI_BF16);
        bool all = q == PALI_QUANT_NF4;
        changed plain = change(&r->w, all, all ? PALI_NF4 : PALI_INT8, PALI_BF16);
        size_t V = (size_t)r->w.config.text.V;
        float *want = answer(&plain.w, PALI_QUANT_NONE, false, k, 2, PALI_MATH_BF16);
        float *got = answer(&r->w, q, all, k, 2, PALI_MATH_BF16);
        /* Seen: 1e-3; only the last layer's last row has its weights unrounded. */
        double off = apart(got, want, V);
        if (!(off <= 5e-3))
            fail_msg("off by %g", off);
        free(want), free(got);
        undo(&plain);
        drop(r);
    }
}

/* A stored head that int8 holds exactly gives the same logits as the int8 head, and log
 * probabilities of known tokens; any other stored head gives nearly the same. */
static void cpu_quant_int8_head(void **unused) {
    (void)unused;
    for (int c = 0; c < 4; c++) {
        bool blocks = c % 2 == 0;
        random_model *r = make(config_of(1 + c / 2, blocks), PALI_F32);
        size_t V = (size_t)r->w.config.text.V, n = (1 + STEPS) * V;
        pali_weights exact = r->w;
        pali_matrix *e = &exact.embed;
        changed own = {0};
        pali_error err = {0};
        pali_quant_parts q = pali_quant_place(
            PALI_INT8, e->rows, e->cols, keep(&own, pali_quant_bytes(PALI_INT8, e->rows, e->cols)));
        assert_ok(pali_quantize(e, &q, &err), err);
        pali_matrix coded = pali_quant_matrix(&q);
        float *x = keep(&own, V * (size_t)e->cols * sizeof *x);
        pali_matrix_read(&coded, 0, V * (size_t)e->cols, x);
        e->data = x;
        const pali_kernels *k;
        for (int t = 0; (k = pali_kernels_at(t)); t++) {
            pali_backend_options o = {.threads = 2, .positions = 40, .math = PALI_MATH_F32};
            float *want = answer_with(&exact, &o, k), *stored = answer_with(&r->w, &o, k);
            o.head8 = 1;
            float *got = answer_with(&exact, &o, k), *rounded = answer_with(&r->w, &o, k);
            /* Seen: 3e-5, and 0 where all is float. The scale of another row: 1e-1. */
            double off = apart(got, want, n), scores = apart(got + n, want + n, STEPS);
            if (!(off <= (blocks ? 2e-4 : 1e-5)) || !(scores <= 1e-5))
                fail_msg("%s, case %d: off by %g, scores by %g", k->name, c, off, scores);
            /* Seen: 3e-3. */
            off = apart(rounded, stored, V), scores = apart(rounded + n, stored + n, STEPS);
            if (!(off <= 1e-2 && off > 1e-4 && scores > 1e-5))
                fail_msg("%s, case %d: rounded, off by %g and %g", k->name, c, off, scores);
            free(want), free(stored), free(got), free(rounded);
        }
        undo(&own);
        drop(r);
    }
}

static void cpu_quant_memory_is_told(void **unused) {
    (void)unused;
    random_model *r = make(config_of(1, true), PALI_BF16);
    const pali_backend *be = pali_backend_cpu();
    pali_backend_options o = {.threads = 1, .positions = 40};
    pali_memory none, some;
    pali_error err = {0};
    assert_ok(be->memory(&r->w, &o, &none, &err), err);
    assert_int_equal(none.weights, 0);
    for (pali_quant q = PALI_QUANT_INT8; q <= PALI_QUANT_NF4; q++) {
        size_t want = 0;
        o.quant = q;
        for (int i = 0; i < r->w.config.text.layers; i++) {
            pali_matrix *list[PALI_QUANT_PER_LAYER];
            pali_quant_list(&r->w.text[i], list);
            for (int k = 0; k < PALI_QUANT_PER_LAYER; k++)
                want += pali_quant_bytes(q == PALI_QUANT_NF4 ? PALI_NF4 : PALI_INT8, list[k]->rows,
                                         list[k]->cols);
        }
        assert_ok(be->memory(&r->w, &o, &some, &err), err);
        assert_int_equal(some.weights, want);
        assert_int_equal(some.kv, none.kv);
        o.head8 = 1;
        assert_ok(be->memory(&r->w, &o, &some, &err), err);
        want += pali_quant_bytes(PALI_INT8, r->w.embed.rows, r->w.embed.cols);
        assert_int_equal(some.weights, want);
        o.head8 = 0;
        want -= pali_quant_bytes(PALI_INT8, r->w.embed.rows, r->w.embed.cols);
        pali_dtype to = q == PALI_QUANT_NF4 ? PALI_NF4 : PALI_INT8;
        const pali_vision_config *v = &r->w.config.vision;
        want += (size_t)v->layers *
                (4 * pali_quant_bytes(to, v->D, v->D) + pali_quant_bytes(to, v->F, v->D) +
                 pali_quant_bytes(to, v->D, v->F));
        want += pali_quant_bytes(to, r->w.config.text.D, v->D);
        o.quant_all = 1;
        assert_ok(be->memory(&r->w, &o, &some, &err), err);
        assert_int_equal(some.weights, want);
        o.quant_all = 0;
    }
    drop(r);
}

static void cpu_quant_refuses_what_is_stored_otherwise(void **unused) {
    (void)unused;
    random_model *r = make(config_of(1, true), PALI_BF16);
    changed c = change(&r->w, false, PALI_NF4, PALI_NF4);
    const pali_backend *be = pali_backend_cpu();
    pali_backend_options o = {.threads = 1, .positions = 40, .quant = PALI_QUANT_INT8};
    pali_memory need;
    pali_error err = {0};
    assert_int_equal(be->memory(&c.w, &o, &need, &err), PALI_EUNSUPPORTED);
    assert_string_equal(err.what, "the weights are stored as NF4 already");
    o.quant = PALI_QUANT_NF4;
    assert_int_equal(be->memory(&c.w, &o, &need, NULL), 0);
    assert_int_equal(need.weights, 0);
    /* Inputs are rounded once for all matrices that share them. */
    c.w.text[1].k_w = r->w.text[1].k_w;
    o.quant = PALI_QUANT_NONE;
    assert_int_equal(be->memory(&c.w, &o, &need, NULL), PALI_EUNSUPPORTED);
    c.w.text[1].k_w = c.w.text[1].v_w;
    c.w.text[2].down_w.scale_codes = NULL;
    assert_int_equal(be->memory(&c.w, &o, &need, NULL), PALI_EFORMAT);
    undo(&c);
    c = change(&r->w, true, PALI_INT8, PALI_INT8); /* a tower in one, a decoder in the other */
    memcpy(c.w.text, r->w.text, (size_t)r->w.config.text.layers * sizeof *c.w.text);
    o.quant = PALI_QUANT_NF4;
    assert_int_equal(be->memory(&c.w, &o, &need, NULL), 0);
    o.quant_all = 1;
    assert_int_equal(be->memory(&c.w, &o, &need, NULL), PALI_EUNSUPPORTED);
    o.quant = PALI_QUANT_INT8;
    assert_int_equal(be->memory(&c.w, &o, &need, NULL), 0);
    c.w.vision[0].fc2_w.scales = NULL;
    assert_int_equal(be->memory(&c.w, &o, &need, NULL), PALI_EFORMAT);
    undo(&c);
    drop(r);
}

static void stop_after(void *user, pali_stage stage, int done, int total) {
    (void)total;
    if (stage == PALI_STAGE_LOAD && done == 1)
        atomic_store((atomic_int *)user, 1);
}

static void cpu_quant_loading_can_be_stopped(void **unused) {
    (void)unused;
    random_model *r = make(config_of(1, true), PALI_BF16);
    atomic_int cancel = 0;
    pali_run run = {.cancel = &cancel, .progress = stop_after, .user = &cancel};
    pali_backend_options o = {
        .threads = 2, .positions = 40, .quant = PALI_QUANT_NF4, .quant_all = 1};
    pali_model *m;
    assert_int_equal(pali_backend_cpu()->open(&r->w, &o, &run, &m, NULL), PALI_ECANCEL);
    assert_null(m);
    drop(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_quant_reads_as_the_plain_reader),
        cmocka_unit_test(cpu_quant_dot_any_shape),
        cmocka_unit_test(cpu_quant_passes_on_nan),
        cmocka_unit_test(cpu_quant_models_are_their_dequantised_ones),
        cmocka_unit_test(cpu_quant_models_with_all_modules),
        cmocka_unit_test(cpu_quant_models_with_bf16_products),
        cmocka_unit_test(cpu_quant_int8_head),
        cmocka_unit_test(cpu_quant_memory_is_told),
        cmocka_unit_test(cpu_quant_refuses_what_is_stored_otherwise),
        cmocka_unit_test(cpu_quant_loading_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
