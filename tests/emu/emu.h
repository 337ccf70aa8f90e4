/* emu.h - enough of CUDA to run gpu/ on a CPU, and to notice when it is misused.
 *
 * Device side: one fiber per CUDA thread. Blocks run one after another, a block's threads
 * one at a time, switched only at barriers and warp operations, in one of three orders
 * (PALI_EMU_ORDER=ascending, descending, random): code whose result depends on the order
 * gives different results. Misuse ends the program with the kernel's name and the line.
 *
 * Host side: the runtime API under its own names. A stream is a queue that runs when the
 * host synchronises, so that reading a result too early reads the old value. control.h
 * sets up the pretended device and injects faults.                                      */
#ifndef PALI_EMU_H
#define PALI_EMU_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>

/* --- keywords and vector types ---------------------------------------------------- */

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {
    }
};
#define EMU_VECTOR2(name, type)                                                                    \
    struct alignas(2 * sizeof(type)) name {                                                        \
        type x, y;                                                                                 \
    };                                                                                             \
    static inline name make_##name(type x, type y) {                                               \
        return name{x, y};                                                                         \
    }
#define EMU_VECTOR4(name, type)                                                                    \
    struct alignas(4 * sizeof(type)) name {                                                        \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline name make_##name(type x, type y, type z, type w) {                               \
        return name{x, y, z, w};                                                                   \
    }
EMU_VECTOR2(float2, float)
EMU_VECTOR2(int2, int)
EMU_VECTOR2(uint2, unsigned)
EMU_VECTOR4(float4, float)
EMU_VECTOR4(int4, int)
EMU_VECTOR4(uint4, unsigned)

/* --- where a thread is ---------------------------------------------------------------- */

struct emu_site { /* a place in the source */
    const char *file;
    int line;
    static emu_site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
        return emu_site{file, line};
    }
};

struct emu_thread;
struct emu_place {
    dim3 block_dim, grid_dim;
    uint3 block, thread;
};
extern emu_place emu_now; /* of the running fiber */
#define threadIdx (emu_now.thread)
#define blockIdx  (emu_now.block)
#define blockDim  (emu_now.block_dim)
#define gridDim   (emu_now.grid_dim)

void *emu_shared(size_t align, emu_site site = emu_site::here());
uint4 emu_load128(const void *p, emu_site site = emu_site::here());
static inline void emu_touch(const void *p) { /* out of bounds is an error with ASan */
    (void)*static_cast<const volatile char *>(p);
}

/* --- barriers and warp operations ----------------------------------------------------- */

enum emu_operation {
    EMU_SYNCWARP,
    EMU_SHFL,
    EMU_SHFL_XOR,
    EMU_SHFL_DOWN,
    EMU_SHFL_UP,
    EMU_BALLOT,
    EMU_LDMATRIX,
    EMU_MMA
};
void emu_barrier(emu_site site);
void emu_wait_for_kernel(emu_site site);
/* Meets the lanes of mask. The result of a shuffle is the value of lane `from`, that of a
 * ballot the lanes with a nonzero value. */
uint64_t emu_meet(emu_operation what, unsigned mask, uint64_t value, unsigned from, emu_site site);
unsigned emu_lane(void);

/* Tensor cores: port.cuh says what they mean. A copy is made when its thread waits for it:
 * until then its place is poison. */
void emu_copy_async(void *to, const void *from, bool there, emu_site site = emu_site::here());
void emu_copy_wait(void);
void emu_ldmatrix(uint32_t *out, const void *row, bool turned, emu_site site = emu_site::here());
void emu_mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1, bool is_bf16,
             emu_site site = emu_site::here());

static inline void __syncthreads(emu_site site = emu_site::here()) {
    emu_barrier(site);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, emu_site site = emu_site::here()) {
    emu_meet(EMU_SYNCWARP, mask, 0, 0, site);
}
template <class T>
static inline T emu_shuffle(emu_operation what, unsigned mask, T value, unsigned from,
                            emu_site site) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emu_meet(what, mask, bits, from, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}
