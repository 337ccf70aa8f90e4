/* zip.h - where the members of a zip file lie, and their bytes.
 *
 * The directory at the end of a zip file says where every member is (PKWARE's APPNOTE, zip64
 * included). It is read here rather than by a zip library because those hide where a member's
 * bytes lie, and to use them where they lie is the point; the inflating is zlib's. Untrusted:
 * members that overlap each other or the directory (how small zip bombs are made) and sizes that
 * deflate cannot reach are refused, and never more comes out of a member than was asked for.  */
#ifndef PALI_ZIP_H
#define PALI_ZIP_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

typedef struct {
    char *name;          /* without NUL in it; the caller may shorten it */
    const char *cannot;  /* why it cannot be read ("encrypted"); NULL: it can */
    uint64_t at, packed; /* where its bytes lie, and how many */
    uint64_t local;      /* where its own header begins */
    uint64_t raw;        /* bytes when unpacked, as the directory says */
    uint32_t crc;        /* of those */
    bool deflated;
} pali_zip_member;

typedef struct {
    pali_zip_member *members; /* [count], by position in the file; owned */
    size_t count;
    char *names; /* owned */
} pali_zip;

/* Reads the directory of the file of size bytes at map; path is for sentences. Close *out in any
 * case. PALI_EFORMAT, PALI_ELIMIT, PALI_ENOMEM. */
int pali_zip_open(const unsigned char *map, size_t size, const char *path, pali_zip *out,
                  pali_error *err);
void pali_zip_close(pali_zip *z);

/* A member's bytes in order. */
typedef struct {
    const unsigned char *in;
    size_t left;
    bool deflated;
    z_stream z;
    uLong crc; /* of what was read */
} pali_zip_source;

int pali_zip_source_open(pali_zip_source *s, const unsigned char *map, const pali_zip_member *m,
                         pali_error *err);
void pali_zip_source_close(pali_zip_source *s);
/* Exactly n bytes; false when there are not so many. */
bool pali_zip_source_read(pali_zip_source *s, void *out, size_t n);
/* Whether nothing follows what was read. */
bool pali_zip_source_ends(pali_zip_source *s);

#endif
