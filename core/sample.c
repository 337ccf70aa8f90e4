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
 * 2.8 with top_p 0.9; 2 more for the log-probability.                              */
#include "core/sample.h"

#include "core/sample_rule.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

// --- randomness -------------------------------------------------------------------------

void pali_random_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    pali_rule_philox(counter, key, out);
}

float pali_random_uniform(uint64_t seed, uint64_t counter) {
    return (float)pali_rule_random(seed, counter) * 0x1p-24f;
}

// --- weights ----------------------------------------------------------------------------

/* How far to pass: to the k-th key, or until a part of the weight of all has passed. */
typedef enum {
    TOP_K,
    TOP_P,
    DRAW
} goal;

typedef struct {
    float top;
    double scale;
    int bits;
    const pali_sampling *s;
    uint64_t counter;
} rule;

static inline uint64_t weigh(const rule *r, goal g, uint64_t key) {
    return g == TOP_K
               ? 1
               : pali_rule_weight(pali_rule_z(pali_rule_logit(key), r->top, r->scale), r->bits);
}

static uint64_t needed(const rule *r, goal g, uint64_t all) {
    return g == TOP_K   ? (uint64_t)r->s->top_k
           : g == TOP_P ? pali_rule_need_p(all, r->s->top_p)
                        : pali_rule_need_draw(all, pali_rule_random(r->s->seed, r->counter));
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

/* Passes over keys[0..n) in order until enough has passed. Keeps the passed ones in front, the
 * last of them last, and returns how many: at least one, and all when there are fewer. */
static size_t pass(uint64_t *keys, size_t n, const rule *r, goal g) {
    size_t from = 0;
    uint64_t passed = 0, need = 0;
    for (int shift = 64; shift > 0 && n - from > 1;) {
        uint64_t sum[DIGITS] = {0};
        int bits = shift < DIGIT_BITS ? shift : DIGIT_BITS;
        uint64_t low = ((uint64_t)1 << bits) - 1, digit = 0;
        bool first = shift == 64;
        shift -= bits;
        for (size_t i = from; i < n; i++)
            sum[keys[i] >> shift & low] += weigh(r, g, keys[i]);
        if (first) {
            uint64_t all = 0;
            for (size_t d = 0; d <= low; d++)
                all += sum[d];
            need = needed(r, g, all);
        }
        uint64_t at = passed;
        for (uint64_t d = 0; d <= low; d++) {
            if (sum[d] == 0)
                continue;
            digit = d;
            passed = at;
            at += sum[d];
            if (at >= need)
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
    const rule r = {top, pali_rule_scale(s->temperature), pali_rule_bits(V), s, counter};
    size_t n = 0;
    for (int i = 0; i < V; i++) {
        keys[n] = pali_rule_key(logits[i], i);
        n += logits[i] > -INFINITY; /* false for NaN */
    }
    if (s->top_k > 0)
        n = pass(keys, n, &r, TOP_K);
    if (s->top_p < 1)
        n = pass(keys, n, &r, TOP_P);
    n = pass(keys, n, &r, DRAW);
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
        uint64_t sum = 0;
        int bits = pali_rule_bits(V);
        for (int i = 0; i < V; i++)
            if (logits[i] <= top) /* false for NaN */
                sum += pali_rule_weight(pali_rule_z(logits[i], top, pali_rule_scale(1)), bits);
        *logprob = pali_rule_logprob(logits[token], top, sum, bits);
    }
    return token;
}
