/* load.cu - what a file holds, into what the kernels read: conversion, quantising, and back.
 *
 *   place_halves, place_floats   elements to rows of the 16-bit type or of float32
 *   place_int8                   whole rows to codes and a scale
 *   place_nf4, finish_nf4        blocks of 64 to codes; then, with the absmax of all blocks
 *                                known, the second level
 *   dequantize                   rows of a quantised matrix to the 16-bit type, for products
 *                                of many rows
 *
 * A matrix comes in pieces of its file's bytes, and its rows go where the destination wants
 * them (q, k and v below each other, gate and up alternating). Quantising is per matrix of
 * the file and before the rows are mixed, so codes and scales are those of core/quant.c bit
 * for bit: nothing here may be fused or reordered, hence the _rn functions. It happens once a
 * model and is bound by the way from the disk; not measured.                            */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

enum {
    EACH = 8, /* elements of one thread */
    PER_BLOCK = NF4_BLOCK / EACH
};

__device__ __forceinline__ float raw_at(const raw_piece &p, int64_t i) {
    if (p.type == RAW_F32)
        return ((const float *)p.raw)[i];
    if (p.type == RAW_F16)
        return f16_to_float(((const f16 *)p.raw)[i]);
    return bf16_to_float(((const bf16 *)p.raw)[i]);
}

__device__ __forceinline__ void narrow(float x, float *out) {
    *out = x;
}

/* Where element i of a piece begins: its row in the destination and its column. */
__device__ __forceinline__ int64_t row_of(const raw_piece &p, int64_t i, int *column) {
    int64_t at = p.first + i, row = at / p.cols;
    *column = (int)(at - row * p.cols);
    return p.row_first + row * p.row_step;
}

template <typename T>
__global__ void __launch_bounds__(BLOCK) place_kernel(raw_piece p, T *to, int64_t ld) {
    int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * EACH;
    int64_t end = i + EACH < p.n ? i + EACH : p.n;
    if (i >= end)
        return;
    int column;
    int64_t row = row_of(p, i, &column);
    for (; i < end; i++) {
        narrow(raw_at(p, i), &to[row * ld + column]);
        if (++column == p.cols) {
            column = 0;
            row += p.row_step;
        }
    }
}

/* --- int8 -------------------------------------------------------------------------------- */

/* x as float16 has it; what is too large, infinite or NaN becomes +-65504. */
__device__ __forceinline__ float round_f16(float x) {
    uint32_t u = __float_as_uint(x), sign = u & 0x80000000u, a = u & 0x7fffffffu;
    float normal = __uint_as_float((a + 0xfffu + (a >> 13 & 1)) & ~0x1fffu);
    float small = __fadd_rn(__fadd_rn(__uint_as_float(a), 0.75f), -0.75f);
    float r = a < 0x38800000u ? small : normal;
    return __uint_as_float(sign | __float_as_uint(a < 0x477fe000u ? r : 65504.0f));
}

/* A warp a row. */
__global__ void __launch_bounds__(BLOCK)
    int8_kernel(raw_piece p, signed char *codes, int64_t ld, float *scales) {
    int lane = threadIdx.x % WARP;
    int64_t from = ((int64_t)blockIdx.x * WARPS + threadIdx.x / WARP) * p.cols;
    if (from >= p.n)
        return;
    float top = 0;
    for (int c = lane; c < p.cols; c += WARP)
        top = fmaxf(top, fabsf(round_f16(raw_at(p, from + c))));
    for (int m = WARP / 2; m > 0; m /= 2)
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, m));
    const float scale = top > 0 ? __fmul_rn(__fdiv_rn(1.0f, top), 127.0f) : 0.0f;
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    int column;
    int64_t row = row_of(p, from, &column);
    for (int c = lane; c < p.cols; c += WARP) {
        float x = __fmul_rn(round_f16(raw_at(p, from + c)), scale);
        codes[row * ld + c] = (signed char)(int)__fadd_rn(__fadd_rn(x, magic), -magic);
    }
    if (lane == 0)
        scales[row] = top;
}

/* --- NF4 ---------------------------------------------------------------------------------- */

