/* weights.h - a model directory as tensors by meaning.
 *
 * Opens config.json and model.safetensors or the shards that
 * model.safetensors.index.json names, or an .npz of JAX's (core/jax.h), accepts the names of released files
 * ("language_model.model.") and of newer libraries ("model.language_model."),
 * checks dtype and shape of every tensor and cross-checks them with the config.
 * Weights stay in the read-only mapping, in their stored dtype.               */
#ifndef PALI_WEIGHTS_H
#define PALI_WEIGHTS_H

#include "core/config.h"
#include "core/file.h"
#include "core/safetensors.h"

#include <stdint.h>

/* [rows][cols], row-major; a vector has rows == 1. y = W x + b with W [out][in].
 * data is borrowed from the mapping and may be unaligned. */
#ifdef __cplusplus
extern "C" {
#endif

struct pali_run; /* core/backend.h */

typedef struct {
    pali_dtype dtype;
    int rows, cols;
    const void *data;

    /* Of quantised matrices, whose data are codes (core/quant.h); else NULL. */
    const unsigned char *scale_codes;
    const float *scales;
} pali_matrix;

typedef struct {
    pali_matrix ln1_w, ln1_b, ln2_w, ln2_b;             /* [D] */
    pali_matrix q_w, q_b, k_w, k_b, v_w, v_b, o_w, o_b; /* [D][D], [D] */
    pali_matrix fc1_w, fc1_b, fc2_w, fc2_b;             /* [F][D], [F]; [D][F], [D] */
} pali_vision_layer;

typedef struct {
    pali_matrix attn_norm;            /* [D] input_layernorm */
    pali_matrix q_w, k_w, v_w, o_w;   /* [H*E][D], [K*E][D], [K*E][D], [D][H*E] */
    pali_matrix post_attn_norm;       /* [D]; Gemma 2 only, else data == NULL */
    pali_matrix mlp_norm;             /* [D] the norm before the MLP, whatever its name */
    pali_matrix gate_w, up_w, down_w; /* [F][D], [F][D], [D][F] */
    pali_matrix post_mlp_norm;        /* [D]; Gemma 2 only, else data == NULL */
} pali_text_layer;

/* One of the matrices below as released files have it. */
typedef struct {
    char name[192]; /* such as language_model.model.norm.weight */
    const pali_matrix *matrix;
    int ndim;
    int64_t shape[4];
} pali_weights_tensor;

typedef struct pali_weights {
    pali_config config; /* complete: no zero left */

    pali_matrix patch_w, patch_b; /* [D][channels*patch*patch] (channel first), [D] */
    pali_matrix position;         /* [P][D] */
    pali_vision_layer *vision;    /* [config.vision.layers] */
    pali_matrix post_ln_w, post_ln_b;

    pali_matrix proj_w, proj_b; /* [text.D][vision.D], [text.D] */

    pali_matrix embed;     /* [V][D], also the head */
    pali_text_layer *text; /* [config.text.layers] */
    pali_matrix norm;      /* [D] */

    pali_weights_tensor *tensors; /* all of the above that are there; none of a random model */
    size_t ntensors;

    uint64_t bytes;                 /* of all tensors above */
    uint64_t params;                /* elements of all tensors above */
    struct pali_shard *shards;      /* private to weights.c, as is the rest */
    struct pali_prefetch *prefetch; /* NULL when none was started */
    size_t nshards;
    void *block; /* of pali_weights_random, else NULL */
    size_t block_bytes;
    char *config_json;
} pali_weights;

/* Opens the model in directory dir, which may also be an .npz. Close with pali_weights_close.
 * Errors name the file and tensor. Nothing of the weights is read, only headers. */
int pali_weights_open(const char *dir, pali_weights **out, pali_error *err);
/* Does what is to be done before data are read: matrices of an .npz are turned, on so many threads
 * (0: one for each core), into memory of pali_weights_converted bytes. Nothing for
 * safetensors, and the second time. PALI_EFORMAT, PALI_ENOMEM, PALI_ECANCEL. */
int pali_weights_prepare(pali_weights *w, int threads, const struct pali_run *run, pali_error *err);
uint64_t pali_weights_converted(const pali_weights *w);
/* The config.json of an .npz, which has none; NULL for other models. Borrowed. */
const char *pali_weights_config_json(const pali_weights *w);
/* The i-th file of weights as it was just before it was opened; NULL after the last, and a random
 * model has none. Borrowed. */
const pali_file_stamp *pali_weights_stamp(const pali_weights *w, size_t i);
void pali_weights_close(pali_weights *w);

/* A model of shape c, complete, with meaningless bfloat16 weights in memory (weights_random.c).
 * PALI_ENOMEM. Memory is taken as it is written: check first that there is enough. */
int pali_weights_random(const pali_config *c, pali_weights **out, pali_error *err);

/* Starts to read the files into the system's page cache, in a thread of its own that
 * ends with pali_weights_close. Does nothing when they do not fit in memory. */
void pali_weights_prefetch(pali_weights *w);

/* Gives back the memory of a matrix of w that is not going to be read soon. */
void pali_weights_release(const pali_weights *w, const pali_matrix *m);

/* Elements [from, from + n) of m, row-major, as float32. */
void pali_matrix_read(const pali_matrix *m, size_t from, size_t n, float *out);

#ifdef __cplusplus
}
#endif

#endif
