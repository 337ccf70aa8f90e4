/* softmax.cu - rows of attention scores to probabilities, between the two products of
 * attention in vision and prefill.
 *
 *   p[j] = e^(z[j] - max z) / sum e^(z - max z),  z = cap * tanh(score / cap) or the score
 *
 * One block a row of 256 to 4200 keys (every query of a prefix sees every key). Reads the
 * row three times, twice from cache. Bound by memory: 4 bytes in, 2 out per score. Not
 * measured. No mask: padding columns are never read.                                 */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    softmax_block_kernel(const float *scores, int64_t lds, int n, float cap, T *p, int64_t ldp) {
    PALI_SHARED(float, scratch); /* [2][WARPS] */
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const float *row = scores + blockIdx.x * lds;
    T *to = p + blockIdx.x * ldp;
    float top = -INFINITY, sum = 0;
    for (int j = threadIdx.x; j < n; j += BLOCK)
        top = fmaxf(top, softcap(row[j], cap));
    for (int m = WARP / 2; m > 0; m /= 2)
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, m));
    if (lane == 0)
        scratch[WARPS + warp] = top;
    __syncthreads();
    for (int i = 0; i < WARPS; i++)
        top = fmaxf(top, scratch[WARPS + i]);
    for (int j = threadIdx.x; j < n; j += BLOCK)
        sum += expf(softcap(row[j], cap) - top);
    float inverse = 1.0f / block_sum(sum, scratch);
    for (int j = threadIdx.x; j < n; j += BLOCK)
        narrow(expf(softcap(row[j], cap) - top) * inverse, &to[j]);
}

void softmax_rows(half_type half, const float *scores, int64_t lds, int64_t rows, int n, float cap,
                  void *p, int64_t ldp, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((softmax_block_kernel<T>), dim3((unsigned)rows), dim3(BLOCK),
                                2 * WARPS * sizeof(float), s, scores, lds, n, cap, (T *)p, ldp));
}
