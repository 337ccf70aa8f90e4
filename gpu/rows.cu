/* rows.cu - moving and gathering rows, and what is done element by element between the
 * products of prefill and vision: im2col, embedding, RoPE with the append to the cache,
 * the gated activation. All of them are bound by memory; none is measured.
 *
 * One thread an element (or a pair), neighbours next to each other; rows along the grid's
 * x, because its y ends at 65535.                                                    */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

/* Blocks for `rows` rows of n elements. */
static dim3 row_grid(int rows, int64_t n) {
    return dim3(rows, ceil_div(n, BLOCK));
}

/* patch p at (py, px): element f = (channel, y, x) of the flattened kernel, as the weight
 * has it. Columns past channels * patch^2 (588 -> 592) are zero: the product reads them. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
    im2col_kernel(const float *pixels, int S, int patch, int channels, T *out, int64_t ldo) {
    int side = S / patch, f = blockIdx.y * BLOCK + threadIdx.x;
    if (f >= ldo)
        return;
    int p = blockIdx.x;
    float x = 0;
    if (f < channels * patch * patch) {
        int channel = f / (patch * patch), y = p / side * patch + f / patch % patch;
        x = pixels[((int64_t)channel * S + y) * S + p % side * patch + f % patch];
    }
    narrow(x, &out[p * ldo + f]);
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    embed_rows_kernel(const T *table, int64_t ldw, const int32_t *ids, int n, float scale, float *x,
                      int64_t ldx) {
    int i = blockIdx.y * BLOCK + threadIdx.x;
    if (i < n)
        x[blockIdx.x * ldx + i] = widen(table[ids[blockIdx.x] * ldw + i]) * scale;
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    embed_step_kernel(const T *table, int64_t ldw, const step_state *state, int n, float scale,
                      float *x) {
    int i = blockIdx.y * BLOCK + threadIdx.x;
    if (i < n)
        x[i] = widen(table[state->token * ldw + i]) * scale;
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    geglu_rows_kernel(const float *gu, int64_t ldg, int F, float scale, T *out, int64_t ldo) {
    int i = blockIdx.y * BLOCK + threadIdx.x;
    if (i >= F)
        return;
    const float *pair = gu + blockIdx.x * ldg + 2 * (int64_t)i;
    narrow(gelu_tanh(pair[0]) * pair[1] * scale, &out[blockIdx.x * ldo + i]);
}

/* One thread a pair (i, i + E / 2) of a head: halves, not neighbours. Heads of queries come
 * first, then of keys, then of values, which do not turn. */
template <typename T> __global__ void __launch_bounds__(BLOCK) rope_rows_kernel(rope_args a) {
    int half = a.E / 2, pair = blockIdx.y * BLOCK + threadIdx.x;
    int head = pair / half + a.first / a.E, i = pair % half;
    if (head >= a.H + 2 * a.K)
        return;
    int t = blockIdx.x;
    const float *from = a.qkv + t * a.ld + (int64_t)head * a.E - a.first + i;
    float x = from[0], y = from[half];
    if (head < a.H + a.K) {
        float2 turn = a.rope[(int64_t)t * half + i];
        float u = x * turn.x - y * turn.y;
        y = y * turn.x + x * turn.y;
        x = u;
    }
    T *to;
    if (head < a.H)
        to = (T *)a.q + t * a.ldq + (int64_t)head * a.E;
    else if (head < a.H + a.K)
        to = (T *)a.k + ((head - a.H) * a.positions + t) * a.ldkv;
    else
        to = (T *)a.v + ((head - a.H - a.K) * a.positions + t) * a.ldkv;
    narrow(x, &to[i]);
    narrow(y, &to[i + half]);
}

void im2col(half_type half, const float *pixels, int S, int patch, int channels, void *out,
            int64_t ldo, cudaStream_t s) {
    int side = S / patch;
    WITH_HALF(half, PALI_LAUNCH((im2col_kernel<T>), row_grid(side * side, ldo), dim3(BLOCK), 0, s,
                                pixels, S, patch, channels, (T *)out, ldo));
}

void embed_rows(half_type half, const void *table, int64_t ldw, const int32_t *ids, int rows, int n,
                float scale, float *x, int64_t ldx, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((embed_rows_kernel<T>), row_grid(rows, n), dim3(BLOCK), 0, s,
                                (const T *)table, ldw, ids, n, scale, x, ldx));
}

void embed_step(half_type half, const void *table, int64_t ldw, const step_state *state, int n,
                float scale, float *x, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((embed_step_kernel<T>), row_grid(1, n), dim3(BLOCK), 0, s,
                                (const T *)table, ldw, state, n, scale, x));
}

void geglu_rows(half_type half, const float *gu, int64_t ldg, int rows, int F, float scale,
                void *out, int64_t ldo, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((geglu_rows_kernel<T>), row_grid(rows, F), dim3(BLOCK), 0, s, gu,
                                ldg, F, scale, (T *)out, ldo));
}

void rope_rows(half_type half, const rope_args *a, cudaStream_t s) {
    int64_t pairs = ((int64_t)(a->H + 2 * a->K) * a->E - a->first) / 2;
    WITH_HALF(half,
              PALI_LAUNCH((rope_rows_kernel<T>), row_grid(a->rows, pairs), dim3(BLOCK), 0, s, *a));
}
