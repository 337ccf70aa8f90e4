/* locate.h - <loc>/<seg> text -> boxes and mask codes.
 *
 * Grammar of an answer (PaliGemma): items joined by " ; ", each
 *   <locY0><locX0><locY1><locX1> [16 x <segNNN>] label
 * with coordinates in 1024ths of the original image's sides. The text is the
 * model's, so anything may be in it; what is not a well-formed item is skipped.
 *
 * Read from left to right, once:
 *   - an item begins at four <locNNNN> in a row, 0000 to 1023, nothing between them;
 *     the first four of a longer run are one, and what is left of the run begins
 *     anew, whether or not their box is an object;
 *   - then, spaces allowed around them, any number of <segNNN>, 000 to 127: sixteen
 *     or more are a mask (of the first sixteen), fewer are none;
 *   - the label reaches to the next ';', '<' or '>'. Control characters in it become
 *     spaces, bytes that are not UTF-8 become U+FFFD.                            */
#ifndef PALI_LOCATE_H
#define PALI_LOCATE_H

#include "core/error.h"

#include <stddef.h>

enum {
    PALI_MASK_CODES = 16,
    PALI_LABEL_MAX = 128
};

typedef struct {
    int loc[4];   /* y0 x0 y1 x1 as generated, 0..1023, y1 > y0 and x1 > x0 */
    float box[4]; /* x0 y0 x1 y1 in pixels of the original image, not rounded */
    int has_mask;
    int codes[PALI_MASK_CODES]; /* 0..127; only when has_mask */
    char label[PALI_LABEL_MAX]; /* UTF-8, trimmed, cut at a character boundary; may be "" */
    size_t from, to;            /* byte range of the item in the text, label included */
    float score; /* of an answer's objects: the geometric mean of the probabilities of the four
                    locations as they were generated; 0 from pali_locate, which sees only text */
} pali_object;

/* Finds every whole item in text[0..n). Reversed or empty boxes are not objects.
 * Works on a partial answer: an item counts as soon as its 4 locs are there (its
 * mask and label may still come). Caller frees *objects with free(); *count may be 0
 * (then *objects is NULL). PALI_EARG when a side of the image is not positive. */
int pali_locate(const char *text, size_t n, int image_width, int image_height,
                pali_object **objects, size_t *count, pali_error *err);

#endif
