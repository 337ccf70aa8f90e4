/* npz.h - one NumPy archive (.npz, or a single .npy) as named arrays in a mapping.
 *
 * An .npz is a zip file with a member NAME.npy for every array, stored or deflated;
 * an .npy is a magic word, a version, a header that is a Python dictionary
 * {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } and the numbers.
 * (NumPy's numpy.lib.format, and PKWARE's APPNOTE for zip and zip64.)
 *
 * Arrays come back as pali_tensor: float32, float16, bfloat16 (two-byte voids, which is
 * how NumPy writes a type it does not know) in little-endian; everything else is
 * PALI_DTYPE_OTHER. Those that are stored, in C order, are used in place, at any
 * alignment: a checkpoint of many gigabytes costs nothing to open. Untrusted: sizes,
 * offsets, shapes and names are checked at open, reading checks the rest.           */
#ifndef PALI_NPZ_H
#define PALI_NPZ_H

#include "core/error.h"
#include "core/safetensors.h"

#include <stddef.h>

typedef struct pali_npz pali_npz;

/* Maps path and reads the directory and the header of every array, not the data. Close
 * with pali_npz_close. PALI_EIO, PALI_EFORMAT, PALI_ELIMIT, PALI_EUNSUPPORTED (encrypted,
 * another compression), PALI_ENOMEM. */
int pali_npz_open(const char *path, pali_npz **out, pali_error *err);
void pali_npz_close(pali_npz *z);

/* Members that are arrays, by position in the file; names without ".npy" ("" for a single
 * .npy), borrowed until close. data points into the mapping, or is NULL when the array is
 * deflated or in Fortran order and has to be read. bytes is its size when read. */
size_t pali_npz_count(const pali_npz *z);
const pali_tensor *pali_npz_peek(const pali_npz *z, size_t i);
/* NULL when there is none of that name. */
const pali_tensor *pali_npz_find(const pali_npz *z, const char *name);

/* Writes the array t of z, in C order, to out: t->bytes bytes, which the caller has limited
 * before it allocated them. Checks the archive's checksum, which use in place does not.
 * Several threads may read at once. PALI_EFORMAT, PALI_ENOMEM. */
int pali_npz_read(const pali_npz *z, const pali_tensor *t, void *out, pali_error *err);

#endif
