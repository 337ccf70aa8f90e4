/* Every kernel of every table this processor can run, against plain loops in double.
 *
 * Buffers are allocated to the byte, at odd addresses where any alignment is
 * promised, so that the sanitized build sees a read or write past an end.       */
#include "tests/test.h"

#include "core/cpu/kernels.h"

#include <math.h>

static uint32_t state = 1;

/* In [-1, 1). */
static float uniform(void) {
    state = state * 1664525u + 1013904223u;
    return (float)((int32_t)state >> 8) / 8388608.0f;
}

static float *floats(size_t n) {
    float *x = malloc((n ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = uniform();
    return x;
}

/* n random elements of dtype at an odd address; values[] gets what they mean. free(*base). */
static const void *stored(pali_dtype dtype, size_t n, double *values, void **base) {
    size_t size = pali_dtype_size(dtype);
    unsigned char *p = malloc(n * size + 1);
    assert_non_null(p);
    *base = p++;
    for (size_t i = 0; i < n; i++) {
        float x = uniform();
        uint32_t bits;
        memcpy(&bits, &x, 4);
        if (dtype == PALI_F32) {
            memcpy(p + i * size, &x, 4);
        } else if (dtype == PALI_BF16) {
            uint16_t h = (uint16_t)(bits >> 16);
            memcpy(p + i * size, &h, 2);
            bits = (uint32_t)h << 16;
            memcpy(&x, &bits, 4);
        } else { /* a half in +-[0.5, 1) or +-[0.25, 0.5): exponent 14 or 13 */
            uint16_t h =
                (uint16_t)((bits >> 16 & 0x8000) | (13u + (bits & 1)) << 10 | (bits >> 3 & 0x3ff));
            memcpy(p + i * size, &h, 2);
            x = (h & 0x8000 ? -1.0f : 1.0f) * ldexpf(1024.0f + (h & 0x3ff), (h >> 10 & 31) - 25);
        }
        if (values)
            values[i] = x;
    }
    return p;
}

static void check_tile(const pali_kernels *k, int rows, int used, int n, bool down, bool add) {
    size_t L = (size_t)k->lanes, N = (size_t)n;
    size_t rs = down ? 1 : N + 3, cs = down ? (size_t)rows + 2 : 1;
    size_t wlen = (size_t)(rows - 1) * rs + (N - 1) * cs + 1;
    float *w = floats(wlen), *x = floats(N * L), *c = floats((size_t)rows * L);
    float *old = malloc((size_t)rows * L * sizeof *old);
    assert_non_null(old);
    memcpy(old, c, (size_t)rows * L * sizeof *old);
    k->tile(rows, used, n, w, rs, cs, x, c, add);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < used; i++) {
            double want = add ? old[(size_t)r * L + (size_t)i] : 0, size = fabs(want);
            for (size_t j = 0; j < N; j++) {
                double t = (double)w[(size_t)r * rs + j * cs] * x[j * L + (size_t)i];
                want += t;
                size += fabs(t);
            }
            /* Seen: 3e-7 of the terms' sum. A wrong row, lane or stride: about 1. */
            double off = fabs(c[(size_t)r * L + (size_t)i] - want) / (size + 1e-9);
            if (off > 2e-6)
                fail_msg("%s: tile rows %d used %d k %d: off by %g", k->name, rows, used, n, off);
        }
    free(w);
    free(x);
    free(c);
    free(old);
}

static void cpu_kernels_tile_is_a_matrix_product(void **unused) {
    (void)unused;
    static const int sizes[] = {1, 2, 37, 256};
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        assert_true(k->rows % 6 == 0 && 96 % k->rows == 0 && k->lanes <= 32);
        for (int rows = 1; rows <= k->rows; rows++)
            for (int u = 0; u < 4; u++) {
                int used = u == 0   ? 1
                           : u == 1 ? k->lanes / 2
                           : u == 2 ? k->lanes / 2 + 1
                                    : k->lanes;
                for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                    check_tile(k, rows, used, sizes[s], false, s % 2);
                    check_tile(k, rows, used, sizes[s], true, s % 2 == 0);
                }
            }
    }
}

/* x rounded to bfloat16, ties to even. */
static float rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, 4);
    return x;
}

