/* score.c - how likely texts are as answers: pali_dialog_score.
 *
 *   log p(text) = sum over its tokens and the end of log p(token | pictures, prompt, tokens before)
 *
 * The first token's comes from the prefix's logits, the others' from one pass over all of
 * them behind the prefix, which every text finds as the one before left it.             */
#include "core/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* log softmax(logits[0 .. n))[id] */
static double log_probability(const float *logits, int n, int32_t id) {
    float top = -INFINITY;
    double sum = 0;
    for (int i = 0; i < n; i++)
        top = fmaxf(top, logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - (double)top);
    return (double)logits[id] - (double)top - log(sum);
}

/* The text's ids, each followed by what comes after it: (*ids)[1 ..] ends with eos. */
static int encode_text(const pali_engine *e, const char *text, int room, int32_t **ids, size_t *n,
                       pali_error *err) {
    int rc = pali_tokenizer_encode(e->tokenizer, text, strlen(text), ids, n, err);
    if (rc)
        return rc;
    if (*n > (size_t)room)
        return pali_fail(err, PALI_ELIMIT, "score a shorter text",
                         "a text of %zu tokens does not fit: there is room for %d", *n, room);
    int32_t *more = realloc(*ids, (*n + 1) * sizeof *more);
    if (!more)
        return pali_fail_nomem(err, "scoring a text");
    more[*n] = pali_tokenizer_eos(e->tokenizer);
    *ids = more;
    return 0;
}

static int score_text(pali_engine *e, const char *text, const pali_run *run, pali_score *out,
                      pali_error *err) {
    int32_t *ids = NULL;
    float *logprobs = NULL;
    size_t n = 0;
    int rc = encode_text(e, text, e->context - e->reuse.length, &ids, &n, err);
    if (!rc && !(logprobs = malloc((n + 1) * sizeof *logprobs)))
        rc = pali_fail_nomem(err, "scoring a text");
    if (!rc)
        rc = e->backend->rewind(e->model, e->reuse.length, err);
    if (!rc)
        rc = e->backend->extend(e->model, ids, (int)n, ids + 1, (int)e->vocab, logprobs, run, err);
    if (!rc) {
        *out = (pali_score){.sum = log_probability(e->reuse.logits, (int)e->vocab, ids[0]),
                            .tokens = (int)n + 1};
        for (size_t i = 0; i < n; i++)
            out->sum += (double)logprobs[i];
        if (isnan(out->sum))
            rc = pali_fail(err, PALI_EFORMAT, "the weights are damaged: download them again",
                           "the model computed no usable logits");
    }
    free(logprobs);
    free(ids);
    return rc;
}

int pali_dialog_score(pali_dialog *d, const char *prompt, const char *const *texts, size_t n,
                      const pali_run *run, pali_score *out, pali_error *err) {
    pali_engine *e = d->engine;
    int32_t *ids = NULL;
    size_t nids = 0;
    bool reused;
    int room = e->context - (int)d->nimages * e->weights->config.vision.P;
    int rc = pali_prompt_build(e->tokenizer, NULL, 0, PALI_HISTORY_NONE, prompt, (size_t)room, &ids,
                               &nids, NULL, err);
    if (!rc)
        rc = pali_dialog_encode(d, run, err);
    if (!rc)
        rc = pali_reuse_prefix(e, d->images, d->nimages, ids, nids, run, &reused, err);
    for (size_t i = 0; i < n && !rc; i++)
        rc = score_text(e, texts[i], run, &out[i], err);
    if (rc && rc != PALI_ECANCEL && rc != PALI_ELIMIT)
        pali_reuse_forget_prefix(e);
    free(ids);
    return rc;
}
