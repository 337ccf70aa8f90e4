/* sample.cu - the next token of the logits, on the device: the same one that core/sample.c
 * picks, for every seed, because weights are whole numbers (core/sample_rule.h) whose sums
 * have no order. So blocks may add to shared totals in any order.
 *
 *   best_kernel     the first key of all: the greedy token, and the top of all weights
 *   survey_kernel   the sum for the log-probability; for a draw also the candidates (tokens
 *                   that weigh anything) counted and weighed by distance from the top, in
 *                   DRAW_BINS bins of equal width
 *   narrow_kernel   up to three times: "pass over the candidates in order until enough has
 *                   passed" for top_k, top_p and the draw ends inside one bin. Its keys are
 *                   listed, and the last block finds the one.
 *
 * Greedy takes the first two. Three logits in four weigh nothing at temperature 1, a bin
 * holds hundreds of the others, and a hot temperature or equal logits may put all into one:
 * slower, and as exact. The last block to finish of every kernel decides what is next; a
 * narrow_kernel that has nothing to do leaves at once.
 *
 * Reads 1 MB of logits (from the L2 cache) two to five times. Not measured.              */
#include "gpu/port.cuh"

#include "gpu/common.cuh"
#include "gpu/rule.cuh"

typedef unsigned long long u64;

enum goal {
    TOP_K,
    TOP_P,
    DRAW,
    DONE
};
enum {
    OWN = DRAW_BINS / BLOCK /* bins of a thread */
};

/* What a block shares. */
typedef struct {
    u64 bins[DRAW_BINS];
    unsigned counts[DRAW_BINS];
    u64 parts[WARPS], below;
    u64 low, high;
    int found;
    unsigned last;
} desk;

/* --- all threads of a block together -------------------------------------------------------- */

__device__ __forceinline__ u64 block_sum_u64(u64 x, desk *d) {
    for (int m = WARP / 2; m > 0; m /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, m);
    __syncthreads(); /* parts is free */
    if (threadIdx.x % WARP == 0)
        d->parts[threadIdx.x / WARP] = x;
    __syncthreads();
    u64 sum = 0;
    for (int i = 0; i < WARPS; i++)
        sum += d->parts[i];
    return sum;
}

__device__ __forceinline__ u64 block_max_u64(u64 x, desk *d) {
    for (int m = WARP / 2; m > 0; m /= 2) {
        u64 y = __shfl_xor_sync(ALL_LANES, x, m);
        x = y > x ? y : x;
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        d->parts[threadIdx.x / WARP] = x;
    __syncthreads();
    u64 most = 0;
    for (int i = 0; i < WARPS; i++)
        most = d->parts[i] > most ? d->parts[i] : most;
    return most;
}

/* Whether this block finishes last; then it sees what all others wrote. */
__device__ __forceinline__ bool last_block(draw_state *s, desk *d) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        d->last = atomicAdd(&s->arrived, 1u) == gridDim.x - 1;
        if (d->last)
            s->arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return d->last != 0;
}

/* The first of d->bins, in order, with which at least `need` has passed; the last one in use
 * when there is not so much. *below = what passed before it. */
__device__ __forceinline__ int find(desk *d, u64 need, u64 *below) {
    u64 own = 0;
    for (int i = 0; i < OWN; i++)
        own += d->bins[threadIdx.x * OWN + i];
    u64 upto = own;
    for (int m = 1; m < WARP; m *= 2) {
        u64 y = __shfl_up_sync(ALL_LANES, upto, m);
        upto += (int)threadIdx.x % WARP >= m ? y : 0;
    }
    __syncthreads();
    if (threadIdx.x % WARP == WARP - 1)
        d->parts[threadIdx.x / WARP] = upto;
    __syncthreads();
    u64 all = 0;
    for (int i = 0; i < WARPS; i++) {
        upto += i < (int)threadIdx.x / WARP ? d->parts[i] : 0;
        all += d->parts[i];
    }
    need = need > all ? all : need;
    need = need > 0 ? need : 1; /* the first is always kept */
    u64 at = upto - own;
    if (at < need && need <= upto)
        for (int i = 0; i < OWN; i++) {
            u64 v = d->bins[threadIdx.x * OWN + i];
            if (at + v >= need) {
                d->found = (int)threadIdx.x * OWN + i;
                d->below = at;
                break;
            }
            at += v;
        }
    __syncthreads();
    *below = d->below;
    return d->found;
}

/* --- candidates -------------------------------------------------------------------------- */

__device__ __forceinline__ u64 weight_of(const draw_rule *r, float logit, float top) {
    return pali_rule_weight(pali_rule_z(logit, top, r->scale), r->bits);
}

/* Neighbours in the order of keys share a bin or have neighbouring ones. */
__device__ __forceinline__ int bin_of(const draw_rule *r, float logit, float top) {
    int bin = (int)(pali_rule_z(logit, top, r->scale) * (-DRAW_BINS / (r->bits + 2.0)));
    return bin < DRAW_BINS - 1 ? bin : DRAW_BINS - 1;
}

