/* locate.h - <loc>/<seg> text -> boxes and mask codes.
 *
 * Grammar of an answer (PaliGemma): items joined by " ; ", each
 *   <locY0><locX0><locY1><locX1> [16 x <segNNN>] label
 * with coordinates in 1024ths of the original image's sides. The text is the
 * model's, so anything may be in it; what is not a well-formed item is skipped.  */
#ifndef PALI_LOCATE_H
#define PALI_LOCATE_H

#include "core/error.h"

#include <stddef.h>

enum { PALI_MASK_CODES = 16, PALI_LABEL_MAX = 128 };

typedef struct {
    int loc[4];                /* y0 x0 y1 x1 as generated, 0..1023, y1 > y0 and x1 > x0 */
    float box[4];              /* x0 y0 x1 y1 in pixels of the original image */
    int has_mask;
    int codes[PALI_MASK_CODES]; /* 0..127; only when has_mask */
    char label[PALI_LABEL_MAX]; /* UTF-8, trimmed, cut at a character boundary; may be "" */
    size_t from, to;           /* byte range of the item in the text */
} pali_object;

/* Finds every whole item in text[0..n). Reversed or empty boxes are not objects.
 * Works on a partial answer: an item counts as soon as its 4 locs are there (its
 * label may still grow). Caller frees *objects with free(); *count may be 0 (then
 * *objects is NULL). */
int pali_locate(const char *text, size_t n, int image_width, int image_height,
                pali_object **objects, size_t *count, pali_error *err);

#endif
