/* flash.cu - attention of many rows (vision, prefill) without scores in memory.
 *
 *   out[r] = softmax_j(softcap(scale * q[r] . k[j])) v,  j < max(prefix, first + r + 1), keys
 *
 * A block of four warps has 64 queries of one head, 16 a warp, and walks over the keys in
 * tiles. Products are mma.m16n8k16 on tensor cores: 16-bit operands, float32 sums. The softmax
 * is online: a tile's scores stay in the registers that the product left them in, which are
 * those that the next product wants its left side in, and a new maximum fades what was summed
 * before. Only what a query may see is walked; a hidden key inside a tile weighs nothing.
 *
 * Shared memory holds queries, keys and values in rows of DP + 8 elements, so that the eight
 * rows which ldmatrix reads together lie in different banks. Values arrive while scores are
 * computed, and the next keys while values are summed (cp.async).
 *
 * DP is the head size in steps of 16 that kernels are made for: 80 (SigLIP's 72), 128, 256;
 * what a smaller head leaves is zero. Bound by the tensor cores (vision at 896 pixels: 2 TFLOP).
 * Not measured. Compute capability 8.0; older chips multiply through gemm.h.            */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

enum {
    QUERIES = 64, /* of a block */
    THREADS = 128,
    PAD = 8
};
static constexpr __host__ __device__ int keys_of(int dp) {
    return dp > 128 ? 32 : 64;
}

/* rows x E elements from `from` to shared memory, zeros past them, on their way. */
template <int DP>
__device__ __forceinline__ void fetch(uint16_t *to, const uint16_t *from, int64_t ld, int rows,
                                      int count, int E) {
    for (int i = threadIdx.x; i < count * (DP / 8); i += THREADS) {
        int row = i / (DP / 8), at = i % (DP / 8) * 8;
        bool there = row < rows && at < E;
        copy_async16(to + row * (DP + PAD) + at, there ? from + row * ld + at : from, there);
    }
}

__device__ __forceinline__ uint32_t pack(float lo, float hi, const bf16 *) {
    return (uint32_t)float_to_bf16(lo).bits | (uint32_t)float_to_bf16(hi).bits << 16;
}
__device__ __forceinline__ uint32_t pack(float lo, float hi, const f16 *) {
    f16 a, b;
    narrow(lo, &a);
    narrow(hi, &b);
    return (uint32_t)a.bits | (uint32_t)b.bits << 16;
}