__device__ __forceinline__ float nf4_inverse(float absmax) {
    return __fdiv_rn(1.0f, absmax > 1e-38f ? absmax : 1e-38f);
}

/* Eight lanes a block of 64 weights: four bytes of codes each. */
__global__ void __launch_bounds__(BLOCK)
    nf4_kernel(raw_piece p, const float *middles, unsigned char *codes, float *absmax) {
    int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * EACH;
    bool there = i < p.n;
    float x[EACH], top = 0;
    UNROLL
    for (int k = 0; k < EACH; k++) {
        x[k] = there ? raw_at(p, i + k) : 0;
        float a = fabsf(x[k]);
        top = a > top ? a : top; /* passes over NaN */
    }
    for (int m = PER_BLOCK / 2; m > 0; m /= 2)
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, m));
    if (!there)
        return;
    const float inverse = nf4_inverse(top);
    uint32_t packed = 0;
    UNROLL
    for (int k = 0; k < EACH; k++) {
        float y = __fmul_rn(x[k], inverse);
        uint32_t code = 0;
        for (int m = 0; m < 15; m++)
            code += y > middles[m];
        packed |= code << (k / 2 * 8 + (k % 2 ? 0 : 4));
    }
    int column;
    int64_t row = row_of(p, i, &column);
    *(uint32_t *)(codes + row * (p.cols / 2) + column / 2) = packed;
    if (i % NF4_BLOCK == 0)
        absmax[(p.first + i) / NF4_BLOCK] = top;
}

/* The mean of all absmax, summed group by group in double. One block. */
__global__ void __launch_bounds__(BLOCK) nf4_offset_kernel(nf4_finish f) {
    for (int64_t g = threadIdx.x; g < f.groups; g += BLOCK) {
        int64_t b = g * NF4_GROUP, end = b + NF4_GROUP < f.blocks ? b + NF4_GROUP : f.blocks;
        double sum = 0;
        for (; b < end; b++)
            sum += (double)f.absmax[b];
        f.sums[g] = sum;
    }
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    double all = 0;
    for (int64_t g = 0; g < f.groups; g++)
        all += f.sums[g];
    f.tops[f.groups] = (float)(all / (double)f.blocks);
}

/* A warp a group: its top, then the nearest entry of the map for each block. */
__global__ void __launch_bounds__(BLOCK) nf4_scales_kernel(nf4_finish f) {
    int lane = threadIdx.x % WARP;
    int64_t g = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (g >= f.groups)
        return;
    int64_t first = g * NF4_GROUP;
    int64_t end = first + NF4_GROUP < f.blocks ? first + NF4_GROUP : f.blocks;
    const float offset = f.tops[f.groups], *map = f.tables + 16;
    float top = 0;
    for (int64_t b = first + lane; b < end; b += WARP) {
        float a = fabsf(__fadd_rn(f.absmax[b], -offset));
        top = a > top ? a : top;
    }
    for (int m = WARP / 2; m > 0; m /= 2)
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, m));
    const float inverse = nf4_inverse(top);
    int64_t per_row = f.cols / NF4_BLOCK;
    for (int64_t b = first + lane; b < end; b += WARP) {
        float x = __fmul_rn(__fadd_rn(f.absmax[b], -offset), inverse);
        int at = 0;
        for (int step = 128; step > 0; step /= 2) {
            float middle = __fadd_rn(map[at + step - 1], map[at + step]) / 2;
            at += x > middle ? step : 0;
        }
        int64_t row = f.row_first + b / per_row * f.row_step;
        f.scale_codes[row * per_row + b % per_row] = (unsigned char)at;
    }
    if (lane == 0)
        f.tops[g] = top;
}

/* A thread a row. */
__global__ void __launch_bounds__(BLOCK) nf4_heads_kernel(nf4_finish f) {
    int64_t r = (int64_t)blockIdx.x * BLOCK + threadIdx.x, per_row = f.cols / NF4_BLOCK;
    if (r >= f.blocks / per_row)
        return;
    int n = nf4_head(f.cols);
    float *head = f.heads + (f.row_first + r * f.row_step) * n;
    int64_t first = r * per_row;
    head[0] = f.tops[f.groups];
    head[1] = __uint_as_float((uint32_t)(first % NF4_GROUP));
    for (int64_t g = 0; g < n - 2; g++)
        head[2 + g] = first / NF4_GROUP + g < f.groups ? f.tops[first / NF4_GROUP + g] : 0;
}

