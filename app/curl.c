/* curl.c - see curl.h. */
#include "app/curl.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

app_curl curl;

int app_curl_open(pali_error *err) {
    static bool whole;
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"}; /* one interface */
    void *lib = NULL;
    for (size_t i = 0; !whole && !lib && i < sizeof names / sizeof *names; i++)
        lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (lib) {
        void *at;
        whole = true;
#define X(f)                                                                                       \
    whole &= (at = dlsym(lib, #f)) != NULL;                                                        \
    memcpy(&curl.f, &at, sizeof at);
        APP_CURL_FUNCTIONS(X)
#undef X
    }
    return whole ? 0
                 : pali_fail(err, PALI_EUNSUPPORTED, "on Debian and Ubuntu: apt install libcurl4",
                             "downloading needs libcurl, version 7.66 or later");
}
