/* image_png.c - PNG: chunks, unfiltering, interlace. Inflate is stb_image's.
 *
 * stb_image's own PNG reader is not used: it lets a small file inflate into
 * gigabytes whatever its header says, ignores damage that the checksums would show,
 * and cannot give Pillow's pixels for 16-bit grey. Here the header fixes how many
 * bytes the picture has and inflate stops there.
 *
 * What Pillow's convert("RGB") makes of a sample, and so what is made here:
 *   grey 1, 2, 4 bit    scaled to 0..255       grey 16     clipped at 255 (not scaled)
 *   palette             looked up; an entry that is not there is black
 *   every other 16 bit  the high byte          alpha, tRNS dropped, never composited
 *
 * Checksums of IHDR, PLTE and IDAT are verified and IEND must be there, so a file
 * that was cut short or damaged is refused rather than half shown. Of an animated
 * PNG the default picture is read. Gamma and colour profiles are left alone.    */
#include "core/image_formats.h"
#include "core/size.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    GREY = 0,
    COLOUR = 2,
    PALETTE = 3,
    GREY_ALPHA = 4,
    COLOUR_ALPHA = 6,
};

enum {
    DEFLATE_RATIO = 1032,                  /* the most bytes that one compressed byte can become */
    PROFILE_ROOM = 16384 + PALI_STB_SLACK, /* of its text; a whole thumbnail may follow */
};

typedef struct {
    uint32_t width, height;
    int depth, type;
    bool interlaced;
    unsigned bits; /* of one pixel */
    bool has_palette;
    uint8_t palette[256][3];
    /* The IDAT chunks: all of them together are one zlib stream. */
    const uint8_t *first_idat;
    size_t idat_chunks, idat_bytes;
} png_file;

/* --- chunks ---------------------------------------------------------------------- */

static void make_crc_table(uint32_t table[256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
}

static uint32_t crc_of(const uint32_t table[256], const uint8_t *p, size_t n) {
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++)
        c = table[(c ^ p[i]) & 0xff] ^ (c >> 8);
    return ~c;
}

static int read_header(const pali_image_input *in, const uint8_t *p, size_t n, png_file *png,
                       pali_error *err) {
    if (n != 13)
        return pali_image_fail_damaged(in, "PNG", "the header has a wrong length", err);
    png->width = pali_be32(p);
    png->height = pali_be32(p + 4);
    png->depth = p[8];
    png->type = p[9];
    png->interlaced = p[12] == 1;
    int d = png->depth;
    bool small = d == 1 || d == 2 || d == 4, whole = d == 8 || d == 16;
    unsigned samples;
    bool known;
    switch (png->type) {
    case GREY:
        samples = 1, known = small || whole;
        break;
    case COLOUR:
        samples = 3, known = whole;
        break;
    case PALETTE:
        samples = 1, known = small || d == 8;
        break;
    case GREY_ALPHA:
        samples = 2, known = whole;
        break;
    case COLOUR_ALPHA:
        samples = 4, known = whole;
        break;
    default:
        samples = 0, known = false;
    }
    if (!known || p[10] != 0 || p[11] != 0 || p[12] > 1)
        return pali_image_fail_damaged(in, "PNG", "the header describes no known kind of picture",
                                       err);
    png->bits = samples * (unsigned)d;
    return pali_image_check_size(in, "PNG", png->width, png->height, err);
}

/* --- orientation ------------------------------------------------------------------ */

/* What the chunks say: the first that is not 0 counts. */
typedef struct {
    int exif, profile, xmp;
    bool inflated; /* one profile at most is, or a file of many would take for ever */
} png_orientation;

/* XMP in an iTXt chunk: keyword, 0, compressed?, method, language, 0, translation, 0, text.
 * Compressed packets are left alone. */
