/* Codes, scales and values of quantised matrices, bit for bit those of bitsandbytes
 * (tests/reference/quant.py made the golden); awkward input; sizes. */
#include "tests/test.h"

#include "core/quant.h"

#include <math.h>
#include <strings.h>

/* A quantised matrix in memory of its own; exact bounds for the sanitizers. */
typedef struct {
    unsigned char *base;
    pali_quant_parts q;
    pali_matrix m;
} quantised;

static quantised quantise(const pali_matrix *src, pali_dtype dtype) {
    quantised z;
    size_t n = pali_quant_bytes(dtype, src->rows, src->cols);
    assert_true(n > 0 && n % PALI_QUANT_ALIGN == 0);
    z.base = aligned_alloc(PALI_QUANT_ALIGN, n);
    assert_non_null(z.base);
    memset(z.base, 0xAA, n);
    z.q = pali_quant_place(dtype, src->rows, src->cols, z.base);
    pali_error err = {0};
    assert_ok(pali_quantize(src, &z.q, &err), err);
    z.m = pali_quant_matrix(&z.q);
    return z;
}

static uint32_t crc32_of(const void *data, size_t n) {
    const unsigned char *p = data;
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
    }
    return ~c;
}

/* CRC of the matrix as pali_matrix_read gives it, in pieces of odd length. */
static uint32_t crc32_read(const pali_matrix *m) {
    size_t n = (size_t)m->rows * (size_t)m->cols;
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t at = 0, step; at < n; at += step) {
        step = n - at < 77 ? n - at : 77;
        pali_matrix_read(m, at, step, x + at);
    }
    uint32_t c = crc32_of(x, n * sizeof *x);
    free(x);
    return c;
}

/* --- the golden ----------------------------------------------------------------- */

typedef struct {
    char *base;
    const char *p, *end;
} golden;

static golden golden_open(void) {
    FILE *f = fopen(TEST_DATA "quant/quant.golden", "rb");
    assert_non_null(f);
    golden g;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size_t n = (size_t)ftell(f);
    rewind(f);
    g.base = malloc(n);
    assert_non_null(g.base);
    assert_int_equal(fread(g.base, 1, n, f), n);
    fclose(f);
    g.p = g.base;
    g.end = g.base + n;
    return g;
}

static const void *take(golden *g, size_t n) {
    assert_true((size_t)(g->end - g->p) >= n);
    g->p += n;
    return g->p - n;
}

/* Compares n bytes of a part and says which element of which case differs first. */
static void same(golden *g, const char *name, const char *part, const void *got, size_t n,
                 size_t size) {
    const unsigned char *a = take(g, n), *b = got;
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            fail_msg("%s: %s %zu of %zu differs", name, part, i / size, n / size);
}

/* The float32 top of a block, as pali_nf4_codes leaves it. */
static void check_nf4(golden *g, const char *name, const pali_matrix *src) {
    quantised z = quantise(src, PALI_NF4);
    size_t n = (size_t)src->rows * (size_t)src->cols;
    assert_int_equal(z.q.blocks, (n + 63) / 64);
    assert_int_equal(z.q.groups, (n + 16383) / 16384);
    float *absmax = malloc(z.q.blocks * sizeof *absmax);
    assert_non_null(absmax);
    for (size_t i = pali_quant_pieces(&z.q); i-- > 0;) /* any order */
        pali_nf4_codes(src, i, &z.q, absmax);
    same(g, name, "absmax", absmax, z.q.blocks * sizeof *absmax, sizeof *absmax);
    same(g, name, "NF4 code pair", z.q.codes, (n + 1) / 2, 1);
    same(g, name, "offset", z.q.scales + z.q.groups, sizeof(float), sizeof(float));
    same(g, name, "scale of a group", z.q.scales, z.q.groups * sizeof(float), sizeof(float));
    same(g, name, "scale code", z.q.scale_codes, z.q.blocks, 1);
    uint32_t want;
    memcpy(&want, take(g, 4), 4);
    assert_int_equal(crc32_read(&z.m), want);
    free(absmax);
    free(z.base);
}

static void check_int8(golden *g, const char *name, const pali_matrix *src) {
    quantised z = quantise(src, PALI_INT8);
    size_t rows = (size_t)src->rows, n = rows * (size_t)src->cols;
    same(g, name, "scale of a row", z.q.scales, rows * sizeof(float), sizeof(float));
    same(g, name, "int8 code", z.q.codes, n, 1);
    uint32_t want;
    memcpy(&want, take(g, 4), 4);
    assert_int_equal(crc32_read(&z.m), want);
    free(z.base);
}

