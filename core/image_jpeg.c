/* image_jpeg.c - JPEG, read by libjpeg-turbo, as Pillow does, so that the pixels are the same.
 *
 * libjpeg is silent about a file that was cut short, and would decode whatever size and
 * number of passes a file states. So the markers are walked here first: size against the
 * limits, EXIF orientation, kinds that are not read, an end-of-image marker that must be
 * there. Pillow lets a baseline JPEG without that marker pass when all its rows are there;
 * pali does not, and it refuses data with codes that no table has.
 *
 * A large picture comes out smaller by 2 or 4 straight from the coefficients, which
 * costs less time and memory than decoding it whole. A progressive one keeps all its
 * coefficients until the end (up to 6 bytes a pixel), which is limited.
 *
 * A progressive file may pass over the picture as often as it likes, with a few
 * bytes for each pass: the passes are limited, so that a small file cannot keep
 * the program busy for hours.
 *
 * libjpeg leaves by longjmp when something is wrong; what must be known afterwards lies in
 * a reader, outside of the function that called setjmp.                                */
#include "core/image_formats.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

enum {
    SOF0 = 0xc0, /* baseline    */
    SOF1 = 0xc1, /* extended    */
    SOF2 = 0xc2, /* progressive */
    DHT = 0xc4,
    SOF_ARITHMETIC = 0xc9,
    JPG = 0xc8,
    DAC = 0xcc,
    SOF15 = 0xcf,
    RST0 = 0xd0,
    RST7 = 0xd7,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    APP1 = 0xe1,
    APP2 = 0xe2,
    TEM = 0x01,
};

/* An encoder needs about ten passes; the second bound is ten seconds of work or so. */
#define MAX_SCANS     500
#define MAX_SCAN_WORK ((uint64_t)1 << 33) /* passes * pixels, of a progressive one */

typedef struct {
    int width, height, components; /* components is 0 until the frame header is seen */
    int factor;                    /* the picture is made smaller by */
    bool progressive;
    size_t scans;
    int from_exif, from_xmp;
    uint8_t *profile; /* ICC, put together from its segments; owned */
    size_t profile_bytes;
    int profile_next, profile_segments; /* the number expected next, from 1; of how many */
    size_t end;                         /* just behind the end-of-image marker */
} jpeg_file;

/* Reads one frame header (SOF). */
static int read_frame(const pali_image_input *in, int marker, const uint8_t *p, size_t n,
                      jpeg_file *jpeg, pali_error *err) {
    if (marker >= SOF_ARITHMETIC)
        return pali_image_fail_kind(in, "an arithmetic-coded JPEG, which pali does not read", err);
    if (marker > SOF2)
        return pali_image_fail_kind(in, "a lossless or hierarchical JPEG, which pali does not read",
                                    err);
    if (n < 6 || n != 6 + 3 * (size_t)p[5] || jpeg->components)
        return pali_image_fail_damaged(in, "JPEG", "its frame header is wrong", err);
    if (p[0] != 8)
        return pali_image_fail_kind(in, "a JPEG with 12 bits a sample, which pali does not read",
                                    err);
    if (p[5] != 1 && p[5] != 3 && p[5] != 4)
        return pali_image_fail_kind(in, "a JPEG that is neither grey nor colour nor CMYK", err);
    jpeg->height = (int)pali_be16(p + 1);
    jpeg->width = (int)pali_be16(p + 3);
    jpeg->components = p[5];
    jpeg->progressive = marker == SOF2;
    return pali_image_factor(in, "JPEG", (uint64_t)jpeg->width, (uint64_t)jpeg->height,
                             &jpeg->factor, err);
}

/* --- markers ----------------------------------------------------------------------- */

/* A profile is cut into numbered segments. They come in order in every file there is;
 * one that does not is done without. */
static void read_profile(const uint8_t *p, size_t n, jpeg_file *jpeg) {
    int number = p[12], segments = p[13];
    uint8_t *larger = NULL;
    if (number == jpeg->profile_next + 1 && (number == 1 || segments == jpeg->profile_segments))
        larger = realloc(jpeg->profile, jpeg->profile_bytes + n - 14 + 1);
    if (!larger)
        return;
    memcpy(larger + jpeg->profile_bytes, p + 14, n - 14);
    jpeg->profile = larger;
    jpeg->profile_bytes += n - 14;
    jpeg->profile_next = number;
    jpeg->profile_segments = segments;
}

