/* vector_avx512.h - what simd.h and simd_quant.h ask of an instruction set, for AVX-512 F, BW,
 * VL and DQ, and VNNI when it is enabled: a step of an integer product is then one
 * instruction instead of two. Each kernels_avx512*.c includes this once.                 */
#include <immintrin.h>
#include <stdint.h>

enum {
    VN = 16
};
#define TILE_ROWS 12 /* 24 accumulators, 2 of x, 1 of w: 27 of 32 registers */
#define ROWS      8
#define NF4_ROWS  4

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef int16_t vs __attribute__((vector_size(64)));
typedef float vf_any __attribute__((vector_size(64), aligned(1), may_alias));

static inline vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
static inline vf v_max(vf a, vf b) {
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
static inline vf v_half(const void *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256(p));
}
/* Not by __builtin_convertvector, which gcc 12 does in two halves: five instructions for one. */
static inline vf v_bf16(const void *p) {
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16);
}
static inline float v_sum(vf x) {
    __m512 v = (__m512)x;
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

static inline vs v_from8(const void *p) {
    return (vs)_mm512_cvtepi8_epi16(_mm256_loadu_si256(p));
}
static inline vi v_from8_32(const void *p) {
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128(p));
}
static inline vi v_from8u_32(const void *p) {
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}
static inline vi v_mac16(vi acc, vs a, vs b) {
#ifdef __AVX512VNNI__
    return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#else
    return acc + (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#endif
}
static inline vf v_pick(vf s, int j) {
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i i = _mm512_srli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(VN * j)), 3);
    return (vf)_mm512_permutexvar_ps(i, (__m512)s);
}
static inline vf v_look16(vi i) {
    return (vf)_mm512_permutexvar_ps((__m512i)i, _mm512_loadu_ps(pali_nf4_code));
}
static inline vf v_look8(const float *t, vi i) {
    return (vf)_mm512_permutexvar_ps((__m512i)i, _mm512_broadcast_f32x8(_mm256_loadu_ps(t)));
}

/* A 16-bit word holds four codes. The permutation looks at five bits of an index, so the
 * table stands there twice and nothing needs masking. Lowest bits first: the second code
 * of the first byte, its first, then the second byte's. */
static inline void nf4_expand(const unsigned char *p, vs out[4]) {
    __m512i w = _mm512_loadu_si512(p);
    __m512i t = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)pali_nf4_q16));
    out[0] = (vs)_mm512_permutexvar_epi16(w, t);
    out[1] = (vs)_mm512_permutexvar_epi16(_mm512_srli_epi16(w, 4), t);
    out[2] = (vs)_mm512_permutexvar_epi16(_mm512_srli_epi16(w, 8), t);
    out[3] = (vs)_mm512_permutexvar_epi16(_mm512_srli_epi16(w, 12), t);
}
static inline int nf4_element(int v, int i) {
    return 4 * i + (v ^ 1);
}
