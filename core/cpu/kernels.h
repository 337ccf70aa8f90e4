/* kernels.h - the innermost loops of the CPU backend, one table per instruction set.
 *
 * simd.h holds the one text of all of them; kernels.c and kernels_neon.c, kernels_avx2.c
 * kernels_avx512*.c and kernels_amx.c compile it for 4, 8 and 16 floats a vector, and
 * pali_kernels_pick chooses what this processor can run. Everything accumulates
 * in float32.
 *
 * Strips. Activations of many tokens lie in strips of `lanes` tokens, feature
 * by feature: element (token t, feature d) of a matrix with D features is
 *     strip[(t / lanes * D + d) * lanes + t % lanes].
 * A vector then holds one feature of neighbouring tokens. Matrix products need
 * no transposed copy of either side, and sums over features (norms, softmax over
 * keys) are plain vector additions.                                           */
#ifndef PALI_CPU_KERNELS_H
#define PALI_CPU_KERNELS_H

#include "core/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;
    int lanes; /* tokens of a strip: two vectors */
    int rows;  /* most rows of one tile; a multiple of 6 */

    /* c[r][lane] = (add ? c[r][lane] : 0) + sum over i < k of w[r * rs + i * cs] * x[i][lane]
     * for r < rows. x and c have rows of `lanes` floats. Only the first `used` lanes
     * are asked for: when they fit one vector, only that is computed. */
    void (*tile)(int rows, int used, int k, const float *w, size_t rs, size_t cs, const float *x,
                 float *c, bool add);

    /* tile with both sides in bfloat16 and the sums in float32, pair_rows rows at most; NULL where
     * the processor has no products of bfloat16. Pairs of columns go together: pack_pairs rounds k columns (an
     * even number) of x to out [k / 2][lanes] pairs, the first column in the low half; a
     * row of w is its bfloat16 elements as they lie, rs pairs from the next; narrow rounds n
     * floats to such elements. */
    void (*pack_pairs)(int k, const float *x, uint32_t *out);
    void (*tile_pairs)(int rows, int used, int pairs, const uint32_t *w, size_t rs,
                       const uint32_t *x, float *c, bool add);
    void (*narrow)(size_t n, const float *x, uint32_t *out);
    int pair_rows;

    /* dst[i] = src[i], n elements of dtype at any alignment. */
    void (*widen)(pali_dtype dtype, const void *src, size_t n, float *dst);

    /* dst[i] = element from + i of m, of any dtype: pali_matrix_read, faster. */
    void (*read)(const pali_matrix *m, size_t from, size_t n, float *dst);

    /* y[r] = sum over i < n of w[r][i] * x[i], rows ld bytes apart, any alignment. A
     * row's sum does not depend on which rows are asked for with it. */
    void (*dot)(pali_dtype dtype, const void *w, size_t ld, int rows, size_t n, const float *x,
                float *y);

    /* For products with quantised weights, n a multiple of 64: x = scale[i / 64] * q[i] within
     * scale / 2, |q| <= PALI_Q16, in the order that dot_int8 or dot_nf4 of the same table
     * reads. q and scale have room for pali_room16(n) and a 64th of it. */
    void (*round16)(size_t n, const float *x, pali_dtype dtype, int16_t *q, float *scale);
    /* y[r] = sum of row (row + r) of m times x, m->cols a multiple of 64. */
    void (*dot_int8)(const pali_matrix *m, int row, int rows, const int16_t *q, const float *scale,
                     float *y);
    void (*dot_nf4)(const pali_matrix *m, int row, int rows, const int16_t *q, const float *scale,
                    float *y);

    /* out[e] = sum over i < keys of p[i] * v[i * ld + e], e < n. */
    void (*mix)(size_t keys, size_t n, const float *p, const float *v, size_t ld, float *out);

    void (*exp)(size_t n, float *x);                                     /* x = e^x */
    void (*gelu)(size_t n, float *x);                                    /* tanh form */
    void (*geglu)(size_t n, const float *g, const float *u, float *out); /* gelu(g) * u */
    void (*softcap)(size_t n, float cap, float *x); /* x = cap * tanh(x / cap) */

    /* s[key][lane] = exp(z - max over keys of z), z = softcap(s * scale) (cap 0: no cap),
     * and inv[lane] = 1 / sum over keys, for the vectors that hold the first `used` lanes. */
    void (*softmax_lanes)(size_t keys, int used, float scale, float cap, float *s, float *inv);
    /* The same along one row of n scores, divided by their sum. */
    void (*softmax_row)(size_t n, float scale, float cap, float *s);
} pali_kernels;

enum {
    PALI_Q16 = 16383 /* 8 products of two such numbers fit an int32, 9 do not */
};
extern const int16_t pali_nf4_q16[16]; /* pali_nf4_code in units of 1 / PALI_Q16 */
static inline size_t pali_room16(size_t n) {
    return (n + 1023) / 1024 * 1024;
}

/* The fastest table this processor can run. */
const pali_kernels *pali_kernels_pick(void);

/* All that this processor can run, slowest first; NULL from i = their number on. */
const pali_kernels *pali_kernels_at(int i);

extern const pali_kernels pali_kernels_plain, pali_kernels_avx2, pali_kernels_avx512,
    pali_kernels_avx512vnni, pali_kernels_avx512bf16, pali_kernels_amx, pali_kernels_neon;

#endif
