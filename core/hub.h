/* hub.h - the folder of a model from what a user types.
 *
 * Either a folder that has config.json or an .npz in it, or an .npz, or the id of a model on the Hugging Face
 * hub, "org/name" or "org/name@revision", that was downloaded before:
 *
 *     CACHE/models--org--name/refs/REVISION            a file with the commit in it
 *     CACHE/models--org--name/snapshots/COMMIT/...     links into blobs/
 *
 * CACHE is $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
 * ~/.cache/huggingface/hub. Nothing is downloaded here (app/pull.h does). The environment
 * comes from the caller: core reads none.                                                         */
#ifndef PALI_HUB_H
#define PALI_HUB_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Values of the environment variables; NULL or empty when unset. Borrowed. */
typedef struct {
    const char *hf_hub_cache; /* HF_HUB_CACHE */
    const char *hf_home;      /* HF_HOME */
    const char *xdg_cache;    /* XDG_CACHE_HOME */
    const char *home;         /* HOME */
} pali_hub_env;

enum {
    PALI_HUB_PART_MAX = 96,
    PALI_HUB_REVISION_MAX = 200,
    PALI_HUB_COMMIT_MAX = 64
};

/* An id that was checked: every field may become part of a path or a URL. */
typedef struct {
    char org[PALI_HUB_PART_MAX + 1], name[PALI_HUB_PART_MAX + 1];
    char revision[PALI_HUB_REVISION_MAX + 1]; /* "" when none was named */
} pali_hub_id;

/* "org/name" or "org/name@revision"; false when text is neither. */
bool pali_hub_parse_id(const char *text, pali_hub_id *id);
/* A branch, a tag, a commit, or refs/pr/1. */
bool pali_hub_is_revision(const char *s);
bool pali_hub_is_commit(const char *s);

/* Writes the folder CACHE, or the one where the hub's tools keep everything else, to dir[size].
 * PALI_EIO: the environment does not tell. */
int pali_hub_cache(const pali_hub_env *env, char *dir, size_t size, pali_error *err);
int pali_hub_home(const pali_hub_env *env, char *dir, size_t size, pali_error *err);
/* The commit that refs/revision in model (a folder CACHE/models--org--name) names; false
 * when there is none. */
bool pali_hub_read_ref(const char *model, const char *revision,
                       char commit[PALI_HUB_COMMIT_MAX + 1]);

/* Writes the folder of the model that name means to dir[size]. Without a revision, main
 * is meant, or the newest snapshot when the cache has no main. PALI_EIO: not there, the
 * sentence says where it was looked for. PALI_EARG: not a name of a model.
 * PALI_EFORMAT: there, but not whole. */
int pali_hub_find(const pali_hub_env *env, const char *name, char *dir, size_t size,
                  pali_error *err);

#endif
