/* attend.cu - attention of one token over the cache; once a layer in a decode step.
 *
 *   out[h] = sum over keys j <= position of p[j] v[j],  p = softmax(softcap(scale q[h] . k[j]))
 *
 * PaliGemma 3B: 8 query heads on one key/value head of 256; PaliGemma 2: two query heads
 * on each. Keys are split over the grid's x (a fixed number, so that a recorded step stays
 * valid; chunks come from the position in device memory, and blocks without keys leave at
 * once), groups of query heads over its y. A block's eight warps take keys in turn. A lane
 * holds 8 neighbouring dimensions, one 128-bit load of a key or value, and every
 * query head of the group uses that load: the cache is read once.
 *
 * Softmax runs online (a maximum, a sum and a weighted sum per warp); warps are
 * merged in shared memory, chunks by the last block to finish, both in ascending order.
 * Bound by latency: 1 MB a layer at 1000 positions. Not measured.                       */
#include "gpu/port.cuh"

#include "gpu/common.cuh"

enum {
    WIDE = 8 /* dimensions of a lane; 32 * 8 = ATTEND_MAX_E */
};

/* GROUP: query heads of a block, all of one key/value head. */
template <typename T, int GROUP>
__global__ void __launch_bounds__(BLOCK) attend_step_kernel(attend_args a) {
    pdl_trigger();
    pdl_wait();
    PALI_SHARED(float, shared); /* [WARPS][ATTEND_MAX_E], [WARPS] maxima, [WARPS] sums, flag */
    float *maxima = shared + WARPS * ATTEND_MAX_E, *sums = maxima + WARPS;
    unsigned *last = (unsigned *)(sums + WARPS);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = lane * WIDE;
    int heads = a.H / a.K, groups = (heads + GROUP - 1) / GROUP;
    int kv = blockIdx.y / groups, head = kv * heads + blockIdx.y % groups * GROUP;
    int count = (kv + 1) * heads - head < GROUP ? (kv + 1) * heads - head : GROUP;
    int keys = a.state->position + 1, chunk = (keys + gridDim.x - 1) / gridDim.x;
    if (chunk < ATTEND_MIN_CHUNK)
        chunk = ATTEND_MIN_CHUNK;
    int used = (keys + chunk - 1) / chunk, begin = blockIdx.x * chunk;
    int end = begin + chunk < keys ? begin + chunk : keys;
    if (begin >= keys)
        return;

    float q[GROUP][WIDE], acc[GROUP][WIDE], top[GROUP], sum[GROUP];
    UNROLL
    for (int g = 0; g < GROUP; g++) {
        top[g] = -INFINITY;
        sum[g] = 0;
        UNROLL
        for (int i = 0; i < WIDE; i++) {
            bool there = g < count && first + i < a.E;
            q[g][i] = there ? a.q[(int64_t)(head + g) * a.E + first + i] * a.scale : 0;
            acc[g][i] = 0;
        }
    }
    const T *k = (const T *)a.k + kv * a.positions * a.ldkv + first;
    const T *v = (const T *)a.v + kv * a.positions * a.ldkv + first;
    for (int j = begin + warp; j < end; j += WARPS) {
        uint4 packed_k = make_uint4(0, 0, 0, 0), packed_v = packed_k;
        if (first < a.E) {
            packed_k = load128(k + j * a.ldkv);
            packed_v = load128(v + j * a.ldkv);
        }
        float key[WIDE], value[WIDE];
        widen8<T>(packed_k, key);
        widen8<T>(packed_v, value);
        UNROLL
        for (int g = 0; g < GROUP; g++) {
            if (g >= count)
                break;
            float s = 0;
            UNROLL
            for (int i = 0; i < WIDE; i++)
                s = fmaf(q[g][i], key[i], s);
            s = softcap(warp_sum(s), a.cap);
            float most = fmaxf(top[g], s), fade = expf(top[g] - most), p = expf(s - most);
            top[g] = most;
            sum[g] = sum[g] * fade + p;
            UNROLL
            for (int i = 0; i < WIDE; i++)
                acc[g][i] = fmaf(p, value[i], acc[g][i] * fade);
        }
    }

    UNROLL
    for (int g = 0; g < GROUP; g++) {
        if (g >= count)
            break;
        __syncthreads(); /* the head before has been read */
        UNROLL
        for (int i = 0; i < WIDE; i++)
            shared[warp * ATTEND_MAX_E + first + i] = acc[g][i];
        if (lane == 0) {
            maxima[warp] = top[g];
            sums[warp] = sum[g];
        }
        __syncthreads();
        float most = -INFINITY, total = 0, mixed = 0;
        for (int w = 0; w < WARPS; w++)
            most = fmaxf(most, maxima[w]);
        for (int w = 0; w < WARPS; w++) {
            float f = expf(maxima[w] - most); /* a warp without keys: e^-inf */
            total += f * sums[w];
            mixed += f * shared[w * ATTEND_MAX_E + threadIdx.x];
        }
        if ((int)threadIdx.x >= a.E)
            continue;
        if (used == 1) {
            a.out[(int64_t)(head + g) * a.E + threadIdx.x] = mixed / total;
            continue;
        }
        float *to = a.partial + ((int64_t)(head + g) * ATTEND_MAX_SPLITS + blockIdx.x) * (a.E + 2);
        to[2 + threadIdx.x] = mixed;
        if (threadIdx.x == 0) {
            to[0] = most;
            to[1] = total;
        }
    }
    if (used == 1)
        return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        *last = atomicAdd(&a.counter[blockIdx.y], 1u) == (unsigned)used - 1;
    __syncthreads();
    if (!*last)
        return;
    __threadfence();
    for (int g = 0; g < count && (int)threadIdx.x < a.E; g++) {
        /* Written by other blocks: no cached copy will do. */
        const volatile float *from =
            a.partial + (int64_t)(head + g) * ATTEND_MAX_SPLITS * (a.E + 2);
        float most = -INFINITY, total = 0, mixed = 0;
        for (int c = 0; c < used; c++)
            most = fmaxf(most, from[c * (a.E + 2)]);
        for (int c = 0; c < used; c++) {
            float f = expf(from[c * (a.E + 2)] - most);
            total += f * from[c * (a.E + 2) + 1];
            mixed += f * from[c * (a.E + 2) + 2 + threadIdx.x];
        }
        a.out[(int64_t)(head + g) * a.E + threadIdx.x] = mixed / total;
    }
    if (threadIdx.x == 0)
        a.counter[blockIdx.y] = 0;
}

int64_t attend_scratch(int H, int E) {
    return (int64_t)H * ATTEND_MAX_SPLITS * (E + 2);
}

void attend_step(half_type half, const attend_args *a, const tuning *t, cudaStream_t s) {
    int heads = a->H / a->K, group = heads <= 2 ? 2 : 8, y = a->K * ceil_div(heads, group);
    int x = ceil_div((int64_t)t->sms * t->attend, y);
    dim3 grid(x < ATTEND_MAX_SPLITS ? x : ATTEND_MAX_SPLITS, y);
    size_t shared = (WARPS * ATTEND_MAX_E + 2 * WARPS + 1) * sizeof(float);
    if (group == 2)
        WITH_HALF(half, PALI_LAUNCH_EARLY(t->early, (attend_step_kernel<T, 2>), grid, dim3(BLOCK),
                                          shared, s, *a));
    else
        WITH_HALF(half, PALI_LAUNCH_EARLY(t->early, (attend_step_kernel<T, 8>), grid, dim3(BLOCK),
                                          shared, s, *a));
}
