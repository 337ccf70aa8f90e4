/* png.h - pixels -> a PNG file. */
#ifndef APP_PNG_H
#define APP_PNG_H

#include "core/error.h"

#include <stdint.h>

/* Writes pixels [height][width][channels], 3 channels of colour or 1 of grey, to path, replacing what
 * is there. */
int png_write(const char *path, const uint8_t *pixels, int width, int height, int channels,
              pali_error *err);

#endif
