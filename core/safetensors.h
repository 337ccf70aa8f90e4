/* safetensors.h - one .safetensors file as named tensors in a read-only mapping.
 *
 * Layout of the file: u64 little-endian header length, JSON header
 * {name: {dtype, shape, data_offsets}}, then the data; offsets are relative to
 * the end of the header. (https://github.com/huggingface/safetensors, format
 * section.) Untrusted: every offset, shape and length is checked at open, and a
 * tensor that comes back is wholly inside the mapping. Data may be unaligned.  */
#ifndef PALI_SAFETENSORS_H
#define PALI_SAFETENSORS_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    PALI_F32,
    PALI_BF16,
    PALI_F16,
    PALI_INT8, /* quantised matrices: core/quant.h; never a tensor's as stored */
    PALI_NF4,
    PALI_I8, /* bytes as stored: the codes of such matrices, in files of pali's own */
    PALI_U8,
    PALI_DTYPE_OTHER, /* a valid safetensors dtype pali does not compute with */
} pali_dtype;

/* Bytes of one element where elements are plain numbers (4, 2, 2; else 0). */
size_t pali_dtype_size(pali_dtype t);
/* "F32", "BF16", "F16", "INT8", "NF4", "I8", "U8", "other". */
const char *pali_dtype_name(pali_dtype t);

enum {
    PALI_TENSOR_MAX_DIMS = 8
};

typedef struct {
    const char *name; /* borrowed until the file is closed */
    pali_dtype dtype;
    int ndim;
    int64_t shape[PALI_TENSOR_MAX_DIMS];
    const void *data; /* borrowed; row-major, little-endian, any alignment */
    size_t bytes;
} pali_tensor;

typedef struct pali_safetensors pali_safetensors;

/* Maps path and checks the whole header. Reads nothing of the data. Close with
 * pali_safetensors_close. PALI_EIO, PALI_EFORMAT, PALI_ELIMIT, PALI_ENOMEM. */
int pali_safetensors_open(const char *path, pali_safetensors **out, pali_error *err);
void pali_safetensors_close(pali_safetensors *st);

size_t pali_safetensors_count(const pali_safetensors *st);
/* i < count; ordered by position in the file. */
const pali_tensor *pali_safetensors_peek(const pali_safetensors *st, size_t i);
/* NULL when there is none of that name. */
const pali_tensor *pali_safetensors_find(const pali_safetensors *st, const char *name);

/* Asks the system to read a stretch of the file ahead of its use; may wait for the disk.
 * Returns where the next stretch begins, 0 at the end of the file. */
size_t pali_safetensors_prefetch(const pali_safetensors *st, size_t from);

/* The text of key in the header's __metadata__; NULL when there is none. Borrowed. */
const char *pali_safetensors_metadata(const pali_safetensors *st, const char *key);

/* n bytes at data will not be read again soon: if they are of this file, their memory is
 * given back. Reading them again is right, and slower. */
void pali_safetensors_release(const pali_safetensors *st, const void *data, size_t n);

#ifdef __cplusplus
}
#endif

#endif
