/* kernels_avx2.c - the kernels for x86 with AVX2, FMA and F16C; compiled with them
 * enabled, run only where the processor has them. */
#include "core/cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

enum {
    VN = 8
};
#define TILE_ROWS 6 /* 12 accumulators, 2 of x, 1 of w: 15 of 16 registers */
#define TABLE     pali_kernels_avx2
#define NAME      "AVX2"

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
typedef float vf_any __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(16), aligned(1), may_alias));

static inline vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
static inline vf v_max(vf a, vf b) {
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
static inline vf v_half(const void *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128(p));
}

#include "core/cpu/simd.h"
#endif
