/* reuse.h - what an engine does not compute twice; for files of core that know an engine.
 *
 * Embeddings of a picture depend on the pixels of its square and nothing else. They are kept
 * by content, bytes compared, for the pictures that dialogs hold and the last few others: to
 * go back to an earlier picture, or to the same crop of it, costs a resize.
 *
 * The keys and values of a prefix depend on all of it, since its positions see each other:
 * another word in the question changes those of the image too. So they serve again for the
 * very same pictures and ids only (a question asked again with other sampling, many texts
 * scored after one prompt); then the timeline goes back to the end of the prefix, and what
 * follows is the same to the bit, because the keys, the values and the kept logits are.    */
#ifndef PALI_REUSE_H
#define PALI_REUSE_H

#include "core/backend.h"
#include "core/image.h"

#include <stdbool.h>

struct pali_engine;

/* A picture as the model sees it. */
typedef struct {
    pali_image square;   /* S x S */
    pali_embeds *embeds; /* NULL until encoded */
    uint64_t number;     /* no two of an engine have the same, ever */
    uint64_t used;       /* when last */
    int holders;
} pali_seen;

typedef struct {
    pali_seen **seen; /* [nseen], owned */
    size_t nseen, cap;
    uint64_t clock; /* last number, last time used */

    /* The prefix in the timeline; length 0: none. */
    int length;       /* positions */
    uint64_t *images; /* their numbers [nimages] */
    size_t nimages;
    int32_t *ids; /* [nids] */
    size_t nids;
    float *logits; /* [V] after it */
} pali_reuse;

/* Finds image among those seen, or adds it, and holds it. Release with pali_reuse_release,
 * before the engine is closed. */
int pali_reuse_hold(struct pali_engine *e, const pali_image *image, pali_seen **out,
                    pali_error *err);
void pali_reuse_release(struct pali_engine *e, pali_seen *s);
/* Makes s->embeds when it is not there. */
int pali_reuse_encode(struct pali_engine *e, pali_seen *s, const pali_run *run, pali_error *err);

/* Puts the timeline to the end of the prefix [images][ids], all encoded, by prefill or by
 * going back: *reused says which. e->reuse.logits are then those after it. */
int pali_reuse_prefix(struct pali_engine *e, pali_seen *const *images, size_t nimages,
                      const int32_t *ids, size_t nids, const pali_run *run, bool *reused,
                      pali_error *err);
/* The timeline is not to be trusted any more. */
void pali_reuse_forget_prefix(struct pali_engine *e);

void pali_reuse_close(struct pali_engine *e);

#endif
