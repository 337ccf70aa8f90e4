/* kernels_neon.c - the kernels for 64-bit ARM: NEON with fused multiply-add and conversion of
 * halves, all of it in the first version of that architecture. Proven under an emulator
 * (make check-arm) and never timed on a chip: what is said of speed is what the instructions
 * promise, not a measurement.                                                             */
#include "core/cpu/kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

enum {
    VN = 4
};
#define TILE_ROWS 12 /* 24 accumulators, 2 of x, 1 of w: 27 of 32 registers */
#define ROWS      8
#define NF4_ROWS  4
#define TABLE     pali_kernels_neon
#define NAME      "NEON"

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef int16_t vs __attribute__((vector_size(16)));
typedef float vf_any __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t vh_any __attribute__((vector_size(8), aligned(1), may_alias));

static inline vf v_fma(vf a, vf b, vf c) {
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
static inline vf v_max(vf a, vf b) {
    return (vf)vbslq_f32((uint32x4_t)(a > b), (float32x4_t)a, (float32x4_t)b);
}
static inline vf v_half(const void *p) {
    return (vf)vcvt_f32_f16((float16x4_t) * (const vh_any *)p);
}
static inline vf v_bf16(const void *p) {
    return (vf)(__builtin_convertvector(*(const vh_any *)p, vu) << 16);
}
static inline float v_sum(vf x) {
    float32x2_t h = vadd_f32(vget_low_f32((float32x4_t)x), vget_high_f32((float32x4_t)x));
    return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}

static inline vs v_from8(const void *p) {
    return (vs)vmovl_s8(vld1_s8(p));
}
static inline vi v_from8_32(const void *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return (vi)vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
static inline vi v_from8u_32(const void *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return (vi)vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
static inline vi v_mac16(vi acc, vs a, vs b) {
    int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return (vi)vmlal_high_s16(vmlal_s16((int32x4_t)acc, vget_low_s16(x), vget_low_s16(y)), x, y);
}
static inline vf v_pick(vf s, int j) {
    return s[j / 2] - (vf){0};
}

/* Tables of floats are looked up byte by byte: 4 i, 4 i + 1, 4 i + 2, 4 i + 3. */
static inline uint8x16_t bytes_of(vi i) {
    return (uint8x16_t)(i * 0x04040404 + 0x03020100);
}
static inline vf v_look16(vi i) {
    return (vf)vqtbl4q_u8(vld1q_u8_x4((const uint8_t *)pali_nf4_code), bytes_of(i & 15));
}
static inline vf v_look8(const float *t, vi i) {
    return (vf)vqtbl2q_u8(vld1q_u8_x2((const uint8_t *)t), bytes_of(i & 7));
}

/* Low and high bytes of the values are looked up apart, and interleaved: the first codes of
 * the bytes, then the second. */
static inline void nf4_expand(const unsigned char *p, vs out[4]) {
    const uint8x16x2_t t = vld2q_u8((const uint8_t *)pali_nf4_q16);
    uint8x16_t w = vld1q_u8(p);
    for (int half = 0; half < 2; half++) {
        uint8x16_t i = half ? vandq_u8(w, vdupq_n_u8(15)) : vshrq_n_u8(w, 4);
        uint8x16_t a = vqtbl1q_u8(t.val[0], i), b = vqtbl1q_u8(t.val[1], i);
        out[2 * half] = (vs)vzip1q_u8(a, b);
        out[2 * half + 1] = (vs)vzip2q_u8(a, b);
    }
}
static inline int nf4_element(int v, int i) {
    return 2 * (v % 2 * 8 + i) + v / 2;
}

#include "core/cpu/simd.h"
#endif
