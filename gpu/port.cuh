/* port.cuh - the CUDA that gpu/ is written in: included first by every .cu file.
 *
 * One source, two compilers. nvcc makes the plugin; g++ with tests/emu makes the same
 * code run on a CPU, one fiber per CUDA thread, which is how it is tested where there
 * is no GPU. Kernels therefore use plain CUDA C++ and nothing that is not here:
 *   - no inline PTX outside this file, no cooperative groups, no cub, no cuda_bf16.h;
 *   - shared memory only dynamic, through PALI_SHARED (the emulator poisons it);
 *   - no waiting for another block (the emulator runs blocks one after another); the
 *     last block may merge, found by an atomic counter;
 *   - no atomics on floats: sums would differ from run to run;
 *   - launches only through PALI_LAUNCH.                                            */
#ifndef PALI_GPU_PORT_CUH
#define PALI_GPU_PORT_CUH

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "emu.h"
#endif

typedef struct {
    uint16_t bits;
} bf16;
typedef struct {
    uint16_t bits;
} f16;

/* --- launches, shared memory, programmatic dependent launch ------------------------ */

#ifdef __CUDACC__
template <class... P, class... A>
static inline cudaError_t pali_launch(bool early, void (*kernel)(P...), dim3 grid, dim3 block,
                                      size_t shared, cudaStream_t stream, A... args) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    cudaLaunchAttribute start = {};
    start.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    start.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &start;
    config.numAttrs = early ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}
/* Starts kernel; the value is the cudaError_t of the launch. */
#define PALI_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    pali_launch(false, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)
/* The same, and when early is true the kernel may start while the one before it in the stream
 * runs (compute capability 9.0): it must call pdl_wait in every thread. */
