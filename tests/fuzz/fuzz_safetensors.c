/* Any bytes as a .safetensors file: either one clear failure, or tensors that lie
 * wholly inside the mapping and are found by their names. */
#include "core/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint8_t sink; /* every byte is touched: none may lie outside the file */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, n, 0) != (ssize_t)n)
        abort();

    pali_safetensors *st;
    pali_error err = {0};
    int rc = pali_safetensors_open(path, &st, &err);
    if (rc) {
        if (st || err.code != rc || !err.what[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < pali_safetensors_count(st); i++) {
        const pali_tensor *t = pali_safetensors_peek(st, i);
        if (pali_safetensors_find(st, t->name) != t)
            abort();
        for (size_t k = 0; k < t->bytes; k++)
            sink = ((const uint8_t *)t->data)[k];
    }
    pali_safetensors_close(st);
    return 0;
}