/* --- back to 16 bits ----------------------------------------------------------------------- */

/* Eight elements a thread. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
    dequantize_kernel(weight w, int first, int cols, T *out, int64_t ldo) {
    int column = (blockIdx.y * BLOCK + threadIdx.x) * EACH, row = first + blockIdx.x;
    for (int k = 0; k < EACH && column + k < cols; k++) {
        int c = column + k;
        float x;
        if (w.form == FORM_INT8) {
            float code = (float)((const signed char *)w.w)[row * w.ld + c];
            x = __fmul_rn(__fmul_rn(code, w.scales[row]), INT8_STEP);
        } else {
            const float *head = w.scales + row * (int64_t)nf4_head(w.ld);
            int block = c / NF4_BLOCK;
            int byte = ((const unsigned char *)w.w)[(row * w.ld + c) / 2];
            float top = head[2 + (block + (int)__float_as_uint(head[1])) / NF4_GROUP];
            float step = w.tables[16 + w.scale_codes[row * (w.ld / NF4_BLOCK) + block]];
            float scale = __fadd_rn(__fmul_rn(step, top), head[0]);
            x = __fmul_rn(w.tables[c % 2 ? byte & 15 : byte >> 4], scale);
        }
        narrow(x, &out[blockIdx.x * ldo + c]);
    }
}

/* --- launchers ------------------------------------------------------------------------------ */

static dim3 threads_for(int64_t n) {
    return dim3(ceil_div(n, BLOCK));
}

void place_halves(half_type half, const raw_piece *p, void *to, int64_t ld, cudaStream_t s) {
    WITH_HALF(half, PALI_LAUNCH((place_kernel<T>), threads_for(ceil_div(p->n, EACH)), dim3(BLOCK),
                                0, s, *p, (T *)to, ld));
}

void place_floats(const raw_piece *p, float *to, int64_t ld, cudaStream_t s) {
    PALI_LAUNCH((place_kernel<float>), threads_for(ceil_div(p->n, EACH)), dim3(BLOCK), 0, s, *p, to,
                ld);
}

void place_int8(const raw_piece *p, const weight *to, cudaStream_t s) {
    PALI_LAUNCH(int8_kernel, dim3(ceil_div(p->n / p->cols, WARPS)), dim3(BLOCK), 0, s, *p,
                (signed char *)(uintptr_t)to->w, to->ld, (float *)(uintptr_t)to->scales);
}

void place_nf4(const raw_piece *p, const weight *to, float *absmax, cudaStream_t s) {
    PALI_LAUNCH(nf4_kernel, threads_for(p->n / EACH), dim3(BLOCK), 0, s, *p,
                to->tables + NF4_TABLES, (unsigned char *)(uintptr_t)to->w, absmax);
}

void finish_nf4(const nf4_finish *f, cudaStream_t s) {
    PALI_LAUNCH(nf4_offset_kernel, dim3(1), dim3(BLOCK), 0, s, *f);
    PALI_LAUNCH(nf4_scales_kernel, dim3(ceil_div(f->groups, WARPS)), dim3(BLOCK), 0, s, *f);
    place_nf4_heads(f, s);
}

void place_nf4_heads(const nf4_finish *f, cudaStream_t s) {
    PALI_LAUNCH(nf4_heads_kernel, threads_for(f->blocks / (f->cols / NF4_BLOCK)), dim3(BLOCK), 0, s,
                *f);
}

void dequantize(half_type half, const weight *w, int first, int rows, int cols, void *out,
                int64_t ldo, cudaStream_t s) {
    dim3 grid(rows, ceil_div(ceil_div(cols, EACH), BLOCK));
    WITH_HALF(half, PALI_LAUNCH((dequantize_kernel<T>), grid, dim3(BLOCK), 0, s, *w, first, cols,
                                (T *)out, ldo));
}
