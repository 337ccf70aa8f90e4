/* norm.cu - LayerNorm and RMSNorm over many rows; called by vision and prefill before every
 * product of many rows.
 *
 *   layer_norm    out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w + b
 *   rms_norm      out = x / sqrt(mean(x^2) + eps) * (1 + w)
 *   rms_norm_add  x  += y / sqrt(mean(y^2) + eps) * (1 + w)
 *
 * One block a row of 1152 (SigLIP) or 2048 to 4608 (Gemma) floats; neighbouring threads
 * read neighbouring floats. Rows are read two or three times, the later times from the
 * L1 cache. Bound by memory: 4 bytes in, 2 out per element. Not measured.            */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    layer_norm_block_kernel(const float *x, int64_t ldx, int n, float eps, const float *w,
                            const float *b, T *out, int64_t ldo) {
    PALI_SHARED(float, scratch); /* [2][WARPS] */
    const float *row = x + blockIdx.x * ldx;
    T *to = out + blockIdx.x * ldo;
    float sum = 0, square = 0;
    for (int i = threadIdx.x; i < n; i += BLOCK)
        sum += row[i];
    float mean = block_sum(sum, scratch) / n;
    for (int i = threadIdx.x; i < n; i += BLOCK)
        square += (row[i] - mean) * (row[i] - mean);
    float scale = 1.0f / sqrtf(block_sum(square, scratch + WARPS) / n + eps);
    for (int i = threadIdx.x; i < n; i += BLOCK)
        narrow((row[i] - mean) * scale * w[i] + b[i], &to[i]);
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    rms_norm_block_kernel(const float *x, int64_t ldx, int n, float eps, const float *w, T *out,
                          int64_t ldo) {
    PALI_SHARED(float, scratch); /* [WARPS] */
    const float *row = x + blockIdx.x * ldx;
    T *to = out + blockIdx.x * ldo;
    float square = 0;
    for (int i = threadIdx.x; i < n; i += BLOCK)
        square += row[i] * row[i];
    float scale = 1.0f / sqrtf(block_sum(square, scratch) / n + eps);
    for (int i = threadIdx.x; i < n; i += BLOCK)
        narrow(row[i] * scale * (1.0f + w[i]), &to[i]);
}

__global__ void __launch_bounds__(BLOCK)
    rms_norm_add_block_kernel(const float *y, int64_t ldy, int n, float eps, const float *w,
                              float *x, int64_t ldx) {
    PALI_SHARED(float, scratch); /* [WARPS] */
    const float *row = y + blockIdx.x * ldy;
    float *to = x + blockIdx.x * ldx;
    float square = 0;
    for (int i = threadIdx.x; i < n; i += BLOCK)
        square += row[i] * row[i];
    float scale = 1.0f / sqrtf(block_sum(square, scratch) / n + eps);
    for (int i = threadIdx.x; i < n; i += BLOCK)
        to[i] += row[i] * scale * (1.0f + w[i]);
}

void layer_norm(half_type half, const float *x, int64_t ldx, int rows, int n, float eps,
                const float *w, const float *b, void *out, int64_t ldo, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((layer_norm_block_kernel<T>), dim3(rows), dim3(BLOCK),
                                2 * WARPS * sizeof(float), s, x, ldx, n, eps, w, b, (T *)out, ldo));
}

void rms_norm(half_type half, const float *x, int64_t ldx, int rows, int n, float eps,
              const float *w, void *out, int64_t ldo, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((rms_norm_block_kernel<T>), dim3(rows), dim3(BLOCK),
                                WARPS * sizeof(float), s, x, ldx, n, eps, w, (T *)out, ldo));
}

void rms_norm_add(const float *y, int64_t ldy, int rows, int n, float eps, const float *w, float *x,
                  int64_t ldx, cudaStream_t s) {
    PALI_LAUNCH((rms_norm_add_block_kernel), dim3(rows), dim3(BLOCK), WARPS * sizeof(float), s, y,
                ldy, n, eps, w, x, ldx);
}