static void read_application(int marker, const uint8_t *p, size_t n, jpeg_file *jpeg) {
    static const char xmp[] = "http://ns.adobe.com/xap/1.0/";
    if (marker == APP1 && n >= 6 && !memcmp(p, "Exif\0\0", 6) && !jpeg->from_exif)
        jpeg->from_exif = pali_exif_orientation(p, n);
    else if (marker == APP1 && n >= sizeof xmp && !memcmp(p, xmp, sizeof xmp))
        jpeg->from_xmp = pali_xmp_orientation(p, n);
    else if (marker == APP2 && n > 14 && !memcmp(p, "ICC_PROFILE", 12))
        read_profile(p, n, jpeg);
}

/* Where the entropy-coded data at `at` ends: at the next marker that is not part of it. */
static size_t skip_scan(const pali_image_input *in, size_t at) {
    while (at + 1 < in->n) {
        const uint8_t *ff = memchr(in->bytes + at, 0xff, in->n - 1 - at);
        if (!ff)
            break;
        at = (size_t)(ff - in->bytes);
        if (ff[1] == 0 || (ff[1] >= RST0 && ff[1] <= RST7))
            at += 2;
        else if (ff[1] == 0xff)
            at++;
        else
            return at;
    }
    return in->n;
}

/* Walks the markers from the start to the end of the image. */
static int read_markers(const pali_image_input *in, jpeg_file *jpeg, pali_error *err) {
    size_t at = 2;
    for (;;) {
        while (at < in->n && in->bytes[at] != 0xff)
            at++;
        while (at < in->n && in->bytes[at] == 0xff)
            at++;
        if (at >= in->n)
            return pali_image_fail_short(in, "JPEG", err);
        int marker = in->bytes[at++];
        if (marker == EOI)
            break;
        if (marker == 0 || marker == TEM || (marker >= RST0 && marker <= SOI))
            continue; /* these stand alone; a zero is no marker at all */
        if (in->n - at < 2)
            return pali_image_fail_short(in, "JPEG", err);
        size_t n = pali_be16(in->bytes + at);
        if (n < 2)
            return pali_image_fail_damaged(in, "JPEG", "a segment has no length", err);
        if (n > in->n - at)
            return pali_image_fail_short(in, "JPEG", err);
        const uint8_t *p = in->bytes + at + 2;
        at += n;
        n -= 2;
        if (marker >= SOF0 && marker <= SOF15 && marker != DHT && marker != JPG && marker != DAC) {
            int rc = read_frame(in, marker, p, n, jpeg, err);
            if (rc)
                return rc;
        } else if (marker == SOS) {
            jpeg->scans++;
            at = skip_scan(in, at);
        } else if (jpeg->scans == 0) {
            read_application(marker, p, n, jpeg);
        }
    }
    jpeg->end = at;
    if (!jpeg->components || !jpeg->scans)
        return pali_image_fail_damaged(in, "JPEG", "no picture data in it", err);
    uint64_t pixels = (uint64_t)jpeg->width * (uint64_t)jpeg->height;
    if (jpeg->scans > MAX_SCANS || (jpeg->progressive && jpeg->scans * pixels > MAX_SCAN_WORK))
        return pali_fail(err, PALI_ELIMIT, "save the picture again",
                         "%s: the JPEG builds up its picture in %zu passes, too many to decode",
                         in->name, jpeg->scans);
    return 0;
}

/* --- decoding ---------------------------------------------------------------------- */

typedef struct {
    struct jpeg_error_mgr libjpeg; /* first: libjpeg hands back a pointer to it */
    jmp_buf leave;
    int code;      /* libjpeg's, of what ended the reading */
    JSAMPLE *inks; /* owned: a row of CMYK */
} reader;

static void on_error(j_common_ptr jpeg) {
    reader *r = (reader *)jpeg->err;
    r->code = r->libjpeg.msg_code;
    longjmp(r->leave, 1);
}

/* Warnings are negative. All but one are of things that Pillow, too, goes on after. */
static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0 && jpeg->err->msg_code == JWRN_HUFF_BAD_CODE)
        on_error(jpeg);
}

