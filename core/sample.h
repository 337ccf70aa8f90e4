/* sample.h - logits -> one token.
 *
 * Randomness is counter-based (Philox4x32-10, Salmon et al. 2011): draw number i of
 * a seed is a function of (seed, i) alone, so a turn can be repeated and every
 * backend picks the same token from the same logits.                            */
#ifndef PALI_SAMPLE_H
#define PALI_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    float temperature; /* 0 = greedy */
    int top_k;         /* 0 = off */
    float top_p;       /* 1 = off; keeps the smallest set with at least this mass */
    uint64_t seed;
} pali_sampling;

/* One block of Philox4x32-10. */
void pali_random_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Uniform in [0, 1) with 24 random bits: draw number counter of seed. */
float pali_random_uniform(uint64_t seed, uint64_t counter);

/* Picks from logits[0..V). Greedy takes the largest, the lowest id among equals.
 * Otherwise: divide by temperature, keep top_k, then top_p of what is left
 * (ordered by logit, then by id; the first is always kept), draw by
 * pali_random_uniform(seed, counter). A NaN or -inf logit is never picked; +inf
 * always is, the lowest id of several. scratch: V elements of 8 bytes, aligned as
 * uint64_t. *logprob (may be NULL) = log softmax(logits)[token], before temperature.
 * Returns the token, or -1 when every logit is NaN or -inf. */
int32_t pali_sample(const float *logits, int V, const pali_sampling *s, uint64_t counter,
                    void *scratch, float *logprob);

#ifdef __cplusplus
}
#endif

#endif
