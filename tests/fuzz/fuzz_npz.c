/* Any bytes as an archive of arrays: either one clear failure, or arrays that lie inside the
 * mapping, are found by their names, and whose reading ends well or in one clear failure. */
#include "core/npz.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint8_t sink;

static void read_one(const pali_npz *z, const pali_tensor *t) {
    if (pali_npz_find(z, t->name) != t)
        abort();
    for (size_t k = 0; t->data && k < t->bytes; k++)
        sink = ((const uint8_t *)t->data)[k];
    if (t->bytes > 1 << 20) /* a caller's limit */
        return;
    uint8_t *out = malloc(t->bytes + 1);
    pali_error err = {0};
    int rc = out ? pali_npz_read(z, t, out, &err) : 0;
    if (rc && (err.code != rc || !err.what[0]))
        abort();
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, n, 0) != (ssize_t)n)
        abort();

    pali_npz *z;
    pali_error err = {0};
    int rc = pali_npz_open(path, &z, &err);
    if (rc) {
        if (z || err.code != rc || !err.what[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < pali_npz_count(z); i++)
        read_one(z, pali_npz_peek(z, i));
    pali_npz_close(z);
    return 0;
}
