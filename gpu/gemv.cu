/* gemv.cu - the matrix products of one token: a decode step, and the last row of prefill.
 *
 *   qkv_step    q, k, v = W rms_norm(x); q and k turned; k and v appended to the cache
 *   add_step    x += W in, or x += rms_norm(W in)         (output of attention, MLP down)
 *   gated_step  h = gelu(G rms_norm(x)) * U rms_norm(x)
 *   head_step   logits = softcap(W rms_norm(x))
 *
 * Every weight is read once a step and nothing is read twice, so memory sets the pace
 * (PaliGemma 3B: 5 GB a token). Each lane keeps four 128-bit weight loads in flight; the
 * row of activations is the small operand. Not measured.
 *
 * With a norm in front, every block computes it anew from the residual (8 KB, in the L2
 * cache), which saves a launch: it stages x * (1 + g) in shared memory as float32 and
 * applies 1 / rms to the finished dot products. Warps then own whole rows and walk on by
 * the width of the grid, so that the staging is paid a few times a multiprocessor.
 * Without a norm (add_step) a block owns four rows and its warps split the columns,
 * because 2048 rows alone would leave most warps without work.
 *
 * A row's sum has one order: lanes by columns, then the tree of warp_sum, then warps
 * ascending. It depends neither on the grid nor on the scheduling.                    */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

enum {
    ROWS = 4 /* of one warp (one block in add_step) at a time: loads in flight per lane */
};

/* acc[r] += w[r][8c ..] . x[8c ..] for c = first, first + step, .. < chunks. */
template <typename T, int N>
__device__ __forceinline__ void dots(const T *const *w, int first, int step, int chunks,
                                     const float *x, float *acc) {
    for (int c = first; c < chunks; c += step) {
        uint4 packed[N];
        UNROLL
        for (int r = 0; r < N; r++)
            packed[r] = ldg128(w[r] + (int64_t)c * 8);
        float4 lo = *(const float4 *)(x + (int64_t)c * 8);
        float4 hi = *(const float4 *)(x + (int64_t)c * 8 + 4);
        UNROLL
        for (int r = 0; r < N; r++) {
            float v[8];
            widen8<T>(packed[r], v);
            float s = acc[r];
            s = fmaf(v[0], lo.x, s), s = fmaf(v[1], lo.y, s);
            s = fmaf(v[2], lo.z, s), s = fmaf(v[3], lo.w, s);
            s = fmaf(v[4], hi.x, s), s = fmaf(v[5], hi.y, s);
            s = fmaf(v[6], hi.z, s), s = fmaf(v[7], hi.w, s);
            acc[r] = s;
        }
    }
}

/* shared[i] = x[i] * (1 + g[i]), zeros from D to ld; returns 1 / rms to every thread. */
__device__ __forceinline__ float stage(const float *x, int D, int64_t ld, const float *g, float eps,
                                       float *shared) {
    float square = 0;
    for (int i = threadIdx.x; i < ld; i += BLOCK) {
        float v = i < D ? x[i] : 0;
        square += v * v;
        shared[i] = i < D ? v * (1.0f + g[i]) : 0;
    }
    return 1.0f / sqrtf(block_sum(square, shared + ld) / D + eps);
}

static size_t stage_bytes(int64_t ld) {
    return ((size_t)ld + WARPS) * sizeof(float);
}

/* A warp takes a pair of rows (i, i + E / 2) of one head, so that it can turn them. */
template <typename T> __global__ void __launch_bounds__(BLOCK) qkv_step_kernel(qkv_args a) {
    PALI_SHARED(float, shared);
    float inverse = stage(a.x, a.D, a.ldw, a.norm, a.eps, shared);
    int lane = threadIdx.x % WARP, half = a.E / 2, pairs = (a.H + 2 * a.K) * half;
    int position = a.state->position;
    for (int p = blockIdx.x * WARPS + threadIdx.x / WARP; p < pairs; p += gridDim.x * WARPS) {
        int head = p / half, i = p % half;
        const T *w[2];
        w[0] = (const T *)a.w + ((int64_t)head * a.E + i) * a.ldw;
        w[1] = w[0] + (int64_t)half * a.ldw;
        float y[2] = {0, 0};
        dots<T, 2>(w, lane, WARP, (int)(a.ldw / 8), shared, y);
        float u = warp_sum(y[0]) * inverse, v = warp_sum(y[1]) * inverse;
        if (lane != 0)
            continue;
        if (head < a.H + a.K) {
            float2 turn = a.rope[(int64_t)position * half + i];
            float t = u * turn.x - v * turn.y;
            v = v * turn.x + u * turn.y;
            u = t;
        }
        if (head < a.H) {
            a.q[(int64_t)head * a.E + i] = u;
            a.q[(int64_t)head * a.E + i + half] = v;
            continue;
        }
        T *to = head < a.H + a.K
                    ? (T *)a.k + ((head - a.H) * a.positions + position) * a.ldkv
                    : (T *)a.v + ((head - a.H - a.K) * a.positions + position) * a.ldkv;
        narrow(u, &to[i]);
        narrow(v, &to[i + half]);
    }
}

