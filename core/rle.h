/* rle.h - a mask as COCO writes it.
 *
 * COCO's run lengths go down the columns of the whole picture, zeros first, and are packed
 * into a string of printable characters: each length after the third as its difference to
 * the one two before, in groups of five bits, low ones first (cocoapi, maskApi.c).        */
#ifndef PALI_RLE_H
#define PALI_RLE_H

#include "core/mask.h"

/* The "counts" string of m (128 and more is object) in a picture of width x height; m's pixels
 * are factor x factor of the picture's, less at its right and lower edge. *area = its pixels.
 * Caller frees with free(); NULL when memory is out. */
char *pali_rle(const pali_mask *m, int width, int height, int factor, uint64_t *area);

#endif
