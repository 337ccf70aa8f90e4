/* image_formats.h - what image.c and the readers of single formats share.
 *
 * Private to core/image*.c and the fuzz target; everybody else uses
 * image.h. A reader gets the whole file in memory, finds the size in the header,
 * has it checked against the limits before it allocates, and leaves RGB pixels
 * as stored. image.c turns them upright afterwards and empties *out when a
 * reader fails.                                                              */
#ifndef PALI_IMAGE_FORMATS_H
#define PALI_IMAGE_FORMATS_H

#include "core/image.h"

#include <stdbool.h>
#include <stdint.h>

/* One file in memory, borrowed for the length of a call. */
typedef struct {
    const uint8_t *bytes;
    size_t n;
    const char *name;  /* as messages call it */
    size_t max_pixels; /* width * height at most; a third of it is kept, four times as much is
                          taken by readers that reduce */
    unsigned *frames;  /* NULL: one picture. Else in: so many frames of an animation at most, > 0;
                          out: how many came, of one size, one below the other */
} pali_image_input;

/* pali_image_decode with a pixel limit of the caller's. */
int pali_image_decode_input(const pali_image_input *in, pali_image *out, pali_error *err);

/* --- sandbox (image_sandbox.c) ------------------------------------------------- */
/* What a child does with a file, its seconds on the processor, and those by the clock. */
typedef struct {
    int (*decode)(const pali_image_input *in, pali_image *out, pali_error *err);
    int cpu_seconds, wait_seconds;
} pali_sandbox_rules;

int pali_image_sandbox_start_with(const pali_sandbox_rules *r, pali_error *err);
/* Through the server, which must be there. *out is empty on entry. */
int pali_image_sandbox_decode(const pali_image_input *in, pali_image *out, pali_error *err);

/* --- readers ---------------------------------------------------------------- */
/* What a file says about its pixels. image.c frees profile. */
typedef struct {
    int orientation;  /* EXIF's, 1 to 8; 1 on entry */
    uint8_t *profile; /* ICC, owned; NULL: none */
    size_t profile_bytes;
} pali_image_notes;

int pali_png_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                  pali_error *err);
int pali_jpeg_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                   pali_error *err);
int pali_webp_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                   pali_error *err);
#ifdef PALI_HEIF /* the build found libheif */
int pali_heif_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                   pali_error *err);
#endif
int pali_bmp_read(const pali_image_input *in, pali_image *out, pali_error *err);
int pali_gif_read(const pali_image_input *in, pali_image *out, pali_error *err);
int pali_pnm_read(const pali_image_input *in, pali_image *out, pali_error *err);
/* By stb_image (image_stb.c). A Targa file has no signature: whether the header could be one. */
bool pali_tga_is(const pali_image_input *in);
int pali_tga_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                  pali_error *err);
int pali_psd_read(const pali_image_input *in, pali_image *out, pali_error *err);
int pali_hdr_read(const pali_image_input *in, pali_image *out, pali_error *err);

/* --- orientation --------------------------------------------------------------- */
/* Tag 0x112 of an EXIF block, with or without its "Exif\0\0" in front; 0 if absent. */
int pali_exif_orientation(const uint8_t *bytes, size_t n);
/* The same, of the text under ImageMagick's "Raw profile type exif". */
int pali_profile_orientation(const uint8_t *text, size_t n);
/* tiff:Orientation of an XMP packet; 0 if absent. */
int pali_xmp_orientation(const uint8_t *bytes, size_t n);

/* --- colour (image_colour.c) ----------------------------------------------------- */
/* Keeps a copy of the file's first ICC profile, if it is not absurdly large. */
void pali_image_note_profile(pali_image_notes *notes, const uint8_t *bytes, size_t n);
/* Turns pixels of an RGB profile into sRGB; leaves them when there is none or it is sRGB. */
void pali_image_to_srgb(const pali_image_notes *notes, pali_image *image);

/* --- help for readers ---------------------------------------------------------- */
/* Refuses an empty picture and one over the limits. format is "PNG", "JPEG", ... */
int pali_image_check_size(const pali_image_input *in, const char *format, uint64_t width,
                          uint64_t height, pali_error *err);
/* The same, then allocates out->rgb, zeroed. */
int pali_image_alloc(const pali_image_input *in, const char *format, uint64_t width,
                     uint64_t height, pali_image *out, pali_error *err);
/* For a reader that can reduce: refuses like pali_image_check_size, but only four times as many
 * pixels; *factor, 1, 2 or 4, is what to reduce both sides by. */
int pali_image_factor(const pali_image_input *in, const char *format, uint64_t width,
                      uint64_t height, int *factor, pali_error *err);
/* Averages of factor x factor pixels, row after row of a picture of width x height. out is
 * allocated; sums [3 * its width] begins zeroed. */
typedef struct {
    pali_image *out;
    uint32_t *sums;
    int width, height, factor, y;
} pali_image_rows;
void pali_image_put_row(pali_image_rows *rows, const uint8_t *rgb);
/* The file stops before the picture does. */
int pali_image_fail_short(const pali_image_input *in, const char *format, pali_error *err);
/* what completes "name: damaged FORMAT: ". */
int pali_image_fail_damaged(const pali_image_input *in, const char *format, const char *what,
                            pali_error *err);
/* A valid file of a kind that is not read; what completes "name: ". */
int pali_image_fail_kind(const pali_image_input *in, const char *what, pali_error *err);

/* --- numbers in files -------------------------------------------------------------- */
static inline uint32_t pali_le16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}
static inline uint32_t pali_le32(const uint8_t *p) {
    return pali_le16(p) | pali_le16(p + 2) << 16;
}
static inline uint32_t pali_be16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | (uint32_t)p[1];
}
static inline uint32_t pali_be32(const uint8_t *p) {
    return pali_be16(p) << 16 | pali_be16(p + 2);
}

#endif
