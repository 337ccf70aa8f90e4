/* cache.h - the models that lie in the Hugging Face cache (app/pull.h has its layout), and
 * taking them out of it again.
 *
 * Links are read, never followed, so that nothing outside the cache is counted or removed.  */
#ifndef APP_CACHE_H
#define APP_CACHE_H

#include "core/hub.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CACHE_PATH_BYTES = 4096
};

/* A formatted path; PALI_EARG when it would be longer. */
int cache_path(char out[CACHE_PATH_BYTES], pali_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* One commit of one model. */
typedef struct {
    char id[2 * PALI_HUB_PART_MAX + 2];
    char commit[PALI_HUB_COMMIT_MAX + 1];
    char refs[128];    /* branches and tags that mean it, with ", " between; "" for none */
    const char *path;  /* of the snapshot */
    uint64_t bytes;    /* of its files; of a download that goes on, what has come */
    bool paligemma;    /* config.json says so, or there are weights of JAX's */
    bool complete;     /* pali can open it */
    const char *why;   /* why not; "" when it is complete */
    uint64_t params;   /* 0 when it is not complete, as the rest */
    const char *dtype; /* "BF16" */
    int generation, pixels;
} cached_model;

/* Calls each for every commit of every model, sorted by id; *m is borrowed for the call. A
 * cache that is not there is an empty one. PALI_EIO, PALI_ENOMEM. */
int cache_list(const char *cache, void (*each)(void *user, const cached_model *m), void *user,
               pali_error *err);

typedef struct {
    uint64_t bytes; /* that go away */
    int commits, left;
} cache_removal;

/* What cache_remove would remove. id->revision "" means all of the model. PALI_EIO: it is not
 * there. */
int cache_plan_removal(const char *cache, const pali_hub_id *id, cache_removal *out,
                       pali_error *err);
/* Removes a model, or one commit, its names, and the blobs that no other commit links to.
 * PALI_EIO also when somebody is downloading it. */
int cache_remove(const char *cache, const pali_hub_id *id, pali_error *err);

#endif
