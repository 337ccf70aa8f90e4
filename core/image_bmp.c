/* image_bmp.c - Windows and OS/2 bitmaps.
 *
 * 1, 4 and 8 bits with a palette (plain or run-length coded), 16, 24 and 32 bits
 * with colour masks. Rows are stored bottom up unless the height is negative, each
 * padded to 4 bytes. stb_image's reader is not used: it widens 5 and 6 bits in
 * another way than Pillow (v * 255 / 31, cut off) and knows no run lengths.
 *
 * Like Pillow: alpha is dropped, a palette entry that is not there is black, an
 * offset that points at the palette means the bytes behind it. Unlike Pillow 11.3,
 * which misreads these: in run-length data a skip takes two bytes, an end-of-line
 * code always starts the next row, a literal run of odd length has its last pixel,
 * and what no run covers has colour 0; and a palette of greys does not make it
 * read 4-bit samples as 8-bit ones.                                                         */
#include "core/image_formats.h"

#include <stdbool.h>
#include <string.h>

enum {
    FILE_HEADER = 14,
    CORE_HEADER = 12, /* OS/2 1.x: 16-bit sizes, palette entries of 3 bytes */
    MASKS_AT = FILE_HEADER + 40,
    RAW = 0,
    RLE8 = 1,
    RLE4 = 2,
    BITFIELDS = 3,
};

typedef struct {
    uint64_t width, height;
    bool top_down;
    unsigned bits;
    uint32_t compression;
    size_t pixels_at;
    uint8_t palette[256][3]; /* RGB */
    struct {
        uint32_t mask, max;
        int shift;
    } channel[3]; /* of 16, 24 and 32 bits */
} bmp_file;

/* Splits a mask into where it starts and what it can hold. false: it has gaps or is 0. */
static bool set_channel(bmp_file *bmp, int c, uint32_t mask) {
    if (!mask)
        return false;
    int shift = __builtin_ctz(mask);
    uint32_t max = mask >> shift;
    bmp->channel[c].mask = mask;
    bmp->channel[c].max = max;
    bmp->channel[c].shift = shift;
    return (max & ((uint64_t)max + 1)) == 0;
}

static int read_masks(const pali_image_input *in, bmp_file *bmp, pali_error *err) {
    static const uint32_t usual[2][3] = {{0x7c00, 0x3e0, 0x1f}, {0xff0000, 0xff00, 0xff}};
    uint32_t mask[3];
    memcpy(mask, usual[bmp->bits != 16], sizeof mask);
    if (bmp->compression == BITFIELDS) {
        if (in->n < MASKS_AT + 12)
            return pali_image_fail_short(in, "BMP", err);
        uint32_t given[3];
        for (int c = 0; c < 3; c++)
            given[c] = pali_le32(in->bytes + MASKS_AT + 4 * c);
        if (given[0] | given[1] | given[2]) /* all zero means the usual ones */
            memcpy(mask, given, sizeof mask);
    }
    for (int c = 0; c < 3; c++)
        if (!set_channel(bmp, c, mask[c]))
            return pali_image_fail_damaged(in, "BMP", "its colour masks make no sense", err);
    return 0;
}

static int read_header(const pali_image_input *in, bmp_file *bmp, pali_error *err) {
    if (in->n < FILE_HEADER + CORE_HEADER)
        return pali_image_fail_short(in, "BMP", err);
    const uint8_t *p = in->bytes + FILE_HEADER;
    uint32_t header = pali_le32(p);
    size_t offset = pali_le32(in->bytes + 10), colours = 0;
    bool core = header == CORE_HEADER;
    if (!core && header != 40 && header != 52 && header != 56 && header != 64 && header != 108 &&
        header != 124)
        return pali_image_fail_damaged(in, "BMP", "its header has an unknown length", err);
    if (header > in->n - FILE_HEADER)
        return pali_image_fail_short(in, "BMP", err);
    if (core) {
        bmp->width = pali_le16(p + 4);
        bmp->height = pali_le16(p + 6);
        bmp->bits = pali_le16(p + 10);
    } else {
        uint32_t height = pali_le32(p + 8);
        bmp->top_down = height >> 31;
        bmp->width = pali_le32(p + 4);
        bmp->height = bmp->top_down ? 0u - height : height;
        bmp->bits = pali_le16(p + 14);
        bmp->compression = pali_le32(p + 16);
        colours = pali_le32(p + 32);
    }
    unsigned bits = bmp->bits;
    bool indexed = bits == 1 || bits == 4 || bits == 8;
    if (!indexed && bits != 16 && bits != 24 && bits != 32)
        return pali_image_fail_kind(in, "a BMP of a bit depth that pali does not read", err);
    if (!(bmp->compression == RAW || (bmp->compression == RLE8 && bits == 8) ||
          (bmp->compression == RLE4 && bits == 4) || (bmp->compression == BITFIELDS && !indexed)))
        return pali_image_fail_kind(in, "a BMP of a compression that pali does not read", err);

    size_t at = FILE_HEADER + header;
    if (!indexed) {
        if (bmp->compression == BITFIELDS && header == 40)
            at += 12;
        bmp->pixels_at = offset ? offset : at;
        return read_masks(in, bmp, err);
    }
    if (colours == 0)
        colours = (size_t)1 << bits;
    if (colours > 65536)
        return pali_image_fail_damaged(in, "BMP", "its palette is too large", err);
    size_t entry = core ? 3 : 4;
    for (size_t i = 0; i < colours && i < 256 && at + entry * (i + 1) <= in->n; i++) {
        const uint8_t *bgr = in->bytes + at + entry * i;
        for (int c = 0; c < 3; c++)
            bmp->palette[i][c] = bgr[2 - c];
    }
    if (offset == 0)
        offset = at + entry * colours;
    else if (offset == at)
        offset += 4 * colours;
    bmp->pixels_at = offset;
    return 0;
}

