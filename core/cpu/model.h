/* model.h - the CPU backend's model: what its files share.
 *
 *   table.c      the backend table: open, close, memory, entry and exit of calls
 *   vision.c     pixels -> image embeddings
 *   decoder.c    prefill and decode                quantise.c   weights at open
 *   linear.c     matrix products      norm.c   norms      attention.c   attention
 *   kernels*.c   innermost loops      pool.c   threads
 *
 * Exact float32 arithmetic on the weights, but for quantised ones and one token
 * (simd_quant.h). Weights stay where they are, in their dtype: matrix products widen a
 * panel at a time into scratch. Those to be quantised are, once, at open (quantise.c). With
 * bf16_products those of many tokens (the encoder, prefill) round their input, and
 * quantised weights too, to bfloat16 instead, as a model does that runs in that dtype;
 * sums, attention, norms and the residual stream are float32 still.
 *
 * Activations of many tokens lie in strips (kernels.h), of one token in plain
 * rows. The key/value cache is float32, [layer][K or V][K head][position][E]:
 * bfloat16 would halve it and lose the float32 promise.
 *
 * All memory is taken in two blocks at open; no call allocates, but for the
 * embeddings that encode_image hands out. The encoder and the decoder never run
 * at the same time and share the space for their activations.                */
#ifndef PALI_CPU_MODEL_H
#define PALI_CPU_MODEL_H

#include "core/backend.h"
#include "core/cpu/kernels.h"
#include "core/cpu/pool.h"

#include <stdbool.h>

/* Strips. x: residual stream; a: input of a matrix product; q: queries, later the
 * output of a block before its post-norm; h: MLP hidden, earlier keys and values. */
typedef struct {
    float *x, *a, *q, *h;
} pali_activations;

struct pali_model {
    const pali_weights *w;
    pali_text_layer *text; /* owned: w's layers, with quantised matrices when those are wanted */
    pali_vision_layer *vision; /* the same of the tower */
    pali_matrix proj;          /* and of the projector */
    const pali_kernels *k;
    pali_pool *pool;
    int positions;
    bool bf16_products;  /* of many tokens, where the weights are bfloat16 */
    const pali_run *run; /* of the call in progress, never NULL inside one */

    pali_matrix head;  /* w's embedding, or that in int8 */
    void *quant_block; /* owned: the quantised matrices; NULL without */
    size_t quant_bytes;

    void *kv_block, *work_block; /* owned; everything below points into them */
    float *kv;                   /* [layer][2][K][positions][E] */
    float *scratch;              /* [worker][scratch_len] */
    size_t scratch_len;
    uint32_t *packed; /* with bf16_products: x of a product, [strip][K / 2][lanes] pairs */
    float *rope;      /* [strip of positions][cos, sin][E / 2][lanes] */

    pali_activations enc, dec; /* of the image encoder and of prefill, in one space */
    float *image_k, *image_v;  /* [H][P][E] of the encoder, likewise */

    /* Rows of one token. */
    float *row_x, *row_a, *row_q, *row_k, *row_v, *row_h, *row_y;
    int16_t *row_q16;       /* input of a product with quantised weights, */
    float *row_q16_scale;   /* and its scales: kernels.h, round16 */
    float *logits;          /* [V] */
    float *top, *sum, *aim; /* [PALI_BLOCK_TOKENS] of extend: see score_task */
    int filled;             /* positions in the cache; 0 = no timeline */
    int prefix;             /* those that see each other */
};

struct pali_embeds {
    int rows;
    float data[]; /* [rows][text.D] */
};

/* Tokens of one block where a whole sequence would need too much scratch. */
enum {
    PALI_BLOCK_TOKENS = 1024
};

static inline int pali_strips(const pali_model *m, int tokens) {
    return (tokens + m->k->lanes - 1) / m->k->lanes;
}

/* Strips of a block when `tokens` tokens go in blocks of at most
 * PALI_BLOCK_TOKENS, as equal as possible: a small last block would pay for the
 * widening of all weights again. */
int pali_block_strips(const pali_model *m, int tokens);

/* Runs tasks on the pool; false when the call is to stop. */
static inline bool pali_tasks(pali_model *m, int n, pali_pool_task *task, void *arg) {
    return pali_pool_run(m->pool, n, task, arg, m->run->cancel);
}

static inline void pali_progress(const pali_model *m, pali_stage stage, int done, int total) {
    if (m->run->progress)
        m->run->progress(m->run->user, stage, done, total);
}

static inline float *pali_scratch(const pali_model *m, int worker) {
    return m->scratch + (size_t)worker * m->scratch_len;
}

/* --- linear.c: y = W x + b -------------------------------------------------- */

