/* The emulator itself: what it computes, and that it catches what it is for. Every planted
 * bug runs in a child process, whose last words are read. */
extern "C" {
#include "tests/test.h"
}
#include "gpu/gemm.h"
#include "tests/emu/control.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifndef WITH_ASAN
#define WITH_ASAN 0
#endif

#define ALL               0xffffffffu
#define assert_cuda(call) assert_int_equal(call, cudaSuccess)

/* --- kernels that are right -------------------------------------------------------------- */

static __device__ float warp_sum(float x) {
    for (int m = 16; m > 0; m /= 2)
        x += __shfl_xor_sync(ALL, x, m);
    return x;
}

/* out[block] = sum of its n inputs. */
static __global__ void sum_kernel(const float *in, int n, float *out) {
    PALI_SHARED(float, part);
    float s = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        s += in[(int)blockIdx.x * n + i];
    s = warp_sum(s);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x == 0) {
        float t = 0;
        for (unsigned w = 0; w < blockDim.x / 32; w++)
            t += part[w];
        out[blockIdx.x] = t;
    }
}

/* The same over all blocks: the last to arrive adds up what the others left. */
static __global__ void merge_kernel(const float *in, int n, float *parts, unsigned *arrived,
                                    float *out) {
    PALI_SHARED(float, last);
    float s = warp_sum(in[(blockIdx.x * 32 + threadIdx.x) % (unsigned)n]);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = s;
        __threadfence();
        *last = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (*last != 0 && threadIdx.x == 0) {
        float t = 0;
        for (unsigned b = 0; b < gridDim.x; b++)
            t += parts[b];
        *out = t;
    }
}

/* Every warp operation, in a block of two dimensions. out[thread][12]. */
static __global__ void warp_kernel(unsigned *out) {
    unsigned id = threadIdx.y * blockDim.x + threadIdx.x, lane = id % 32;
    unsigned *o = out + id * 12;
    o[0] = __shfl_sync(ALL, id, 5);
    o[1] = __shfl_sync(ALL, id, 3, 8);
    o[2] = __shfl_down_sync(ALL, id, 3);
    o[3] = __shfl_up_sync(ALL, id, 3);
    o[4] = __shfl_xor_sync(ALL, id, 17);
    o[5] = __shfl_down_sync(ALL, id, 3, 8);
    o[6] = __ballot_sync(ALL, lane % 3 == 0);
    o[7] = (unsigned)__any_sync(ALL, lane == 31);
    o[8] = (unsigned)__all_sync(ALL, lane < 31);
    if (lane < 16) /* two halves, each on its own */
        o[9] = __shfl_xor_sync(0xffffu, id, 1);
    else
        o[9] = __shfl_xor_sync(0xffff0000u, id, 2);
    __syncwarp();
    o[10] = (unsigned)__shfl_sync(ALL, (unsigned long long)id << 33, 1) +
            (unsigned)(__shfl_sync(ALL, (unsigned long long)id << 33, 1) >> 33);
    o[11] = (unsigned)__shfl_sync(ALL, (float)id, 31);
}

static __global__ void place_kernel(unsigned *out) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

static __global__ void add_kernel(float *p, float v) {
    p[threadIdx.x] += v;
}

static __global__ void count_kernel(unsigned *counts, unsigned long long *most) {
    atomicAdd(&counts[0], 1u);
    atomicInc(&counts[1], 9);
    atomicMax(&counts[2], blockIdx.x * 100 + threadIdx.x);
    atomicMax(most, (unsigned long long)threadIdx.x << 40);
}

static __global__ void round_kernel(const float *in, int n, bf16 *b, f16 *h, float *back) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        b[i] = float_to_bf16(in[i]);
        h[i] = float_to_f16(in[i]);
        back[i] = f16_to_float(h[i]);
    }
}

/* --- kernels that are wrong ------------------------------------------------------------------ */

static __global__ void no_barrier_kernel(float *out) {
    PALI_SHARED(float, part);
    part[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = part[(threadIdx.x + blockDim.x / 2) % blockDim.x];
}

static __global__ void part_barrier_kernel(float *out) {
    if (threadIdx.x < blockDim.x / 2)
        __syncthreads();
    out[threadIdx.x] = 0;
}

static __global__ void other_barrier_kernel(float *out) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 0;
}

static __global__ void divergent_kernel(float *out) {
    float x = (float)threadIdx.x;
    if (threadIdx.x % 2 == 0)
        x = __shfl_xor_sync(ALL, x, 2);
    out[threadIdx.x] = x;
}

static __global__ void two_places_kernel(float *out) {
    float x = (float)threadIdx.x;
    if (threadIdx.x % 32 < 16)
        x = __shfl_xor_sync(ALL, x, 1);
    else
        x = __shfl_xor_sync(ALL, x, 1);
    out[threadIdx.x] = x;
}

static __global__ void absent_lane_kernel(float *out) {
    out[threadIdx.x] = __shfl_xor_sync(ALL, 1.0f, 16);
}