static void check_pairs(const pali_kernels *k, int rows, int used, int n, bool add) {
    size_t L = (size_t)k->lanes, N = (size_t)n, rs = N / 2 + 3;
    float *x = floats(N * L), *c = floats((size_t)rows * L);
    float *old = malloc((size_t)rows * L * sizeof *old);
    double *w = malloc((size_t)rows * rs * 2 * sizeof *w);
    uint32_t *packed = malloc(N / 2 * L * sizeof *packed), *rows_of_w;
    void *base;
    assert_true(old && w && packed);
    const void *bytes = stored(PALI_BF16, (size_t)rows * rs * 2, w, &base);
    rows_of_w = malloc((size_t)rows * rs * sizeof *rows_of_w);
    assert_non_null(rows_of_w);
    memcpy(rows_of_w, bytes, (size_t)rows * rs * sizeof *rows_of_w);
    memcpy(old, c, (size_t)rows * L * sizeof *old);
    k->pack_pairs(n, x, packed);
    k->tile_pairs(rows, used, n / 2, rows_of_w, rs, packed, c, add);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < used; i++) {
            double want = add ? old[(size_t)r * L + (size_t)i] : 0, size = fabs(want);
            for (size_t j = 0; j < N; j++) {
                double t = w[(size_t)r * rs * 2 + j] * rounded(x[j * L + (size_t)i]);
                want += t;
                size += fabs(t);
            }
            /* Seen: 3e-7 of the terms' sum. Not rounded, or truncated: 1e-3; a wrong row: 1. */
            double off = fabs(c[(size_t)r * L + (size_t)i] - want) / (size + 1e-9);
            if (off > 2e-6)
                fail_msg("%s: pairs rows %d used %d k %d: off by %g", k->name, rows, used, n, off);
        }
    free(x);
    free(c);
    free(old);
    free(w);
    free(packed);
    free(rows_of_w);
    free(base);
}

static void cpu_kernels_pairs_are_a_matrix_product_of_bfloat16(void **unused) {
    (void)unused;
    static const int sizes[] = {2, 4, 38, 96, 256};
    const pali_kernels *k;
    bool any = false;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        assert_true(!k->pack_pairs == !k->tile_pairs);
        if (!k->tile_pairs)
            continue;
        any = true;
        assert_true(k->pair_rows % 2 == 0 && 96 % k->pair_rows == 0);
        for (int rows = 1; rows <= k->pair_rows; rows++)
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                check_pairs(k, rows, 1, sizes[s], s % 2);
                check_pairs(k, rows, k->lanes / 2, sizes[s], s % 2 == 0);
                check_pairs(k, rows, k->lanes / 2 + 1, sizes[s], s % 2);
                check_pairs(k, rows, k->lanes, sizes[s], s % 2 == 0);
            }
    }
    if (!any)
        skip(); /* this processor has no products of bfloat16 */
}

/* All 65536 patterns of both 16-bit formats, bit for bit. */
static void cpu_kernels_widen_is_exact(void **unused) {
    (void)unused;
    enum {
        ALL = 65536
    };
    unsigned char *src = malloc(ALL * 2 + 1);
    float *dst = malloc(ALL * sizeof *dst);
    assert_true(src && dst);
    for (uint32_t i = 0; i < ALL; i++) {
        uint16_t h = (uint16_t)i;
        memcpy(src + 1 + i * 2, &h, 2);
    }
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        k->widen(PALI_BF16, src + 1, ALL, dst);
        for (uint32_t i = 0; i < ALL; i++) {
            uint32_t bits;
            memcpy(&bits, &dst[i], 4);
            assert_int_equal(bits, i << 16);
        }
        k->widen(PALI_F16, src + 1, ALL, dst);
        for (uint32_t i = 0; i < ALL; i++) {
            int e = (int)(i >> 10 & 31), f = (int)(i & 0x3ff);
            if (e == 31 && f) {
                assert_true(isnan(dst[i]));
                continue;
            }
            float want = e == 31 ? INFINITY
                         : e     ? ldexpf(1024.0f + (float)f, e - 25)
                                 : ldexpf((float)f, -24);
            assert_true(dst[i] == (i & 0x8000 ? -want : want));
            assert_int_equal(!!signbit(dst[i]), !!(i & 0x8000));
        }
    }
    free(src);
    free(dst);
}

static void cpu_kernels_widen_any_length(void **unused) {
    (void)unused;
    static const pali_dtype types[] = {PALI_F32, PALI_BF16, PALI_F16};
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++)
        for (size_t d = 0; d < 3; d++)
            for (size_t n = 1; n < 70; n++) {
                void *base;
                double values[70];
                const void *src = stored(types[d], n, values, &base);
                float *dst = floats(n);
                k->widen(types[d], src, n, dst);
                for (size_t i = 0; i < n; i++)
                    assert_true(dst[i] == values[i]);
                free(base);
                free(dst);
            }
}