/* Written by other blocks while this one ran: no cached copy will do. */
template <typename T> __device__ __forceinline__ T fresh(const T *p) {
    return *(const volatile T *)p;
}

__device__ __forceinline__ float top_of(const draw_state *s) {
    return pali_rule_logit(~s->best);
}

/* The sampler's answer, by one thread. Leaves all zero but the rule for the next token. */
__device__ void emit(const sample_args *a, u64 key) {
    draw_state *s = a->draw;
    drawn out;
    bool none = s->best == 0;
    out.token = none ? -1 : (int32_t)(uint32_t)key;
    out.logit = none ? 0 : pali_rule_logit(key);
    out.top = none ? 0 : top_of(s);
    out.sum = fresh(&s->sum);
    a->ring[s->drawn % RING] = out;
    __threadfence_system();
    a->state->token = none ? 0 : out.token;
    a->state->position++;
    s->drawn++;
    s->best = s->sum = s->limit = 0;
    s->bins = 0;
}

/* The next goal from this one on, and the bin in which it ends, into s. By all threads of the
 * last block. */
__device__ void choose(const sample_args *a, desk *d, int goal) {
    draw_state *s = a->draw;
    const draw_rule *r = &s->rule;
    int bins = s->bins;
    u64 below, need = 0;
    for (;; goal++) {
        if ((goal == TOP_K && r->top_k <= 0) || (goal == TOP_P && !(r->top_p < 1)))
            continue;
        u64 own = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < DRAW_BINS; i += BLOCK) {
            u64 v = i >= bins ? 0 : goal == TOP_K ? fresh(&s->counts[i]) : fresh(&s->masses[i]);
            d->bins[i] = v;
            own += v;
        }
        u64 all = block_sum_u64(own, d);
        if (goal == TOP_K && all <= (u64)r->top_k)
            continue;
        need = goal == TOP_K ? (u64)r->top_k
               : goal == TOP_P
                   ? pali_rule_need_p(all, r->top_p)
                   : pali_rule_need_draw(all, pali_rule_random(r->seed, r->counter + s->drawn));
        break;
    }
    int bin = find(d, need, &below);
    if (threadIdx.x == 0) {
        s->goal = goal;
        s->bin = bin;
        s->need = need > below ? need - below : 1;
    }
}

/* Of the listed keys, those of one bin: the one with which s->need has passed. */
__device__ u64 select(const sample_args *a, desk *d, unsigned n) {
    draw_state *s = a->draw;
    const draw_rule *r = &s->rule;
    const volatile u64 *keys = a->keys;
    float top = top_of(s);
    bool count = s->goal == TOP_K;
    u64 low = 0, high = s->limit, need = s->need;
    for (;;) {
        u64 least = 0, most = 0; /* of the keys in low .. high; `least` is a complement */
        for (unsigned i = threadIdx.x; i < n; i += BLOCK)
            if (keys[i] >= low && keys[i] <= high) {
                most = keys[i] > most ? keys[i] : most;
                least = ~keys[i] > least ? ~keys[i] : least;
            }
        low = ~block_max_u64(least, d);
        high = block_max_u64(most, d);
        if (low == high)
            return low;
        /* Bins by the highest bits in which they differ. */
        int width = 64 - __clzll((long long)(low ^ high)), shift = width > 11 ? width - 11 : 0;
        for (int i = threadIdx.x; i < DRAW_BINS; i += BLOCK)
            d->bins[i] = 0;
        __syncthreads();
        for (unsigned i = threadIdx.x; i < n; i += BLOCK)
            if (keys[i] >= low && keys[i] <= high)
                atomicAdd(&d->bins[(keys[i] >> shift) - (low >> shift)],
                          count ? 1 : weight_of(r, pali_rule_logit(keys[i]), top));
        __syncthreads();
        u64 below, digit = (u64)find(d, need, &below);
        need -= below < need ? below : 0;
        low = ((low >> shift) + digit) << shift;
        high = low + (((u64)1 << shift) - 1);
    }
}

/* --- kernels --------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(BLOCK) best_kernel(sample_args a) {
    pdl_trigger();
    pdl_wait();
    PALI_SHARED(desk, d);
    u64 best = 0;
    int n = a.draw->rule.vocab;
    for (int i = blockIdx.x * BLOCK + threadIdx.x; i < n; i += gridDim.x * BLOCK) {
        float x = a.logits[i];
        u64 key = ~pali_rule_key(x, i);
        if (x > -INFINITY && key > best) /* false for NaN */
            best = key;
    }
    best = block_max_u64(best, d);
    if (threadIdx.x == 0 && best)
        atomicMax(&a.draw->best, best);
}

