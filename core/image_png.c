/* image_png.c - PNG, read by libpng.
 *
 * What Pillow's convert("RGB") makes of a sample, and so what libpng is asked for:
 *   grey 1, 2, 4 bit    scaled to 0..255       grey 16     clipped at 255 (not scaled)
 *   palette             looked up; an entry that is not there is black
 *   every other 16 bit  the high byte          alpha, tRNS dropped, never composited
 * libpng cannot clip, so rows of 16-bit grey are made here out of what it read.
 *
 * Checksums of critical chunks and of the compressed pixels are verified and IEND must
 * be there, so a file that was cut short or damaged is refused rather than half shown.
 * Of an animated PNG the default picture is read. Gamma is left alone; a colour profile
 * is handed on. Stricter than Pillow 11.3, which accepts a palette that comes twice or whose
 * bytes are no whole number of entries, compressed data whose checksum is missing at
 * its end, and an IEND with a wrong one.
 *
 * libpng leaves by longjmp when something is wrong. What must be known afterwards lies
 * in a reader, outside of the function that called setjmp. Where libpng only warns and
 * goes on without something because there is no memory for it, get_memory remembers. */
#include "core/image_formats.h"

#include <assert.h>
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFLATE_RATIO = 1032,  /* the most bytes that one compressed byte can become */
    CHUNK_BYTES = 1 << 20, /* of text or EXIF, inflated; longer ones are skipped */
    TEXT_CHUNKS = 128,     /* libpng keeps them */
    REST_BYTES = 1 << 16,  /* of compressed data behind the last row's */
    IDAT = 0x49444154,
};

static const char too_short[] = "the file ends here";
static const char too_much[] = "far too much picture data";

typedef struct {
    const pali_image_input *in;
    size_t at;       /* how much of it was read */
    size_t data_end; /* pixels may be read up to here */
    int exif;        /* orientation that an eXIf chunk states, or 0 */
    uint8_t *row;    /* owned, like rows.sums: where the picture is made smaller */
    pali_image_rows rows;
    bool no_memory;
    char complaint[128]; /* libpng's, which ended the reading */
} reader;

/* --- what libpng calls --------------------------------------------------------------- */

static void read_bytes(png_structp png, png_bytep to, size_t n) {
    reader *r = png_get_io_ptr(png);
    if (n > r->in->n - r->at)
        png_error(png, too_short);
    if (r->at + n > r->data_end && png_get_io_chunk_type(png) == IDAT)
        png_error(png, too_much);
    memcpy(to, r->in->bytes + r->at, n);
    r->at += n;
}

static png_voidp get_memory(png_structp png, png_alloc_size_t n) {
    reader *r = png_get_mem_ptr(png);
    void *p = malloc(n);
    r->no_memory |= !p;
    return p;
}

static void free_memory(png_structp png, png_voidp p) {
    (void)png;
    free(p);
}

static void on_error(png_structp png, png_const_charp complaint) {
    reader *r = png_get_error_ptr(png);
    snprintf(r->complaint, sizeof r->complaint, "%s", complaint);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp complaint) {
    (void)png;
    (void)complaint;
}

/* Gets the chunks that libpng is not to read. libpng itself refuses an eXIf chunk that
 * starts with "Exif\0\0", and any file with a critical chunk unknown to it. */
static int note_chunk(png_structp png, png_unknown_chunkp chunk) {
    reader *r = png_get_user_chunk_ptr(png);
    if (!memcmp(chunk->name, "eXIf", 4))
        r->exif = pali_exif_orientation(chunk->data, chunk->size);
    return 1; /* dealt with */
}

/* --- what was wrong -------------------------------------------------------------------- */

static int fail(const reader *r, pali_error *err) {
    /* libpng's words and ours; the first that is in the complaint counts. */
    static const struct {
        const char *libpng, *what;
    } meanings[] = {
        {"CRC error", "a checksum does not match its data"},
        {"IHDR: out of place", "it must start with its only header"},
        {"missing IHDR", "it must start with its only header"},
        {"IHDR: ", "the header has a wrong length"},
        {"Invalid IHDR", "the header describes no known kind of picture"},
        {"Missing PLTE", "its palette is missing"},
        {"PLTE: ", "its palette is wrong"},
        {"Invalid palette", "its palette is wrong"},
        {"IEND: out of place", "no picture data in it"},
        {"Not enough image data", "too little picture data"},
        {"bad adaptive filter", "a row uses a filter that does not exist"},
        {"IDAT: ", "the compressed data is broken"},
    };
    if (r->no_memory)
        return pali_fail_nomem(err, "decoding a picture");
    if (!strcmp(r->complaint, too_short))
        return pali_image_fail_short(r->in, "PNG", err);
    if (strstr(r->complaint, "Invalid IHDR")) { /* which was just read: 13 bytes, checksum */
        const uint8_t *header = r->in->bytes + r->at - 17;
        int factor, rc = pali_image_factor(r->in, "PNG", pali_be32(header), pali_be32(header + 4),
                                           &factor, err);
        if (rc)
            return rc;
    }
    const char *what = r->complaint;
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (strcasestr(r->complaint, meanings[i].libpng)) {
            what = meanings[i].what;
            break;
        }
    return pali_image_fail_damaged(r->in, "PNG", what, err);
}

/* --- reading ------------------------------------------------------------------------- */