static int fail(const pali_image_input *in, const reader *r, const jpeg_file *jpeg,
                pali_error *err) {
    switch (r->code) {
    case JERR_OUT_OF_MEMORY:
        return pali_fail_nomem(err, "decoding a picture");
    case JERR_NO_BACKING_STORE:
        return pali_fail(err, PALI_ELIMIT, "save it as an ordinary JPEG, or smaller",
                         "%s: a progressive JPEG of %d x %d pixels needs too much memory", in->name,
                         jpeg->width, jpeg->height);
    case JWRN_HUFF_BAD_CODE:
        return pali_image_fail_damaged(in, "JPEG", "its compressed data is broken", err);
    case JERR_BAD_HUFF_TABLE:
    case JERR_DHT_INDEX:
    case JERR_DQT_INDEX:
    case JERR_NO_HUFF_TABLE:
    case JERR_NO_QUANT_TABLE:
        return pali_image_fail_damaged(in, "JPEG", "its tables are wrong or missing", err);
    case JERR_BAD_COMPONENT_ID:
    case JERR_COMPONENT_COUNT:
    case JERR_BAD_PROGRESSION:
    case JERR_BAD_MCU_SIZE:
    case JERR_BAD_SAMPLING:
        return pali_image_fail_damaged(in, "JPEG", "its components do not fit together", err);
    default:
        return pali_image_fail_damaged(in, "JPEG", "it cannot be decoded", err);
    }
}

/* A row of inks as Pillow sees it: always inverted, as Adobe's are. */
static void inks_to_rgb(const JSAMPLE *inks, int width, uint8_t *rgb) {
    for (int x = 0; x < width; x++, inks += 4)
        for (int c = 0; c < 3; c++) {
            int t = (255 - inks[c]) * inks[3] + 128;
            int v = inks[3] - (((t >> 8) + t) >> 8);
            *rgb++ = (uint8_t)(v < 0 ? 0 : v);
        }
}

static int read_rows(j_decompress_ptr d, const pali_image_input *in, const jpeg_file *jpeg,
                     reader *r, pali_image *out, pali_error *err) {
    jpeg_mem_src(d, in->bytes, jpeg->end);
    jpeg_read_header(d, TRUE);
    d->mem->max_memory_to_use = (long)(8 * in->max_pixels) + (1 << 20);
    d->scale_num = 1;
    d->scale_denom = (unsigned)jpeg->factor;
    d->out_color_space = jpeg->components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(d);
    int f = jpeg->factor, w = (jpeg->width + f - 1) / f, h = (jpeg->height + f - 1) / f;
    if ((int)d->output_width != w || (int)d->output_height != h) /* would be a fault of ours */
        return pali_image_fail_damaged(in, "JPEG", "it states two sizes", err);
    int rc = pali_image_alloc(in, "JPEG", (uint64_t)w, (uint64_t)h, out, err);
    if (!rc && jpeg->components == 4 && !(r->inks = malloc(4 * (size_t)w)))
        rc = pali_fail_nomem(err, "decoding a picture");
    if (rc)
        return rc;
    if (f > 1) {
        out->full_width = jpeg->width;
        out->full_height = jpeg->height;
    }
    while (d->output_scanline < d->output_height) {
        uint8_t *to = out->rgb + (size_t)d->output_scanline * (size_t)w * 3;
        JSAMPROW row = r->inks ? r->inks : to;
        jpeg_read_scanlines(d, &row, 1);
        if (r->inks)
            inks_to_rgb(r->inks, w, to);
    }
    jpeg_finish_decompress(d);
    return 0;
}

static int decode(const pali_image_input *in, const jpeg_file *jpeg, reader *r, pali_image *out,
                  pali_error *err) {
    struct jpeg_decompress_struct d = {.err = jpeg_std_error(&r->libjpeg)};
    r->libjpeg.error_exit = on_error;
    r->libjpeg.emit_message = on_message;
    int rc;
    if (setjmp(r->leave)) {
        rc = fail(in, r, jpeg, err);
    } else {
        jpeg_create_decompress(&d);
        rc = read_rows(&d, in, jpeg, r, out, err);
    }
    jpeg_destroy_decompress(&d);
    return rc;
}

int pali_jpeg_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                   pali_error *err) {
    jpeg_file jpeg = {0};
    reader r = {.inks = NULL};
    int rc = read_markers(in, &jpeg, err);
    if (!rc)
        rc = decode(in, &jpeg, &r, out, err);
    free(r.inks);
    if (jpeg.from_exif || jpeg.from_xmp)
        notes->orientation = jpeg.from_exif ? jpeg.from_exif : jpeg.from_xmp;
    if (!rc && jpeg.components == 3 && jpeg.profile_next == jpeg.profile_segments)
        pali_image_note_profile(notes, jpeg.profile, jpeg.profile_bytes);
    free(jpeg.profile);
    return rc;
}
