/* make_npz.h - writes archives of float32 arrays, stored, as numpy.savez does.
 *
 *     npz_writer w = npz_begin(path);
 *     npz_add(&w, "name", 2, (int[]){3, 4}, values);
 *     npz_end(&w);                                                            */
#ifndef PALI_MAKE_NPZ_H
#define PALI_MAKE_NPZ_H

#include "tests/test.h"

#include <zlib.h>

typedef struct {
    FILE *f;
    unsigned char directory[8192];
    size_t used, count;
} npz_writer;

static inline npz_writer npz_begin(const char *path) {
    npz_writer w = {.f = fopen(path, "wb")};
    assert_non_null(w.f);
    return w;
}

static inline void npz_le(unsigned char **p, uint32_t v, int bytes) {
    for (; bytes--; v >>= 8)
        *(*p)++ = (unsigned char)v;
}

/* The fields that a member's two headers share: version to length of the extra field. */
static inline void npz_fields(unsigned char **p, uint32_t crc, uint32_t bytes, size_t name) {
    npz_le(p, 20, 2);
    npz_le(p, 0, 4);
    npz_le(p, 0, 4);
    npz_le(p, crc, 4);
    npz_le(p, bytes, 4);
    npz_le(p, bytes, 4);
    npz_le(p, (uint32_t)name, 2);
    npz_le(p, 0, 2);
}

static inline void npz_add(npz_writer *w, const char *name, int ndim, const int *shape,
                           const float *values) {
    char text[256], member[96];
    size_t n = 1;
    int used = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < ndim; i++) {
        used += snprintf(text + used, sizeof text - (size_t)used, "%d, ", shape[i]);
        n *= (size_t)shape[i];
    }
    used += snprintf(text + used, sizeof text - (size_t)used, "), }\n");
    unsigned char head[266] = "\x93NUMPY\1", *p = head + 8;
    npz_le(&p, (uint32_t)used, 2);
    memcpy(p, text, (size_t)used);
    p += used;
    size_t nhead = (size_t)(p - head), nmember = (size_t)snprintf(member, 96, "%s.npy", name);
    uLong crc = crc32_z(crc32_z(0, head, nhead), (const unsigned char *)values, 4 * n);
    uint32_t at = (uint32_t)ftell(w->f), bytes = (uint32_t)(nhead + 4 * n);

    unsigned char local[64] = "PK\3\4";
    p = local + 4;
    npz_fields(&p, (uint32_t)crc, bytes, nmember);
    fwrite(local, 1, (size_t)(p - local), w->f);
    fwrite(member, 1, nmember, w->f);
    fwrite(head, 1, nhead, w->f);
    assert_int_equal(fwrite(values, 4, n, w->f), n);

    assert_true(w->used + 46 + nmember <= sizeof w->directory);
    p = w->directory + w->used;
    memcpy(p, "PK\1\2\24\0", 6);
    p += 6;
    npz_fields(&p, (uint32_t)crc, bytes, nmember);
    npz_le(&p, 0, 10);
    npz_le(&p, at, 4);
    memcpy(p, member, nmember);
    w->used += 46 + nmember;
    w->count++;
}

static inline void npz_end(npz_writer *w) {
    unsigned char end[22] = "PK\5\6", *p = end + 8;
    uint32_t at = (uint32_t)ftell(w->f);
    npz_le(&p, (uint32_t)w->count, 2);
    npz_le(&p, (uint32_t)w->count, 2);
    npz_le(&p, (uint32_t)w->used, 4);
    npz_le(&p, at, 4);
    fwrite(w->directory, 1, w->used, w->f);
    fwrite(end, 1, sizeof end, w->f);
    assert_int_equal(fclose(w->f), 0);
}

#endif
