/* image.h - image file -> RGB pixels -> the square the vision tower sees.
 *
 * Reads PNG, JPEG, WebP, BMP, GIF (their first picture), PNM, and HEIC and AVIF where
 * the build found libheif. EXIF orientation is applied, so width and height are as a
 * person sees the picture; an RGB colour profile is applied too (image_colour.c), which
 * leaves the common sRGB pictures as they are. Otherwise the pixels are
 * those of Pillow's convert("RGB"): alpha is dropped, not composited; grey is
 * replicated; 16-bit samples follow Pillow per format. The exceptions, where Pillow 11.3 itself loses pixels, are listed in
 * image_bmp.c and image_gif.c. The resize is Pillow's BICUBIC, bit for bit.
 *
 * Pictures of more than PALI_IMAGE_KEPT_PIXELS are made smaller by 2 or 4 while they are
 * decoded; where they lie in memory whole first (WebP, GIF, BMP, PNM, HEIC, AVIF,
 * interlaced PNG), right after. A model looks at 896 pixels a side.
 *
 * Bytes are untrusted: sizes are checked against the limits before the memory for them
 * is asked for, and a file that was cut short is an error.                    */
#ifndef PALI_IMAGE_H
#define PALI_IMAGE_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    PALI_IMAGE_MAX_SIDE = 65535,
};
#define PALI_IMAGE_MAX_BYTES  ((size_t)512 << 20) /* of a file                     */
#define PALI_IMAGE_MAX_PIXELS ((size_t)256 << 20) /* of a picture that is decoded whole, w * h */
#define PALI_IMAGE_HUGE_PIXELS                                                                     \
    (4 * PALI_IMAGE_MAX_PIXELS) /* of a JPEG or PNG that is made smaller on the way */
/* Up to here nothing is made smaller. 89,478,485: Pillow, too, warns of what is larger. */
#define PALI_IMAGE_KEPT_PIXELS (PALI_IMAGE_MAX_PIXELS / 3)

/* 8-bit RGB, rows top to bottom, no padding: rgb[(y * width + x) * 3 + c].
 * Owns rgb; release with pali_image_close. A zeroed struct is a valid empty one. */
typedef struct {
    int width, height;
    uint8_t *rgb;
    int full_width, full_height; /* the picture's own, upright; 0: it was not made smaller */
} pali_image;

/* The size that boxes and masks are told in. */
static inline int pali_image_full_width(const pali_image *i) {
    return i->full_width ? i->full_width : i->width;
}
static inline int pali_image_full_height(const pali_image *i) {
    return i->full_height ? i->full_height : i->height;
}
/* A box (x0 y0 x1 y1) in that size, in the pixels that are there. */
static inline void pali_image_place_box(const pali_image *i, const float box[4], float out[4]) {
    for (int k = 0; k < 4; k++)
        out[k] = !i->full_width ? box[k]
                 : k % 2        ? box[k] * (float)i->height / (float)i->full_height
                                : box[k] * (float)i->width / (float)i->full_width;
}

/* Reads and decodes path ("-" is standard input). On failure *out is empty and
 * err names the file, what is wrong and what to do. PALI_EIO, PALI_EFORMAT,
 * PALI_EUNSUPPORTED (TIFF, 12-bit JPEG, ...), PALI_ELIMIT or PALI_ENOMEM. */
int pali_image_open(const char *path, pali_image *out, pali_error *err);

/* The same from n bytes in memory; name is for messages only. */
int pali_image_decode(const uint8_t *bytes, size_t n, const char *name, pali_image *out,
                      pali_error *err);

/* The middles of n > 0 equal parts of an animated GIF as pictures of their own, in order; all when
 * there are no more than n. *got > 0 pictures are in out [n], to be closed each. A picture that does
 * not move is one. */
int pali_image_decode_frames(const uint8_t *bytes, size_t nbytes, const char *name, size_t n,
                             pali_image *out, size_t *got, pali_error *err);

/* Reads a whole file ("-" is standard input) of at most PALI_IMAGE_MAX_BYTES.
 * Caller frees *bytes with free(). */
int pali_image_read_file(const char *path, uint8_t **bytes, size_t *n, pali_error *err);

/* in -> out of width x height by Pillow's BICUBIC (Pillow src/libImaging/Resample.c:
 * antialiased when shrinking, 22-bit fixed point, horizontal pass first). The
 * aspect ratio is not kept. out must be empty; close it after use. */
int pali_image_resize(const pali_image *in, int width, int height, pali_image *out,
                      pali_error *err);

/* Bytes of a decoded image -> chw[3][height][width], v / 127.5 - 1 in float32 arithmetic
 * (transformers' values bit for bit; in double and then rounded, half of them differ). */
void pali_image_normalize(const pali_image *in, float *chw);

void pali_image_close(pali_image *image);

#endif
