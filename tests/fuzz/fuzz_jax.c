/* Any bytes as an .npz of JAX's: one clear failure, or tensors that can all be read once they are
 * converted, and a config.json that goes with them. */
#include "core/config.h"
#include "core/jax.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum {
    CONVERT_MAX = 4 << 20
};

static char path[64];

static void demand(int good) {
    if (!good)
        abort();
}

static void clean_up(void) {
    unlink(path);
}

static unsigned sum(const pali_tensor *t) {
    unsigned s = 0;
    for (size_t i = 0; i < t->bytes; i++)
        s += ((const unsigned char *)t->data)[i];
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static volatile unsigned all;
    if (!*path) {
        snprintf(path, sizeof path, "%s/pali-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        int fd = mkstemp(path);
        demand(fd >= 0);
        close(fd);
        atexit(clean_up);
    }
    int fd = open(path, O_WRONLY | O_TRUNC);
    demand(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
    pali_jax *j;
    pali_error err = {0};
    int rc = pali_jax_open(path, &j, &err);
    demand((rc == 0) == (err.code == 0) && (rc == 0) == (err.what[0] == 0));
    if (rc)
        return 0;
    for (size_t i = 0; i < pali_jax_count(j); i++) {
        const pali_tensor *t = pali_jax_peek(j, i);
        size_t elements = 1;
        for (int k = 0; k < t->ndim; k++)
            demand(!__builtin_mul_overflow(elements, (size_t)t->shape[k], &elements));
        demand(t->bytes == elements * pali_dtype_size(t->dtype) && t->bytes > 0);
        demand(pali_jax_find(j, t->name) != NULL);
    }
    if (pali_jax_converted_bytes(j) < CONVERT_MAX && !pali_jax_convert(j, 1, NULL, NULL))
        for (size_t i = 0; i < pali_jax_count(j); i++)
            all += sum(pali_jax_peek(j, i));
    char *json;
    pali_config config;
    if (!pali_jax_config(j, &json, NULL))
        pali_config_parse(json, strlen(json), "x", &config, NULL);
    free(json);
    pali_jax_close(j);
    return 0;
}
