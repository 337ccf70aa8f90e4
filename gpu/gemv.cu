/* gemv.cu - the matrix products of one token: a decode step, and the last row of prefill.
 *
 *   qkv_step    q, k, v = W rms_norm(x); q and k turned; k and v appended to the cache
 *   add_step    x += W in, or x += rms_norm(W in)         (output of attention, MLP down)
 *   gated_step  h = gelu(G rms_norm(x)) * U rms_norm(x)
 *   head_step   logits = softcap(W rms_norm(x))
 *
 * Every weight is read once a step and nothing is read twice, so memory sets the pace
 * (PaliGemma 3B: 5 GB a token in bf16). Each lane keeps several 128-bit weight loads in
 * flight; the row of activations is the small operand. Not measured.
 *
 * Weights come in three forms (kernels.h), and every kernel is one text for all of them: a
 * 128-bit load is 8, 16 or 32 of them, and `dots` is what differs. A byte of INT8 becomes a
 * float by putting it under the exponent of 2^23. A code of NF4 is looked up in shared memory,
 * where each lane has a copy of the table in its own bank; its block's scale is put together
 * once a load, as core/quant.h says.
 *
 * While the kernel before is still at work, each asks for the first bytes of its first rows
 * (ask), which then come from the L2 cache. How much, and how many rows at once: tune.h.
 *
 * With a norm in front, every block computes it anew from the residual (8 KB, in the L2
 * cache), which saves a launch: it stages x * (1 + g) in shared memory as float32 and
 * applies 1 / rms to the finished dot products. Warps then own whole rows and walk on by
 * the width of the grid, so that the staging is paid a few times a multiprocessor.
 * Without a norm (add_step) a block owns a few rows and its warps split the columns,
 * because 2048 rows alone would leave most warps without work; quantised rows are so short
 * that their activations are staged too, a piece at a time.
 *
 * Staged for INT8 and NF4, the four activations that lanes read together lie side by side
 * (`place`); in plain order the lanes would be 64 or 128 bytes apart, in the same banks.
 *
 * A row's sum has one order: lanes by columns, then the tree of warp_sum, then warps
 * ascending. It depends neither on the grid nor on the scheduling.                    */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

/* --- the forms ----------------------------------------------------------------------------- */

/* Weights of one 128-bit load. */
static constexpr __host__ __device__ int in_load(int form) {
    return form == FORM_NF4 ? 32 : form == FORM_INT8 ? 16 : 8;
}

/* Where activation i is staged. */
template <int F> __device__ __forceinline__ int place(int i) {
    const int C = in_load(F);
    if (F == FORM_HALF)
        return i;
    int load = i / C, j = i % C;
    return ((load / WARP * (C / 4) + j / 4) * WARP + load % WARP) * 4 + j % 4;
}
/* Floats that ld activations take there. */
static constexpr __host__ __device__ int64_t staged(int form, int64_t ld) {
    int64_t step = form == FORM_HALF ? 8 : WARP * in_load(form);
    return (ld + step - 1) / step * step;
}

/* Shared memory of NF4: [code][lane], then the map of scale codes. */
enum {
    TABLE_FLOATS = 16 * WARP + 256
};
template <int F> __device__ __forceinline__ void stage_tables(const weight &w, float *tables) {
    for (int i = threadIdx.x; F == FORM_NF4 && i < TABLE_FLOATS; i += BLOCK)
        tables[i] = w.tables[i < 16 * WARP ? i / WARP : i - 16 * WARP + 16];
}
static constexpr __host__ __device__ int table_floats(int form) {
    return form == FORM_NF4 ? TABLE_FLOATS : 0;
}

