/* png.c - stb_image_write behind a sentence for the user; see png.h. */
#include "app/png.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <stb_image_write.h>
#pragma GCC diagnostic pop

typedef struct {
    FILE *f;
    int failed;
} sink;

static void put(void *user, void *data, int n) {
    sink *s = user;
    if (fwrite(data, 1, (size_t)n, s->f) != (size_t)n)
        s->failed = errno ? errno : ENOSPC;
}

int png_write(const char *path, const uint8_t *rgb, int width, int height, pali_error *err) {
    sink s = {fopen(path, "wbe"), 0};
    if (!s.f)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", path, strerror(errno));
    int ok = stbi_write_png_to_func(put, &s, width, height, 3, rgb, 0);
    if (fclose(s.f) && !s.failed)
        s.failed = errno;
    if (!ok && !s.failed)
        return pali_fail_nomem(err, "writing a PNG");
    return s.failed ? pali_fail(err, PALI_EIO, "free some space", "%s: %s", path, strerror(s.failed))
                    : 0;
}
