/* backend.h - the seam between the model's meaning and the machine that runs it.
 *
 * A backend is a table of stage-sized calls: the stages are large enough that it
 * may fuse, reorder and keep what it likes on its device, and few enough that
 * this page is all a new backend must implement. cpu/ is the one beside us and
 * the reference for every other.
 *
 * One pali_model is one running timeline: weights ready for the device, one
 * key/value cache, one set of logits. It is used by one thread at a time.       */
#ifndef PALI_BACKEND_H
#define PALI_BACKEND_H

#include "core/error.h"
#include "core/quant.h"
#include "core/sample.h"
#include "core/weights.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus /* the CUDA plugin; std::atomic_int is the same object */
#include <atomic>
using std::atomic_int;
extern "C" {
#else
#include <stdatomic.h>
#endif

typedef struct pali_model pali_model;   /* each backend defines its own */
typedef struct pali_embeds pali_embeds; /* image embeddings [n][text.D] on the device */

typedef enum {
    PALI_STAGE_LOAD,
    PALI_STAGE_ENCODE,
    PALI_STAGE_PREFILL,
    PALI_STAGE_DECODE
} pali_stage;

/* How a long call reports and is stopped. Any field may be NULL. */
typedef struct pali_run {
    const atomic_int *cancel; /* nonzero: return PALI_ECANCEL as soon as possible */
    void (*progress)(void *user, pali_stage stage, int done, int total);
    void *user;
} pali_run;

/* How the CPU multiplies bfloat16 weights with many tokens (the encoder, prefill). AUTO is
 * BF16 for models large enough that a person waits for it, where the processor has it. */
typedef enum {
    PALI_MATH_AUTO,
    PALI_MATH_F32,  /* exact: weights widened, activations float32 */
    PALI_MATH_BF16, /* activations rounded to bfloat16: half the time */
} pali_math;

typedef struct {
    int threads;      /* CPU workers; 0 = one per core this process may use */
    int positions;    /* room in the key/value cache: prefix + answer */
    pali_quant quant; /* NONE, INT8 or NF4: what the decoder's matrices become (quant.h) */
    int quant_all; /* not 0: those of the vision tower and the projector too, as in transformers */
    pali_math math;
    int head8; /* not 0: a copy of the embedding in int8 is the head. Fewer bytes a token, less
                * exact than what bitsandbytes does; rows are looked up as stored */
} pali_backend_options;

/* Bytes a model would take beyond the mapped files. */
typedef struct {
    size_t weights;   /* copies or conversions of weights */
    size_t kv;        /* key/value cache */
    size_t workspace; /* activations and scratch, allocated once */
} pali_memory;

enum {
    PALI_ARITHMETIC = 320
};

/* An answer that a backend samples itself. */
typedef struct {
    int32_t first; /* token picked already, where logits are old, and not handed out; or -1 */
    pali_sampling sampling;
    uint64_t counter; /* of the first draw; one more for every token */
    int vocab;        /* ids below are picked */
    int max;          /* tokens at most; there must be room for them */
    int32_t eos;      /* the last token to be handed out, if it comes */
    /* Gets every token in order; false: no more. */
    bool (*token)(void *user, int32_t token, float logprob);
    void *user;
} pali_generation;

typedef struct pali_backend {
    const char *name; /* "cpu", "cuda" */

    /* What open would allocate; allocates nothing. */
    int (*memory)(const pali_weights *w, const pali_backend_options *o, pali_memory *out,
                  pali_error *err);

    /* Makes w ready to run. w is borrowed and must outlive the model. Close with close. */
    int (*open)(const pali_weights *w, const pali_backend_options *o, const pali_run *run,
                pali_model **out, pali_error *err);
    void (*close)(pali_model *m);

    /* pixels [3][S][S] in [-1, 1] -> embeddings [P][text.D], not scaled by
     * sqrt(D). Free with embeds_free before the model is closed. */
    int (*encode_image)(pali_model *m, const float *pixels, const pali_run *run, pali_embeds **out,
                        pali_error *err);
    /* Copies all rows to out [P][text.D] as float32. */
    int (*embeds_read)(pali_model *m, const pali_embeds *e, float *out, pali_error *err);
    void (*embeds_free)(pali_model *m, pali_embeds *e);
    /* Both NULL, or: embeddings of rows [P][text.D] that embeds_read gave, perhaps to another
     * process, the same to the bit; and one line that names all that the bits of embeddings
     * depend on beside weights, pixels and this code: kernels, device, arithmetic. */
    int (*embeds_write)(pali_model *m, const float *rows, pali_embeds **out, pali_error *err);
    void (*arithmetic)(const pali_model *m, char line[PALI_ARITHMETIC]);

    /* Starts a new timeline: [embeds 0][embeds 1]..[ids], all attending to all. Afterwards
     * logits holds the last position's. T = nembeds * P + n must be <= positions.
     * Every id must be in [0, V). */
    int (*prefill)(pali_model *m, const pali_embeds *const *embeds, int nembeds, const int32_t *ids,
                   int n, const pali_run *run, pali_error *err);

    /* Appends one token (causal) and computes the logits after it. */
    int (*decode)(pali_model *m, int32_t token, const pali_run *run, pali_error *err);

    /* Logits [V] after the last prefill or decode, final soft-cap applied.
     * Borrowed until the next call on m. */
    const float *(*logits)(pali_model *m);

    /* Appends n tokens, each seeing all before it: what n decodes would do, in one go, but
     * for the logits, which are nobody's until the next prefill or decode. logprobs[i] = the
     * log-probability of targets[i] right after ids[i], among the ids below vocab:
     * log softmax(logits[0 .. vocab))[targets[i]]. When it fails or stops, the timeline is
     * as before. */
    int (*extend)(pali_model *m, const int32_t *ids, int n, const int32_t *targets, int vocab,
                  float *logprobs, const pali_run *run, pali_error *err);

    /* Takes the timeline back to its first n positions, not fewer than the prefix has: those
     * that follow are forgotten. Logits stay as they were. */
    int (*rewind)(pali_model *m, int n, pali_error *err);

    /* NULL, or: from the logits of the last prefill or decode on, or from a token, what a
     * loop of pali_sample and decode does, token for token and bit for bit, without waiting
     * for the host between two tokens. Afterwards the timeline holds all tokens but the last
     * that was handed out, and there are no logits. A stop is obeyed within two tokens. */
    int (*generate)(pali_model *m, const pali_generation *g, const pali_run *run, pali_error *err);
} pali_backend;

/* The CPU backend: always there. */
const pali_backend *pali_backend_cpu(void);

/* Finds a backend by name: "cpu", "cuda" or "auto" (the best that works here).
 * Borrowed, lives as long as the process. PALI_EUNSUPPORTED says why not. */
int pali_backend_find(const char *name, const pali_backend **out, pali_error *err);

/* Why "auto" did not take a graphics card; code 0 when it did. */
const pali_error *pali_backend_why_not_cuda(void);
/* Has this machine an NVIDIA graphics card, usable or not? */
int pali_backend_has_card(void);

#ifdef __cplusplus
}
#endif

#endif