static void set_up(png_structp png, reader *r) {
    png_set_read_fn(png, r, read_bytes);
    png_set_user_limits(png, PALI_IMAGE_MAX_SIDE, PALI_IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(png, CHUNK_BYTES);
    png_set_chunk_cache_max(png, TEXT_CHUNKS);
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_QUIET_USE);
    png_set_benign_errors(png, 1);
    /* Some writers state a window smaller than the one that they used. */
    png_set_option(png, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);
    png_set_read_user_chunk_fn(png, r, note_chunk);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* all but the pixels' */
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_AS_DEFAULT,
                                (png_const_bytep) "tEXt\0zTXt\0iTXt\0iCCP", 4);
}

/* EXIF as ImageMagick wrote it before there was eXIf, else XMP; 0 if there is neither. */
static int text_orientation(png_structp png, png_infop info) {
    int profile = 0, xmp = 0;
    png_textp t = NULL;
    for (int n = png_get_text(png, info, &t, NULL); n > 0; n--, t++) {
        const uint8_t *text = (const uint8_t *)t->text;
        size_t length =
            t->compression < PNG_ITXT_COMPRESSION_NONE ? t->text_length : t->itxt_length;
        if (!profile && !strcmp(t->key, "Raw profile type exif"))
            profile = pali_profile_orientation(text, length);
        else if (!xmp && !strcmp(t->key, "XML:com.adobe.xmp"))
            xmp = pali_xmp_orientation(text, length);
    }
    return profile ? profile : xmp;
}

/* w big-endian 16-bit samples at row become w pixels there. */
static void clip_grey(uint8_t *row, size_t w) {
    for (size_t x = w; x-- > 0;)
        memset(row + 3 * x, row[2 * x] ? 255 : row[2 * x + 1], 3);
}

/* Notes from the chunks behind the pixels and before them. */
static void read_notes(png_structp png, png_infop info, const reader *r, pali_image_notes *notes) {
    int stated = r->exif ? r->exif : text_orientation(png, info), method;
    if (stated)
        notes->orientation = stated;
    png_charp name;
    png_bytep profile;
    png_uint_32 n;
    if (png_get_iCCP(png, info, &name, &method, &profile, &n))
        pali_image_note_profile(notes, profile, n);
}

/* Room for a picture of w x h pixels, reduced by `factor`. */
static int make_room(reader *r, uint32_t w, uint32_t h, int factor, pali_image *out,
                     pali_error *err) {
    uint32_t f = (uint32_t)factor;
    int rc = pali_image_alloc(r->in, "PNG", (w + f - 1) / f, (h + f - 1) / f, out, err);
    if (rc || f == 1)
        return rc;
    out->full_width = (int)w;
    out->full_height = (int)h;
    r->row = malloc(3 * (size_t)w);
    r->rows = (pali_image_rows){
        out, calloc((size_t)out->width * 3, sizeof(uint32_t)), (int)w, (int)h, factor, 0};
    return r->row && r->rows.sums ? 0 : pali_fail_nomem(err, "decoding a picture");
}

static int read_picture(png_structp png, png_infop info, reader *r, pali_image *out,
                        pali_image_notes *notes, pali_error *err) {
    png_read_info(png, info);
    uint32_t w = png_get_image_width(png, info), h = png_get_image_height(png, info);
    bool interlaced = png_get_interlace_type(png, info) != PNG_INTERLACE_NONE; /* needs it whole */
    int factor = 1;
    int rc = interlaced ? pali_image_check_size(r->in, "PNG", w, h, err)
                        : pali_image_factor(r->in, "PNG", w, h, &factor, err);
    if (rc)
        return rc;
    size_t stored_row = png_get_rowbytes(png, info);
    if (stored_row * h / DEFLATE_RATIO > r->in->n) /* before memory is spent on it */
        return pali_image_fail_damaged(r->in, "PNG", "too little picture data", err);
    rc = make_room(r, w, h, factor, out, err);
    if (rc)
        return rc;

    bool grey16 =
        png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) == 16;
    png_set_expand(png); /* tRNS becomes alpha, which is dropped */
    png_set_strip_alpha(png);
    if (!grey16) {
        png_set_strip_16(png);
        png_set_gray_to_rgb(png);
    }
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    size_t row_bytes = 3 * (size_t)w;
    assert(png_get_rowbytes(png, info) == (grey16 ? 2 * (size_t)w : row_bytes));
    for (int pass = 0; pass < passes; pass++)
        for (uint32_t y = 0; y < h; y++) {
            /* Behind the last row libpng inflates whatever there is. */
            if (pass == passes - 1 && y == h - 1)
                r->data_end = r->at + stored_row + REST_BYTES;
            uint8_t *row = r->row ? r->row : out->rgb + y * row_bytes;
            png_read_row(png, row, NULL);
            if (grey16 && pass == passes - 1)
                clip_grey(row, w);
            if (r->row)
                pali_image_put_row(&r->rows, row);
        }
    png_read_end(png, info);
    read_notes(png, info, r, notes);
    return r->no_memory ? fail(r, err) : 0;
}

static int read_png(reader *r, pali_image *out, pali_image_notes *notes, pali_error *err) {
    png_structp png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, r, on_error, on_warning, r,
                                               get_memory, free_memory);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    int rc;
    if (!info) {
        rc = pali_fail_nomem(err, "decoding a picture");
    } else if (setjmp(png_jmpbuf(png))) {
        rc = fail(r, err);
    } else {
        set_up(png, r);
        rc = read_picture(png, info, r, out, notes, err);
    }
    png_destroy_read_struct(&png, &info, NULL);
    return rc;
}

int pali_png_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                  pali_error *err) {
    reader r = {.in = in, .data_end = SIZE_MAX};
    int rc = read_png(&r, out, notes, err);
    free(r.row);
    free(r.rows.sums);
    return rc;
}
