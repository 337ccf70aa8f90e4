/* hub_api.h - what the hub says about a model: its commit and its files.
 *
 * The answer of GET /api/models/ORG/NAME/revision/REVISION?blobs=true, a JSON object:
 *
 *     {"sha": COMMIT, "siblings": [{"rfilename": NAME, "size": N, "blobId": SHA1,
 *                                   "lfs": {"sha256": SHA256, "size": N}}, ...]}
 *
 * (https://huggingface.co/docs/hub/api). Untrusted: a name becomes part of a path and a
 * URL, a hash becomes the name of a file. Of all the files those are kept that pali
 * reads; they lie at the top of a repository, so no name that is kept has a slash.   */
#ifndef APP_HUB_API_H
#define APP_HUB_API_H

#include "core/error.h"
#include "core/hub.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HUB_FILES_MAX = 256, /* files of one model that are kept */
    HUB_NAME_MAX = 120,
    HUB_HASH_MAX = 64 /* hexadecimal digits of a SHA-256; a git blob's SHA-1 has 40 */
};

typedef struct {
    char name[HUB_NAME_MAX + 1];
    char hash[HUB_HASH_MAX + 1]; /* also the name of the blob in the cache */
    uint64_t size;
} hub_file;

typedef struct {
    char commit[PALI_HUB_COMMIT_MAX + 1];
    hub_file *files; /* owned; small files first, weights last */
    size_t nfiles;
    uint64_t bytes; /* of all of them */
} hub_listing;

/* id is for messages. PALI_EFORMAT: not such an answer, or a name in it that leads out of
 * its folder. PALI_EUNSUPPORTED: a repository without a model that pali reads. PALI_ELIMIT,
 * PALI_ENOMEM. Close *out in any case. */
int hub_listing_parse(const char *json, size_t n, const char *id, hub_listing *out,
                      pali_error *err);
void hub_listing_close(hub_listing *l);

/* Whether hash is that of a file kept by git-lfs: a SHA-256 of the bytes. Otherwise it is git's
 * own, the SHA-1 of "blob SIZE\0" and the bytes. */
bool hub_hash_is_sha256(const char *hash);

/* Whether pali has a use for a file of this name, in a folder of safetensors or of npz. */
bool hub_file_is_wanted(const char *name);

#endif