static int itxt_orientation(const uint8_t *p, size_t n) {
    static const char keyword[] = "XML:com.adobe.xmp";
    if (n < sizeof keyword + 2 || memcmp(p, keyword, sizeof keyword) || p[sizeof keyword])
        return 0;
    return pali_xmp_orientation(p + sizeof keyword, n - sizeof keyword);
}

/* EXIF in a tEXt chunk (keyword, 0, text) or, when inflated is given and not yet set, in
 * a zTXt chunk (keyword, 0, method, zlib). */
static int text_orientation(const uint8_t *p, size_t n, bool *inflated) {
    static const char keyword[] = "Raw profile type exif";
    if (n < sizeof keyword + 1 || memcmp(p, keyword, sizeof keyword))
        return 0;
    p += sizeof keyword;
    n -= sizeof keyword;
    if (!inflated)
        return pali_profile_orientation(p, n);
    if (*inflated)
        return 0;
    *inflated = true;
    uint8_t text[PROFILE_ROOM] = {0};
    const char *why;
    int64_t got = pali_stb_inflate(p + 1, n - 1, text, PROFILE_ROOM, &why);
    return got > 0 ? pali_profile_orientation(text, (size_t)got) : 0;
}

static void note_orientation(const uint8_t *type, const uint8_t *p, size_t n,
                             png_orientation *found) {
    if (!memcmp(type, "eXIf", 4))
        found->exif = pali_exif_orientation(p, n);
    else if (!memcmp(type, "iTXt", 4) && !found->xmp)
        found->xmp = itxt_orientation(p, n);
    else if (!memcmp(type, "tEXt", 4) && !found->profile)
        found->profile = text_orientation(p, n, NULL);
    else if (!memcmp(type, "zTXt", 4) && !found->profile)
        found->profile = text_orientation(p, n, &found->inflated);
}

/* --- the walk over the chunks ------------------------------------------------------- */

static int read_chunks(const pali_image_input *in, png_file *png, int *orientation,
                       pali_error *err) {
    uint32_t table[256];
    make_crc_table(table);
    png_orientation found = {0};
    size_t at = 8;
    for (bool start = true, ended = false; !ended; start = false) {
        if (in->n - at < 12)
            return pali_image_fail_short(in, "PNG", err);
        size_t n = pali_be32(in->bytes + at);
        const uint8_t *type = in->bytes + at + 4, *p = type + 4;
        if (n > in->n - at - 12)
            return pali_image_fail_short(in, "PNG", err);
        at += n + 12;
        bool is_header = !memcmp(type, "IHDR", 4), is_data = !memcmp(type, "IDAT", 4);
        bool is_palette = !memcmp(type, "PLTE", 4);
        if ((is_header || is_data || is_palette) && crc_of(table, type, n + 4) != pali_be32(p + n))
            return pali_image_fail_damaged(in, "PNG", "a checksum does not match its data", err);
        if (start != is_header)
            return pali_image_fail_damaged(in, "PNG", "it must start with its only header", err);
        if (is_header) {
            int rc = read_header(in, p, n, png, err);
            if (rc)
                return rc;
        } else if (is_palette && png->type == PALETTE) {
            png->has_palette = true;
            memcpy(png->palette, p, n < sizeof png->palette ? n / 3 * 3 : sizeof png->palette);
        } else if (is_data) {
            if (png->idat_chunks++ == 0)
                png->first_idat = p;
            png->idat_bytes += n;
        } else {
            note_orientation(type, p, n, &found);
            ended = !memcmp(type, "IEND", 4);
        }
    }
    if (!png->idat_chunks)
        return pali_image_fail_damaged(in, "PNG", "no picture data in it", err);
    if (png->type == PALETTE && !png->has_palette)
        return pali_image_fail_damaged(in, "PNG", "its palette is missing", err);
    int first = found.exif ? found.exif : found.profile ? found.profile : found.xmp;
    *orientation = first ? first : 1;
    return 0;
}