static void cpu_kernels_dot_any_shape(void **unused) {
    (void)unused;
    static const pali_dtype types[] = {PALI_F32, PALI_BF16, PALI_F16};
    static const size_t sizes[] = {1, 3, 8, 15, 16, 17, 31, 33, 64, 65, 255, 1152, 2049};
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++)
        for (size_t d = 0; d < 3; d++)
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                size_t n = sizes[s];
                enum {
                    ROWS = 7
                };
                double *values = malloc(ROWS * n * sizeof *values);
                assert_non_null(values);
                void *base;
                const unsigned char *w = stored(types[d], ROWS * n, values, &base);
                size_t ld = n * pali_dtype_size(types[d]);
                float *x = floats(n), y[ROWS], one;
                k->dot(types[d], w, ld, ROWS, n, x, y);
                for (size_t r = 0; r < ROWS; r++) {
                    double want = 0, size = 0;
                    for (size_t i = 0; i < n; i++) {
                        want += values[r * n + i] * x[i];
                        size += fabs(values[r * n + i] * x[i]);
                    }
                    /* Seen: 2e-7. A wrong element: 1 / n, 5e-4 at the largest n. */
                    assert_true(fabs(y[r] - want) <= 2e-6 * size);
                    k->dot(types[d], w + r * ld, ld, 1, n, x, &one);
                    assert_memory_equal(&one, &y[r], sizeof one);
                }
                free(values);
                free(base);
                free(x);
            }
}

static void cpu_kernels_mix_any_shape(void **unused) {
    (void)unused;
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++)
        for (size_t n = 1; n <= 256; n = n * 2 + (n < 100 ? 1 : 2))
            for (size_t keys = 1; keys < 40; keys += 19) {
                size_t ld = n + 1;
                float *p = floats(keys), *v = floats((keys - 1) * ld + n), *out = floats(n);
                k->mix(keys, n, p, v, ld, out);
                for (size_t e = 0; e < n; e++) {
                    double want = 0, size = 0;
                    for (size_t i = 0; i < keys; i++) {
                        want += (double)p[i] * v[i * ld + e];
                        size += fabs((double)p[i] * v[i * ld + e]);
                    }
                    assert_true(fabs(out[e] - want) <= 2e-6 * size);
                }
                free(p);
                free(v);
                free(out);
            }
}

/* --- functions ------------------------------------------------------------------- */

static double exact_gelu(double x) {
    return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* x from -top to top, 100,003 of them: not a multiple of any vector. */
enum {
    GRID = 100003
};
static float *grid(double top) {
    float *x = malloc(GRID * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < GRID; i++)
        x[i] = (float)(top * (2.0 * i / (GRID - 1) - 1));
    return x;
}

/* Largest |got - f(x)| / (|f(x)| + floor). */
static double worst(const float *x, const float *got, double (*f)(double), double floor_) {
    double w = 0;
    for (int i = 0; i < GRID; i++) {
        double want = f(x[i]), off = fabs(got[i] - want) / (fabs(want) + floor_);
        w = off > w || isnan(off) ? off : w;
    }
    return w;
}

static void cpu_kernels_exp_is_accurate(void **unused) {
    (void)unused;
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        float *x = grid(87.3), *y = grid(87.3);
        k->exp(GRID, y);
        double off = worst(x, y, exp, 0);
        if (!(off < 1.5e-7)) /* seen 8e-8; without the low part of ln 2: 1e-2 */
            fail_msg("%s: exp off by %g", k->name, off);
        float special[] = {0,        -0.0f, 1,    88.5f,  89.5f,     1e30f,
                           INFINITY, -95,   -104, -1e30f, -INFINITY, NAN};
        size_t n = sizeof special / sizeof *special;
        k->exp(n, special);
        assert_true(special[0] == 1 && special[1] == 1 && fabs(special[2] - M_E) < 5e-7);
        assert_true(fabs(special[3] / exp(88.5) - 1) < 1e-6);
        assert_true(isinf(special[4]) && isinf(special[5]) && isinf(special[6]));
        assert_true(special[7] > 0 && fabs(special[7] - exp(-95)) < 2e-45);
        assert_true(special[8] == 0 && special[9] == 0 && special[10] == 0 && isnan(special[11]));
        free(x);
        free(y);
    }
}

static double softcap_50(double x) {
    return 50 * tanh(x / 50);
}

static void cpu_kernels_softcap_is_accurate(void **unused) {
    (void)unused;
    static const double tops[] = {1e-3, 1, 40, 1000};
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        for (size_t i = 0; i < 4; i++) {
            float *x = grid(tops[i]), *y = grid(tops[i]);
            k->softcap(GRID, 50, y);
            double off = worst(x, y, softcap_50, 1e-30);
            if (!(off < 4e-7)) /* seen 2e-7 */
                fail_msg("%s: softcap up to %g off by %g", k->name, tops[i], off);
            free(x);
            free(y);
        }
        float special[] = {INFINITY, -INFINITY, NAN, 1e38f, 0};
        k->softcap(5, 30, special);
        assert_true(special[0] == 30 && special[1] == -30 && isnan(special[2]));
        assert_true(special[3] == 30 && special[4] == 0);
    }
}

