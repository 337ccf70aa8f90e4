/* Any bytes as the hub's answer: either one clear failure, or files that may safely become
 * paths, addresses and sizes.                                                           */
#include "app/hub_api.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void demand(int good) {
    if (!good)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    hub_listing l;
    pali_error err = {0};
    int rc = hub_listing_parse((const char *)data, n, "org/name", &l, &err);
    demand(err.code == rc && (rc == 0) == (err.what[0] == 0));
    if (!rc) {
        uint64_t sum = 0;
        demand(pali_hub_is_commit(l.commit) && strlen(l.commit) >= 40 && l.nfiles > 0);
        for (size_t i = 0; i < l.nfiles; i++) {
            const hub_file *f = &l.files[i];
            size_t digits = strlen(f->hash);
            demand(hub_file_is_wanted(f->name) && !strchr(f->name, '/') && f->name[0] != '.');
            demand((digits == 40 || digits == 64) && strspn(f->hash, "0123456789abcdef") == digits);
            demand(hub_hash_is_sha256(f->hash) == (digits == 64));
            demand(f->size <= (uint64_t)1 << 40);
            demand(i == 0 || l.files[i - 1].size <= f->size);
            sum += f->size;
        }
        demand(sum == l.bytes);
    }
    hub_listing_close(&l);
    return 0;
}