__device__ __forceinline__ uint32_t word(uint4 v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Weights 4g .. 4g + 3 of a load, those of NF4 without their scale. */
template <typename T, int F>
__device__ __forceinline__ void widen4(uint4 load, int g, const float *tables, float *out) {
    if constexpr (F == FORM_HALF) {
        const T *tag = NULL;
        float2 a = widen2(word(load, 2 * g), tag), b = widen2(word(load, 2 * g + 1), tag);
        out[0] = a.x, out[1] = a.y, out[2] = b.x, out[3] = b.y;
    } else if constexpr (F == FORM_INT8) {
        /* 0x4b0000uu is 2^23 + uu, and a signed byte plus 128 is unsigned. */
        uint32_t v = word(load, g) ^ 0x80808080u;
        UNROLL
        for (int i = 0; i < 4; i++)
            out[i] =
                __uint_as_float(__byte_perm(v, 0x4b000000u, 0x7650u + (unsigned)i)) - 8388736.0f;
    } else { /* the first of a byte is its high nibble */
        const float *mine = tables + threadIdx.x % WARP;
        uint32_t v = word(load, g / 2) >> (16 * (g % 2));
        UNROLL
        for (int i = 0; i < 4; i++)
            out[i] = mine[(v >> (i / 2 * 8 + (i % 2 ? 0 : 4)) & 15) * WARP];
    }
}

/* Before its turn: asks for the first `bytes` of count rows from `row` on, `stride` apart. */
template <int F>
__device__ __forceinline__ void ask(const weight &w, int row, int stride, int count, int64_t bytes,
                                    int first, int step) {
    int64_t size = w.ld * 16 / in_load(F);
    int lines = (int)((bytes < size ? bytes : size) / 128);
    for (int i = first; i < lines * count; i += step)
        prefetch128((const unsigned char *)w.w + (row + i / lines * stride) * size +
                    i % lines * 128);
}

/* What a finished sum of a row is still to be multiplied by. */
template <int F> __device__ __forceinline__ float row_scale(const weight &w, int row) {
    return F == FORM_INT8 ? w.scales[row] * INT8_STEP : 1.0f;
}

/* acc[r] += weights of row[r] times x, for the loads first, first + step, .. < end of a row.
 * x is what load `base` meets first; tables as staged. */
template <typename T, int F, int N>
__device__ __forceinline__ void dots(const weight &w, const int *row, int first, int step, int end,
                                     const float *x, int base, const float *tables, float *acc) {
    const int C = in_load(F);
    const unsigned char *from[N];
    UNROLL
    for (int r = 0; r < N; r++)
        from[r] = (const unsigned char *)w.w + row[r] * (w.ld * 16 / C);
    for (int c = first; c < end; c += step) {
        uint4 packed[N];
        UNROLL
        for (int r = 0; r < N; r++)
            packed[r] = ldg128(from[r] + (int64_t)c * 16);
        float part[N], scale[N];
        UNROLL
        for (int r = 0; r < N; r++) {
            part[r] = F == FORM_NF4 ? 0 : acc[r];
            if constexpr (F == FORM_NF4) {
                const float *head = w.scales + row[r] * (int64_t)nf4_head(w.ld);
                int code = w.scale_codes[row[r] * (w.ld / 64) + c / 2];
                float top = head[2 + ((c / 2 + (int)__float_as_uint(head[1])) >> 8)];
                scale[r] = __fadd_rn(__fmul_rn(tables[16 * WARP + code], top), head[0]);
            }
        }
        UNROLL
        for (int g = 0; g < C / 4; g++) {
            float4 v = *(const float4 *)(x + place<F>((c - base) * C + g * 4));
            UNROLL
            for (int r = 0; r < N; r++) {
                float q[4];
                widen4<T, F>(packed[r], g, tables, q);
                float s = part[r];
                s = fmaf(q[0], v.x, s), s = fmaf(q[1], v.y, s);
                s = fmaf(q[2], v.z, s), s = fmaf(q[3], v.w, s);
                part[r] = s;
            }
        }
        UNROLL
        for (int r = 0; r < N; r++)
            acc[r] = F == FORM_NF4 ? fmaf(part[r], scale[r], acc[r]) : part[r];
    }
}

/* Stages x[i] * (1 + g[i]) and zeros behind it; returns 1 / rms to every thread. Behind what
 * is staged come WARPS floats of scratch, then the tables. */
template <int F>
__device__ __forceinline__ float stage(const float *x, int D, const weight &w, const float *g,
                                       float eps, float *shared) {
    int size = (int)staged(F, w.ld);
    float square = 0;
    for (int i = threadIdx.x; i < size; i += BLOCK) {
        float v = i < D ? x[i] : 0;
        square += v * v;
        shared[place<F>(i)] = i < D ? v * (1.0f + g[i]) : 0;
    }
    stage_tables<F>(w, shared + size + WARPS);
    return 1.0f / sqrtf(block_sum(square, shared + size) / D + eps);
}

static size_t stage_bytes(const weight *w) {
    return ((size_t)staged(w->form, w->ld) + WARPS + table_floats(w->form)) * sizeof(float);
}

/* --- the kernels ----------------------------------------------------------------------------- */

/* A warp takes a pair of rows (i, i + E / 2) of one head, so that it can turn them. */
template <typename T, int F> __global__ void __launch_bounds__(BLOCK) qkv_step_kernel(qkv_args a) {
    PALI_SHARED(float, shared);
    int lane = threadIdx.x % WARP, half = a.E / 2, pairs = (a.H + 2 * a.K) * half;
    int start = blockIdx.x * WARPS + threadIdx.x / WARP;
    pdl_trigger();
    if (start < pairs)
        ask<F>(a.w, start / half * a.E + start % half, half, 2, a.ahead, lane, WARP);
    pdl_wait();
    float inverse = stage<F>(a.x, a.D, a.w, a.norm, a.eps, shared);
    const float *tables = shared + staged(F, a.w.ld) + WARPS;
    int position = a.state->position;
    for (int p = start; p < pairs; p += gridDim.x * WARPS) {
        int head = p / half, i = p % half;
        int row[2] = {head * a.E + i, head * a.E + i + half};
        float y[2] = {0, 0};
        dots<T, F, 2>(a.w, row, lane, WARP, (int)(a.w.ld / in_load(F)), shared, 0, tables, y);
        float u = warp_sum(y[0]) * inverse * row_scale<F>(a.w, row[0]);
        float v = warp_sum(y[1]) * inverse * row_scale<F>(a.w, row[1]);
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
template <typename T, int F, int N>
__global__ void __launch_bounds__(BLOCK, 2) add_step_kernel(add_args a) {
    const int C = in_load(F);
    PALI_SHARED(float, shared); /* [WARPS][N], then [WARPS], the flag, the tables, a piece */
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, row = blockIdx.x * N;
    float *tables = shared + WARPS * N + WARPS + 8, *piece = tables + table_floats(F);
    int rows[N], loads = (int)(a.w.ld / C);
    float acc[N];
    UNROLL
    for (int r = 0; r < N; r++) {
        rows[r] = row + r < a.D ? row + r : a.D - 1;
        acc[r] = 0;
    }
    pdl_trigger();
    ask<F>(a.w, row, 1, a.D - row < N ? a.D - row : N, a.ahead * WARPS, threadIdx.x, BLOCK);
    pdl_wait();
    if (F == FORM_HALF) {
        dots<T, F, N>(a.w, rows, threadIdx.x, BLOCK, loads, a.in, 0, tables, acc);
    } else {
        stage_tables<F>(a.w, tables);
        for (int base = 0; base < loads; base += BLOCK) {
            __syncthreads();
            for (int i = threadIdx.x; i < BLOCK * C; i += BLOCK)
                piece[place<F>(i)] = base * C + i < a.n ? a.in[base * C + i] : 0;
            __syncthreads();
            int end = base + BLOCK < loads ? base + BLOCK : loads;
            dots<T, F, N>(a.w, rows, base + threadIdx.x, BLOCK, end, piece, base, tables, acc);
        }
    }
    UNROLL
    for (int r = 0; r < N; r++) {
        float s = warp_sum(acc[r]);
        if (lane == 0)
            shared[warp * N + r] = s;
    }
    __syncthreads();
    if (threadIdx.x < N && row + (int)threadIdx.x < a.D) {
        float s = 0;
        for (int i = 0; i < WARPS; i++)
            s += shared[i * N + threadIdx.x];
        s *= row_scale<F>(a.w, row + (int)threadIdx.x);
        if (a.norm)
            a.y[row + threadIdx.x] = s;
        else
            a.x[row + threadIdx.x] += s;
    }
    if (!a.norm)
        return;
    float *squares = shared + WARPS * N;
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
template <typename T, int F, bool GATED, int N>
__global__ void __launch_bounds__(BLOCK) norm_gemv_kernel(norm_gemv_args a) {
    PALI_SHARED(float, shared);
    int lane = threadIdx.x % WARP, start = (blockIdx.x * WARPS + threadIdx.x / WARP) * N;
    pdl_trigger();
    if (start < a.rows)
        ask<F>(a.w, start, 1, a.rows - start < N ? a.rows - start : N, a.ahead, lane, WARP);
    pdl_wait();
    float inverse = stage<F>(a.x, a.D, a.w, a.norm, a.eps, shared);
    const float *tables = shared + staged(F, a.w.ld) + WARPS;
    for (int row = start; row < a.rows; row += gridDim.x * WARPS * N) {
        int rows[N];
        float acc[N];
        UNROLL
        for (int r = 0; r < N; r++) {
            rows[r] = row + r < a.rows ? row + r : a.rows - 1;
            acc[r] = 0;
        }
        dots<T, F, N>(a.w, rows, lane, WARP, (int)(a.w.ld / in_load(F)), shared, 0, tables, acc);
        UNROLL
        for (int r = 0; r < N; r++)
            acc[r] = warp_sum(acc[r]) * inverse * row_scale<F>(a.w, rows[r]);
        if (lane != 0)
            continue;
        UNROLL
        for (int r = 0; r < N; r++) {
            if (row + r >= a.rows)
                break;
            if (!GATED)
                a.out[row + r] = softcap(acc[r], a.cap);
            else if (r % 2 == 0)
                a.out[(row + r) / 2] = gelu_tanh(acc[r]) * acc[r + 1];
        }
    }
}

/* Runs CALL with F as the form. */
#define WITH_FORM(form, ...)                                                                       \
    do {                                                                                           \
        if ((form) == FORM_NF4) {                                                                  \
            const int F = FORM_NF4;                                                                \
            __VA_ARGS__;                                                                           \
        } else if ((form) == FORM_INT8) {                                                          \
            const int F = FORM_INT8;                                                               \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            const int F = FORM_HALF;                                                               \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)
/* Runs CALL with N as the rows that are read at once. */
#define WITH_ROWS(rows, ...)                                                                       \
    do {                                                                                           \
        if ((rows) == 8) {                                                                         \
            const int N = 8;                                                                       \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            const int N = 4;                                                                       \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)
#define WITH_ALL(half, form, rows, ...)                                                            \
    WITH_HALF(half, WITH_FORM(form, WITH_ROWS(rows, __VA_ARGS__)))

cudaError_t kernels_fit_device(int *built) {
    cudaFuncAttributes a = {};
    cudaError_t e = cudaFuncGetAttributes(&a, qkv_step_kernel<bf16, FORM_HALF>);
    *built = a.ptxVersion;
    return e;
}

static dim3 grid_of(const tuning *t, int64_t work, int each) {
    int blocks = ceil_div(work, each), most = t->sms * t->blocks;
    return dim3(blocks < most ? blocks : most);
}

static int ahead(const tuning *t) {
    return t->early ? t->ahead : 0;
}

void qkv_step(half_type half, const qkv_args *in, const tuning *t, cudaStream_t s) {
    qkv_args a = *in;
    a.ahead = ahead(t);
    dim3 grid = grid_of(t, (int64_t)(a.H + 2 * a.K) * a.E / 2, WARPS);
    WITH_HALF(half, WITH_FORM(a.w.form, PALI_LAUNCH_EARLY(t->early, (qkv_step_kernel<T, F>), grid,
                                                          dim3(BLOCK), stage_bytes(&a.w), s, a)));
}

void add_step(half_type half, const add_args *in, const tuning *t, cudaStream_t s) {
    add_args a = *in;
    a.ahead = ahead(t);
    int form = a.w.form, rows = t->rows[form];
    size_t piece = form == FORM_HALF ? 0 : (size_t)BLOCK * in_load(form);
    size_t bytes = (size_t)(WARPS * rows + WARPS + 8 + table_floats(form) + piece) * sizeof(float);
    WITH_ALL(half, form, rows,
             PALI_LAUNCH_EARLY(t->early, (add_step_kernel<T, F, N>), dim3(ceil_div(a.D, N)),
                               dim3(BLOCK), bytes, s, a));
}

void gated_step(half_type half, const norm_gemv_args *in, const tuning *t, cudaStream_t s) {
    norm_gemv_args a = *in;
    a.ahead = ahead(t);
    WITH_ALL(half, a.w.form, t->rows[a.w.form],
             PALI_LAUNCH_EARLY(t->early, (norm_gemv_kernel<T, F, true, N>),
                               grid_of(t, a.rows, WARPS * N), dim3(BLOCK), stage_bytes(&a.w), s,
                               a));
}

void head_step(half_type half, const norm_gemv_args *in, const tuning *t, cudaStream_t s) {
    norm_gemv_args a = *in;
    a.ahead = ahead(t);
    WITH_ALL(half, a.w.form, t->rows[a.w.form],
             PALI_LAUNCH_EARLY(t->early, (norm_gemv_kernel<T, F, false, N>),
                               grid_of(t, a.rows, WARPS * N), dim3(BLOCK), stage_bytes(&a.w), s,
                               a));
}
