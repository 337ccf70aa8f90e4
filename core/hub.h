/* hub.h - the folder of a model from what a user types.
 *
 * Either a folder that has config.json in it, or the id of a model on the Hugging Face
 * hub, "org/name" or "org/name@revision", that was downloaded before:
 *
 *     CACHE/models--org--name/refs/REVISION            a file with the commit in it
 *     CACHE/models--org--name/snapshots/COMMIT/...     links into blobs/
 *
 * CACHE is $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
 * ~/.cache/huggingface/hub. Nothing is downloaded. The environment comes from the
 * caller: core reads none.                                                         */
#ifndef PALI_HUB_H
#define PALI_HUB_H

#include "core/error.h"

#include <stddef.h>

/* Values of the environment variables; NULL or empty when unset. Borrowed. */
typedef struct {
    const char *hf_hub_cache; /* HF_HUB_CACHE */
    const char *hf_home;      /* HF_HOME */
    const char *xdg_cache;    /* XDG_CACHE_HOME */
    const char *home;         /* HOME */
} pali_hub_env;

/* Writes the folder of the model that name means to dir[size]. Without a revision, main
 * is meant, or the newest snapshot when the cache has no main. PALI_EIO: not there, the
 * sentence says where it was looked for. PALI_EARG: not a name of a model.
 * PALI_EFORMAT: there, but not whole. */
int pali_hub_find(const pali_hub_env *env, const char *name, char *dir, size_t size,
                  pali_error *err);

#endif
