/* kernels_avx512.c - the kernels for x86 with AVX-512 F, BW, VL and DQ; compiled with
 * them enabled, run only where the processor has them. */
#include "core/cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

enum {
    VN = 16
};
#define TILE_ROWS 12 /* 24 accumulators, 2 of x, 1 of w: 27 of 32 registers */
#define TABLE     pali_kernels_avx512
#define NAME      "AVX-512"

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef float vf_any __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(32), aligned(1), may_alias));

static inline vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
static inline vf v_max(vf a, vf b) {
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
static inline vf v_half(const void *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256(p));
}

#include "core/cpu/simd.h"
#endif