/* Lanes are counted within segments of `width`; outside its segment a lane reads itself. */
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                            emu_site site = emu_site::here()) {
    unsigned w = (unsigned)width;
    unsigned from = (emu_lane() & ~(w - 1)) + ((unsigned)lane & (w - 1));
    return emu_shuffle(EMU_SHFL, mask, value, from, site);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                                emu_site site = emu_site::here()) {
    unsigned me = emu_lane(), w = (unsigned)width, from = me ^ (unsigned)lanes;
    return emu_shuffle(EMU_SHFL_XOR, mask, value, from > (me | (w - 1)) ? me : from, site);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                                 emu_site site = emu_site::here()) {
    unsigned me = emu_lane(), w = (unsigned)width, from = me + lanes;
    return emu_shuffle(EMU_SHFL_DOWN, mask, value, from > (me | (w - 1)) ? me : from, site);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                               emu_site site = emu_site::here()) {
    unsigned me = emu_lane(), w = (unsigned)width;
    return emu_shuffle(EMU_SHFL_UP, mask, value, (me & (w - 1)) < lanes ? me : me - lanes, site);
}
static inline unsigned __ballot_sync(unsigned mask, int yes, emu_site site = emu_site::here()) {
    return (unsigned)emu_meet(EMU_BALLOT, mask, yes != 0, 0, site);
}
static inline int __any_sync(unsigned mask, int yes, emu_site site = emu_site::here()) {
    return __ballot_sync(mask, yes, site) != 0;
}
static inline int __all_sync(unsigned mask, int yes, emu_site site = emu_site::here()) {
    return __ballot_sync(mask, yes, site) == mask;
}

/* --- atomics: integers only, so that results never depend on the order -------------------- */

