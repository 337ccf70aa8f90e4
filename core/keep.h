/* keep.h - embeddings of pictures, kept on disk from one run to the next.
 *
 * A file for each picture, in a folder that its owner alone can look into: 64 bytes of header, then
 * the rows as float32. Its name is the SHA-256 of all that the bits depend on: the pixels of the
 * square that the model sees; the files of weights (inode, size, times) and the shape of the
 * encoder; the program and the backend's plugin (likewise), and how the backend computes. So a
 * file that is found holds what encoding would give, to the bit, and nothing has to be told when
 * a model, a driver or pali itself changes: the old files are not found again, and as the oldest
 * they go first when there are too many bytes.
 *
 * What is found is not trusted: header, length, checksum and finite numbers, or it is encoded
 * again. Files appear whole, by renaming. No picture can be seen from its file without the
 * model, but with it much of what is in the picture.                                       */
#ifndef PALI_KEEP_H
#define PALI_KEEP_H

#include "core/backend.h"
#include "core/image.h"

#include <stdbool.h>

typedef struct pali_keep pali_keep;

#define PALI_KEEP_BYTES ((uint64_t)1 << 30) /* of all files: 500 pictures of 224 pixels, 3B */

/* Makes folder (0700) when it is not there. w is borrowed; m is of b and asked now only. Close
 * with pali_keep_close. PALI_EIO, PALI_ENOMEM; PALI_EUNSUPPORTED: this backend or this model's
 * embeddings cannot be kept. */
int pali_keep_open(const char *folder, uint64_t most_bytes, const pali_weights *w,
                   const pali_backend *b, const pali_model *m, pali_keep **out, pali_error *err);
void pali_keep_close(pali_keep *k);

/* The rows [P][text.D] for the picture square (S x S), whose place among the newest it takes. 1,
 * or 0 when there are none; PALI_EFORMAT or PALI_EIO when there is a file that is of no use. */
int pali_keep_find(pali_keep *k, const pali_image *square, float *rows, pali_error *err);
/* Keeps them, in place of any there are, and removes what is too much. Rows that are not finite
 * are not kept. PALI_EIO, PALI_ENOMEM. */
int pali_keep_put(pali_keep *k, const pali_image *square, const float *rows, pali_error *err);

#endif
