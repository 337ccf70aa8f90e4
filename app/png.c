/* png.c - libpng behind a sentence for the user; see png.h. */
#include "app/png.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <string.h>

int png_write(const char *path, const uint8_t *pixels, int width, int height, int channels,
              pali_error *err) {
    FILE *f = fopen(path, "wbe");
    if (!f)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", path, strerror(errno));
    png_image image = {
        .version = PNG_IMAGE_VERSION,
        .width = (png_uint_32)width,
        .height = (png_uint_32)height,
        .format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB,
    };
    int ok = png_image_write_to_stdio(&image, f, 0, pixels, 0, NULL);
    ok &= fclose(f) == 0;
    return ok ? 0
              : pali_fail(err, PALI_EIO, "free some space", "%s: could not be written: %s", path,
                          *image.message ? image.message : strerror(errno));
}