static void cpu_kernels_gelu_is_accurate(void **unused) {
    (void)unused;
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        float *x = grid(9), *y = grid(9), *u = floats(GRID), *out = floats(GRID);
        k->gelu(GRID, y);
        double off = worst(x, y, exact_gelu, 1e-30);
        if (!(off < 2e-5)) /* seen 1e-5, at -9, where e^-2u magnifies the rounding of u */
            fail_msg("%s: gelu off by %g", k->name, off);
        off = worst(x, y, exact_gelu, 1);
        if (!(off < 3e-7)) /* seen 1e-7; the erf form of GELU: 2e-4 */
            fail_msg("%s: gelu off by %g absolutely", k->name, off);
        k->geglu(GRID, x, u, out);
        for (int i = 0; i < GRID; i++)
            assert_true(out[i] == y[i] * u[i]);
        float special[] = {INFINITY, 1e30f, -1e30f, 0, NAN};
        k->gelu(5, special);
        assert_true(isinf(special[0]) && special[1] == 1e30f && special[2] == 0);
        assert_true(special[3] == 0 && isnan(special[4]));
        free(x);
        free(y);
        free(u);
        free(out);
    }
}

static double capped(double x, double cap) {
    return cap > 0 ? cap * tanh(x / cap) : x;
}

static void cpu_kernels_softmax_lanes_and_row(void **unused) {
    (void)unused;
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++)
        for (size_t keys = 1; keys < 400; keys = keys * 3 + 2)
            for (int c = 0; c < 2; c++) {
                size_t L = (size_t)k->lanes;
                float cap = c ? 5.0f : 0.0f, scale = 7.5f, inv[32];
                float *s = floats(keys * L), *old = floats(keys * L), *row = floats(keys);
                memcpy(old, s, keys * L * sizeof *s);
                k->softmax_lanes(keys, k->lanes, scale, cap, s, inv);
                for (size_t i = 0; i < L; i++) {
                    double sum = 0, top = -1e30;
                    for (size_t j = 0; j < keys; j++) {
                        double z = capped((double)old[j * L + i] * scale, cap);
                        top = z > top ? z : top;
                    }
                    for (size_t j = 0; j < keys; j++)
                        sum += exp(capped((double)old[j * L + i] * scale, cap) - top);
                    for (size_t j = 0; j < keys; j++) {
                        row[j] = old[j * L + i];
                        double want = exp(capped((double)row[j] * scale, cap) - top) / sum;
                        assert_true(fabs(s[j * L + i] * inv[i] - want) <= 3e-6 * want);
                    }
                    k->softmax_row(keys, scale, cap, row);
                    for (size_t j = 0; j < keys; j++) {
                        double want = exp(capped((double)old[j * L + i] * scale, cap) - top) / sum;
                        /* Seen: 1e-6, the rounding of the score before exp. */
                        assert_true(fabs(row[j] - want) <= 3e-6 * want);
                    }
                }
                free(s);
                free(old);
                free(row);
            }
}

/* Weights may hold anything: infinite scores and NaN must come out as NaN, not hang. */
static void cpu_kernels_softmax_of_nonsense(void **unused) {
    (void)unused;
    const pali_kernels *k;
    for (int t = 0; (k = pali_kernels_at(t)); t++) {
        float s[3] = {1, NAN, 2};
        k->softmax_row(3, 1, 0, s);
        assert_true(isnan(s[0]) && isnan(s[1]) && isnan(s[2]));
        float big[3] = {INFINITY, 1, 2};
        k->softmax_row(3, 1, 0, big);
        assert_true(isnan(big[0]));
        float low[3] = {-INFINITY, 1, 1};
        k->softmax_row(3, 1, 0, low);
        assert_true(low[0] == 0 && low[1] == 0.5f && low[2] == 0.5f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_kernels_tile_is_a_matrix_product),
        cmocka_unit_test(cpu_kernels_pairs_are_a_matrix_product_of_bfloat16),
        cmocka_unit_test(cpu_kernels_widen_is_exact),
        cmocka_unit_test(cpu_kernels_widen_any_length),
        cmocka_unit_test(cpu_kernels_dot_any_shape),
        cmocka_unit_test(cpu_kernels_mix_any_shape),
        cmocka_unit_test(cpu_kernels_exp_is_accurate),
        cmocka_unit_test(cpu_kernels_softcap_is_accurate),
        cmocka_unit_test(cpu_kernels_gelu_is_accurate),
        cmocka_unit_test(cpu_kernels_softmax_lanes_and_row),
        cmocka_unit_test(cpu_kernels_softmax_of_nonsense),
    };
    return cmocka_run_group_tests_name("cpu_kernels", tests, NULL, NULL);
}
