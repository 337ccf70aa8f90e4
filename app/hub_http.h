/* hub_http.h - bytes from the Hugging Face hub, by libcurl.
 *
 * Two questions: a small answer into memory, or a long file, whose bytes are handed on in
 * their order while several connections bring pieces of it. Redirects are followed here
 * and not in libcurl: the token goes to the endpoint and nowhere else, and https never
 * becomes http. What may pass (broken connections, stalls, 429, 5xx) is tried again a
 * bounded number of times, from the byte where it stopped. One thread; nothing is printed. */
#ifndef APP_HUB_HTTP_H
#define APP_HUB_HTTP_H

#include "core/error.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *endpoint; /* such as https://huggingface.co; http or https */
    const char *token;    /* NULL or "": none */
    const char *id;       /* org/name, for messages */
    int connections;      /* at most, for one file; 1 to 16 */
    size_t piece; /* bytes one of them asks for; each but the first holds as many in memory */
    int retry_ms; /* the wait before the first new attempt; doubles */
    int stall_s;  /* a connection without a byte for so long is given up */
    const atomic_int *cancel; /* not NULL */

    /* Told before a wait of a second or more; may be NULL. */
    void (*waiting)(void *user, const char *why, int seconds);
    void *user;
} hub_http_options;

typedef struct hub_http hub_http;

/* options and its strings are borrowed until hub_http_close. PALI_EARG: not an endpoint or
 * not a token. PALI_ENOMEM. */
int hub_http_open(const hub_http_options *options, hub_http **out, pali_error *err);
void hub_http_close(hub_http *h);

typedef struct {
    /* Bytes in the order of the file; what it returns ends the fetch when not 0. */
    int (*write)(void *user, const void *bytes, size_t n, pali_error *err);
    /* Several times a second; ahead: bytes that have come but cannot be written yet. */
    void (*tick)(void *user, uint64_t ahead);
    void *user;
} hub_http_sink;

/* path begins with a slash and stands behind the endpoint. Caller frees *bytes, a NUL behind
 * its *n bytes (at most limit). PALI_EIO: the network or the hub, explained. PALI_ECANCEL. */
int hub_http_get(hub_http *h, const char *path, size_t limit, char **bytes, size_t *n,
                 pali_error *err);

/* Hands bytes [from, size) of a file of size bytes to sink. PALI_EIO, PALI_EFORMAT (the file has
 * another size), PALI_ECANCEL, or what sink said; bytes that were written are good. */
int hub_http_fetch(hub_http *h, const char *path, uint64_t from, uint64_t size,
                   const hub_http_sink *sink, pali_error *err);

#endif
