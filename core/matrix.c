/* matrix.c - elements of a matrix of any dtype as float32: the plain reading that every
 * faster one is tested against.                                                      */
#include "core/quant.h"

#include <assert.h>
#include <string.h>

static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static float from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31) /* infinity, NaN */
        return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent) /* biases are 127 and 15 */
        return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float small = (float)mantissa * 0x1p-24f; /* zero or subnormal: exact in float32 */
    return sign ? -small : small;
}

static void read_int8(const pali_matrix *m, size_t from, size_t n, float *out) {
    const signed char *code = (const signed char *)m->data + from;
    size_t cols = (size_t)m->cols;
    for (size_t i = 0; i < n; i++)
        out[i] = (float)code[i] * m->scales[(from + i) / cols] * PALI_INT8_STEP;
}

static void read_nf4(const pali_matrix *m, size_t from, size_t n, float *out) {
    const unsigned char *codes = m->data;
    for (size_t i = from; i < from + n; i++) {
        int code = i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
        out[i - from] = pali_nf4_code[code] * pali_nf4_scale(m, i / PALI_NF4_BLOCK);
    }
}

void pali_matrix_read(const pali_matrix *m, size_t from, size_t n, float *out) {
    assert(from <= (size_t)m->rows * (size_t)m->cols);
    assert(n <= (size_t)m->rows * (size_t)m->cols - from);
    const unsigned char *p = m->data;
    uint16_t h;
    switch (m->dtype) {
    case PALI_F32:
        memcpy(out, p + from * 4, n * 4);
        break;
    case PALI_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + (from + i) * 2, 2);
            out[i] = from_bits((uint32_t)h << 16);
        }
        break;
    case PALI_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + (from + i) * 2, 2);
            out[i] = from_f16(h);
        }
        break;
    case PALI_INT8:
        read_int8(m, from, n, out);
        break;
    case PALI_NF4:
        read_nf4(m, from, n, out);
        break;
    case PALI_I8:
    case PALI_U8:
    case PALI_DTYPE_OTHER:
        assert(!"such a tensor never becomes a matrix");
    }
}