static __global__ void outside_mask_kernel(float *out) {
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}

static __global__ void not_in_mask_kernel(float *out) {
    out[threadIdx.x] = __shfl_sync(0xfffffffeu, 1.0f, 1);
}

static __global__ void barrier_in_shuffle_kernel(float *out) {
    if (threadIdx.x == 7)
        __syncthreads();
    out[threadIdx.x] = __shfl_sync(ALL, 1.0f, 1);
}

static __global__ void misaligned_kernel(const float *in, float *out) {
    out[threadIdx.x] = __uint_as_float(ldg128(in + 1 + 4 * threadIdx.x).x);
}

static __global__ void no_shared_kernel(float *out) {
    PALI_SHARED(float, part);
    part[0] = 1;
    out[0] = part[0];
}

/* Kernels that may start before the one before has ended. */
static __global__ void hasty_kernel(float *out) {
    if (threadIdx.x % 2)
        return;
    pdl_wait();
    out[threadIdx.x] = 0;
}

/* out = in + 1, and what `in` was before the wait. */
static __global__ void peek_kernel(const float *in, float *out, float *peeked) {
    PALI_SHARED(float, part);
    peeked[threadIdx.x] = in[threadIdx.x];
    part[threadIdx.x] = 1;
    __syncthreads();
    pdl_wait();
    out[threadIdx.x] = in[threadIdx.x] + part[(threadIdx.x + 1) % blockDim.x];
}

/* Sixteen bytes a lane to shared memory, read before they were waited for, then after. */
static __global__ void no_wait_kernel(const float *in, float *out) {
    PALI_SHARED(float, part);
    copy_async16(part + 4 * threadIdx.x, in + 4 * threadIdx.x, threadIdx.x != 5);
    out[threadIdx.x] = part[4 * threadIdx.x];
    copy_async_wait();
    out[32 + threadIdx.x] = part[4 * threadIdx.x + 1];
}

