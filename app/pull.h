/* pull.h - a model from the Hugging Face hub into the cache that its tools share.
 *
 *     CACHE/models--org--name/blobs/HASH                 the bytes, named by their checksum
 *     CACHE/models--org--name/blobs/HASH.incomplete      the beginning of them
 *     CACHE/models--org--name/snapshots/COMMIT/FILE      a link to ../../blobs/HASH
 *     CACHE/models--org--name/refs/REVISION              COMMIT
 *     CACHE/.locks/models--org--name/HASH.lock           held with flock(2) while it is written
 *
 * as huggingface_hub lays it out (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
 * A blob gets its name when its checksum is right, and the revision is moved to the new
 * commit when all of its files are there. What is interrupted goes on the next time.
 * Nothing is printed: whoever pulls is told what happens.                              */
#ifndef APP_PULL_H
#define APP_PULL_H

#include "app/hub_http.h"
#include "core/hub.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    pali_hub_id id; /* without a revision: main */
    pali_hub_env env;
    hub_http_options http; /* id, waiting and user are filled in by pull_run */
} pull_request;

typedef enum {
    PULL_BEGIN,   /* the files are known: files, bytes; have */
    PULL_FILE,    /* file comes now */
    PULL_BYTES,   /* several times a second */
    PULL_CHECKED, /* file is there, its checksum right */
    PULL_AGAIN,   /* file was damaged; it comes once more */
    PULL_BUSY,    /* another program is pulling file; waiting for it */
    PULL_WAIT,    /* why, seconds: before the next attempt */
} pull_what;

typedef struct {
    pull_what what;
    const char *commit;
    const char *file; /* borrowed for the call */
    size_t nfile, files;
    uint64_t file_have, file_bytes;
    uint64_t have, bytes; /* of all files; have counts what was there before */
    const char *why;
    int seconds;
} pull_event;

typedef struct {
    void (*on)(void *user, const pull_event *e);
    void *user;
} pull_listener;

/* The token of the hub: hf_token (HF_TOKEN) when it is set, else what the token's file holds:
 * hf_token_path (HF_TOKEN_PATH), or `token` in the folder of env's HF_HOME. "": none. */
void pull_token(const pali_hub_env *env, const char *hf_token, const char *hf_token_path, char *out,
                size_t size);

/* Writes the folder of the snapshot to dir[size] (may be NULL). PALI_EIO: the network, the hub,
 * the disk, explained; PALI_EFORMAT: a wrong checksum, or nonsense from the hub; PALI_ECANCEL;
 * others. */
int pull_run(const pull_request *r, const pull_listener *listener, char *dir, size_t size,
             pali_error *err);

#endif
