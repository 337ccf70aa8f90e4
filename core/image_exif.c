/* image_exif.c - which way up a photo is.
 *
 * An EXIF block is a small TIFF file: byte order "II" or "MM", the number 42, the
 * offset of the first directory; a directory is a count and entries of 12 bytes
 * (tag, type, count, value or where it lies). Orientation is tag 0x112 of the
 * first directory, one 16-bit number held in the entry itself. Nothing else is
 * read, so no offset but the first is followed; every access is checked against
 * the length of the block.
 *
 * Like Pillow: the last entry with the tag counts, 32-bit values are taken too, a
 * PNG may hold the block as ImageMagick wrote it before there was a chunk for it
 * (hexadecimal text), and when EXIF is silent tiff:Orientation of an XMP packet is
 * used.                                                                          */
#include "core/image_formats.h"

#include <stdbool.h>
#include <string.h>

enum {
    TAG_ORIENTATION = 0x112,
    TYPE_SHORT = 3,
    TYPE_LONG = 4,
    ENTRY_BYTES = 12,
};

int pali_exif_orientation(const uint8_t *bytes, size_t n) {
    while (n >= 6 && !memcmp(bytes, "Exif\0\0", 6)) {
        bytes += 6;
        n -= 6;
    }
    if (n < 8)
        return 0;
    bool little = !memcmp(bytes, "II\x2a\0", 4);
    if (!little && memcmp(bytes, "MM\0\x2a", 4))
        return 0;
    uint32_t (*u16)(const uint8_t *) = little ? pali_le16 : pali_be16;
    uint32_t (*u32)(const uint8_t *) = little ? pali_le32 : pali_be32;
    size_t at = u32(bytes + 4);
    if (at > n - 2)
        return 0;
    size_t entries = u16(bytes + at);
    at += 2;
    if (entries > (n - at) / ENTRY_BYTES)
        entries = (n - at) / ENTRY_BYTES;
    int found = 0;
    for (const uint8_t *e = bytes + at; entries > 0; e += ENTRY_BYTES, entries--) {
        if (u16(e) != TAG_ORIENTATION || u32(e + 4) != 1)
            continue;
        uint32_t type = u16(e + 2);
        if (type != TYPE_SHORT && type != TYPE_LONG)
            continue;
        uint32_t value = type == TYPE_SHORT ? u16(e + 8) : u32(e + 8);
        found = value >= 1 && value <= 8 ? (int)value : 1;
    }
    return found;
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int pali_profile_orientation(const uint8_t *text, size_t n) {
    uint8_t block[4096]; /* the directory comes first; the rest is of no interest */
    size_t used = 0, at = 0;
    for (int lines = 0; lines < 3; lines++) { /* empty, "exif", length */
        const uint8_t *end = memchr(text + at, '\n', n - at);
        if (!end)
            return 0;
        at = (size_t)(end - text) + 1;
    }
    for (int high = -1; at < n && used < sizeof block; at++) {
        int digit = hex_digit(text[at]);
        if (digit < 0)
            continue;
        if (high >= 0)
            block[used++] = (uint8_t)(high << 4 | digit);
        high = high >= 0 ? -1 : digit;
    }
    return pali_exif_orientation(block, used);
}

int pali_xmp_orientation(const uint8_t *bytes, size_t n) {
    static const char name[] = "tiff:Orientation";
    const size_t length = sizeof name - 1;
    const uint8_t *end = bytes + n;
    for (const uint8_t *p = bytes; (p = memmem(p, (size_t)(end - p), name, length));) {
        p += length;
        /* tiff:Orientation="6" or <tiff:Orientation>6< */
        size_t left = (size_t)(end - p), skip = 0;
        if (left >= 3 && p[0] == '=' && p[1] == '"')
            skip = 2;
        else if (left >= 2 && p[0] == '>')
            skip = 1;
        if (skip && p[skip] >= '0' && p[skip] <= '9')
            return p[skip] - '0';
    }
    return 0;
}