/* c = a b' of small whole numbers, a as rows and b as columns in shared memory. */
static __global__ void tensor_kernel(float *out) {
    PALI_SHARED(uint16_t, part); /* a [16][16], b [16][16] and its transpose */
    uint16_t *b = part + 256, *turned = part + 512;
    for (int i = (int)threadIdx.x; i < 256; i += 32) {
        part[i] = float_to_bf16((float)(i % 7 - 3)).bits;
        b[i] = float_to_bf16((float)(i % 5 - 2)).bits;
        turned[i % 16 * 16 + i / 16] = b[i];
    }
    __syncwarp();
    unsigned lane = threadIdx.x;
    uint32_t x[4], y[4], z[4];
    ldmatrix(x, part + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix(y, b + (lane / 16 * 8 + lane % 8) * 16 + lane / 8 % 2 * 8);
    ldmatrix_turned(z, turned + lane % 16 * 16 + lane / 16 * 8);
    for (int n = 0; n < 2; n++) {
        float c[4] = {0, 0, 0, 100};
        mma(c, x, y[2 * n], y[2 * n + 1], (const bf16 *)NULL);
        for (unsigned i = 0; i < 4; i++)
            out[(lane / 4 + i / 2 * 8) * 16 + (unsigned)n * 8 + lane % 4 * 2 + i % 2] =
                c[i] + (y[2 * n] == z[2 * n] && y[2 * n + 1] == z[2 * n + 1] ? 0.0f : 1e6f);
    }
}

/* Not by all lanes. */
static __global__ void part_tensor_kernel(float *out) {
    float c[4] = {0, 0, 0, 0};
    uint32_t x[4] = {0, 0, 0, 0};
    if (threadIdx.x != 9)
        mma(c, x, 0, 0, (const bf16 *)NULL);
    out[threadIdx.x] = c[0];
}

/* One too many: i <= n. */
static __global__ void past_end_kernel(const float *in, int n, float *out) {
    float s = 0;
    for (int i = (int)threadIdx.x; i <= n; i += (int)blockDim.x)
        s += in[i];
    out[threadIdx.x] = s;
}

static __global__ void past_shared_kernel(float *out) {
    PALI_SHARED(float, part);
    part[threadIdx.x + 1] = 1;
    out[threadIdx.x] = 0;
}

/* Blocks that assume the ones before them are done. */
static __global__ void block_race_kernel(float *chain) {
    if (threadIdx.x == 0)
        chain[blockIdx.x + 1] = chain[blockIdx.x] + 1;
}

/* Threads of a warp that assume lockstep: neighbours read what was just written. */
static __global__ void lane_race_kernel(int *p) {
    int left = p[(threadIdx.x + blockDim.x - 1) % blockDim.x];
    p[threadIdx.x] = left + 1;
}

/* The flag of the last block is read without a barrier (merge_kernel without its own). */
static __global__ void flag_race_kernel(float *out) {
    PALI_SHARED(int, last);
    if (threadIdx.x == 0)
        *last = 1;
    out[threadIdx.x] = *last == 1 ? 1.0f : 0.0f;
}

/* --- helpers --------------------------------------------------------------------------------------- */

static float *device_floats(size_t n, float first, float step) {
    float *p, *host = (float *)malloc(n * sizeof *host);
    for (size_t i = 0; i < n; i++)
        host[i] = first + step * (float)i;
    assert_cuda(cudaMalloc(&p, n * sizeof *p));
    assert_cuda(cudaMemcpy(p, host, n * sizeof *p, cudaMemcpyHostToDevice));
    free(host);
    return p;
}

static void read_back(void *host, const void *device, size_t bytes) {
    assert_cuda(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}

/* Runs f in a child that should die; checks what it wrote. */
static void dies(void (*f)(void), const char *words) {
    int ends[2], status;
    char text[16384];
    size_t n = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        f();
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got;
         n < sizeof text - 1 && (got = read(ends[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        fail_msg("nothing was noticed; expected \"%s\"", words);
    if (strstr(text, words) == NULL)
        fail_msg("expected \"%s\", got: %s", words, text);
}

static int fresh(void **state) {
    (void)state;
    emu_reset();
    emu_set_order(EMU_ASCENDING, 1);
    return 0;
}

static int clean(void **state) {
    (void)state;
    cudaDeviceReset();
    return 0;
}

/* --- what it computes --------------------------------------------------------------------------------- */

static void emu_sums_over_warps_and_blocks(void **state) {
    (void)state;
    float *in = device_floats(3 * 1000, 1, 0.25f), *out = device_floats(3, 0, 0), host[3];
    for (int order = 0; order < EMU_ORDERS; order++) {
        emu_set_order((emu_order)order, 7);
        assert_cuda(PALI_LAUNCH(sum_kernel, 3, 128, 4 * sizeof(float), nullptr, in, 1000, out));
        read_back(host, out, sizeof host);
        for (int b = 0; b < 3; b++) /* all quarters below 2^22: exact */
            assert_true(host[b] == 1000 * (1 + 250.0f * (float)b) + 0.25f * 999 * 500);
    }
}

static void emu_merges_in_the_last_block(void **state) {
    (void)state;
    float *in = device_floats(100, 0, 1), *parts = device_floats(5, 0, 0),
          *out = device_floats(1, 0, 0), host;
    unsigned *arrived;
    assert_cuda(cudaMalloc(&arrived, sizeof *arrived));
    assert_cuda(cudaMemset(arrived, 0, sizeof *arrived));
    for (int order = 0; order < EMU_ORDERS; order++) {
        emu_set_order((emu_order)order, 3);
        assert_cuda(PALI_LAUNCH(merge_kernel, 5, 32, 16, nullptr, in, 100, parts, arrived, out));
        read_back(&host, out, sizeof host);
        assert_true(host == 4950 + 59 * 30); /* 0..99 and 0..59 again */
    }
}

static void emu_does_every_warp_operation(void **state) {
    (void)state;
    unsigned *out, got[64][12];
    assert_cuda(cudaMalloc(&out, sizeof got));
    for (int order = 0; order < EMU_ORDERS; order++) {
        emu_set_order((emu_order)order, 11);
        assert_cuda(PALI_LAUNCH(warp_kernel, 1, dim3(16, 4), 0, nullptr, out));
        read_back(got, out, sizeof got);
        for (unsigned id = 0; id < 64; id++) {
            unsigned l = id % 32, w = id - l;
            unsigned expected[12] = {w + 5,
                                     w + (l & ~7u) + 3,
                                     l + 3 < 32 ? id + 3 : id,
                                     l >= 3 ? id - 3 : id,
                                     w + (l ^ 17),
                                     l % 8 + 3 < 8 ? id + 3 : id,
                                     0x49249249u,
                                     1,
                                     0,
                                     w + (l ^ (l < 16 ? 1 : 2)),
                                     w + 1,
                                     w + 31};
            for (int i = 0; i < 12; i++)
                if (got[id][i] != expected[i])
                    fail_msg("order %d, thread %u, operation %d: %u, not %u", order, id, i,
                             got[id][i], expected[i]);
        }
    }
}

static void emu_numbers_threads_and_blocks(void **state) {
    (void)state;
    unsigned *out, got[24 * 30];
    assert_cuda(cudaMalloc(&out, sizeof got));
    emu_set_order(EMU_RANDOM, 5);
    assert_cuda(PALI_LAUNCH(place_kernel, dim3(2, 3, 4), dim3(5, 3, 2), 0, nullptr, out));
    read_back(got, out, sizeof got);
    for (unsigned i = 0; i < 24 * 30; i++)
        assert_int_equal(got[i], i / 30 * 1000 + i % 30);
}

static void emu_counts_atomically(void **state) {
    (void)state;
    unsigned *counts, got[3];
    unsigned long long *most, m;
    assert_cuda(cudaMalloc(&counts, sizeof got));
    assert_cuda(cudaMalloc(&most, sizeof *most));
    assert_cuda(cudaMemset(counts, 0, sizeof got));
    assert_cuda(cudaMemset(most, 0, sizeof *most));
    assert_cuda(PALI_LAUNCH(count_kernel, 7, 64, 0, nullptr, counts, most));
    read_back(got, counts, sizeof got);
    read_back(&m, most, sizeof m);
    assert_int_equal(got[0], 448);
    assert_int_equal(got[1], 448 % 10);
    assert_int_equal(got[2], 663);
    assert_true(m == 63ull << 40);
}

static void emu_rounds_to_16_bits(void **state) {
    (void)state;
    /* value, bf16 bits, f16 bits: ties go to even; the last finite, the first infinite f16; the
     * smallest normal and subnormal f16, and what rounds to them. */
    static const struct {
        float v;
        unsigned b, h;
    } cases[] = {
        {0.0f, 0, 0},
        {-0.0f, 0x8000, 0x8000},
        {1.0f, 0x3f80, 0x3c00},
        {-2.5f, 0xc020, 0xc100},
        {1.00390625f, 0x3f80, 0x3c04}, /* bf16 tie, down to even */
        {1.01171875f, 0x3f82, 0x3c0c}, /* bf16 tie, up to even */
        {1.00048828125f, 0x3f80, 0x3c00} /* f16 tie, down */,
        {1.00146484375f, 0x3f80, 0x3c02} /* f16 tie, up */,
        {65504.0f, 0x4780, 0x7bff},
        {65519.996f, 0x4780, 0x7bff},
        {65520.0f, 0x4780, 0x7c00},
        {-1e30f, 0xf14a, 0xfc00},
        {6.103515625e-05f, 0x3880, 0x0400},
        {6.097555160522461e-05f, 0x3880, 0x03ff},
        {5.960464477539063e-08f, 0x3380, 0x0001},
        {2.9802322387695312e-08f, 0x3300, 0x0000}, /* half of the smallest: to even */
        {8.940696716308594e-08f, 0x33c0, 0x0002},
        {INFINITY, 0x7f80, 0x7c00},
        {-INFINITY, 0xff80, 0xfc00},
        {NAN, 0x7fff, 0x7fff},
    };
    const int n = (int)(sizeof cases / sizeof *cases);
    float host[64], *in = device_floats(64, 0, 0), *back = device_floats(64, 0, 0);
    bf16 *b, got_b[64];
    f16 *h, got_h[64];
    assert_cuda(cudaMalloc(&b, sizeof got_b));
    assert_cuda(cudaMalloc(&h, sizeof got_h));
    for (int i = 0; i < n; i++)
        host[i] = cases[i].v;
    assert_cuda(cudaMemcpy(in, host, (size_t)n * sizeof *in, cudaMemcpyHostToDevice));
    assert_cuda(PALI_LAUNCH(round_kernel, 1, 32, 0, nullptr, in, n, b, h, back));
    read_back(got_b, b, sizeof got_b);
    read_back(got_h, h, sizeof got_h);
    read_back(host, back, sizeof host);
    for (int i = 0; i < n; i++) {
        if (got_b[i].bits != cases[i].b || got_h[i].bits != cases[i].h)
            fail_msg("%a: bf16 %#x, not %#x; f16 %#x, not %#x", (double)cases[i].v, got_b[i].bits,
                     cases[i].b, got_h[i].bits, cases[i].h);
        /* Whatever an f16 says in float32 rounds to the same f16. */
        assert_int_equal(float_to_f16(host[i]).bits, cases[i].h);
    }
}

static void emu_multiplies_matrices(void **state) {
    (void)state;
    enum {
        M = 5,
        N = 7,
        K = 19,
        LD = 24,
        BATCH = 2
    };
    bf16 a[BATCH * M * LD], b[BATCH * N * LD], bt[BATCH * K * LD];
    float c[BATCH * M * N], bias[N];
    memset(a, 0xff, sizeof a); /* padding is NaN: it must not be read */
    memset(b, 0xff, sizeof b);
    memset(bt, 0xff, sizeof bt);
    for (int g = 0; g < BATCH; g++)
        for (int k = 0; k < K; k++) {
            for (int i = 0; i < M; i++)
                a[(g * M + i) * LD + k] = float_to_bf16((float)((g + i * 3 + k * 5) % 11 - 5));
            for (int j = 0; j < N; j++)
                bt[(g * K + k) * LD + j] = b[(g * N + j) * LD + k] =
                    float_to_bf16((float)((g + j * 7 + k) % 13 - 6));
        }
    for (int j = 0; j < N; j++)
        bias[j] = (float)j * 0.5f;
    void *da, *db, *dbt, *workspace;
    float *dc, *dbias;
    assert_cuda(cudaMalloc(&da, sizeof a));
    assert_cuda(cudaMalloc(&db, sizeof b));
    assert_cuda(cudaMalloc(&dbt, sizeof bt));
    assert_cuda(cudaMalloc(&dc, sizeof c));
    assert_cuda(cudaMalloc(&dbias, sizeof bias));
    assert_cuda(cudaMalloc(&workspace, gemm_workspace()));
    assert_cuda(cudaMemcpy(da, a, sizeof a, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemcpy(db, b, sizeof b, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemcpy(dbt, bt, sizeof bt, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemcpy(dbias, bias, sizeof bias, cudaMemcpyHostToDevice));
    pali_error err = {};
    gemm_context *context;
    assert_ok(gemm_open(&context, workspace, &err), err);
    gemm_args args = {};
    args.m = M, args.n = N, args.k = K, args.in = GEMM_BF16, args.out = GEMM_F32;
    args.a = da, args.lda = LD, args.stride_a = M * LD;
    args.ldb = LD, args.c = dc, args.ldc = N, args.stride_c = M * N, args.batch = BATCH;
    args.scale = 0.5f;
    for (int way = 0; way < 2; way++) {
        args.b = way ? dbt : db, args.b_kn = way != 0, args.stride_b = (way ? K : N) * LD;
        assert_ok(gemm(context, &args, nullptr, &err), err);
        args.add = true; /* twice in all */
        assert_ok(gemm(context, &args, nullptr, &err), err);
        args.add = false;
        read_back(c, dc, sizeof c);
        for (int g = 0; g < BATCH; g++)
            for (int i = 0; i < M; i++)
                for (int j = 0; j < N; j++) {
                    float sum = 0; /* small integers: exact */
                    for (int k = 0; k < K; k++)
                        sum += (float)(((g + i * 3 + k * 5) % 11 - 5) * ((g + j * 7 + k) % 13 - 6));
                    assert_true(c[(g * M + i) * N + j] == sum);
                }
    }
    args.batch = 1, args.bias = dbias, args.gelu = true;
    assert_ok(gemm(context, &args, nullptr, &err), err);
    read_back(c, dc, sizeof c);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double x = bias[j];
            for (int k = 0; k < K; k++)
                x += 0.5 * ((i * 3 + k * 5) % 11 - 5) * ((j * 7 + k) % 13 - 6);
            x = 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
            assert_float_equal(c[i * N + j], x, 1e-4); /* seen 2e-6; the erf form 5e-4 off */
        }
    args.lda = LD - 1;
    assert_int_equal(gemm(context, &args, nullptr, &err), PALI_EARG);
    gemm_close(context);
}

/* --- what it catches ------------------------------------------------------------------------------------ */

#define RUN_BAD(kernel, threads, shared)                                                           \
    static void run_##kernel(void) {                                                               \
        float *out;                                                                                \
        cudaMalloc(&out, 64 * sizeof *out);                                                        \
        PALI_LAUNCH(kernel, 1, threads, shared, nullptr, out);                                     \
        cudaDeviceSynchronize();                                                                   \
    }
RUN_BAD(part_barrier_kernel, 64, 0)
RUN_BAD(other_barrier_kernel, 64, 0)
RUN_BAD(divergent_kernel, 64, 0)
RUN_BAD(two_places_kernel, 64, 0)
RUN_BAD(absent_lane_kernel, 48, 0)
RUN_BAD(part_tensor_kernel, 32, 0)
RUN_BAD(outside_mask_kernel, 32, 0)
RUN_BAD(not_in_mask_kernel, 32, 0)
RUN_BAD(barrier_in_shuffle_kernel, 32, 0)
RUN_BAD(no_shared_kernel, 32, 0)
RUN_BAD(past_shared_kernel, 64, 64 * sizeof(float))
static void run_hasty(void) {
    float *out;
    cudaMalloc(&out, 64 * sizeof *out);
    PALI_LAUNCH_EARLY(true, hasty_kernel, 1, 64, 0, nullptr, out);
    cudaDeviceSynchronize();
}

static void run_misaligned(void) {
    float *in;
    cudaMalloc(&in, 1024);
    PALI_LAUNCH(misaligned_kernel, 1, 32, 0, nullptr, in, in);
    cudaDeviceSynchronize();
}
static void run_past_end(void) {
    float *in, *out;
    cudaMalloc(&in, 100 * sizeof *in);
    cudaMalloc(&out, 32 * sizeof *out);
    PALI_LAUNCH(past_end_kernel, 1, 32, 0, nullptr, in, 100, out);
    cudaDeviceSynchronize();
}

static void emu_catches_a_missing_barrier(void **state) {
    (void)state;
    float *out = device_floats(64, 0, 0), host[64];
    for (int order = 0; order < EMU_ORDERS; order++) {
        int nan = 0;
        emu_set_order((emu_order)order, 1);
        assert_cuda(PALI_LAUNCH(no_barrier_kernel, 1, 64, sizeof host, nullptr, out));
        read_back(host, out, sizeof host);
        for (int i = 0; i < 64; i++)
            nan += isnan(host[i]) ? 1 : 0;
        assert_true(nan > 0); /* poison: whoever ran first read what nobody had written */
    }
}

static void emu_catches_a_barrier_in_part_of_the_threads(void **state) {
    (void)state;
    dies(run_part_barrier_kernel, "kernel part_barrier_kernel, block (0,0,0)");
    dies(run_part_barrier_kernel, "__syncthreads in part of the threads");
    dies(run_other_barrier_kernel, "divergent barrier");
    dies(run_barrier_in_shuffle_kernel, "divergent warp operation");
}

static void emu_catches_a_divergent_shuffle(void **state) {
    (void)state;
    dies(run_divergent_kernel,
         "divergent warp operation: thread 0 waits in __shfl_xor_sync(0xffffffff) "
         "at tests/gpu/test_emu.cu:");
    dies(run_divergent_kernel, "but thread 1 has returned");
    dies(run_two_places_kernel, "divergent warp operation");
}

static void emu_catches_lanes_that_are_not_there(void **state) {
    (void)state;
    dies(run_absent_lane_kernel, "names lane 16, but the warp has 16 threads");
    dies(run_outside_mask_kernel, "lane 0 reads lane 16, which mask 0xffff does not name");
    dies(run_not_in_mask_kernel, "does not name the lane itself");
}

static void emu_catches_bad_memory(void **state) {
    (void)state;
    dies(run_misaligned, "not 16-aligned");
    dies(run_no_shared_kernel, "launched with none");
}

static void emu_catches_reads_past_the_end(void **state) {
    (void)state;
    if (!WITH_ASAN)
        skip();
    dies(run_past_end, "heap-buffer-overflow");
    dies(run_past_end, "past_end_kernel");
    dies(run_past_shared_kernel, "past_shared_kernel");
}

static void emu_multiplies_on_tensor_cores(void **state) {
    (void)state;
    float *out = device_floats(256, 0, 0), got[256];
    assert_cuda(PALI_LAUNCH(tensor_kernel, 1, 32, 768 * 2, nullptr, out));
    read_back(got, out, sizeof got);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) {
            int want = i >= 8 && j % 2 ? 100 : 0; /* the fourth of a lane's sums began there */
            for (int k = 0; k < 16; k++)
                want += ((i * 16 + k) % 7 - 3) * ((j * 16 + k) % 5 - 2);
            assert_true(got[i * 16 + j] == (float)want);
        }
    dies(run_part_tensor_kernel, "divergent warp operation: thread 0 waits in mma(0xffffffff)");
    dies(run_part_tensor_kernel, "but thread 9 has returned");
}

static void emu_catches_a_copy_that_is_not_waited_for(void **state) {
    (void)state;
    float *in = device_floats(128, 0, 1), *out = device_floats(64, 0, 0), got[64];
    assert_cuda(PALI_LAUNCH(no_wait_kernel, 1, 32, 512, nullptr, in, out));
    read_back(got, out, sizeof got);
    for (int i = 0; i < 32; i++) {
        assert_true(isnan(got[i]));
        assert_true(got[32 + i] == (i == 5 ? 0 : (float)(4 * i + 1)));
    }
}

static void emu_catches_a_kernel_that_does_not_wait(void **state) {
    (void)state;
    dies(run_hasty, "kernel hasty_kernel, block (0,0,0)");
    dies(run_hasty, "thread 1 has returned without pdl_wait");
}

/* Up to four kernels of a row run inside each other: what one reads before pdl_wait is not
 * what the one before it writes, and what it reads after it is. */
static void emu_starts_early_kernels_early(void **state) {
    (void)state;
    for (int order = 0; order < EMU_ORDERS; order++) {
        int stale = 0;
        emu_set_order((emu_order)order, 4);
        for (int run = 0; run < 8; run++) {
            float *x[6], *peeked = device_floats(64 * 6, 0, 0), got[64], seen[64];
            for (int i = 0; i < 6; i++)
                x[i] = device_floats(64, -1, 0);
            assert_cuda(PALI_LAUNCH(add_kernel, 2, 32, 0, nullptr, x[0], 11.0f));
            for (int i = 1; i < 6; i++)
                assert_cuda(PALI_LAUNCH_EARLY(true, peek_kernel, 1, 64, sizeof got, nullptr,
                                              x[i - 1], x[i], peeked + 64 * i));
            read_back(got, x[5], sizeof got);
            read_back(seen, peeked + 64 * 5, sizeof seen);
            for (int i = 0; i < 64; i++)
                assert_true(got[i] == (i < 32 ? 26 : 4));
            stale += seen[0] == -1;
        }
        assert_true(stale > 0 || order == EMU_RANDOM); /* streams run at once */
    }
}

/* Runs that give the same bytes in all orders give the same on a device; these do not. */
static void emu_orders_show_races(void **state) {
    (void)state;
    float chain[EMU_ORDERS][9], flags[EMU_ORDERS][64];
    int lanes[EMU_ORDERS][64], zeros[64] = {0};
    for (int order = 0; order < EMU_ORDERS; order++) {
        emu_set_order((emu_order)order, 3);
        float *c = device_floats(9, 0, 0), *f = device_floats(64, 0, 0);
        int *p;
        assert_cuda(cudaMalloc(&p, sizeof zeros));
        assert_cuda(cudaMemcpy(p, zeros, sizeof zeros, cudaMemcpyHostToDevice));
        assert_cuda(PALI_LAUNCH(block_race_kernel, 8, 32, 0, nullptr, c));
        assert_cuda(PALI_LAUNCH(lane_race_kernel, 1, 64, 0, nullptr, p));
        assert_cuda(PALI_LAUNCH(flag_race_kernel, 1, 64, sizeof(int), nullptr, f));
        read_back(chain[order], c, sizeof chain[order]);
        read_back(lanes[order], p, sizeof lanes[order]);
        read_back(flags[order], f, sizeof flags[order]);
    }
    for (int order = 1; order < EMU_ORDERS; order++) {
        assert_memory_not_equal(chain[0], chain[order], sizeof chain[0]);
        assert_memory_not_equal(lanes[0], lanes[order], sizeof lanes[0]);
        assert_memory_not_equal(flags[0], flags[order], sizeof flags[0]);
    }
}

static void emu_random_order_repeats(void **state) {
    (void)state;
    int first[64], again[64], other[64], zeros[64] = {0}, *p;
    assert_cuda(cudaMalloc(&p, sizeof zeros));
    for (int i = 0; i < 3; i++) {
        emu_set_order(EMU_RANDOM, i == 2 ? 9 : 8);
        assert_cuda(cudaMemcpy(p, zeros, sizeof zeros, cudaMemcpyHostToDevice));
        assert_cuda(PALI_LAUNCH(lane_race_kernel, 1, 64, 0, nullptr, p));
        read_back(i == 0 ? first : i == 1 ? again : other, p, sizeof first);
    }
    assert_memory_equal(first, again, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
}

/* --- the host's side --------------------------------------------------------------------------------------- */

static void emu_poisons_fresh_memory(void **state) {
    (void)state;
    float *p, host[4];
    assert_cuda(cudaMalloc(&p, sizeof host));
    read_back(host, p, sizeof host);
    for (int i = 0; i < 4; i++)
        assert_true(isnan(host[i]));
}

static void emu_runs_a_stream_when_the_host_waits(void **state) {
    (void)state;
    cudaStream_t stream;
    float *p = device_floats(32, 1, 0), *pinned, plain[32];
    assert_cuda(cudaStreamCreate(&stream));
    assert_cuda(cudaMallocHost(&pinned, sizeof plain));
    pinned[0] = -1;
    assert_cuda(PALI_LAUNCH(add_kernel, 1, 32, 0, stream, p, 2.0f));
    assert_cuda(cudaMemcpyAsync(pinned, p, sizeof plain, cudaMemcpyDeviceToHost, stream));
    assert_true(pinned[0] == -1); /* a host that does not wait reads the old value */
    assert_cuda(cudaStreamSynchronize(stream));
    assert_true(pinned[0] == 3);

    /* Bytes in ordinary memory are taken by the call, those in pinned memory by the copy. */
    plain[0] = pinned[0] = 5;
    assert_cuda(cudaMemcpyAsync(p, plain, 4, cudaMemcpyHostToDevice, stream));
    assert_cuda(cudaMemcpyAsync(p + 1, pinned, 4, cudaMemcpyHostToDevice, stream));
    plain[0] = pinned[0] = 6;
    read_back(plain, p, 8);
    assert_true(plain[0] == 5 && plain[1] == 6);
    assert_cuda(cudaFreeHost(pinned));
    assert_cuda(cudaStreamDestroy(stream));
}

/* Planted: a stream that uses what another one copies, without a wait and with one. */
static void emu_catches_a_stream_that_does_not_wait(void **state) {
    (void)state;
    cudaStream_t copies, kernels;
    cudaEvent_t copied;
    float *p = device_floats(32, 1, 0), *pinned, out[32];
    assert_cuda(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
    assert_cuda(cudaStreamCreateWithFlags(&kernels, cudaStreamNonBlocking));
    assert_cuda(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
    assert_cuda(cudaMallocHost(&pinned, sizeof out));
    for (int i = 0; i < 32; i++)
        pinned[i] = 10;
    for (int waits = 0; waits < 2; waits++) {
        assert_cuda(cudaMemcpyAsync(p, pinned, sizeof out, cudaMemcpyHostToDevice, copies));
        assert_cuda(cudaEventRecord(copied, copies));
        if (waits)
            assert_cuda(cudaStreamWaitEvent(kernels, copied, 0));
        assert_cuda(PALI_LAUNCH(add_kernel, 1, 32, 0, kernels, p, 2.0f));
        assert_cuda(cudaStreamSynchronize(kernels));
        assert_cuda(cudaStreamSynchronize(copies));
        read_back(out, p, sizeof out);
        assert_true(out[5] == (waits ? 12 : 10));
    }
    assert_cuda(cudaFreeHost(pinned));
    assert_cuda(cudaEventDestroy(copied));
    assert_cuda(cudaStreamDestroy(copies));
    assert_cuda(cudaStreamDestroy(kernels));
}

static void emu_replays_graphs(void **state) {
    (void)state;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float *p = device_floats(32, 0, 0), host[32], step = 2;
    int objects = emu_live_objects();
    assert_cuda(cudaStreamCreate(&stream));
    assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_cuda(PALI_LAUNCH(add_kernel, 1, 32, 0, stream, p, step));
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    void *q;
    assert_int_equal(cudaMalloc(&q, 4), cudaErrorStreamCaptureUnsupported);
    assert_cuda(cudaStreamEndCapture(stream, &graph));
    assert_cuda(cudaGraphInstantiate(&exec, graph, 0));
    assert_cuda(cudaGraphDestroy(graph));
    step = 100; /* too late: the argument was 2 when it was captured */
    for (int i = 0; i < 3; i++)
        assert_cuda(cudaGraphLaunch(exec, stream));
    assert_cuda(cudaGraphExecDestroy(exec));
    assert_cuda(cudaStreamDestroy(stream));
    read_back(host, p, sizeof host);
    assert_true(host[31] == 6);
    assert_int_equal(emu_live_objects(), objects);
}

static void emu_checks_copies_and_launches(void **state) {
    (void)state;
    float *p = device_floats(32, 0, 0), host[64];
    assert_int_equal(cudaMemcpy(host, p, 33 * 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(p, host, 128, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemset(p + 31, 0, 8), cudaErrorInvalidValue);
    assert_int_equal(cudaFree(p + 1), cudaErrorInvalidValue);
    assert_int_equal(PALI_LAUNCH(add_kernel, 1, 2048, 0, nullptr, p, 1.0f),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(PALI_LAUNCH(add_kernel, 1, 32, 100 << 10, nullptr, p, 1.0f),
                     cudaErrorInvalidValue);
    assert_cuda(
        cudaFuncSetAttribute(add_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10));
    assert_cuda(PALI_LAUNCH(add_kernel, 1, 32, 100 << 10, nullptr, p, 1.0f));
    assert_cuda(cudaDeviceSynchronize());
}

static void emu_plans_faults(void **state) {
    (void)state;
    void *p;
    size_t room, total;
    int n;
    emu_fail("cudaMalloc", 2, cudaErrorMemoryAllocation, 0);
    assert_cuda(cudaMalloc(&p, 4));
    assert_int_equal(cudaMalloc(&p, 4), cudaErrorMemoryAllocation);
    assert_cuda(cudaMalloc(&p, 4));
    emu_settings()->memory = 1000 + emu_allocated();
    assert_cuda(cudaMemGetInfo(&room, &total));
    assert_int_equal(room, 1000);
    assert_int_equal(cudaMalloc(&p, 1001), cudaErrorMemoryAllocation);
    assert_cuda(cudaMalloc(&p, 1000));
    emu_fail(NULL, 1, cudaErrorIllegalAddress, 1);
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
    assert_int_equal(cudaMemset(p, 0, 1000), cudaErrorIllegalAddress);
    assert_cuda(cudaDeviceReset());
    assert_cuda(cudaDeviceSynchronize());
    emu_settings()->driver = 0;
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    emu_settings()->driver = 13000;
    emu_settings()->devices = 0;
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, clean)
    const struct CMUnitTest tests[] = {
        TEST(emu_sums_over_warps_and_blocks),
        TEST(emu_merges_in_the_last_block),
        TEST(emu_does_every_warp_operation),
        TEST(emu_numbers_threads_and_blocks),
        TEST(emu_counts_atomically),
        TEST(emu_rounds_to_16_bits),
        TEST(emu_multiplies_matrices),
        TEST(emu_catches_a_missing_barrier),
        TEST(emu_catches_a_barrier_in_part_of_the_threads),
        TEST(emu_catches_a_divergent_shuffle),
        TEST(emu_catches_lanes_that_are_not_there),
        TEST(emu_catches_bad_memory),
        TEST(emu_catches_reads_past_the_end),
        TEST(emu_multiplies_on_tensor_cores),
        TEST(emu_catches_a_copy_that_is_not_waited_for),
        TEST(emu_catches_a_kernel_that_does_not_wait),
        TEST(emu_starts_early_kernels_early),
        TEST(emu_orders_show_races),
        TEST(emu_random_order_repeats),
        TEST(emu_poisons_fresh_memory),
        TEST(emu_runs_a_stream_when_the_host_waits),
        TEST(emu_catches_a_stream_that_does_not_wait),
        TEST(emu_replays_graphs),
        TEST(emu_checks_copies_and_launches),
        TEST(emu_plans_faults),
    };
    return cmocka_run_group_tests_name("emu", tests, NULL, NULL);
}