typedef enum {
    PALI_PUT,       /* out = y */
    PALI_PUT_ADD,   /* out += y */
    PALI_PUT_GELU,  /* out = gelu(y) */
    PALI_PUT_GATED, /* out = gelu(y) * (up x) */
} pali_put;

typedef struct {
    const pali_matrix *w;
    const pali_matrix *up;   /* for PALI_PUT_GATED, of w's shape */
    const pali_matrix *bias; /* NULL: none */
    pali_put put;
    float *out; /* w->rows features */
} pali_linear;

/* n products of the same x, `tokens` tokens in strips; out in strips too. */
bool pali_linear_strips(pali_model *m, const pali_linear *l, int n, const float *x, int tokens);
/* The same for one token; no biases, no PALI_PUT_GELU. */
bool pali_linear_row(pali_model *m, const pali_linear *l, int n, const float *x);
/* logits = softcap(W x). */
bool pali_linear_logits(pali_model *m, const pali_matrix *w, const float *x, float cap, float *out);
/* Floats of scratch a worker needs. */
size_t pali_linear_scratch(const pali_kernels *k);

/* --- quantise.c: weights at open ------------------------------------------------ */

/* Bytes of quant_block for what o asks; PALI_EUNSUPPORTED when w's matrices are quantised
 * otherwise, or unlike each other where they share an input. */
int pali_quantise_plan(const pali_weights *w, const pali_backend_options *o, size_t *bytes,
                       pali_error *err);
/* Fills m->text, vision, proj and head, from w or by quantising into a new quant_block, the head
 * and then layer by layer, on the pool; what was read of the files is given back. PALI_ECANCEL,
 * PALI_ENOMEM. */
int pali_quantise_weights(pali_model *m, const pali_backend_options *o, pali_error *err);
void pali_quantise_close(pali_model *m);

/* --- norm.c ------------------------------------------------------------------- */

typedef struct {
    const pali_matrix *w, *b; /* b != NULL: LayerNorm with bias; NULL: RMSNorm with 1 + w */
    float eps;
    bool add; /* out += norm(x) instead of out = */
} pali_norm;

bool pali_norm_strips(pali_model *m, const pali_norm *n, const float *x, int tokens, float *out);
/* RMSNorm of one token. */
void pali_norm_row(pali_model *m, const pali_norm *n, const float *x, float *out);

/* --- attention.c ---------------------------------------------------------------- */

typedef struct {
    const float *q;       /* strips (or a row) of H * E features */
    const float *k, *v;   /* [K][..][E] */
    size_t head_stride;   /* floats from one K head to the next */
    int H, K, E;          /* query head h reads K head h * K / H */
    int keys;             /* every query sees all of them */
    float scale, softcap; /* softcap 0: none */
    float *out;           /* like q */
} pali_attention;

bool pali_attend_strips(pali_model *m, const pali_attention *a, int tokens);
bool pali_attend_row(pali_model *m, const pali_attention *a);
/* Query t of the last `tokens` keys sees all keys up to its own. */
bool pali_attend_causal(pali_model *m, const pali_attention *a, int tokens);
size_t pali_attend_scratch(const pali_kernels *k, int keys, int E);

/* rows[t * ld + f] = features f < n of lane t < tokens of the strip src [n][lanes]. */
static inline void pali_strip_read(const pali_model *m, const float *src, int n, int tokens,
                                   float *rows, size_t ld) {
    for (int t = 0; t < tokens; t++)
        for (int f = 0; f < n; f++)
            rows[(size_t)t * ld + (size_t)f] = src[(size_t)f * (size_t)m->k->lanes + (size_t)t];
}

/* --- stages: vision.c, decoder.c --------------------------------------------------- */

int pali_vision_encode(pali_model *m, const float *pixels, float *out, pali_error *err);
int pali_decoder_prefill(pali_model *m, const pali_embeds *const *embeds, int nembeds,
                         const int32_t *ids, int n, pali_error *err);
int pali_decoder_step(pali_model *m, int32_t token, pali_error *err);
int pali_decoder_extend(pali_model *m, const int32_t *ids, int n, const int32_t *targets, int vocab,
                        float *logprobs, pali_error *err);
int pali_decoder_rewind(pali_model *m, int n, pali_error *err);
/* Fills m->rope for m->positions positions. */
void pali_decoder_rope(pali_model *m);

/* What a stage returns when pali_tasks said to stop: PALI_ECANCEL, told in err. */
int pali_stopped(pali_error *err);

/* The table's open, with kernels of the caller's choice: for tests of all of them. */
int pali_cpu_open(const pali_weights *w, const pali_backend_options *o, const pali_kernels *k,
                  const pali_run *run, pali_model **out, pali_error *err);

#endif
