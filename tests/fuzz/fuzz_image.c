/* fuzz_image.c - hostile pictures: any bytes through every reader, then a resize.
 *
 * The pixel limit is small so that a run stays fast. The checksums of PNG chunks are
 * made right first, or no mutation would get past them.                          */
#include "core/image_formats.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_PIXELS = 1 << 14,
};

static uint32_t crc_of(const uint8_t *p, size_t n) {
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    }
    return ~c;
}

static void seal_png(uint8_t *p, size_t n) {
    size_t at = 8;
    while (n >= 20 && at <= n - 12) {
        size_t length = pali_be32(p + at);
        if (length > n - at - 12)
            return;
        uint32_t crc = crc_of(p + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            p[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += length + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n >= 8 && !memcmp(data + 4, "ftyp", 4))
        return 0; /* libheif's business, and the sandbox's */
    uint8_t *bytes = malloc(n ? n : 1);
    if (!bytes)
        return 0;
    if (n)
        memcpy(bytes, data, n);
    if (n >= 4 && !memcmp(bytes, "\x89PNG", 4))
        seal_png(bytes, n);
    pali_image_input in = {bytes, n, "fuzz", MAX_PIXELS, NULL};
    pali_image image, small;
    pali_error err = {0};
    if (pali_image_decode_input(&in, &image, &err) == 0) {
        if (pali_image_resize(&image, 14, 14, &small, &err) != 0)
            abort();
        pali_image_close(&small);
    } else if (!err.code || !err.what[0] || image.rgb) {
        abort(); /* every failure says something and leaves nothing */
    }
    pali_image_close(&image);
    unsigned frames = 3;
    in.frames = &frames;
    if (pali_image_decode_input(&in, &image, &err) == 0 &&
        (frames < 1 || frames > 3 || (unsigned)image.height % frames))
        abort();
    pali_image_close(&image);
    free(bytes);
    return 0;
}