template <typename T, int DP>
static __global__ void __launch_bounds__(THREADS) flash_kernel(flash_args a) {
    const int KEYS = keys_of(DP), LD = DP + PAD;
    PALI_SHARED(uint16_t, q); /* [QUERIES][LD] */
    uint16_t *k = q + QUERIES * LD, *v = k + KEYS * LD;
    const T *tag = NULL;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int first = blockIdx.x * QUERIES, head = blockIdx.y, kv = head / (a.H / a.K);
    int count = a.rows - first < QUERIES ? a.rows - first : QUERIES;
    const uint16_t *from_k = (const uint16_t *)a.k + kv * a.head_kv;
    const uint16_t *from_v = (const uint16_t *)a.v + kv * a.head_kv;
    /* The two rows of this lane, and how many keys they see; of a row that is not there, all. */
    int row[2], sees[2], most = a.first + first + count;
    most = most > a.prefix ? most : a.prefix;
    most = most < a.keys ? most : a.keys;
    UNROLL
    for (int i = 0; i < 2; i++) {
        row[i] = first + warp * 16 + lane / 4 + 8 * i;
        int own = a.first + row[i] + 1;
        own = own > a.prefix ? own : a.prefix;
        sees[i] = own < most ? own : most;
    }

    fetch<DP>(q, (const uint16_t *)a.q + first * a.ldq + head * a.E, a.ldq, count, QUERIES, a.E);
    fetch<DP>(k, from_k, a.ldk, most, KEYS, a.E);
    float out[DP / 8][4], top[2], sum[2];
    UNROLL
    for (int n = 0; n < DP / 8; n++)
        UNROLL
    for (int i = 0; i < 4; i++)
        out[n][i] = 0;
    UNROLL
    for (int i = 0; i < 2; i++)
        top[i] = -INFINITY, sum[i] = 0;
    const uint16_t *mine = q + (warp * 16 + lane % 16) * LD + lane / 16 * 8;

    for (int j = 0; j < most; j += KEYS) {
        float s[KEYS / 8][4];
        copy_async_wait();
        __syncthreads(); /* keys are here, and the values before have been used */
        fetch<DP>(v, from_v + j * a.ldv, a.ldv, most - j, KEYS, a.E);
        UNROLL
        for (int n = 0; n < KEYS / 8; n++)
            UNROLL
        for (int i = 0; i < 4; i++)
            s[n][i] = 0;
        UNROLL
        for (int d = 0; d < DP / 16; d++) {
            uint32_t left[4], right[4];
            ldmatrix(left, mine + d * 16);
            UNROLL
            for (int n = 0; n < KEYS / 16; n++) {
                ldmatrix(right,
                         k + (n * 16 + lane / 16 * 8 + lane % 8) * LD + d * 16 + lane / 8 % 2 * 8);
                mma(s[2 * n], left, right[0], right[1], tag);
                mma(s[2 * n + 1], left, right[2], right[3], tag);
            }
        }

        float fade[2], high[2] = {top[0], top[1]};
        UNROLL
        for (int n = 0; n < KEYS / 8; n++)
            UNROLL
        for (int i = 0; i < 4; i++) {
            int key = j + n * 8 + lane % 4 * 2 + i % 2;
            float z = key < sees[i / 2] ? softcap(s[n][i] * a.scale, a.cap) : -INFINITY;
            s[n][i] = z;
            high[i / 2] = fmaxf(high[i / 2], z);
        }
        UNROLL
        for (int i = 0; i < 2; i++) {
            high[i] = fmaxf(high[i], __shfl_xor_sync(ALL_LANES, high[i], 1));
            high[i] = fmaxf(high[i], __shfl_xor_sync(ALL_LANES, high[i], 2));
            fade[i] = expf(top[i] - high[i]); /* every row sees the first key: high is finite */
            top[i] = high[i];
            sum[i] *= fade[i];
        }
        UNROLL
        for (int n = 0; n < KEYS / 8; n++)
            UNROLL
        for (int i = 0; i < 4; i++) {
            s[n][i] = expf(s[n][i] - top[i / 2]);
            sum[i / 2] += s[n][i];
        }
        UNROLL
        for (int n = 0; n < DP / 8; n++)
            UNROLL
        for (int i = 0; i < 4; i++)
            out[n][i] *= fade[i / 2];

        copy_async_wait();
        __syncthreads(); /* values are here, and the keys have been used */
        if (j + KEYS < most)
            fetch<DP>(k, from_k + (j + KEYS) * a.ldk, a.ldk, most - j - KEYS, KEYS, a.E);
        UNROLL
        for (int n = 0; n < KEYS / 16; n++) {
            uint32_t left[4] = {pack(s[2 * n][0], s[2 * n][1], tag),
                                pack(s[2 * n][2], s[2 * n][3], tag),
                                pack(s[2 * n + 1][0], s[2 * n + 1][1], tag),
                                pack(s[2 * n + 1][2], s[2 * n + 1][3], tag)};
            UNROLL
            for (int d = 0; d < DP / 16; d++) {
                uint32_t right[4];
                ldmatrix_turned(right, v + (n * 16 + lane % 16) * LD + d * 16 + lane / 16 * 8);
                mma(out[2 * d], left, right[0], right[1], tag);
                mma(out[2 * d + 1], left, right[2], right[3], tag);
            }
        }
    }

    UNROLL
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], 1);
        sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], 2);
        sum[i] = 1.0f / sum[i];
    }
    UNROLL
    for (int n = 0; n < DP / 8; n++)
        UNROLL
    for (int i = 0; i < 2; i++)
        if (row[i] < a.rows && n * 8 < a.E)
            *(uint32_t *)((uint16_t *)a.out + row[i] * a.ldo + head * a.E + n * 8 + lane % 4 * 2) =
                pack(out[n][2 * i] * sum[i], out[n][2 * i + 1] * sum[i], tag);
}

template <typename T, int DP> static cudaError_t launch(const flash_args *a, cudaStream_t s) {
    size_t shared = (size_t)(QUERIES + 2 * keys_of(DP)) * (DP + PAD) * 2;
    cudaError_t e = cudaFuncSetAttribute(flash_kernel<T, DP>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (e == cudaSuccess)
        e = PALI_LAUNCH((flash_kernel<T, DP>), dim3(ceil_div(a->rows, QUERIES), a->H),
                        dim3(THREADS), shared, s, *a);
    return e;
}

void flash_rows(half_type half, const flash_args *a, cudaStream_t s) {
    WITH_HALF(half, a->E <= 80    ? launch<T, 80>(a, s)
                    : a->E <= 128 ? launch<T, 128>(a, s)
                                  : launch<T, 256>(a, s));
}
