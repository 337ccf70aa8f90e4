/* mask.h - sixteen <seg> codes -> the mask of an object.
 *
 * PaliGemma writes a mask as 16 of 128 codes, which the decoder of a VQ-VAE turns into a
 * 64 x 64 map stretched over the object's box. Its weights are a file of their own: the
 * released vae-oid.npz (codes of 512 numbers, layers 128 64 32 16 wide), or the miniature
 * model's mask.npz of the same structure. All widths are taken from the arrays, and every
 * shape is checked against its neighbours.                                             */
#ifndef PALI_MASK_H
#define PALI_MASK_H

#include "core/error.h"
#include "core/locate.h"

#include <stdint.h>

enum {
    PALI_MASK_SIDE = 64
};

typedef struct pali_mask_decoder pali_mask_decoder;

/* Reads the weights (4.5 MB as released) of path. Close with pali_mask_decoder_close.
 * PALI_EIO, PALI_EFORMAT, PALI_ELIMIT, PALI_EUNSUPPORTED, PALI_ENOMEM. */
int pali_mask_decoder_open(const char *path, pali_mask_decoder **out, pali_error *err);
void pali_mask_decoder_close(pali_mask_decoder *d);

/* The file beside a model: vae-oid.npz or mask.npz in its directory. Caller frees with
 * free(); NULL when there is neither (or no memory). */
char *pali_mask_find(const char *model_dir);

/* codes 0..127, as from pali_locate -> map[y][x], nominally in [-1, 1], above 0 is object.
 * One thread at a time. */
void pali_mask_decode(pali_mask_decoder *d, const int codes[PALI_MASK_CODES],
                      float map[PALI_MASK_SIDE * PALI_MASK_SIDE]);

/* The map as bytes: -1 is 0, 1 is 255, cut off beyond; 128 and more is object. */
void pali_mask_bytes(const float map[PALI_MASK_SIDE * PALI_MASK_SIDE],
                     uint8_t bytes[PALI_MASK_SIDE * PALI_MASK_SIDE]);

/* A mask in its picture: soft[height][width] covers the pixels from (x, y) on; 128 and more
 * is object. Owns soft. Zeroed: no mask. */
typedef struct {
    int x, y, width, height;
    uint8_t *soft;
} pali_mask;

/* Stretches bytes over box (x0 y0 x1 y1 in pixels, rounded) as Google's demonstrations do:
 * Pillow's BICUBIC on the bytes. An empty box, or one outside of the picture of image_width x
 * image_height, gives no mask. PALI_ELIMIT, PALI_ENOMEM. Close with pali_mask_close. */
int pali_mask_place(const uint8_t bytes[PALI_MASK_SIDE * PALI_MASK_SIDE], const float box[4],
                    int image_width, int image_height, pali_mask *out, pali_error *err);
void pali_mask_close(pali_mask *mask);

#endif
