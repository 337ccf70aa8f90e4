/* common.cuh - what every kernel file shares: the two 16-bit types under one name, sums
 * over a warp and a block, activations.                                             */
#ifndef PALI_GPU_COMMON_CUH
#define PALI_GPU_COMMON_CUH

#include "gpu/kernels.h"

enum {
    WARP = 32,
    BLOCK = 256,
    WARPS = BLOCK / WARP
};
#define ALL_LANES 0xffffffffu

/* Arrays live in registers only when every loop over them is unrolled. */
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

/* Runs CALL with T as the type that `half` names. */
#define WITH_HALF(half, ...)                                                                       \
    do {                                                                                           \
        if ((half) == HALF_F16) {                                                                  \
            typedef f16 T;                                                                         \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            typedef bf16 T;                                                                        \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

__device__ __forceinline__ float widen(bf16 x) {
    return bf16_to_float(x);
}
__device__ __forceinline__ float widen(f16 x) {
    return f16_to_float(x);
}

__device__ __forceinline__ void narrow(float x, bf16 *out) {
    *out = float_to_bf16(x);
}
/* f16 ends at 65504: past it the largest number is nearer to the truth than infinity. */
__device__ __forceinline__ void narrow(float x, f16 *out) {
    *out = float_to_f16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

/* Two elements of a 32-bit word. */
__device__ __forceinline__ float2 widen2(uint32_t w, const bf16 *) {
    return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
}
__device__ __forceinline__ float2 widen2(uint32_t w, const f16 *) {
    f16 lo, hi;
    lo.bits = (uint16_t)w;
    hi.bits = (uint16_t)(w >> 16);
    return make_float2(f16_to_float(lo), f16_to_float(hi));
}

/* Eight elements of a 128-bit load. */
template <typename T> __device__ __forceinline__ void widen8(uint4 w, float *out) {
    const T *tag = NULL;
    float2 a = widen2(w.x, tag), b = widen2(w.y, tag), c = widen2(w.z, tag), d = widen2(w.w, tag);
    out[0] = a.x, out[1] = a.y, out[2] = b.x, out[3] = b.y;
    out[4] = c.x, out[5] = c.y, out[6] = d.x, out[7] = d.y;
}

/* The sum in every lane, always in the same order. */
__device__ __forceinline__ float warp_sum(float x) {
    for (int m = WARP / 2; m > 0; m /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, m);
    return x;
}

/* The sum over a block of BLOCK threads in every thread. scratch: WARPS floats of shared
 * memory, free again when every thread has passed another __syncthreads. */
__device__ __forceinline__ float block_sum(float x, float *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_sum(x);
    if (lane == 0)
        scratch[warp] = x;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < WARPS; i++)
        sum += scratch[i];
    return sum;
}

/* The tanh form, as Gemma and SigLIP have it. */
__device__ __forceinline__ float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

__device__ __forceinline__ float softcap(float x, float cap) {
    return cap > 0 ? cap * tanhf(x / cap) : x;
}

static inline int ceil_div(int64_t a, int64_t b) {
    return (int)((a + b - 1) / b);
}

#endif
