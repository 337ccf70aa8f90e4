/* curl.h - libcurl, opened when something is to be downloaded.
 *
 * Linked, it and the thirty libraries it needs would add 8 ms to every start of pali (5 ms
 * without) and their code to every process that reads a picture. So its functions are
 * called through one table: curl.curl_easy_init().                                      */
#ifndef APP_CURL_H
#define APP_CURL_H

#define CURL_DISABLE_TYPECHECK
#include "core/error.h"

#include <curl/curl.h>

#define APP_CURL_FUNCTIONS(X)                                                                      \
    X(curl_global_init)                                                                            \
    X(curl_global_cleanup)                                                                         \
    X(curl_easy_init)                                                                              \
    X(curl_easy_setopt)                                                                            \
    X(curl_easy_getinfo)                                                                           \
    X(curl_easy_strerror)                                                                          \
    X(curl_easy_cleanup)                                                                           \
    X(curl_multi_init)                                                                             \
    X(curl_multi_add_handle)                                                                       \
    X(curl_multi_remove_handle)                                                                    \
    X(curl_multi_poll)                                                                             \
    X(curl_multi_perform)                                                                          \
    X(curl_multi_info_read)                                                                        \
    X(curl_multi_cleanup)                                                                          \
    X(curl_slist_append)                                                                           \
    X(curl_slist_free_all)                                                                         \
    X(curl_url)                                                                                    \
    X(curl_url_set)                                                                                \
    X(curl_url_get)                                                                                \
    X(curl_url_cleanup)                                                                            \
    X(curl_free)

typedef struct {
#define X(f) __typeof__(f) *f;
    APP_CURL_FUNCTIONS(X)
#undef X
} app_curl;

extern app_curl curl;

/* Fills the table, once. PALI_EUNSUPPORTED: there is no libcurl. */
int app_curl_open(pali_error *err);

#endif
