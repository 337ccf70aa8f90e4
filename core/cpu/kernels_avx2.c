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
#define ROWS      4
#define NF4_ROWS  2
#define TABLE     pali_kernels_avx2
#define NAME      "AVX2"

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
typedef int16_t vs __attribute__((vector_size(32)));
typedef float vf_any __attribute__((vector_size(32), aligned(1), may_alias));

static inline vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
static inline vf v_max(vf a, vf b) {
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
static inline vf v_half(const void *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128(p));
}
static inline vf v_bf16(const void *p) {
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16);
}
static inline float v_sum(vf x) {
    __m128 q = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

static inline vs v_from8(const void *p) {
    return (vs)_mm256_cvtepi8_epi16(_mm_loadu_si128(p));
}
static inline vi v_from8_32(const void *p) {
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64(p));
}
static inline vi v_from8u_32(const void *p) {
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64(p));
}
static inline vi v_mac16(vi acc, vs a, vs b) {
    return acc + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
static inline vf v_look8(const float *t, vi i) {
    return (vf)_mm256_permutevar8x32_ps(_mm256_loadu_ps(t), (__m256i)i);
}
static inline vf v_pick(vf s, int j) {
    return (vf)_mm256_permutevar8x32_ps((__m256)s, _mm256_set1_epi32(j));
}
static inline vf v_look16(vi i) {
    __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32((__m256i)i, 28)); /* bit 3 as sign */
    return (vf)_mm256_blendv_ps((__m256)v_look8(pali_nf4_code, i),
                                (__m256)v_look8(pali_nf4_code + 8, i), high);
}

/* Low and high bytes of the values are looked up apart, and interleaved: the second codes
 * of the bytes (0-7 and 16-23, then 8-15 and 24-31), then the first. */
static inline void nf4_expand(const unsigned char *p, vs out[4]) {
    const __m256i four = _mm256_set1_epi8(15);
    __m256i t = _mm256_loadu_si256((const void *)pali_nf4_q16),
            w = _mm256_loadu_si256((const void *)p);
    /* low bytes of the 16 words in one half, high bytes in the other; each then in both */
    t = _mm256_shuffle_epi8(t,
                            _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,
                                             0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    __m256i low = _mm256_permute4x64_epi64(t, 0x88), high = _mm256_permute4x64_epi64(t, 0xdd);
    for (int half = 0; half < 2; half++) {
        __m256i i = _mm256_and_si256(half ? _mm256_srli_epi16(w, 4) : w, four);
        __m256i a = _mm256_shuffle_epi8(low, i), b = _mm256_shuffle_epi8(high, i);
        out[2 * half] = (vs)_mm256_unpacklo_epi8(a, b);
        out[2 * half + 1] = (vs)_mm256_unpackhi_epi8(a, b);
    }
}
static inline int nf4_element(int v, int i) {
    return 2 * (i / 8 * 16 + i % 8 + v % 2 * 8) + (v < 2);
}

#include "core/cpu/simd.h"
#endif