/* Puts the data of all IDAT chunks, walked over once before, one behind the other. */
static uint8_t *join_data(const png_file *png) {
    uint8_t *joined = malloc(png->idat_bytes ? png->idat_bytes : 1), *to = joined;
    const uint8_t *chunk = png->first_idat - 8;
    for (size_t left = png->idat_chunks; joined && left > 0;) {
        size_t n = pali_be32(chunk);
        if (!memcmp(chunk + 4, "IDAT", 4)) {
            memcpy(to, chunk + 8, n);
            to += n;
            left--;
        }
        chunk += n + 12;
    }
    return joined;
}

/* --- rows ------------------------------------------------------------------------ */

/* Where the pixels of a pass lie. A picture that is not interlaced is one pass. */
typedef struct {
    uint32_t x, y, dx, dy;
} png_pass;

static const png_pass whole_picture = {0, 0, 1, 1};
static const png_pass adam7[7] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                  {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

/* Pixels that a pass has along one axis. */
static size_t pass_length(uint32_t total, uint32_t start, uint32_t step) {
    return total > start ? (total - start + step - 1) / step : 0;
}

static size_t row_bytes(const png_file *png, size_t pixels) {
    return (pixels * png->bits + 7) / 8;
}

/* Bytes of a pass once inflated: every row has its filter's number in front. */
static size_t pass_bytes(const png_file *png, const png_pass *pass) {
    size_t w = pass_length(png->width, pass->x, pass->dx);
    return w ? (1 + row_bytes(png, w)) * pass_length(png->height, pass->y, pass->dy) : 0;
}

static uint8_t paeth(int left, int up, int corner) {
    int to_left = abs(up - corner), to_up = abs(left - corner);
    int to_corner = abs(left + up - 2 * corner);
    if (to_left <= to_up && to_left <= to_corner)
        return (uint8_t)left;
    return (uint8_t)(to_up <= to_corner ? up : corner);
}

/* Undoes a row's filter in place. above is the row before (zeros for the first of a
 * pass), step the bytes from a sample to the same sample of the next pixel. */
static bool unfilter(int filter, uint8_t *row, const uint8_t *above, size_t n, size_t step) {
    size_t head = step < n ? step : n;
    switch (filter) {
    case 0:
        return true;
    case 1:
        for (size_t i = step; i < n; i++)
            row[i] = (uint8_t)(row[i] + row[i - step]);
        return true;
    case 2:
        for (size_t i = 0; i < n; i++)
            row[i] = (uint8_t)(row[i] + above[i]);
        return true;
    case 3:
        for (size_t i = 0; i < head; i++)
            row[i] = (uint8_t)(row[i] + above[i] / 2);
        for (size_t i = step; i < n; i++)
            row[i] = (uint8_t)(row[i] + (row[i - step] + above[i]) / 2);
        return true;
    case 4:
        for (size_t i = 0; i < head; i++)
            row[i] = (uint8_t)(row[i] + above[i]);
        for (size_t i = step; i < n; i++)
            row[i] = (uint8_t)(row[i] + paeth(row[i - step], above[i], above[i - step]));
        return true;
    }
    return false;
}

/* One row's w pixels to RGB, `stride` bytes apart. */
static void put_row(const png_file *png, const uint8_t *row, size_t w, uint8_t *to, size_t stride) {
    if (png->depth < 8) {
        unsigned mask = (1u << png->depth) - 1;
        for (size_t x = 0; x < w; x++, to += stride) {
            size_t bit = x * (size_t)png->depth;
            unsigned v = (unsigned)row[bit / 8] >> (8 - (unsigned)png->depth - bit % 8) & mask;
            if (png->type == PALETTE)
                memcpy(to, png->palette[v], 3);
            else
                memset(to, (int)(v * 255 / mask), 3);
        }
        return;
    }
    size_t sample = (size_t)png->depth / 8, pixel = png->bits / 8;
    for (size_t x = 0; x < w; x++, to += stride, row += pixel) {
        if (png->type & COLOUR && png->type != PALETTE)
            to[0] = row[0], to[1] = row[sample], to[2] = row[2 * sample];
        else if (png->type == PALETTE)
            memcpy(to, png->palette[row[0]], 3);
        else if (png->type == GREY && png->depth == 16)
            memset(to, row[0] ? 255 : row[1], 3);
        else
            memset(to, row[0], 3);
    }
}

/* Unfilters one pass at raw and spreads it over out. false: a filter that does not exist. */
static bool put_pass(const png_file *png, const png_pass *pass, uint8_t *raw, const uint8_t *zeros,
                     pali_image *out) {
    size_t w = pass_length(png->width, pass->x, pass->dx);
    size_t h = w ? pass_length(png->height, pass->y, pass->dy) : 0;
    size_t n = row_bytes(png, w), step = png->bits < 8 ? 1 : png->bits / 8;
    const uint8_t *above = zeros;
    for (size_t i = 0; i < h; i++) {
        uint8_t *row = raw + 1;
        if (!unfilter(raw[0], row, above, n, step))
            return false;
        size_t y = pass->y + i * pass->dy;
        put_row(png, row, w, out->rgb + 3 * (y * (size_t)out->width + pass->x), 3 * pass->dx);
        above = row;
        raw += 1 + n;
    }
    return true;
}

/* --- the reader ------------------------------------------------------------------ */

int pali_png_read(const pali_image_input *in, pali_image *out, int *orientation, pali_error *err) {
    png_file png = {0};
    int rc = read_chunks(in, &png, orientation, err);
    if (rc)
        return rc;
    const png_pass *passes = png.interlaced ? adam7 : &whole_picture;
    int n_passes = png.interlaced ? 7 : 1;
    size_t expected = 0, zeros_bytes = row_bytes(&png, png.width);
    for (int i = 0; i < n_passes; i++)
        expected += pass_bytes(&png, &passes[i]);
    if (expected / DEFLATE_RATIO > png.idat_bytes) /* before memory is spent on it */
        return pali_image_fail_damaged(in, "PNG", "too little picture data", err);
    if (expected > INT_MAX - PALI_STB_SLACK) /* inflate counts in int */
        return pali_fail(err, PALI_ELIMIT, "save it with 8 bits a sample",
                         "%s: the PNG holds %zu MB of pixels, more than pali takes", in->name,
                         expected >> 20);

    uint8_t *joined = NULL, *zeros = NULL, *raw = NULL;
    rc = pali_image_alloc(in, "PNG", png.width, png.height, out, err);
    if (rc)
        goto out;
    const uint8_t *data = png.first_idat;
    if (png.idat_chunks > 1)
        data = joined = join_data(&png);
    zeros = calloc(zeros_bytes, 1);
    /* Zeroed, because a hostile stream can copy from where nothing was written yet. */
    raw = calloc(expected + PALI_STB_SLACK, 1);
    if (!data || !zeros || !raw) {
        rc = pali_fail_nomem(err, "decoding a picture");
        goto out;
    }
    const char *why;
    int64_t got = pali_stb_inflate(data, png.idat_bytes, raw, expected + PALI_STB_SLACK, &why);
    if (got < 0 || (size_t)got < expected) {
        rc = pali_image_fail_damaged(
            in, "PNG", got < 0 ? "the compressed data is broken" : "too little picture data", err);
        goto out;
    }
    uint8_t *pass_raw = raw;
    for (int i = 0; i < n_passes && !rc; i++) {
        if (!put_pass(&png, &passes[i], pass_raw, zeros, out))
            rc = pali_image_fail_damaged(in, "PNG", "a row uses a filter that does not exist", err);
        pass_raw += pass_bytes(&png, &passes[i]);
    }
out:
    free(joined);
    free(zeros);
    free(raw);
    return rc;
}