#define PALI_LAUNCH_EARLY(early, kernel, grid, block, shared_bytes, stream, ...)                   \
    pali_launch(early, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

/* Declares `type *name`, the block's dynamic shared memory (its start, every time). */
#define PALI_SHARED(type, name)                                                                    \
    extern __shared__ __align__(16) unsigned char pali_shared_bytes[];                             \
    type *name = reinterpret_cast<type *>(pali_shared_bytes)

/* Blocks until the kernels before this one in the stream have finished and what they wrote is
 * seen. Before it a kernel may touch weights only. Every thread calls it, so that the kernel
 * behind this one, which waits for this one alone, waits for all. No effect on a launch that
 * is not early. */
static __device__ __forceinline__ void pdl_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* The next kernel may start when every block has got here or returned. */
static __device__ __forceinline__ void pdl_trigger() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
#else
#define PALI_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    emu_launch(#kernel, emu_site::here(), kernel, grid, block, shared_bytes, stream, false,        \
               ##__VA_ARGS__)
#define PALI_LAUNCH_EARLY(early, kernel, grid, block, shared_bytes, stream, ...)                   \
    emu_launch(#kernel, emu_site::here(), kernel, grid, block, shared_bytes, stream, early,        \
               ##__VA_ARGS__)
#define PALI_SHARED(type, name) type *name = static_cast<type *>(emu_shared(alignof(type)))
static inline void pdl_wait(emu_site site = emu_site::here()) {
    emu_wait_for_kernel(site);
}
static inline void pdl_trigger() {
}
#endif

/* --- loads -------------------------------------------------------------------------- */

/* Brings the 128 bytes at p towards the chip. */
static __device__ __forceinline__ void prefetch128(const void *p) {
#ifdef __CUDACC__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
    emu_touch(p);
#endif
}

/* 16 bytes; p must be 16-aligned. */
static __device__ __forceinline__ uint4 load128(const void *p) {
#ifdef __CUDACC__
    return *static_cast<const uint4 *>(p);
#else
    return emu_load128(p);
#endif
}

/* 16 bytes of memory that nobody writes while the kernel runs; p must be 16-aligned. */
static __device__ __forceinline__ uint4 ldg128(const void *p) {
#ifdef __CUDACC__
    return __ldg(static_cast<const uint4 *>(p));
#else
    return emu_load128(p);
#endif
}

/* --- tensor cores ---------------------------------------------------------------------- */

/* Sixteen bytes from device to shared memory, both 16-aligned, there after copy_async_wait of
 * the same thread; zeros when `there` is false. Compute capability 8.0, like all below. */
static __device__ __forceinline__ void copy_async16(void *shared, const void *from, bool there) {
#ifndef __CUDACC__
    emu_copy_async(shared, from, there);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(shared)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
#endif
}
static __device__ __forceinline__ void copy_async_wait() {
#ifndef __CUDACC__
    emu_copy_wait();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/* Four 8 x 8 matrices of 16-bit elements in shared memory: lanes 8i .. 8i + 7 point to the rows
 * of matrix i. out[i]: the two elements 2 (lane % 4) of its row lane / 4; turned: of the row
 * of its transpose. */
static __device__ __forceinline__ void ldmatrix(uint32_t *out, const void *row) {
#ifndef __CUDACC__
    emu_ldmatrix(out, row, false);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}
static __device__ __forceinline__ void ldmatrix_turned(uint32_t *out, const void *row) {
#ifndef __CUDACC__
    emu_ldmatrix(out, row, true);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* c[16][8] += a[16][16] b[8][16]', spread over a warp: with g = lane / 4, t = lane % 4, c has
 * elements (g, 2t), (g, 2t + 1), (g + 8, ..), (g + 8, ..); a has pairs (g, 2t), (g + 8, 2t),
 * (g, 2t + 8), (g + 8, 2t + 8); b has pairs (g, 2t), (g, 2t + 8). The tag is NULL. */
#define PALI_MMA(type)                                                                             \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, "           \
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                            \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                           \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
static __device__ __forceinline__ void mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1,
                                           const bf16 *) {
#ifndef __CUDACC__
    emu_mma(c, a, b0, b1, true);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    PALI_MMA("bf16");
#endif
}
static __device__ __forceinline__ void mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1,
                                           const f16 *) {
#ifndef __CUDACC__
    emu_mma(c, a, b0, b1, false);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    PALI_MMA("f16");
#endif
}

/* --- 16-bit floats ------------------------------------------------------------------- */

static __host__ __device__ __forceinline__ float bf16_to_float(bf16 v) {
#ifdef __CUDA_ARCH__
    return __uint_as_float((unsigned)v.bits << 16);
#else
    unsigned u = (unsigned)v.bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
#endif
}

/* Two packed values, as a 32-bit load brings them. */
static __device__ __forceinline__ float bf16_low(unsigned pair) {
    return __uint_as_float(pair << 16);
}
static __device__ __forceinline__ float bf16_high(unsigned pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

/* Round to nearest, ties to even; every NaN becomes 0x7fff, as the chip's own conversion does. */
static __host__ __device__ __forceinline__ bf16 float_to_bf16(float f) {
    bf16 v;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(v.bits) : "f"(f));
#else
    unsigned u;
    memcpy(&u, &f, sizeof u);
    v.bits = (u & 0x7fffffffu) > 0x7f800000u ? (uint16_t)0x7fff
                                             : (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
#endif
    return v;
}

static __host__ __device__ __forceinline__ float f16_to_float(f16 v) {
#ifdef __CUDA_ARCH__
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v.bits));
    return f;
#else
    unsigned sign = (unsigned)(v.bits & 0x8000) << 16, exponent = v.bits >> 10 & 31,
             fraction = v.bits & 1023u;
    unsigned u;
    float f;
    if (exponent == 0) { /* subnormal: fraction * 2^-24, exact in a float */
        f = (float)fraction * 0x1p-24f;
        memcpy(&u, &f, sizeof u);
        u |= sign;
    } else if (exponent == 31) {
        u = sign | 0x7f800000u | fraction << 13;
    } else {
        u = sign | (exponent + 112) << 23 | fraction << 13;
    }
    memcpy(&f, &u, sizeof f);
    return f;
#endif
}

/* Round to nearest, ties to even; too large becomes infinity. */
static __host__ __device__ __forceinline__ f16 float_to_f16(float f) {
    f16 v;
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v.bits) : "f"(f));
#else
    unsigned u;
    memcpy(&u, &f, sizeof u);
    unsigned sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        v.bits = 0x7fff;
    } else if (magnitude >= 0x477ff000u) { /* 65520 and up round to infinity */
        v.bits = (uint16_t)(sign | 0x7c00u);
    } else if (magnitude < 0x38800000u) { /* below 2^-14: the sum's last bit is worth 2^-24 */
        float a, sum;
        memcpy(&a, &magnitude, sizeof a);
        sum = a + 0.5f;
        memcpy(&u, &sum, sizeof u);
        v.bits = (uint16_t)(sign | (u - 0x3f000000u));
    } else {
        unsigned rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
        v.bits = (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
    }
#endif
    return v;
}

#endif