static void quant_equals_bitsandbytes(void **unused) {
    (void)unused;
    golden g = golden_open();
    int count = 0;
    while (g.p < g.end) {
        char name[32], dtype[8];
        pali_matrix src = {.dtype = PALI_DTYPE_OTHER};
        int used = 0;
        const char *line = memchr(g.p, '\n', (size_t)(g.end - g.p));
        assert_non_null(line);
        assert_int_equal(sscanf(g.p, "%31s %7s %d %d%n", name, dtype, &src.rows, &src.cols, &used),
                         4);
        assert_ptr_equal(g.p + used, line);
        g.p = line + 1;
        for (pali_dtype d = PALI_F32; d <= PALI_F16; d++)
            if (strcasecmp(dtype, pali_dtype_name(d)) == 0)
                src.dtype = d;
        assert_int_not_equal(src.dtype, PALI_DTYPE_OTHER);
        src.data = take(&g, (size_t)src.rows * (size_t)src.cols * pali_dtype_size(src.dtype));
        check_int8(&g, name, &src);
        check_nf4(&g, name, &src);
        count++;
    }
    assert_int_equal(count, 12);
    free(g.base);
}

/* --- tables ------------------------------------------------------------------------ */

static void quant_tables_are_the_published_ones(void **unused) {
    (void)unused;
    double map[256];
    int n = 0;
    for (int i = 0; i < 7; i++)
        for (int k = 0; k < 1 << i; k++) {
            double middle = 0.1 + 0.9 * (k + 0.5) / (1 << i);
            map[n++] = middle * pow(10, i - 6);
            map[n++] = -middle * pow(10, i - 6);
        }
    map[n++] = 0;
    map[n++] = 1;
    assert_int_equal(n, 256);
    for (int i = 0; i < 256; i++) {
        int below = 0;
        for (int k = 0; k < 256; k++)
            below += map[k] < map[i];
        /* bitsandbytes computes it in float32: 6e-8 seen; neighbours are 1 % apart */
        assert_true(fabs((double)pali_nf4_map[below] - map[i]) <= 1e-6 * fabs(map[i]));
    }
    assert_int_equal(crc32_of(pali_nf4_map, sizeof pali_nf4_map), 0x1b137aebu);
    assert_int_equal(crc32_of(pali_nf4_code, sizeof pali_nf4_code), 0xc471f81au);
}

/* --- awkward input ------------------------------------------------------------------ */

static void quant_survives_what_is_no_number(void **unused) {
    (void)unused;
    float w[2 * 96];
    for (int i = 0; i < 2 * 96; i++)
        w[i] = (float)(i % 7) - 3;
    w[5] = NAN;
    w[70] = -NAN;
    w[100] = INFINITY;
    w[101] = 1e30f;
    w[102] = -70000;
    pali_matrix src = {.dtype = PALI_F32, .rows = 2, .cols = 96, .data = w};
    quantised a = quantise(&src, PALI_INT8), b = quantise(&src, PALI_NF4);
    float x[2 * 96];
    pali_matrix_read(&a.m, 0, 2 * 96, x);
    for (int i = 0; i < 2 * 96; i++)
        assert_true(isfinite(x[i]));
    assert_float_equal(a.q.scales[1], 65504, 0);
    assert_float_equal(x[100], 65504, 0.01);
    assert_float_equal(x[102], -65504, 0.01);
    pali_matrix_read(&b.m, 0, 2 * 96, x);
    free(a.base);
    free(b.base);
}

static void quant_of_zeros_is_zero(void **unused) {
    (void)unused;
    static const uint16_t w[3 * 50];
    pali_matrix src = {.dtype = PALI_BF16, .rows = 3, .cols = 50, .data = w};
    for (pali_dtype d = PALI_INT8; d <= PALI_NF4; d++) {
        quantised z = quantise(&src, d);
        float x[3 * 50];
        pali_matrix_read(&z.m, 0, 3 * 50, x);
        for (int i = 0; i < 3 * 50; i++)
            assert_true(x[i] == 0);
        assert_int_equal(z.q.codes[0], d == PALI_NF4 ? 0x77 : 0);
        assert_int_equal(z.q.codes[74], d == PALI_NF4 ? 0x77 : 0);
        free(z.base);
    }
}

static void quant_sizes_are_checked(void **unused) {
    (void)unused;
    assert_int_equal(pali_quant_bytes(PALI_INT8, 3, 100), 512 + 256);
    assert_int_equal(pali_quant_bytes(PALI_NF4, 3, 100), 256 + 256 + 256);
    assert_int_equal(pali_quant_bytes(PALI_NF4, 16384, 2048),
                     16384u * 2048 / 2 + 16384u * 2048 / 64 + 2048 * 4 + 256);
    assert_int_equal(pali_quant_bytes(PALI_BF16, 3, 100), 0);
    assert_int_equal(pali_quant_bytes(PALI_NF4, 0, 100), 0);
    assert_int_equal(pali_quant_bytes(PALI_INT8, 3, -1), 0);
    size_t most = pali_quant_bytes(PALI_INT8, INT32_MAX, INT32_MAX);
    assert_true(most > (size_t)INT32_MAX * INT32_MAX); /* fits 64 bits, just */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quant_equals_bitsandbytes),
        cmocka_unit_test(quant_tables_are_the_published_ones),
        cmocka_unit_test(quant_survives_what_is_no_number),
        cmocka_unit_test(quant_of_zeros_is_zero),
        cmocka_unit_test(quant_sizes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
