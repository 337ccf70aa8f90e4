/* Every kernel of gpu/ alone, at awkward sizes, against plain loops in double. Outputs are
 * surrounded by a pattern that must survive, and each test runs in every scheduling order
 * with bitwise equal results. bf16 outputs may be off by half a unit of 2^-8, f16 of 2^-11. */
#include "core/quant.h"
#include "gpu/gemm.h"
#include "gpu/kernels.h"
#include "tests/emu/control.h"

extern "C" {
#include "tests/test.h"
}

#include <math.h>

/* --- memory ----------------------------------------------------------------------------- */

static uint32_t state = 11;
static float uniform(void) { /* in [-1, 1) */
    state = state * 1664525u + 1013904223u;
    return (float)((int32_t)state >> 8) / 8388608.0f;
}

enum {
    GUARD = 64, /* bytes behind a result that must keep their pattern */
    MOST = 64
};
static void *taken[MOST];
static int ntaken;

static void *device(size_t bytes, const void *from) {
    void *p = NULL;
    assert_true(ntaken < MOST && cudaMalloc(&p, bytes + GUARD) == cudaSuccess);
    taken[ntaken++] = p;
    assert_int_equal(cudaMemset(p, 0x5a, bytes + GUARD), cudaSuccess);
    if (from)
        assert_int_equal(cudaMemcpy(p, from, bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
}

static void *host(const void *p, size_t bytes) {
    unsigned char *h = (unsigned char *)malloc(bytes + GUARD);
    assert_non_null(h);
    assert_int_equal(cudaMemcpy(h, p, bytes + GUARD, cudaMemcpyDeviceToHost), cudaSuccess);
    for (int i = 0; i < GUARD; i++)
        assert_int_equal(h[bytes + i], 0x5a);
    return h;
}

static void drop_all(void) {
    while (ntaken > 0)
        cudaFree(taken[--ntaken]);
    assert_int_equal(emu_allocated(), 0);
}

static int64_t up8(int64_t n) {
    return (n + 7) / 8 * 8;
}

static float *floats(size_t n, float size) {
    float *x = (float *)malloc((n ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * uniform();
    return x;
}

static uint16_t narrow16(half_type half, float v) {
    return half == HALF_F16 ? float_to_f16(v).bits : float_to_bf16(v).bits;
}
static float widen16(half_type half, uint16_t bits) {
    bf16 b;
    f16 f;
    b.bits = f.bits = bits;
    return half == HALF_F16 ? f16_to_float(f) : bf16_to_float(b);
}

/* rows x cols random elements of the 16-bit type in rows of ld, zeros behind; and their
 * values, in rows of cols, to *plain. */
static void *halves(half_type half, int rows, int cols, int64_t ld, float size, double **plain) {
    uint16_t *h = (uint16_t *)calloc((size_t)(rows * ld), 2);
    double *p = (double *)malloc((size_t)rows * cols * sizeof *p);
    assert_true(h && p);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            h[r * ld + c] = narrow16(half, size * uniform());
            p[r * cols + c] = widen16(half, h[r * ld + c]);
        }
    void *d = device((size_t)(rows * ld) * 2, h);
    free(h);
    *plain = p;
    return d;
}

/* The same in another form: what core/quant.h makes of it, in rows as kernels.h wants them;
 * *plain are the values that the codes mean. */
static weight weights(weight_form form, half_type half, int rows, int cols, double **plain) {
    weight w = {};
    w.form = form;
    w.ld = form == FORM_NF4 ? cols : form == FORM_INT8 ? (cols + 15) / 16 * 16 : up8(cols);
    if (form == FORM_HALF) {
        w.w = halves(half, rows, cols, w.ld, 1, plain);
        return w;
    }
    size_t n = (size_t)rows * cols, pitch = (size_t)(form == FORM_NF4 ? cols / 2 : w.ld);
    pali_dtype dtype = form == FORM_NF4 ? PALI_NF4 : PALI_INT8;
    float *x = floats(n, 1), *read = floats(n, 0);
    void *mem = NULL;
    assert_int_equal(posix_memalign(&mem, PALI_QUANT_ALIGN, pali_quant_bytes(dtype, rows, cols)),
                     0);
    pali_quant_parts q = pali_quant_place(dtype, rows, cols, mem);
    pali_matrix from = {};
    from.dtype = PALI_F32;
    from.rows = rows;
    from.cols = cols;
    from.data = x;
    assert_int_equal(pali_quantize(&from, &q, NULL), 0);
    pali_matrix m = pali_quant_matrix(&q);
    pali_matrix_read(&m, 0, n, read);
    *plain = (double *)malloc(n * sizeof **plain);
    unsigned char *codes = (unsigned char *)calloc((size_t)rows, pitch);
    assert_true(*plain && codes);
    for (size_t i = 0; i < n; i++)
        (*plain)[i] = read[i];
    size_t bytes = form == FORM_NF4 ? pitch : (size_t)cols;
    for (int r = 0; r < rows; r++)
        memcpy(codes + (size_t)r * pitch, q.codes + (size_t)r * bytes, bytes);
    w.w = device((size_t)rows * pitch, codes);
    if (form == FORM_INT8) {
        w.scales = (float *)device((size_t)rows * 4, q.scales);
    } else {
        int head = nf4_head(cols), blocks = cols / 64;
        float *heads = floats((size_t)rows * head, 0), tables[NF4_TABLES + NF4_MIDDLES];
        for (int r = 0; r < rows; r++) {
            int first = r * blocks, before = first % 256;
            heads[r * head] = q.scales[q.groups];
            memcpy(&heads[r * head + 1], &before, 4);
            for (int g = 0; g < head - 2; g++)
                if (first / 256 + g < (int)q.groups)
                    heads[r * head + 2 + g] = q.scales[first / 256 + g];
        }
        memcpy(tables, pali_nf4_code, sizeof pali_nf4_code);
        memcpy(tables + 16, pali_nf4_map, sizeof pali_nf4_map);
        memcpy(tables + 16 + 256, pali_nf4_middle, sizeof pali_nf4_middle);
        w.scales = (float *)device((size_t)rows * head * 4, heads);
        w.scale_codes = (unsigned char *)device(q.blocks, q.scale_codes);
        w.tables = (float *)device(sizeof tables, tables);
        free(heads);
    }
    free(codes), free(x), free(read), free(mem);
    return w;
}

static double tolerance(half_type half) {
    return half == HALF_F16 ? 1.0 / 2048 : 1.0 / 256;
}

static void near(const char *what, int i, double got, double want, double relative) {
    if (!(fabs(got - want) <= relative * (fabs(want) + 1e-3)))
        fail_msg("%s: element %d is %.9g, not %.9g", what, i, got, want);
}

static double gelu(double x) {
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}
static double cap(double x, double c) {
    return c > 0 ? c * tanh(x / c) : x;
}

/* Runs body(half) for both types in every order; the body gives its result's bytes, which
 * must be those of the first order. */
typedef void *body(half_type half, int size, size_t *bytes);
static int variant; /* of what is tuned; it must change no bit */
static const tuning *tuned(int sms) {
    static tuning t;
    t = tuning_of(90, sms);
    t.early = variant % 2 == 0;
    t.ahead = variant == 0 ? 128 : 4096;
    t.blocks = 1;
    for (int f = 0; f < 3; f++)
        t.rows[f] = variant == 1 ? 4 : 8;
    return &t;
}

static void in_every_order(body *f, const int *sizes, int n) {
    for (int i = 0; i < n; i++)
        for (int half = HALF_BF16; half <= HALF_F16; half++) {
            void *reference = NULL;
            for (int order = 0; order < EMU_ORDERS; order++) {
                size_t bytes = 0;
                emu_set_order((emu_order)order, 3);
                variant = order;
                state = 17u + (uint32_t)i;
                void *got = f((half_type)half, sizes[i], &bytes);
                drop_all();
                if (!reference) {
                    reference = got;
                    continue;
                }
                assert_memory_equal(reference, got, bytes);
                free(got);
            }
            free(reference);
        }
    emu_reset();
}

static void done(void) {
    assert_int_equal(cudaGetLastError(), cudaSuccess); /* a launch that was refused */
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

static const int widths[] = {1, 7, 32, 33, 255, 256, 257, 700};
enum {
    WIDTHS = sizeof widths / sizeof *widths
};

/* --- norms -------------------------------------------------------------------------------- */

static void *layer_norm_body(half_type half, int n, size_t *bytes) {
    int rows = 5, ld = n + 3;
    float *x = floats((size_t)rows * ld, 3), *w = floats(n, 1), *b = floats(n, 1);
    for (int i = 0; i < rows * ld; i++)
        x[i] += 5;
    *bytes = (size_t)rows * ld * 2;
    void *out = device(*bytes, NULL);
    layer_norm(half, (float *)device((size_t)rows * ld * 4, x), ld, rows, n, 1e-6f,
               (float *)device(n * 4, w), (float *)device(n * 4, b), out, ld, 0);
    done();
    uint16_t *got = (uint16_t *)host(out, *bytes);
    for (int r = 0; r < rows; r++) {
        double mean = 0, var = 0;
        for (int i = 0; i < n; i++)
            mean += (double)x[r * ld + i] / n;
        for (int i = 0; i < n; i++)
            var += (x[r * ld + i] - mean) * (x[r * ld + i] - mean) / n;
        for (int i = 0; i < n; i++) /* an error of a float's ulp is scaled like x - mean */
            if (n > 1)
                near("layer_norm", i, widen16(half, got[r * ld + i]),
                     (x[r * ld + i] - mean) / sqrt(var + 1e-6) * w[i] + b[i], tolerance(half));
        for (int i = n; i < ld; i++)
            assert_int_equal(got[r * ld + i], 0x5a5a);
    }
    free(x), free(w), free(b);
    return got;
}

static void *rms_norm_body(half_type half, int n, size_t *bytes) {
    int rows = 3, ld = n + 1;
    float *x = floats((size_t)rows * ld, 3), *w = floats(n, 1);
    *bytes = (size_t)rows * ld * 2;
    void *out = device(*bytes, NULL);
    rms_norm(half, (float *)device((size_t)rows * ld * 4, x), ld, rows, n, 1e-6f,
             (float *)device(n * 4, w), out, ld, 0);
    done();
    uint16_t *got = (uint16_t *)host(out, *bytes);
    for (int r = 0; r < rows; r++) {
        double square = 0;
        for (int i = 0; i < n; i++)
            square += (double)x[r * ld + i] * x[r * ld + i] / n;
        for (int i = 0; i < n; i++)
            near("rms_norm", i, widen16(half, got[r * ld + i]),
                 x[r * ld + i] / sqrt(square + 1e-6) * (1.0 + w[i]), tolerance(half));
        for (int i = n; i < ld; i++)
            assert_int_equal(got[r * ld + i], 0x5a5a);
    }
    free(x), free(w);
    return got;
}

static void *rms_norm_add_body(half_type half, int n, size_t *bytes) {
    (void)half;
    int rows = 3, ld = n + 1;
    float *y = floats((size_t)rows * ld, 3), *x = floats((size_t)rows * ld, 3), *w = floats(n, 1);
    *bytes = (size_t)rows * ld * 4;
    float *out = (float *)device(*bytes, x);
    rms_norm_add((float *)device(*bytes, y), ld, rows, n, 1e-6f, (float *)device(n * 4, w), out, ld,
                 0);
    done();
    float *got = (float *)host(out, *bytes);
    for (int r = 0; r < rows; r++) {
        double square = 0;
        for (int i = 0; i < n; i++)
            square += (double)y[r * ld + i] * y[r * ld + i] / n;
        for (int i = 0; i < n; i++)
            near("rms_norm_add", i, got[r * ld + i],
                 x[r * ld + i] + y[r * ld + i] / sqrt(square + 1e-6) * (1.0 + w[i]), 1e-4);
        assert_true(got[r * ld + n] == x[r * ld + n]);
    }
    free(x), free(y), free(w);
    return got;
}

static void cuda_kernels_norms(void **unused) {
    (void)unused;
    in_every_order(layer_norm_body, widths, WIDTHS);
    in_every_order(rms_norm_body, widths, WIDTHS);
    in_every_order(rms_norm_add_body, widths, WIDTHS);
}

/* --- rows ----------------------------------------------------------------------------------- */

static void *im2col_body(half_type half, int patch, size_t *bytes) {
    int side = 3, S = side * patch, channels = 3, n = channels * patch * patch;
    int64_t ld = up8(n);
    float *pixels = floats((size_t)channels * S * S, 1);
    *bytes = (size_t)(side * side * ld) * 2;
    void *out = device(*bytes, NULL);
    im2col(half, (float *)device((size_t)channels * S * S * 4, pixels), S, patch, channels, out, ld,
           0);
    done();
    uint16_t *got = (uint16_t *)host(out, *bytes);
    for (int p = 0; p < side * side; p++)
        for (int f = 0, ch = 0; ch < channels; ch++)
            for (int y = 0; y < patch; y++)
                for (int x = 0; x < patch; x++, f++)
                    assert_int_equal(
                        got[p * ld + f],
                        narrow16(
                            half,
                            pixels[(ch * S + p / side * patch + y) * S + p % side * patch + x]));
    for (int p = 0; p < side * side; p++)
        for (int64_t f = n; f < ld; f++)
            assert_int_equal(got[p * ld + f], 0);
    free(pixels);
    return got;
}

static void *embed_body(half_type half, int n, size_t *bytes) {
    int32_t ids[] = {4, 0, 6, 4};
    int64_t ld = up8(n), ldx = n + 2;
    double *table;
    void *w = halves(half, 7, n, ld, 1, &table);
    *bytes = (size_t)(4 * ldx) * 4;
    float *x = (float *)device(*bytes, NULL), *one = (float *)device((size_t)n * 4, NULL);
    embed_rows(half, w, ld, (int32_t *)device(sizeof ids, ids), 4, n, 3.5f, x, ldx, 0);
    step_state now = {5, 0};
    embed_step(half, w, ld, (step_state *)device(sizeof now, &now), n, 3.5f, one, 0);
    done();
    float *got = (float *)host(x, *bytes), *step = (float *)host(one, (size_t)n * 4);
    for (int i = 0; i < n; i++) {
        for (int r = 0; r < 4; r++)
            near("embed_rows", i, got[r * ldx + i], 3.5 * table[ids[r] * n + i], 1e-6);
        near("embed_step", i, step[i], 3.5 * table[5 * n + i], 1e-6);
    }
    free(table), free(step);
    return got;
}

static void *geglu_body(half_type half, int n, size_t *bytes) {
    int rows = 3;
    int64_t ldg = 2 * n + 1, ldo = n + 1;
    float *gu = floats((size_t)(rows * ldg), 4);
    *bytes = (size_t)(rows * ldo) * 2;
    void *out = device(*bytes, NULL);
    geglu_rows(half, (float *)device((size_t)(rows * ldg) * 4, gu), ldg, rows, n, 1, out, ldo, 0);
    done();
    uint16_t *got = (uint16_t *)host(out, *bytes);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < n; i++)
            near("geglu", i, widen16(half, got[r * ldo + i]),
                 gelu(gu[r * ldg + 2 * i]) * gu[r * ldg + 2 * i + 1], tolerance(half));
    free(gu);
    return got;
}

static void cuda_kernels_rows(void **unused) {
    (void)unused;
    static const int patches[] = {1, 2, 5, 14};
    in_every_order(im2col_body, patches, 4);
    in_every_order(embed_body, widths, WIDTHS);
    in_every_order(geglu_body, widths, WIDTHS);
}

/* Several key/value heads; with and without queries. E is the size. */
static void *rope_body(half_type half, int E, size_t *bytes) {
    int T = 5, H = 4, K = 2, positions = 7;
    int64_t ldkv = up8(E), ldq = up8(H * E);
    float2 *turn = (float2 *)malloc((size_t)positions * (E / 2) * sizeof *turn);
    for (int i = 0; i < positions * (E / 2); i++)
        turn[i] = make_float2(uniform(), uniform());
    uint16_t *all = NULL;
    size_t kv = (size_t)(K * positions * ldkv) * 2;
    for (int queries = 0; queries < 2; queries++) {
        int first = queries ? 0 : H * E, n = (H + 2 * K) * E - first;
        float *qkv = floats((size_t)T * (n + 3), 2);
        rope_args a = {};
        a.qkv = (float *)device((size_t)T * (n + 3) * 4, qkv);
        a.ld = n + 3;
        a.first = first;
        a.rows = T, a.H = H, a.K = K, a.E = E;
        a.rope = (float2 *)device((size_t)positions * (E / 2) * sizeof *turn, turn);
        a.q = device((size_t)(T * ldq) * 2, NULL);
        a.ldq = ldq;
        a.k = device(kv, NULL);
        a.v = device(kv, NULL);
        a.ldkv = ldkv;
        a.positions = positions;
        rope_rows(half, &a, 0);
        done();
        uint16_t *q = (uint16_t *)host(a.q, (size_t)(T * ldq) * 2);
        uint16_t *k = (uint16_t *)host(a.k, kv), *v = (uint16_t *)host(a.v, kv);
        for (int t = 0; t < T; t++)
            for (int h = 0; h < H + 2 * K; h++)
                for (int i = 0; i < E; i++) {
                    bool turned = h < H + K, upper = i >= E / 2;
                    int at = h * E - first + i % (E / 2);
                    if (at < 0)
                        continue;
                    const float *row = qkv + t * (n + 3);
                    double x = row[at], y = row[at + E / 2];
                    float2 c = turn[t * (E / 2) + i % (E / 2)];
                    double want = upper ? y : x;
                    if (turned)
                        want = upper ? y * c.x + x * c.y : x * c.x - y * c.y;
                    uint16_t got = h < H       ? q[t * ldq + h * E + i]
                                   : h < H + K ? k[((h - H) * positions + t) * ldkv + i]
                                               : v[((h - H - K) * positions + t) * ldkv + i];
                    near("rope", i, widen16(half, got), want, 2 * tolerance(half));
                }
        if (!queries)
            for (int i = 0; i < T * ldq; i++)
                assert_int_equal(q[i], 0x5a5a);
        free(qkv), free(q), free(v);
        free(all);
        all = k;
    }
    free(turn);
    *bytes = kv;
    return all;
}

static void cuda_kernels_rope(void **unused) {
    (void)unused;
    static const int heads[] = {2, 14, 72, 256};
    in_every_order(rope_body, heads, 4);
}

static void *softmax_body(half_type half, int n, size_t *bytes) {
    int rows = 4;
    int64_t lds = n + 2, ldp = n + 5;
    float *s = floats((size_t)(rows * lds), 30);
    *bytes = (size_t)(rows * ldp) * 2;
    void *d = device((size_t)(rows * lds) * 4, s), *out = device(*bytes, NULL);
    uint16_t *got = NULL;
    for (int capped = 0; capped < 2; capped++) {
        double c = capped ? 5 : 0;
        softmax_rows(half, (float *)d, lds, rows, n, (float)c, out, ldp, 0);
        done();
        free(got);
        got = (uint16_t *)host(out, *bytes);
        for (int r = 0; r < rows; r++) {
            double top = -INFINITY, sum = 0;
            for (int i = 0; i < n; i++)
                top = fmax(top, cap(s[r * lds + i], c));
            for (int i = 0; i < n; i++)
                sum += exp(cap(s[r * lds + i], c) - top);
            for (int i = 0; i < n; i++)
                near("softmax", i, widen16(half, got[r * ldp + i]),
                     exp(cap(s[r * lds + i], c) - top) / sum, 1.01 * tolerance(half));
            for (int64_t i = n; i < ldp; i++)
                assert_int_equal(got[r * ldp + i], 0x5a5a);
        }
    }
    free(s);
    return got;
}

static void cuda_kernels_softmax(void **unused) {
    (void)unused;
    in_every_order(softmax_body, widths, WIDTHS);
}

/* --- one token ------------------------------------------------------------------------------ */

/* 1 / rms, and x * (1 + g) / rms. */
static void normed(const float *x, const float *g, int n, double *out) {
    double square = 0;
    for (int i = 0; i < n; i++)
        square += (double)x[i] * x[i] / n;
    for (int i = 0; i < n; i++)
        out[i] = x[i] * (1.0 + g[i]) / sqrt(square + 1e-6);
}

static double product(const double *w, const double *x, int n) {
    double s = 0;
    for (int i = 0; i < n; i++)
        s += w[i] * x[i];
    return s;
}

static weight_form form = FORM_HALF; /* of the weights that the bodies below make */

static void *qkv_body(half_type half, int D, size_t *bytes) {
    int H = 3, K = 1, E = 10, positions = 6, rows = (H + 2 * K) * E;
    int64_t ldkv = up8(E);
    float *x = floats(D, 2), *g = floats(D, 1);
    float2 turn[6 * 5];
    for (int i = 0; i < 30; i++)
        turn[i] = make_float2(uniform(), uniform());
    double *w, *y = (double *)malloc((size_t)D * sizeof *y);
    step_state now = {0, 4};
    size_t kv = (size_t)(K * positions * ldkv) * 2;
    qkv_args a = {};
    a.w = weights(form, half, rows, D, &w);
    a.x = (float *)device((size_t)D * 4, x);
    a.norm = (float *)device((size_t)D * 4, g);
    a.D = D, a.eps = 1e-6f, a.H = H, a.K = K, a.E = E;
    a.state = (step_state *)device(sizeof now, &now);
    a.rope = (float2 *)device(sizeof turn, turn);
    *bytes = (size_t)(H * E) * 4;
    a.q = (float *)device(*bytes, NULL);
    a.k = device(kv, NULL);
    a.v = device(kv, NULL);
    a.ldkv = ldkv;
    a.positions = positions;
    qkv_step(half, &a, tuned(2), 0);
    done();
    float *q = (float *)host(a.q, *bytes);
    uint16_t *k = (uint16_t *)host(a.k, kv), *v = (uint16_t *)host(a.v, kv);
    normed(x, g, D, y);
    for (int h = 0; h < H + 2 * K; h++)
        for (int i = 0; i < E / 2; i++) {
            double lo = product(w + (h * E + i) * D, y, D);
            double hi = product(w + (h * E + i + E / 2) * D, y, D);
            float2 c = turn[4 * 5 + i];
            double size = 1e-5 * (1 + sqrt(D)), u = lo * c.x - hi * c.y, z = hi * c.x + lo * c.y;
            if (h < H) {
                assert_true(fabs(q[h * E + i] - u) < size && fabs(q[h * E + i + E / 2] - z) < size);
            } else {
                const uint16_t *at = (h < H + K ? k : v) + 4 * ldkv;
                near("k, v", i, widen16(half, at[i]), h < H + K ? u : lo, 1.1 * tolerance(half));
                near("k, v", i, widen16(half, at[i + E / 2]), h < H + K ? z : hi,
                     1.1 * tolerance(half));
            }
        }
    for (int i = 0; i < positions * ldkv; i++) /* no other position is touched */
        if (i / ldkv != 4 || i % ldkv >= E)
            assert_true(k[i] == 0x5a5a && v[i] == 0x5a5a);
    free(x), free(g), free(w), free(y), free(k), free(v);
    return q;
}

static void *add_body(half_type half, int n, size_t *bytes) {
    int D = n % 2 ? 13 : 8;
    int64_t ld = up8(n);
    float *in = floats((size_t)ld, 2), *x = floats(D, 1), *g = floats(D, 1);
    for (int64_t i = n; i < ld; i++)
        in[i] = 0;
    double *w, *row = (double *)malloc((size_t)n * sizeof *row), sums[13], square = 0;
    weight matrix = weights(form, half, D, n, &w);
    for (int i = 0; i < n; i++)
        row[i] = in[i];
    for (int r = 0; r < D; r++) {
        sums[r] = product(w + r * n, row, n);
        square += sums[r] * sums[r] / D;
    }
    float *got = NULL;
    unsigned zero = 0;
    *bytes = (size_t)D * 4;
    for (int post = 0; post < 2; post++) {
        add_args a = {};
        a.in = (float *)device((size_t)ld * 4, in);
        a.n = n;
        a.w = matrix;
        a.D = D;
        a.x = (float *)device(*bytes, x);
        a.norm = post ? (float *)device(*bytes, g) : NULL;
        a.eps = 1e-6f;
        a.y = (float *)device(*bytes, NULL);
        a.counter = (unsigned *)device(sizeof zero, &zero);
        add_step(half, &a, tuned(1), 0);
        done();
        free(got);
        got = (float *)host(a.x, *bytes);
        unsigned *left = (unsigned *)host(a.counter, sizeof zero);
        assert_int_equal(*left, 0);
        free(left);
        for (int r = 0; r < D; r++) {
            double want = x[r] + (post ? sums[r] / sqrt(square + 1e-6) * (1.0 + g[r]) : sums[r]);
            if (!(fabs(got[r] - want) <= 1e-5 * (1 + sqrt(n))))
                fail_msg("add_step, n %d, row %d: %g, not %g", n, r, got[r], want);
        }
    }
    free(in), free(x), free(g), free(w), free(row);
    return got;
}

static void *norm_gemv_body(half_type half, int D, size_t *bytes) {
    int F = 27, V = 101;
    float *x = floats(D, 2), *g = floats(D, 1);
    double *gate, *head, *y = (double *)malloc((size_t)D * sizeof *y);
    normed(x, g, D, y);
    norm_gemv_args a = {};
    a.x = (float *)device((size_t)D * 4, x);
    a.norm = (float *)device((size_t)D * 4, g);
    a.D = D, a.eps = 1e-6f;
    a.w = weights(form, half, 2 * F, D, &gate);
    a.rows = 2 * F;
    a.out = (float *)device((size_t)F * 4, NULL);
    gated_step(half, &a, tuned(1), 0);
    done();
    float *h = (float *)host(a.out, (size_t)F * 4), *got = NULL;
    for (int i = 0; i < F; i++) {
        double want = gelu(product(gate + 2 * i * D, y, D)) * product(gate + (2 * i + 1) * D, y, D);
        if (!(fabs(h[i] - want) <= 1e-4 * (1 + fabs(want))))
            fail_msg("gated_step, D %d, %d: %g, not %g", D, i, h[i], want);
    }
    a.w = weights(form, half, V, D, &head);
    a.rows = V;
    *bytes = (size_t)V * 4;
    a.out = (float *)device(*bytes, NULL);
    for (int capped = 0; capped < 2; capped++) {
        a.cap = capped ? 4 : 0;
        head_step(half, &a, tuned(1), 0); /* one block: its warps walk on */
        done();
        free(got);
        got = (float *)host(a.out, *bytes);
        for (int i = 0; i < V; i++) {
            double want = cap(product(head + i * D, y, D), a.cap);
            if (!(fabs(got[i] - want) <= 2e-5 * (1 + sqrt(D))))
                fail_msg("head_step, D %d, %d: %g, not %g", D, i, got[i], want);
        }
    }
    free(x), free(g), free(gate), free(head), free(y), free(h);
    return got;
}

static void cuda_kernels_step_products(void **unused) {
    (void)unused;
    in_every_order(qkv_body, widths, WIDTHS);
    in_every_order(norm_gemv_body, widths, WIDTHS);
    static const int inputs[] = {1, 8, 33, 2047, 2048, 2056, 4500};
    in_every_order(add_body, inputs, 7);
}

static void cuda_kernels_step_products_of_int8(void **unused) {
    (void)unused;
    static const int inputs[] = {1, 16, 17, 500, 513, 4096, 4500};
    form = FORM_INT8;
    in_every_order(qkv_body, inputs, 5);
    in_every_order(norm_gemv_body, inputs, 5);
    in_every_order(add_body, inputs, 7);
    form = FORM_HALF;
}

/* 64 and 1088 columns: less than a warp's step and more; 8256 and 16384: several pieces of
 * add_step, and rows of more than one group. */
static void cuda_kernels_step_products_of_nf4(void **unused) {
    (void)unused;
    static const int inputs[] = {64, 320, 1088, 8256, 16384};
    form = FORM_NF4;
    in_every_order(qkv_body, inputs, 3);
    in_every_order(norm_gemv_body, inputs, 3);
    in_every_order(add_body, inputs, 5);
    form = FORM_HALF;
}

/* size: keys. Several shapes of heads, from one chunk to more chunks than fit one round. */
static void *attend_body(half_type half, int keys, size_t *bytes) {
    static const struct {
        int H, K, E, sms;
        float cap;
    } shapes[] = {{8, 1, 256, 4, 0}, {6, 3, 24, 7, 2}, {5, 1, 16, 3, 0}, {18, 2, 8, 100, 1}};
    float *all = (float *)calloc(4096, sizeof *all);
    size_t used = 0;
    for (int c = 0; c < 4; c++) {
        int H = shapes[c].H, K = shapes[c].K, E = shapes[c].E, positions = keys + 2;
        int64_t ldkv = up8(E);
        float *q = floats((size_t)H * E, 1);
        double *k, *v, *p = (double *)malloc((size_t)keys * sizeof *p);
        unsigned *zeros = (unsigned *)calloc((size_t)H, sizeof *zeros);
        step_state now = {0, keys - 1};
        attend_args a = {};
        a.q = (float *)device((size_t)H * E * 4, q);
        a.k = halves(half, K * positions, E, ldkv, 1, &k);
        a.v = halves(half, K * positions, E, ldkv, 1, &v);
        a.ldkv = ldkv;
        a.positions = positions;
        a.H = H, a.K = K, a.E = E;
        a.scale = 0.7f;
        a.cap = shapes[c].cap;
        a.state = (step_state *)device(sizeof now, &now);
        a.partial = (float *)device((size_t)attend_scratch(H, E) * 4, NULL);
        a.counter = (unsigned *)device((size_t)H * 4, zeros);
        a.out = (float *)device((size_t)H * E * 4, NULL);
        attend_step(half, &a, tuned(shapes[c].sms), 0);
        done();
        float *out = (float *)host(a.out, (size_t)H * E * 4);
        unsigned *left = (unsigned *)host(a.counter, (size_t)H * 4);
        for (int h = 0; h < H; h++) {
            int g = h / (H / K);
            double top = -INFINITY, sum = 0;
            assert_int_equal(left[h], 0);
            for (int j = 0; j < keys; j++) {
                p[j] = 0;
                for (int e = 0; e < E; e++)
                    p[j] += q[h * E + e] * k[(g * positions + j) * E + e];
                p[j] = cap(p[j] * a.scale, a.cap);
                top = fmax(top, p[j]);
            }
            for (int j = 0; j < keys; j++)
                sum += p[j] = exp(p[j] - top);
            for (int e = 0; e < E; e++) {
                double want = 0;
                for (int j = 0; j < keys; j++)
                    want += p[j] / sum * v[(g * positions + j) * E + e];
                if (!(fabs(out[h * E + e] - want) <= 2e-5))
                    fail_msg("attend_step, %d keys, head %d, %d: %g, not %g", keys, h, e,
                             out[h * E + e], want);
            }
        }
        memcpy(all + used, out, (size_t)H * E * 4);
        used += (size_t)H * E;
        free(q), free(k), free(v), free(p), free(zeros), free(out), free(left);
        drop_all();
    }
    *bytes = used * sizeof *all;
    return all;
}

static void cuda_kernels_attention_of_a_step(void **unused) {
    (void)unused;
    static const int keys[] = {1, 7, 16, 17, 130, 1100};
    in_every_order(attend_body, keys, 6);
}

/* --- loading ---------------------------------------------------------------------------------- */

/* Values that rounding, NaN and infinity trip over, among others. */
static float awkward(int i) {
    static const float few[] = {0,     -0.0f,  1e-8f,      6.1e-5f,  65504,   65519,
                                65520, 70000,  1e30f,      INFINITY, -1e-40f, NAN,
                                0.5f,  -65536, 1.0009765f, 2.4e-7f};
    return i % 7 == 3 ? few[i / 7 % 16] : uniform() * (i % 11 ? 1 : 0.01f);
}

static void *element(raw_type type, int n, float (*f)(int)) {
    size_t size = type == RAW_F32 ? 4 : 2;
    char *p = (char *)malloc((size_t)n * size);
    assert_non_null(p);
    for (int i = 0; i < n; i++) {
        float x = f(i);
        bf16 b = float_to_bf16(x);
        f16 h = float_to_f16(x);
        memcpy(p + (size_t)i * size,
               type == RAW_F32   ? (void *)&x
               : type == RAW_F16 ? (void *)&h
                                 : (void *)&b,
               size);
    }
    return p;
}

static float tame(int i) {
    return i % 64 < 60 || i / 64 % 5 ? uniform() * (1 + i / 640 % 3) : 0;
}

/* Two matrices whose rows alternate, in pieces, against core/quant.c: every bit. */
static void *quantise_body(half_type half, int cols, size_t *bytes) {
    int rows = cols > 4000 ? 5 : 37, n = rows * cols;
    pali_dtype dtype = form == FORM_NF4 ? PALI_NF4 : PALI_INT8;
    raw_type type = (raw_type)(half == HALF_BF16 ? RAW_BF16 : cols % 3 ? RAW_F16 : RAW_F32);
    double *unused;
    weight w =
        weights(form, half, 2 * rows, cols, &unused); /* whose memory is used, not the numbers */
    free(unused);
    size_t code_bytes = (size_t)(2 * rows) * (size_t)(form == FORM_NF4 ? cols / 2 : w.ld);
    size_t head_bytes = (size_t)(2 * rows) * (form == FORM_NF4 ? nf4_head(cols) : 1) * 4;
    size_t scale_bytes = form == FORM_NF4 ? (size_t)n / 32 : 0;
    assert_int_equal(cudaMemset((void *)w.w, 0x11, code_bytes), cudaSuccess);
    assert_int_equal(cudaMemset((void *)w.scales, 0x11, head_bytes), cudaSuccess);
    unsigned char *want_codes[2], *want_scales[2];
    float *tops[2];
    for (int part = 0; part < 2; part++) {
        void *raw = element(type, n, part ? tame : awkward), *mem = NULL;
        assert_int_equal(
            posix_memalign(&mem, PALI_QUANT_ALIGN, pali_quant_bytes(dtype, rows, cols)), 0);
        pali_quant_parts q = pali_quant_place(dtype, rows, cols, mem);
        pali_matrix m = {};
        m.dtype = (pali_dtype)type;
        m.rows = rows;
        m.cols = cols;
        m.data = raw;
        assert_int_equal(pali_quantize(&m, &q, NULL), 0);
        raw_piece p = {};
        p.type = type;
        p.cols = cols;
        p.row_first = part;
        p.row_step = 2;
        size_t size = type == RAW_F32 ? 4 : 2;
        char *all = (char *)device((size_t)n * size, raw);
        nf4_finish f = {};
        float *absmax = (float *)device((size_t)q.blocks * 4 + 4, NULL);
        int step = form == FORM_NF4 ? 64 * 23 : 5 * cols;
        for (int at = 0; at < n; at += step) {
            p.raw = all + (size_t)at * size;
            p.first = at;
            p.n = n - at < step ? n - at : step;
            if (form == FORM_NF4)
                place_nf4(&p, &w, absmax, 0);
            else
                place_int8(&p, &w, 0);
        }
        if (form == FORM_NF4) {
            f.cols = cols;
            f.blocks = (int64_t)q.blocks;
            f.groups = (int64_t)q.groups;
            f.row_first = part;
            f.row_step = 2;
            f.absmax = absmax;
            f.tables = w.tables;
            f.sums = (double *)device(q.groups * 8, NULL);
            f.tops = (float *)device((q.groups + 1) * 4, NULL);
            f.scale_codes = (unsigned char *)w.scale_codes;
            f.heads = (float *)w.scales;
            finish_nf4(&f, 0);
        }
        done();
        want_codes[part] = q.codes;
        want_scales[part] = q.scale_codes;
        tops[part] = q.scales;
        free(raw);
    }
    unsigned char *codes = (unsigned char *)host(w.w, code_bytes);
    float *heads = (float *)host(w.scales, head_bytes);
    size_t each = form == FORM_NF4 ? (size_t)cols / 2 : (size_t)cols,
           pitch = code_bytes / (size_t)(2 * rows);
    unsigned char *scales =
        form == FORM_NF4 ? (unsigned char *)host(w.scale_codes, scale_bytes) : NULL;
    int head = form == FORM_NF4 ? nf4_head(cols) : 1, blocks = cols / 64;
    for (int r = 0; r < 2 * rows; r++) {
        int part = r % 2, row = r / 2;
        assert_memory_equal(codes + (size_t)r * pitch, want_codes[part] + (size_t)row * each, each);
        for (size_t i = each; i < pitch; i++) /* the padding is the caller's */
            assert_int_equal(codes[(size_t)r * pitch + i], 0x11);
        if (form == FORM_INT8) {
            assert_memory_equal(&heads[r], &tops[part][row], 4);
            continue;
        }
        int first = row * blocks, before = first % 256, groups = (n / 64 + 255) / 256;
        assert_memory_equal(scales + r * blocks, want_scales[part] + row * blocks, (size_t)blocks);
        assert_memory_equal(&heads[r * head], &tops[part][groups], 4);
        assert_memory_equal(&heads[r * head + 1], &before, 4);
        for (int g = first / 256; g <= (first + blocks - 1) / 256; g++)
            assert_memory_equal(&heads[r * head + 2 + g - first / 256], &tops[part][g], 4);
    }
    /* And back: rows 3 .. of the whole, as the CPU would read them, rounded to T. */
    int64_t ldo = up8(cols) + 8;
    int some = 2 * rows - 4;
    uint16_t *dense = (uint16_t *)device((size_t)(some * ldo) * 2, NULL);
    dequantize(half, &w, 3, some, cols, dense, ldo, 0);
    done();
    uint16_t *got = (uint16_t *)host(dense, (size_t)(some * ldo) * 2);
    float *row = floats((size_t)cols, 0);
    for (int r = 0; r < some; r++) {
        int part = (r + 3) % 2;
        pali_matrix m = {};
        m.dtype = dtype;
        m.rows = rows;
        m.cols = cols;
        m.data = want_codes[part];
        m.scale_codes = want_scales[part];
        m.scales = tops[part];
        pali_matrix_read(&m, (size_t)((r + 3) / 2) * (size_t)cols, (size_t)cols, row);
        for (int c = 0; c < cols; c++) {
            float x = half == HALF_F16 && fabsf(row[c]) > 65504 ? copysignf(65504, row[c]) : row[c];
            assert_int_equal(got[r * ldo + c], narrow16(half, x));
        }
        for (int64_t c = cols; c < ldo; c++)
            assert_int_equal(got[r * ldo + c], 0x5a5a);
    }
    for (int part = 0; part < 2; part++)
        free(want_codes[part]);
    free(codes), free(scales), free(row), free(got);
    *bytes = head_bytes;
    return heads;
}

static void cuda_kernels_quantise_as_the_cpu_does(void **unused) {
    (void)unused;
    static const int widths8[] = {1, 31, 33, 300}, widths4[] = {64, 320, 8256};
    form = FORM_INT8;
    in_every_order(quantise_body, widths8, 4);
    form = FORM_NF4;
    in_every_order(quantise_body, widths4, 3);
    form = FORM_HALF;
}

/* Elements in odd pieces to padded rows, every second one. */
static void *place_body(half_type half, int cols, size_t *bytes) {
    int rows = 9, n = rows * cols, step = 4 * cols / 3 + 1;
    int64_t ld = up8(cols);
    uint16_t *halves_out = NULL;
    for (int type = 0; type < 3; type++) {
        char *raw = (char *)element((raw_type)type, n, tame);
        pali_matrix m = {};
        m.dtype = (pali_dtype)type;
        m.rows = rows;
        m.cols = cols;
        m.data = raw;
        float *want = floats((size_t)n, 0);
        pali_matrix_read(&m, 0, (size_t)n, want);
        *bytes = (size_t)(2 * rows * ld) * 2;
        void *h = device(*bytes, NULL);
        float *f = (float *)device(*bytes * 2, NULL);
        for (int at = 0; at < n; at += step) {
            size_t size = type == RAW_F32 ? 4 : 2;
            raw_piece p = {};
            p.type = (raw_type)type;
            p.first = at;
            p.n = n - at < step ? n - at : step;
            p.cols = cols;
            p.row_first = 1;
            p.row_step = 2;
            p.raw = device((size_t)p.n * size, raw + (size_t)at * size);
            place_halves(half, &p, h, ld, 0);
            place_floats(&p, f, ld, 0);
        }
        done();
        free(halves_out);
        halves_out = (uint16_t *)host(h, *bytes);
        float *floats_out = (float *)host(f, *bytes * 2);
        uint32_t pattern = 0x5a5a5a5au;
        for (int r = 0; r < 2 * rows; r++)
            for (int64_t c = 0; c < ld; c++) {
                bool mine = r % 2 == 1 && c < cols;
                float x = mine ? want[r / 2 * cols + c] : 0;
                assert_int_equal(halves_out[r * ld + c], mine ? narrow16(half, x) : 0x5a5a);
                assert_memory_equal(&floats_out[r * ld + c], mine ? (void *)&x : (void *)&pattern,
                                    4);
            }
        free(raw), free(want), free(floats_out);
    }
    return halves_out;
}

static void cuda_kernels_place_elements(void **unused) {
    (void)unused;
    static const int sizes[] = {1, 7, 8, 33, 260};
    in_every_order(place_body, sizes, 5);
}

/* size: keys. Rows and masks of every kind; heads of each kernel, full and in part. */
static void *flash_body(half_type half, int keys, size_t *bytes) {
    static const struct {
        int H, K, E, rows, first, prefix; /* 0 rows: as many as keys */
        float cap;
    } shapes[] = {{2, 2, 72, 0, 0, 1 << 20, 0},
                  {4, 1, 256, 70, 0, 1 << 20, 0},
                  {2, 1, 128, 0, 0, 9, 2},
                  {3, 3, 8, 33, 5, 3, 0},
                  {2, 1, 200, 3, 12, 0, 1}};
    uint16_t *all = (uint16_t *)calloc(1 << 20, sizeof *all);
    size_t used = 0;
    for (int c = 0; c < 5; c++) {
        int H = shapes[c].H, K = shapes[c].K, E = shapes[c].E;
        int rows = shapes[c].rows ? shapes[c].rows : keys;
        int64_t ldq = H * E + 8, ldk = E + 8, ldo = H * E;
        double *q, *k, *v, *p = (double *)malloc((size_t)keys * sizeof *p);
        flash_args a = {};
        a.q = halves(half, rows, H * E, ldq, 2, &q);
        a.k = halves(half, K * keys, E, ldk, 2, &k);
        a.v = halves(half, K * keys, E, ldk, 1, &v);
        a.ldq = ldq, a.ldk = a.ldv = ldk, a.head_kv = keys * ldk;
        a.rows = rows, a.keys = keys, a.H = H, a.K = K, a.E = E;
        a.first = shapes[c].first, a.prefix = shapes[c].prefix;
        a.scale = 0.3f;
        a.cap = shapes[c].cap;
        a.ldo = ldo;
        size_t size = (size_t)(rows * ldo) * 2;
        a.out = device(size, NULL);
        flash_rows(half, &a, 0);
        done();
        uint16_t *out = (uint16_t *)host(a.out, size);
        for (int r = 0; r < rows; r++)
            for (int h = 0; h < H; h++) {
                int g = h / (H / K), sees = a.first + r + 1;
                sees = sees > a.prefix ? sees : a.prefix;
                sees = sees < keys ? sees : keys;
                double top = -INFINITY, sum = 0;
                for (int j = 0; j < sees; j++) {
                    p[j] = 0;
                    for (int e = 0; e < E; e++)
                        p[j] += q[r * H * E + h * E + e] * k[(g * keys + j) * E + e];
                    p[j] = cap(p[j] * a.scale, a.cap);
                    top = fmax(top, p[j]);
                }
                for (int j = 0; j < sees; j++)
                    sum += p[j] = exp(p[j] - top);
                for (int e = 0; e < E; e++) {
                    double want = 0;
                    for (int j = 0; j < sees; j++)
                        want += p[j] / sum * v[(g * keys + j) * E + e];
                    /* Weights and result are rounded to 16 bits: half a step of 1 each. */
                    double got = widen16(half, out[r * ldo + h * E + e]);
                    if (!(fabs(got - want) <= 1.2 * tolerance(half)))
                        fail_msg("flash, %d keys, shape %d, row %d, head %d, %d: %g, not %g", keys,
                                 c, r, h, e, got, want);
                }
            }
        memcpy(all + used, out, size);
        used += size / 2;
        free(q), free(k), free(v), free(p), free(out);
        drop_all();
    }
    *bytes = used * sizeof *all;
    return all;
}

static void cuda_kernels_attention_of_many_rows(void **unused) {
    (void)unused;
    static const int keys[] = {1, 31, 64, 65, 200};
    in_every_order(flash_body, keys, 5);
}

/* --- products of many rows ------------------------------------------------------------------ */

typedef struct {
    int m, n, k, batch;
    bool wide, bias, gelu, add, b_kn; /* wide: float32 out */
    float scale;
} many_rows;

/* What vision and prefill ask of gemm.h; the last ones of their real sizes, on a device only,
 * where they say whether the library has a way at all. */
static const many_rows products[] = {
    {9, 72, 24, 1, false, true, false, false, false, 1},
    {64, 37, 40, 1, false, true, true, false, false, 1},
    {300, 24, 37, 1, true, true, false, true, false, 1},
    {1, 300, 64, 1, true, false, false, false, false, 1},
    {17, 64, 311, 1, true, false, false, true, false, 128},
    {33, 40, 8, 3, true, false, false, false, false, 0.3f},
    {33, 8, 19, 3, false, false, false, false, true, 1},
    {256, 1152, 592, 1, true, true, false, true, false, 1},
    {256, 3456, 1152, 1, false, true, false, false, false, 1},
    {512, 4304, 1152, 1, false, true, true, false, false, 1},
    {512, 1152, 4304, 1, true, true, false, true, false, 1},
    {256, 2048, 1152, 1, true, true, false, false, false, 1},
    {271, 2560, 2048, 1, true, false, false, false, false, 1},
    {271, 32768, 2048, 1, true, false, false, false, false, 1},
    {271, 2048, 16384, 1, true, false, false, true, false, 1},
};
enum {
    SMALL_PRODUCTS = 7
};

static void *gemm_body(half_type half, int which, size_t *bytes) {
    const many_rows *p = &products[which];
    int brows = p->b_kn ? p->k : p->n, bcols = p->b_kn ? p->n : p->k;
    int64_t lda = up8(p->k), ldb = up8(bcols), ldc = up8(p->n);
    size_t rows = (size_t)p->batch * p->m, size = p->wide ? 4 : 2;
    double *a, *b, *bias = NULL;
    gemm_args g = {};
    g.m = p->m, g.n = p->n, g.k = p->k, g.batch = p->batch;
    g.in = half == HALF_F16 ? GEMM_F16 : GEMM_BF16;
    g.out = p->wide ? GEMM_F32 : g.in;
    g.a = halves(half, p->batch * p->m, p->k, lda, 1, &a);
    g.b = halves(half, p->batch * brows, bcols, ldb, 1, &b);
    g.lda = lda, g.ldb = ldb, g.ldc = ldc;
    g.stride_a = p->m * lda, g.stride_b = brows * ldb, g.stride_c = p->m * ldc;
    g.b_kn = p->b_kn, g.gelu = p->gelu, g.add = p->add, g.scale = p->scale;
    float *before = floats(rows * (size_t)ldc, 1), *wide = floats((size_t)p->n, 1);
    *bytes = rows * (size_t)ldc * size;
    g.c = device(*bytes, p->wide ? before : NULL);
    if (p->bias && p->wide)
        g.bias = device((size_t)p->n * 4, wide);
    else if (p->bias)
        g.bias = halves(half, 1, p->n, p->n, 1, &bias);
    gemm_context *context;
    pali_error err = {};
    if (gemm_open(&context, device(gemm_workspace(), NULL), &err) != 0 ||
        gemm(context, &g, 0, &err) != 0)
        fail_msg("%s", err.what);
    done();
    gemm_close(context);
    void *got = host(g.c, *bytes);
    size_t step = rows * (size_t)p->n / 3000 + 1; /* of the large ones, some */
    for (size_t i = 0; i < rows * (size_t)p->n; i += step) {
        size_t r = i / (size_t)p->n, c = i % (size_t)p->n, at = r / (size_t)p->m, k = (size_t)p->k;
        size_t first = at * (size_t)brows;
        double want = 0;
        for (size_t j = 0; j < k; j++)
            want +=
                a[r * k + j] * b[p->b_kn ? (first + j) * (size_t)p->n + c : (first + c) * k + j];
        want *= p->scale;
        if (p->bias)
            want += p->wide ? wide[c] : bias[c];
        if (p->gelu)
            want = gelu(want);
        if (p->add)
            want += before[r * (size_t)ldc + c];
        double value = p->wide ? ((float *)got)[r * (size_t)ldc + c]
                               : widen16(half, ((uint16_t *)got)[r * (size_t)ldc + c]);
        /* Sums of k float32 products; the library's tanh may be the chip's, good to 2^-11. */
        double off = 3e-6 * p->k * p->scale + (p->wide ? 1e-5 : tolerance(half)) * fabs(want) +
                     (p->gelu ? 1e-3 : 0);
        if (!(fabs(value - want) <= off))
            fail_msg("product %d: element %zu, %zu is %.9g, not %.9g", which, r, c, value, want);
    }
    free(a), free(b), free(bias), free(before), free(wide);
    return got;
}

static void cuda_kernels_products(void **unused) {
    (void)unused;
    int which[sizeof products / sizeof *products];
    for (int i = 0; i < (int)(sizeof which / sizeof *which); i++)
        which[i] = i;
    pali_error err = {};
    if (gemm_available(&err) != 0)
        fail_msg("%s", err.what);
    in_every_order(gemm_body, which,
                   emu_present() ? SMALL_PRODUCTS : (int)(sizeof which / sizeof *which));
}

int main(void) {
    emu_reset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuda_kernels_products),
        cmocka_unit_test(cuda_kernels_norms),
        cmocka_unit_test(cuda_kernels_rows),
        cmocka_unit_test(cuda_kernels_rope),
        cmocka_unit_test(cuda_kernels_softmax),
        cmocka_unit_test(cuda_kernels_step_products),
        cmocka_unit_test(cuda_kernels_step_products_of_int8),
        cmocka_unit_test(cuda_kernels_step_products_of_nf4),
        cmocka_unit_test(cuda_kernels_attention_of_a_step),
        cmocka_unit_test(cuda_kernels_attention_of_many_rows),
        cmocka_unit_test(cuda_kernels_place_elements),
        cmocka_unit_test(cuda_kernels_quantise_as_the_cpu_does),
    };
    return cmocka_run_group_tests_name("cuda_kernels", tests, NULL, NULL);
}
