/* png.h - RGB pixels -> a PNG file. */
#ifndef APP_PNG_H
#define APP_PNG_H

#include "core/error.h"

#include <stdint.h>

/* Writes rgb [height][width][3] to path, replacing what is there. */
int png_write(const char *path, const uint8_t *rgb, int width, int height, pali_error *err);

#endif
