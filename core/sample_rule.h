/* sample_rule.h - the arithmetic behind sample.h, written so that every machine gets the
 * same bits from it.
 *
 * A token that is drawn has a weight, e^((logit - top) / T). Here it is a whole number:
 * 2^z in fixed point, `bits` binary places, from a polynomial whose every operation is
 * rounded once. Sums of whole numbers do not depend on their order, so a backend may add
 * with as many threads as it likes and still stop at the same token. `bits` leaves room for
 * the sum of V weights: 45 places for a vocabulary of 257216, 52 for a short one.
 *
 * A compiler that fuses a product with a sum would round differently. One that does so
 * unasked (CUDA's) defines the four names below before it includes this file.          */
#ifndef PALI_SAMPLE_RULE_H
#define PALI_SAMPLE_RULE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifndef PALI_RULE
#define PALI_RULE           static inline
#define PALI_RULE_MUL(a, b) ((a) * (b))
#define PALI_RULE_ADD(a, b) ((a) + (b))
#endif

/* --- Philox4x32-10 ------------------------------------------------------------------- */

PALI_RULE void pali_rule_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
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

/* 24 random bits: draw number counter of seed. */
PALI_RULE uint32_t pali_rule_random(uint64_t seed, uint64_t counter) {
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0}, out[4];
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    pali_rule_philox(c, k, out);
    return out[0] >> 8;
}

/* --- order ------------------------------------------------------------------------------ */

/* Keys ascend as tokens are preferred: logit down, then id up. High half: bits that grow
 * as the logit falls, -0 and +0 alike. Low half: the id. */
PALI_RULE uint64_t pali_rule_key(float logit, int32_t id) {
    float x = logit + 0.0f;
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    b = b & 0x80000000u ? b : ~b & 0x7FFFFFFFu;
    return (uint64_t)b << 32 | (uint32_t)id;
}

PALI_RULE float pali_rule_logit(uint64_t key) {
    uint32_t b = (uint32_t)(key >> 32);
    float x;
    b = b & 0x80000000u ? b : ~b & 0x7FFFFFFFu;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* --- weights ------------------------------------------------------------------------------- */

/* Binary places of weights, of which V may be added up. */
PALI_RULE int pali_rule_bits(int V) {
    int bits = 63;
    while (bits > 0 && ((int64_t)1 << (63 - bits)) < V)
        bits--;
    return bits < 52 ? bits : 52;
}

/* What distances from the top are multiplied by at a temperature > 0. */
PALI_RULE double pali_rule_scale(float temperature) {
    return 1.4426950408889634 / temperature;
}

/* log2 of a weight: 0 at the top, never rising as the logit falls. */
PALI_RULE double pali_rule_z(float logit, float top, double scale) {
    return logit == top ? 0 : PALI_RULE_MUL((double)logit - (double)top, scale);
}

/* 2^z for z <= 0, `bits` places, to the nearest: 0 from somewhat below 2^-bits / 2 on. */
PALI_RULE uint64_t pali_rule_weight(double z, int bits) {
    if (!(z > -(bits + 1.5)))
        return 0;
    /* The polynomial nearest to 2^f for |f| <= 1/2 with p(0) = 1: off by 7e-16 at most. */
    const double c[11] = {0x1.e5e9f548e5725p-28,
                          0x1.b6571de2f2351p-24,
                          0x1.62bfe46117445p-20,
                          0x1.ffcb76789860fp-17,
                          0x1.4309130378460p-13,
                          0x1.5d87fe908f88ap-10,
                          0x1.3b2ab6fba385fp-7,
                          0x1.c6b08d7044119p-5,
                          0x1.ebfbdff82c590p-3,
                          0x1.62e42fefa39f7p-1,
                          1};
    int n = (int)PALI_RULE_ADD(z, -0.5); /* the nearest: z <= 0, and the cast goes up */
    double f = PALI_RULE_ADD(z, -n), p = c[0];
    for (int k = 1; k < 11; k++)
        p = PALI_RULE_ADD(PALI_RULE_MUL(p, f), c[k]);
    uint64_t w = (uint64_t)PALI_RULE_MUL(p, 0x1p52);
    int shift = 52 - bits - n;
    return shift > 0 ? ((w >> (shift - 1)) + 1) >> 1 : w;
}

/* part / 2^32 of all, rounded down, or up. */
PALI_RULE uint64_t pali_rule_share(uint64_t all, uint32_t part, bool up) {
    uint64_t low = (all & 0xFFFFFFFFu) * part;
    return (all >> 32) * part + (low >> 32) + (up && (low & 0xFFFFFFFFu) != 0);
}

/* The weight that must have passed: for a top_p < 1 (of all that top_k left), ... */
PALI_RULE uint64_t pali_rule_need_p(uint64_t all, float top_p) {
    uint32_t part = top_p > 0 ? (uint32_t)PALI_RULE_MUL((double)top_p, 0x1p32) : 0;
    return pali_rule_share(all, part, true);
}

/* ... and for a draw from all that top_p left: more than the random part. */
PALI_RULE uint64_t pali_rule_need_draw(uint64_t all, uint32_t random24) {
    return pali_rule_share(all, random24 << 8, false) + 1;
}

/* log softmax of a logit, given the sum of all weights at temperature 1. */
PALI_RULE float pali_rule_logprob(float logit, float top, uint64_t sum, int bits) {
    double distance = logit == top ? 0 : (double)logit - top;
    return (float)(distance - log(ldexp((double)sum, -bits)));
}

#endif