template <bool DRAWS>
static __global__ void __launch_bounds__(BLOCK, 2) survey_kernel(sample_args a) {
    pdl_trigger();
    pdl_wait();
    PALI_SHARED(desk, d);
    draw_state *s = a.draw;
    const draw_rule r = s->rule;
    float top = top_of(s);
    bool any = s->best != 0, draws = DRAWS && any && top < INFINITY;
    u64 sum = 0;
    if (draws)
        for (int i = threadIdx.x; i < DRAW_BINS; i += BLOCK)
            d->bins[i] = d->counts[i] = 0;
    __syncthreads();
    double one = pali_rule_scale(1);
    for (int i = blockIdx.x * BLOCK + threadIdx.x; any && i < r.vocab; i += gridDim.x * BLOCK) {
        float x = a.logits[i];
        if (!(x > -INFINITY))
            continue;
        sum += pali_rule_weight(pali_rule_z(x, top, one), r.bits);
        u64 w = draws ? weight_of(&r, x, top) : 0;
        if (w) {
            int bin = bin_of(&r, x, top);
            atomicAdd(&d->counts[bin], 1u);
            atomicAdd(&d->bins[bin], w);
        }
    }
    sum = block_sum_u64(sum, d);
    if (threadIdx.x == 0 && sum)
        atomicAdd(&s->sum, sum);
    if (draws)
        for (int i = threadIdx.x; i < DRAW_BINS; i += BLOCK)
            if (d->counts[i]) {
                atomicAdd(&s->counts[i], d->counts[i]);
                atomicAdd(&s->masses[i], d->bins[i]);
            }
    if (!last_block(s, d))
        return;
    if (!draws) {
        if (threadIdx.x == 0) {
            s->goal = DONE;
            emit(&a, ~s->best);
        }
        return;
    }
    if (threadIdx.x == 0) {
        s->bins = DRAW_BINS;
        s->limit = ~(u64)0;
    }
    __syncthreads();
    choose(&a, d, TOP_K);
}

static __global__ void __launch_bounds__(BLOCK, 2) narrow_kernel(sample_args a) {
    pdl_trigger();
    pdl_wait();
    PALI_SHARED(desk, d);
    draw_state *s = a.draw;
    if (s->goal == DONE)
        return;
    const draw_rule r = s->rule;
    float top = top_of(s);
    int bin = s->bin;
    u64 limit = s->limit;
    for (int i = blockIdx.x * BLOCK + threadIdx.x; i < r.vocab; i += gridDim.x * BLOCK) {
        float x = a.logits[i];
        u64 key = pali_rule_key(x, i);
        if (x > -INFINITY && key <= limit && weight_of(&r, x, top) && bin_of(&r, x, top) == bin)
            a.keys[atomicAdd(&s->listed, 1u)] = key;
    }
    if (!last_block(s, d))
        return;
    unsigned n = fresh(&s->listed);
    for (;;) {
        u64 key = select(&a, d, n);
        if (s->goal == DRAW) {
            for (int i = threadIdx.x; i < DRAW_BINS; i += BLOCK)
                s->counts[i] = 0, s->masses[i] = 0;
            __syncthreads();
            if (threadIdx.x == 0) {
                s->goal = DONE;
                s->listed = 0;
                emit(&a, key);
            }
            return;
        }
        /* Keys behind this one are out: the bin weighs what is left in it, the next none. */
        u64 own = 0;
        for (unsigned i = threadIdx.x; i < n; i += BLOCK) {
            u64 k = fresh(&a.keys[i]);
            own += k <= key ? weight_of(&r, pali_rule_logit(k), top) : 0;
        }
        own = block_sum_u64(own, d);
        int goal = s->goal;
        if (threadIdx.x == 0) {
            s->limit = key;
            s->bins = bin + 1;
            s->masses[bin] = own;
        }
        __syncthreads();
        choose(&a, d, goal + 1);
        __syncthreads();
        if (s->bin != bin)
            break;
    }
    if (threadIdx.x == 0)
        s->listed = 0;
}

/* --- host ------------------------------------------------------------------------------------ */

draw_rule draw_rule_of(const pali_sampling *p, int vocab, uint64_t counter) {
    draw_rule r = {};
    r.vocab = vocab;
    r.bits = pali_rule_bits(vocab);
    r.top_k = p->top_k;
    r.top_p = p->top_p;
    r.scale = pali_rule_scale(p->temperature > 0 ? p->temperature : 1);
    r.seed = p->seed;
    r.counter = counter;
    return r;
}

void sample_step(const sample_args *a, bool draws, const tuning *t, cudaStream_t s) {
    int blocks = ceil_div(a->V, 4 * BLOCK), most = t->sms * 2;
    dim3 grid(blocks < most ? blocks : most);
    PALI_LAUNCH_EARLY(t->early, best_kernel, grid, dim3(BLOCK), sizeof(desk), s, *a);
    if (!draws) {
        PALI_LAUNCH_EARLY(t->early, (survey_kernel<false>), grid, dim3(BLOCK), sizeof(desk), s, *a);
        return;
    }
    PALI_LAUNCH_EARLY(t->early, (survey_kernel<true>), grid, dim3(BLOCK), sizeof(desk), s, *a);
    for (int goal = TOP_K; goal < DONE; goal++)
        PALI_LAUNCH_EARLY(t->early, narrow_kernel, grid, dim3(BLOCK), sizeof(desk), s, *a);
}
