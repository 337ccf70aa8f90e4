/* jax.h - a PaliGemma as JAX (big_vision) stores it, shown as the safetensors of the same model.
 *
 * One .npz with an array for each kind of weight: layers are stacked along the first axis, a
 * linear map is [in][out], heads are axes of their own. Here every layer's tensor has the name
 * and the shape that released safetensors have (core/weights.h). Where the numbers lie in the
 * same order, they are used where they are; the others are listed at once and turned by
 * pali_jax_convert, once, into memory of ours. Untrusted.                               */
#ifndef PALI_JAX_H
#define PALI_JAX_H

#include "core/backend.h"
#include "core/safetensors.h"

#include <stdbool.h>

typedef struct pali_jax pali_jax;

/* How many models there are in a folder (2: two or more): .npz files, but for those of a mask decoder
 * (core/mask.h). *path (owned by the caller, free()) is the only one, else NULL. */
int pali_jax_in_folder(const char *dir, char **path);

/* Reads headers only. Arrays that are missing give no tensors; arrays of a wrong number of
 * dimensions are PALI_EFORMAT. Close with pali_jax_close. */
int pali_jax_open(const char *path, pali_jax **out, pali_error *err);
void pali_jax_close(pali_jax *j);

/* As those of safetensors.h. The data of tensors may be read after pali_jax_convert. */
size_t pali_jax_count(const pali_jax *j);
const pali_tensor *pali_jax_peek(const pali_jax *j, size_t i);
const pali_tensor *pali_jax_find(const pali_jax *j, const char *name);

/* Turns what has to be turned, on so many threads (0: one a core). run (may be NULL) tells of the
 * progress and may stop it. Doing it twice does nothing. PALI_EFORMAT, PALI_ENOMEM, PALI_ECANCEL. */
int pali_jax_convert(pali_jax *j, int threads, const pali_run *run, pali_error *err);
/* Bytes that it takes. */
uint64_t pali_jax_converted_bytes(const pali_jax *j);
/* Gives memory that was converted back; what lies there is not read any more. */
void pali_jax_release(const pali_jax *j, const void *data, size_t n);

/* The config.json that goes with the arrays. Caller frees *json. PALI_EFORMAT when an array that
 * tells sizes is missing; PALI_ENOMEM. */
int pali_jax_config(const pali_jax *j, char **json, pali_error *err);

#endif