static uint8_t *row_of(const bmp_file *bmp, const pali_image *out, size_t stored) {
    size_t y = bmp->top_down ? stored : (size_t)bmp->height - 1 - stored;
    return out->rgb + 3 * y * (size_t)out->width;
}

static int read_rows(const pali_image_input *in, const bmp_file *bmp, pali_image *out,
                     pali_error *err) {
    size_t width = (size_t)bmp->width, height = (size_t)bmp->height;
    size_t used = (width * bmp->bits + 7) / 8, stride = (used + 3) / 4 * 4;
    /* The padding of the last row may be missing. */
    if (bmp->pixels_at > in->n || stride * (height - 1) + used > in->n - bmp->pixels_at)
        return pali_image_fail_short(in, "BMP", err);
    for (size_t i = 0; i < height; i++) {
        const uint8_t *row = in->bytes + bmp->pixels_at + i * stride;
        uint8_t *to = row_of(bmp, out, i);
        if (bmp->bits <= 8) {
            unsigned bits = bmp->bits, mask = (1u << bits) - 1;
            for (size_t x = 0; x < width; x++, to += 3) {
                size_t bit = x * bits;
                unsigned v = (unsigned)row[bit / 8] >> (8 - bits - bit % 8) & mask;
                memcpy(to, bmp->palette[v], 3);
            }
            continue;
        }
        size_t bytes = bmp->bits / 8;
        for (size_t x = 0; x < width; x++, to += 3, row += bytes) {
            uint32_t v = pali_le16(row);
            for (size_t b = 2; b < bytes; b++)
                v |= (uint32_t)row[b] << (8 * b);
            for (int c = 0; c < 3; c++) {
                uint32_t sample = (v & bmp->channel[c].mask) >> bmp->channel[c].shift;
                uint32_t max = bmp->channel[c].max;
                to[c] = (uint8_t)(max == 255 ? sample : (uint64_t)sample * 255 / max);
            }
        }
    }
    return 0;
}

/* Run lengths: pairs (count, index) or, after a 0, an escape: 0 end of line, 1 end of
 * picture, 2 skip right and down, n >= 3: n indices follow, padded to 16 bits. */
static int read_runs(const pali_image_input *in, const bmp_file *bmp, pali_image *out,
                     pali_error *err) {
    const uint8_t *p = in->bytes + (bmp->pixels_at < in->n ? bmp->pixels_at : in->n);
    const uint8_t *end = in->bytes + in->n;
    size_t width = (size_t)bmp->width, height = (size_t)bmp->height, x = 0, y = 0;
    bool nibbles = bmp->compression == RLE4;
    for (size_t i = 0; i < width * height; i++)
        memcpy(out->rgb + 3 * i, bmp->palette[0], 3);
    while (y < height && !(y == height - 1 && x == width)) {
        if (end - p < 2)
            return pali_image_fail_short(in, "BMP", err);
        unsigned count = p[0], code = p[1];
        p += 2;
        if (count == 0 && code == 0) {
            x = 0;
            y++;
        } else if (count == 0 && code == 1) {
            return 0;
        } else if (count == 0 && code == 2) {
            if (end - p < 2)
                return pali_image_fail_short(in, "BMP", err);
            x = x + p[0] < width ? x + p[0] : width;
            y += p[1];
            p += 2;
        } else {
            bool literal = count == 0;
            size_t pixels = literal ? code : count;
            size_t bytes = !literal ? 0 : nibbles ? (pixels + 1) / 2 : pixels;
            if ((size_t)(end - p) < bytes)
                return pali_image_fail_short(in, "BMP", err);
            uint8_t *row = row_of(bmp, out, y);
            for (size_t i = 0; i < pixels && x < width; i++, x++) {
                unsigned v = !literal ? code : nibbles ? p[i / 2] : p[i];
                if (nibbles)
                    v = i % 2 ? v & 15 : v >> 4;
                memcpy(row + 3 * x, bmp->palette[v], 3);
            }
            bytes += bytes % 2;
            p += bytes < (size_t)(end - p) ? bytes : (size_t)(end - p);
        }
    }
    return 0;
}

int pali_bmp_read(const pali_image_input *in, pali_image *out, pali_error *err) {
    bmp_file bmp = {0};
    int rc = read_header(in, &bmp, err);
    if (!rc)
        rc = pali_image_alloc(in, "BMP", bmp.width, bmp.height, out, err);
    if (!rc && (bmp.compression == RLE8 || bmp.compression == RLE4))
        return read_runs(in, &bmp, out, err);
    return rc ? rc : read_rows(in, &bmp, out, err);
}
