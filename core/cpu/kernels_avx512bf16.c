/* kernels_avx512bf16.c - AVX-512 with VNNI and products of bfloat16: VDPBF16PS multiplies two pairs
 * a lane and adds them in float32, on AMD's processors twice the rate of float32's multiply-add
 * (on Intel's half of it: kernels.c), and weights stored as bfloat16 need no widening. The other side is rounded to bfloat16, as it is
 * in a model that runs in that dtype; that is why this is a choice (model.h).          */
#include "core/cpu/kernels.h"

#if defined(__x86_64__)
#define TABLE      pali_kernels_avx512bf16
#define NAME       "AVX-512 BF16"
#define PACK_PAIRS pack_pairs
#define TILE_PAIRS tile_pairs
#define NARROW     narrow
#define PAIR_ROWS  TILE_ROWS
#include "core/cpu/vector_avx512.h"

/* a * b of both halves of each lane, plus c. */
static inline vf v_dot_pairs(vu a, vu b, vf c) {
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}
static void pack_pairs(int k, const float *x, uint32_t *out);
static void tile_pairs(int rows, int used, int pairs, const uint32_t *w, size_t rs,
                       const uint32_t *x, float *c, bool add);
static void narrow(size_t n, const float *x, uint32_t *out);

#include "core/cpu/simd.h"

#include "core/cpu/pairs_avx512.h"

/* As tile_body, a pair of columns at a time. */
INLINE void pairs_body(int rows, int nv, int pairs, const uint32_t *w, size_t rs, const uint32_t *x,
                       float *c, bool add) {
    vf acc[TILE_ROWS][2];
    const uint32_t *p[(TILE_ROWS + 2) / 3];
    UNROLL for (int r = 0; r < rows; r++) {
        acc[r][0] = acc[r][1] = (vf){0};
    }
    UNROLL for (int g = 0; g * 3 < rows; g++) {
        p[g] = w + (size_t)g * 3 * rs;
    }
    for (int i = 0; i < pairs; i++) {
        vu x0 = (vu)v_load(x), x1 = nv > 1 ? (vu)v_load(x + VN) : x0;
        UNROLL for (int r = 0; r < rows; r++) {
            vu b = p[r / 3][(size_t)(r % 3) * rs] - (vu){0};
            acc[r][0] = v_dot_pairs(b, x0, acc[r][0]);
            if (nv > 1)
                acc[r][1] = v_dot_pairs(b, x1, acc[r][1]);
        }
        x += LANES;
        UNROLL for (int g = 0; g * 3 < rows; g++) {
            p[g]++;
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < nv; v++) {
            float *d = c + r * LANES + v * VN;
            v_store(d, add ? v_load(d) + acc[r][v] : acc[r][v]);
        }
    }
}

#define PAIRS_CASE(n)                                                                              \
    case n:                                                                                        \
        if (used > VN)                                                                             \
            pairs_body(n, 2, pairs, w, rs, x, c, add);                                             \
        else                                                                                       \
            pairs_body(n, 1, pairs, w, rs, x, c, add);                                             \
        break;

static void tile_pairs(int rows, int used, int pairs, const uint32_t *w, size_t rs,
                       const uint32_t *x, float *c, bool add) {
    switch (rows) {
        PAIRS_CASE(1)
        PAIRS_CASE(2)
        PAIRS_CASE(3)
        PAIRS_CASE(4)
        PAIRS_CASE(5)
        PAIRS_CASE(6)
        PAIRS_CASE(7)
        PAIRS_CASE(8)
        PAIRS_CASE(9)
        PAIRS_CASE(10)
        PAIRS_CASE(11)
        PAIRS_CASE(12)
    }
}
#endif