static inline unsigned atomicAdd(unsigned *p, unsigned v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
static inline int atomicAdd(int *p, int v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
static inline unsigned long long atomicAdd(unsigned long long *p, unsigned long long v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
static inline unsigned atomicInc(unsigned *p, unsigned limit) {
    unsigned old = *p;
    *p = old >= limit ? 0 : old + 1;
    return old;
}
static inline unsigned atomicExch(unsigned *p, unsigned v) {
    return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
}
template <class T> static inline T emu_atomic_max(T *p, T v) {
    T old = *p;
    *p = old < v ? v : old;
    return old;
}
static inline unsigned atomicMax(unsigned *p, unsigned v) {
    return emu_atomic_max(p, v);
}
static inline int atomicMax(int *p, int v) {
    return emu_atomic_max(p, v);
}
static inline unsigned long long atomicMax(unsigned long long *p, unsigned long long v) {
    return emu_atomic_max(p, v);
}
static inline void __threadfence() {
}
static inline void __threadfence_system() {
}
static inline void __threadfence_block() {
}

/* --- arithmetic ------------------------------------------------------------------------- */

#define EMU_MIN_MAX(T)                                                                             \
    static inline T min(T a, T b) {                                                                \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    static inline T max(T a, T b) {                                                                \
        return a < b ? b : a;                                                                      \
    }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
static inline float min(float a, float b) {
    return fminf(a, b);
}
static inline float max(float a, float b) {
    return fmaxf(a, b);
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
/* The C library has declared some of these names for itself. */
#define __expf           expf
#define __logf           logf
#define __fdividef(a, b) ((a) / (b))
template <class To, class From> static inline To emu_bits(From v) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To out;
    memcpy(&out, &v, sizeof out);
    return out;
}
/* Never fused with a neighbour; -ffp-contract=off keeps that. */
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fdiv_rn(float a, float b) {
    return a / b;
}
/* Bytes of b:a chosen by the nibbles of which; a sign nibble is not emulated. */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++)
        out |= (unsigned)(both >> (which >> 4 * i & 7) * 8 & 255) << 8 * i;
    return out;
}
static inline unsigned __float_as_uint(float v) {
    return emu_bits<unsigned>(v);
}
static inline float __uint_as_float(unsigned v) {
    return emu_bits<float>(v);
}
static inline int __float_as_int(float v) {
    return emu_bits<int>(v);
}
static inline float __int_as_float(int v) {
    return emu_bits<float>(v);
}
static inline int __float2int_rn(float v) {
    return (int)rintf(v);
}
static inline int __popc(unsigned v) {
    return __builtin_popcount(v);
}
static inline int __ffs(int v) {
    return __builtin_ffs(v);
}
static inline int __clz(int v) {
    return v == 0 ? 32 : __builtin_clz((unsigned)v);
}
static inline int __clzll(long long v) {
    return v == 0 ? 64 : __builtin_clzll((unsigned long long)v);
}
static inline double __dmul_rn(double a, double b) {
    return a * b;
}
static inline double __dadd_rn(double a, double b) {
    return a + b;
}
template <class T> static inline T __ldg(const T *p) {
    return *p;
}

/* --- the runtime API ----------------------------------------------------------------------- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorUnknown = 999
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8
};
enum {
    cudaStreamDefault = 0,
    cudaStreamNonBlocking = 1,
    cudaEventDefault = 0,
    cudaEventBlockingSync = 1,
    cudaEventDisableTiming = 2,
    cudaHostAllocDefault = 0,
    cudaHostAllocPortable = 1,
    cudaHostAllocMapped = 2
};
struct cudaDeviceProp { /* the fields gpu/ uses */
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, maxThreadsPerMultiProcessor, l2CacheSize, integrated;
};
struct cudaFuncAttributes {
    int numRegs, ptxVersion;
};
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph *cudaGraphExec_t;

const char *cudaGetErrorString(cudaError_t e);
const char *cudaGetErrorName(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaDeviceReset(void);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t emu_malloc(void **p, size_t bytes);
cudaError_t emu_malloc_host(const char *function, void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void *p, int byte, size_t bytes);
cudaError_t cudaMemsetAsync(void *p, int byte, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags = 0);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t emu_func_shared(const void *kernel, cudaFuncAttribute attribute, int value);
cudaError_t emu_func_attributes(cudaFuncAttributes *a);

template <class T> static inline cudaError_t cudaMalloc(T **p, size_t bytes) {
    return emu_malloc(reinterpret_cast<void **>(p), bytes);
}
template <class T> static inline cudaError_t cudaMallocHost(T **p, size_t bytes) {
    return emu_malloc_host("cudaMallocHost", reinterpret_cast<void **>(p), bytes);
}
template <class T> static inline cudaError_t cudaHostAlloc(T **p, size_t bytes, unsigned) {
    return emu_malloc_host("cudaHostAlloc", reinterpret_cast<void **>(p), bytes);
}
template <class T> static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, T *) {
    return emu_func_attributes(a);
}
template <class T>
static inline cudaError_t cudaFuncSetAttribute(T *kernel, cudaFuncAttribute attribute, int value) {
    return emu_func_shared(reinterpret_cast<const void *>(kernel), attribute, value);
}

/* --- work in a stream ------------------------------------------------------------------------ */

/* Queues work behind what the stream holds, or adds it to the graph being captured.
 * For the parts of the backend that the emulator replaces (gemm). */
cudaError_t emu_enqueue(cudaStream_t stream, std::function<void()> work);

/* early: may start before what comes before it in the stream has ended. */
cudaError_t emu_launch_body(const char *name, emu_site site, const void *kernel, dim3 grid,
                            dim3 block, size_t shared, cudaStream_t stream, bool early,
                            std::function<void()> body);

/* Arguments are copied now and the kernel runs later, as on the device. */
template <class... P, class... A>
static inline cudaError_t emu_launch(const char *name, emu_site site, void (*kernel)(P...),
                                     dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                                     bool early, A... args) {
    static_assert(sizeof...(P) == sizeof...(A), "a kernel takes all its arguments");
    std::tuple<P...> copies(static_cast<P>(args)...);
    return emu_launch_body(name, site, reinterpret_cast<const void *>(kernel), grid, block, shared,
                           stream, early, [kernel, copies] { std::apply(kernel, copies); });
}

#endif
