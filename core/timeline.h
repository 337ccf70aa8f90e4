/* timeline.h - what a backend refuses before it computes: the rules of backend.h's prefill, decode
 * and extend, once for all backends. For their sources only; the plugin shares no code but this.
 * Each returns 0, or PALI_EARG or PALI_ELIMIT with the sentence in err.                       */
#ifndef PALI_TIMELINE_H
#define PALI_TIMELINE_H

#include "core/backend.h"

static inline int pali_check_id(const pali_config *c, int32_t id, pali_error *err) {
    if (id >= 0 && id < c->text.V)
        return 0;
    return pali_fail(err, PALI_EARG, NULL, "token %d is outside the model's vocabulary of %d",
                     (int)id, c->text.V);
}

static inline int pali_check_prefill(const pali_config *c, int positions, int nembeds,
                                     const int32_t *ids, int n, pali_error *err) {
    int64_t tokens = (int64_t)nembeds * c->vision.P + n;
    if (nembeds < 0 || n < 0 || tokens == 0)
        return pali_fail(err, PALI_EARG, NULL, "a prefix needs at least one token");
    if (tokens > positions)
        return pali_fail(err, PALI_ELIMIT, "shorten the question or start with a larger context",
                         "the prefix has %lld tokens, the context has room for %d",
                         (long long)tokens, positions);
    for (int i = 0; i < n; i++)
        if (pali_check_id(c, ids[i], err) != 0)
            return PALI_EARG;
    return 0;
}

/* filled: positions taken; 0: there is no timeline. */
static inline int pali_check_decode(const pali_config *c, int positions, int filled, int32_t token,
                                    pali_error *err) {
    if (pali_check_id(c, token, err) != 0)
        return PALI_EARG;
    if (filled == 0)
        return pali_fail(err, PALI_EARG, NULL, "there is no prefix to continue");
    if (filled >= positions)
        return pali_fail(err, PALI_ELIMIT, "start again with a larger context",
                         "the context of %d positions is full", positions);
    return 0;
}

static inline int pali_check_extend(const pali_config *c, int positions, int filled,
                                    const int32_t *ids, int n, const int32_t *targets, int vocab,
                                    pali_error *err) {
    if (filled == 0)
        return pali_fail(err, PALI_EARG, NULL, "there is no prefix to continue");
    if (n < 0 || vocab < 1 || vocab > c->text.V)
        return pali_fail(err, PALI_EARG, NULL, "%d tokens of %d cannot be appended", n, vocab);
    if (n > positions - filled)
        return pali_fail(err, PALI_ELIMIT, "start again with a larger context",
                         "%d more tokens do not fit the context of %d positions", n, positions);
    for (int i = 0; i < n; i++)
        if (pali_check_id(c, ids[i], err) != 0 || pali_check_id(c, targets[i], err) != 0 ||
            targets[i] >= vocab)
            return PALI_EARG;
    return 0;
}

#endif
