/* sample.c - see sample.h.
 *
 * Nothing is sorted: V is a quarter of a million and the answer is one token. All that
 * is needed is "pass over the tokens in order (logit down, then id up) until so much
 * weight has passed", for the k of top_k (weight 1 each), for the p of top_p and for
 * the draw. Each candidate is a 64-bit key that ascends in that order, and pass() looks
 * at 11 bits of the keys at a time: add up the weight under each digit, find the digit
 * in which the target falls, drop the keys behind it, look closer at that digit alone.
 *
 * 257216 normal logits on one core, temperature 1: 0.2 ms greedy, 0.8 with top_k 50,
 * 2.9 with top_p 0.9, of which exp() is 1.3; 1.3 more for the log-probability.     */
#include "core/sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

// --- Philox4x32-10 --------------------------------------------------------------------

void pali_random_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * c0, q = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(q >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)q;
        c2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

float pali_random_uniform(uint64_t seed, uint64_t counter) {
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0}, out[4];
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    pali_random_block(c, k, out);
    return (float)(out[0] >> 8) * 0x1p-24f;
}

// --- keys -------------------------------------------------------------------------------

/* High half: bits that grow as the logit falls, -0 and +0 alike. Low half: the id. */
static inline uint64_t key_of(float logit, int32_t id) {
    float x = logit + 0.0f;
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    b = b & 0x80000000u ? b : ~b & 0x7FFFFFFFu;
    return (uint64_t)b << 32 | (uint32_t)id;
}

static inline float logit_of(uint64_t key) {
    uint32_t b = (uint32_t)(key >> 32);
    float x;
    b = b & 0x80000000u ? b : ~b & 0x7FFFFFFFu;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* What a key weighs: 1, or exp of its distance from the top. */
typedef struct {
    bool count;
    double top, temperature;
} scale;

static inline double weigh(const scale *s, uint64_t key) {
    return s->count ? 1 : exp((logit_of(key) - s->top) / s->temperature);
}

// --- passing over them --------------------------------------------------------------------

enum {
    DIGIT_BITS = 11,
    DIGITS = 1 << DIGIT_BITS
};

/* Moves the keys of digit < d to the front, those of digit d behind them, and drops
 * the others. *below = how many of the first kind; returns how many of both. */
static size_t split(uint64_t *keys, size_t n, int shift, uint64_t low, uint64_t d, size_t *below) {
    size_t kept = 0, front = 0;
    for (size_t i = 0; i < n; i++) { /* no branch: digits come in any order */
        uint64_t key = keys[i];
        keys[kept] = key;
        kept += (key >> shift & low) <= d;
    }
    for (size_t i = 0; i < kept; i++)
        if ((keys[i] >> shift & low) < d) {
            uint64_t key = keys[i];
            keys[i] = keys[front];
            keys[front++] = key;
        }
    *below = front;
    return kept;
}

/* Passes over keys[0..n) in order until the weight passed is at least target, or more
 * than target (over), where target is part * the weight of all, or part alone when keys
 * are counted. Keeps the passed ones in front, the last of them last, and returns how
 * many: at least one, and all when rounding leaves the target out of reach. */
static size_t pass(uint64_t *keys, size_t n, const scale *s, double part, bool over) {
    size_t from = 0;
    double passed = 0, target = part;
    for (int shift = 64; shift > 0 && n - from > 1;) {
        double sum[DIGITS] = {0};
        int bits = shift < DIGIT_BITS ? shift : DIGIT_BITS;
        uint64_t low = ((uint64_t)1 << bits) - 1, digit = 0;
        bool first = shift == 64;
        shift -= bits;
        for (size_t i = from; i < n; i++)
            sum[keys[i] >> shift & low] += weigh(s, keys[i]);
        if (first && !s->count) {
            double all = 0;
            for (size_t d = 0; d <= low; d++)
                all += sum[d];
            target = part * all;
        }
        double at = passed;
        for (uint64_t d = 0; d <= low; d++) {
            if (sum[d] == 0)
                continue;
            digit = d;
            passed = at;
            at += sum[d];
            if (over ? at > target : at >= target)
                break;
        }
        size_t below;
        n = from + split(keys + from, n - from, shift, low, digit, &below);
        from += below;
    }
    return n;
}

// --- picking ------------------------------------------------------------------------------

static int32_t draw(const float *logits, int V, float top, const pali_sampling *s, uint64_t counter,
                    uint64_t *keys) {
    const scale ones = {.count = true};
    const scale softmax = {.top = top, .temperature = s->temperature};
    size_t n = 0;
    for (int i = 0; i < V; i++) {
        keys[n] = key_of(logits[i], i);
        n += logits[i] > -INFINITY; /* false for NaN */
    }
    if (s->top_k > 0)
        n = pass(keys, n, &ones, s->top_k, false);
    if (s->top_p < 1)
        n = pass(keys, n, &softmax, s->top_p, false);
    n = pass(keys, n, &softmax, pali_random_uniform(s->seed, counter), true);
    return (int32_t)(uint32_t)keys[n - 1];
}

int32_t pali_sample(const float *logits, int V, const pali_sampling *s, uint64_t counter,
                    void *scratch, float *logprob) {
    int32_t best = -1;
    float top = -INFINITY;
    for (int i = 0; i < V; i++)
        if (logits[i] > top) {
            top = logits[i];
            best = i;
        }
    if (best < 0)
        return -1;

    int32_t token = best;
    if (s->temperature > 0 && top < INFINITY)
        token = draw(logits, V, top, s, counter, scratch);
    if (logprob) {
        double sum = 0;
        for (int i = 0; i < V; i++) {
            if (logits[i] == top)
                sum += 1; /* also where both are +inf */
            else if (logits[i] < top)
                sum += exp((double)logits[i] - top);
        }
        *logprob = (float)((logits[token] == top ? 0 : (double)logits[token] - top) - log(sum));
    }
    return token;
}