/* The block that finishes last sees all of y and adds it to x through the norm. */
template <typename T> __global__ void __launch_bounds__(BLOCK) add_step_kernel(add_args a) {
    PALI_SHARED(float, shared); /* [WARPS][ROWS], then [WARPS], then the flag */
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, row = blockIdx.x * ROWS;
    const T *w[ROWS];
    float acc[ROWS];
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        w[r] = (const T *)a.w + (row + r < a.D ? row + r : a.D - 1) * a.ldw;
        acc[r] = 0;
    }
    dots<T, ROWS>(w, threadIdx.x, BLOCK, (int)(a.ldw / 8), a.in, acc);
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        float s = warp_sum(acc[r]);
        if (lane == 0)
            shared[warp * ROWS + r] = s;
    }
    __syncthreads();
    if (threadIdx.x < ROWS && row + (int)threadIdx.x < a.D) {
        float s = 0;
        for (int i = 0; i < WARPS; i++)
            s += shared[i * ROWS + threadIdx.x];
        if (a.norm)
            a.y[row + threadIdx.x] = s;
        else
            a.x[row + threadIdx.x] += s;
    }
    if (!a.norm)
        return;
    float *squares = shared + WARPS * ROWS;
    unsigned *last = (unsigned *)(squares + WARPS);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        *last = atomicAdd(a.counter, 1u) == gridDim.x - 1;
    __syncthreads();
    if (!*last)
        return;
    __threadfence();
    const volatile float *y = a.y; /* written by other blocks: no cached copy will do */
    float square = 0;
    for (int i = threadIdx.x; i < a.D; i += BLOCK)
        square += y[i] * y[i];
    float scale = 1.0f / sqrtf(block_sum(square, squares) / a.D + a.eps);
    for (int i = threadIdx.x; i < a.D; i += BLOCK)
        a.x[i] += y[i] * scale * (1.0f + a.norm[i]);
    if (threadIdx.x == 0)
        *a.counter = 0;
}

/* Rows gate i, up i, gate i + 1, up i + 1 to a warp: it has both halves of two results. */
template <typename T, bool GATED>
__global__ void __launch_bounds__(BLOCK) norm_gemv_kernel(norm_gemv_args a) {
    PALI_SHARED(float, shared);
    float inverse = stage(a.x, a.D, a.ldw, a.norm, a.eps, shared);
    int lane = threadIdx.x % WARP, step = gridDim.x * WARPS * ROWS;
    for (int row = (blockIdx.x * WARPS + threadIdx.x / WARP) * ROWS; row < a.rows; row += step) {
        const T *w[ROWS];
        float acc[ROWS];
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            w[r] = (const T *)a.w + (int64_t)(row + r < a.rows ? row + r : a.rows - 1) * a.ldw;
            acc[r] = 0;
        }
        dots<T, ROWS>(w, lane, WARP, (int)(a.ldw / 8), shared, acc);
        UNROLL
        for (int r = 0; r < ROWS; r++)
            acc[r] = warp_sum(acc[r]) * inverse;
        if (lane != 0)
            continue;
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            if (row + r >= a.rows)
                break;
            if (!GATED)
                a.out[row + r] = softcap(acc[r], a.cap);
            else if (r % 2 == 0)
                a.out[(row + r) / 2] = gelu_tanh(acc[r]) * acc[r + 1];
        }
    }
}

cudaError_t kernels_fit_device(void) {
    cudaFuncAttributes a;
    return cudaFuncGetAttributes(&a, qkv_step_kernel<bf16>);
}

void qkv_step(half_type half, const qkv_args *a, int sms, cudaStream_t s) {
    int blocks = ceil_div((int64_t)(a->H + 2 * a->K) * a->E / 2, WARPS), most = sms * 8;
    WITH_HALF(half, PALI_LAUNCH((qkv_step_kernel<T>), dim3(blocks < most ? blocks : most),
                                dim3(BLOCK), stage_bytes(a->ldw), s, *a));
}

void add_step(half_type half, const add_args *a, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((add_step_kernel<T>), dim3(ceil_div(a->D, ROWS)), dim3(BLOCK),
                                (WARPS * ROWS + WARPS + 1) * sizeof(float), s, *a));
}

void gated_step(half_type half, const norm_gemv_args *a, int sms, cudaStream_t s) {
    int blocks = ceil_div(a->rows, WARPS * ROWS), most = sms * 8;
    WITH_HALF(half, PALI_LAUNCH((norm_gemv_kernel<T, true>), dim3(blocks < most ? blocks : most),
                                dim3(BLOCK), stage_bytes(a->ldw), s, *a));
}

void head_step(half_type half, const norm_gemv_args *a, int sms, cudaStream_t s) {
    int blocks = ceil_div(a->rows, WARPS * ROWS), most = sms * 8;
    WITH_HALF(half, PALI_LAUNCH((norm_gemv_kernel<T, false>), dim3(blocks < most ? blocks : most),
                                dim3(BLOCK), stage_bytes(a->ldw), s, *a));
}
