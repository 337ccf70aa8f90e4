/* config.h - the dimensions of a PaliGemma, from config.json.
 *
 * Letters used in every comment of the project:
 *   S image side in pixels   P patches = image tokens, (S / patch)^2
 *   T tokens of a sequence   D width of a tower     F width inside its MLP
 *   H query heads            K key/value heads      E size of one head
 *   V rows of the embedding table (padded vocabulary)
 * Missing keys get the values the released checkpoints mean, not the class
 * defaults of a library (HACKING.md, "The model").                            */
#ifndef PALI_CONFIG_H
#define PALI_CONFIG_H

#include "core/error.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int S, patch, channels; /* 224, 14, 3 */
    int P;                  /* image tokens */
    int layers, D, H, E, F; /* 27, 1152, 16, 72, 4304; H * E == D */
    float eps;              /* LayerNorm epsilon, 1e-6 */
} pali_vision_config;

typedef struct {
    int gemma;                    /* 1 or 2: which block */
    int layers, D, H, K, E, F, V; /* 18, 2048, 8, 1, 256, 16384, 257216 */
    int max_positions;            /* 8192 */
    float eps;                    /* RMSNorm epsilon, 1e-6 */
    float rope_theta;             /* 10000 */
    float query_scale;            /* multiplies q.k: E^-0.5 or query_pre_attn_scalar^-0.5 */
    float attn_softcap;           /* 0 = none; Gemma 2: 50 */
    float final_softcap;          /* 0 = none; Gemma 2: 30 */
} pali_text_config;

typedef struct {
    pali_vision_config vision;
    pali_text_config text;
    int image_token; /* placeholder id, 257152 */
    int bos, eos, pad;
    int untied; /* 1: the file says that the head has a matrix of its own */
} pali_config;

enum {
    PALI_MAX_LAYERS = 1024,
    PALI_MAX_WIDTH = 1 << 20,
    PALI_MAX_VOCAB = 1 << 24
};

/* Parses config.json at path. Sizes that the file leaves out and that have no
 * safe default are left 0 (text.gemma and what follows from it too, when the file does
 * not name the text model); pali_weights_open fills them from the tensors and refuses
 * a model in which file and tensors disagree. Every number is range-checked; NaN,
 * infinities, negative and huge sizes are PALI_EFORMAT. Another kind of model is
 * PALI_EUNSUPPORTED. */
int pali_config_open(const char *path, pali_config *out, pali_error *err);

/* The same from memory; name is for messages. */
int pali_config_parse(const char *json, size_t n, const char *name, pali_config *out,
                      pali_error *err);

/* Decides a text.gemma that was left 0: the generation is 1 or 2, text.D and text.E
 * are known. Sets the scale of q.k and the soft-caps as that generation has them. */
void pali_config_set_gemma(pali_config *c, int generation);

#ifdef __cplusplus
}
#endif

#endif
