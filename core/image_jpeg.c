/* image_jpeg.c - JPEG: what must be known before stb_image decodes it.
 *
 * stb_image decodes 8-bit baseline and progressive JPEG, grey, YCbCr, RGB, CMYK and
 * YCCK. It differs from libjpeg-turbo, which Pillow uses, in the rounding of the
 * inverse DCT and of the chroma upsampling; tests/core/test_image.c states by how
 * much. It is silent about a file that was cut short. So the markers are walked
 * here first: size against the limits, EXIF orientation, kinds that cannot be
 * decoded, sound tables, an end-of-image marker that must be there.Pillow lets a baseline
 * JPEG without that marker pass when all its rows are there; pali does not.
 *
 * A progressive file may pass over the picture as often as it likes, with a few
 * bytes for each pass: the passes are limited, so that a small file cannot keep
 * the program busy for hours.                                                    */
#include "core/image_formats.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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
    DQT = 0xdb,
    APP1 = 0xe1,
    APP2 = 0xe2,
    APP14 = 0xee,
    TEM = 0x01,
};

/* An encoder needs about ten passes; the second bound is ten seconds of work or so. */
#define MAX_SCANS     500
#define MAX_SCAN_WORK ((uint64_t)1 << 33) /* passes * pixels */

typedef struct {
    int width, height, components; /* components is 0 until the frame header is seen */
    bool progressive;
    uint8_t id[4], quantiser[4];             /* of each component */
    unsigned quantisers, dc_codes, ac_codes; /* bit i: table i has been given */
    size_t scans;
    bool has_adobe;
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
    for (int i = 0; i < jpeg->components; i++) {
        jpeg->id[i] = p[6 + 3 * i];
        jpeg->quantiser[i] = p[8 + 3 * i];
    }
    return pali_image_check_size(in, "JPEG", (uint64_t)jpeg->width, (uint64_t)jpeg->height, err);
}

/* --- tables ------------------------------------------------------------------------
 * stb_image writes behind a Huffman table of more than 256 codes, and decodes with
 * tables that no segment has filled. Neither may reach it.                         */

static bool note_quantisers(const uint8_t *p, size_t n, jpeg_file *jpeg) {
    while (n > 0) {
        size_t length = p[0] >> 4 ? 129 : 65;
        if (n < length || (p[0] & 15) > 3)
            return false;
        jpeg->quantisers |= 1u << (p[0] & 15);
        p += length;
        n -= length;
    }
    return true;
}

static bool note_codes(const uint8_t *p, size_t n, jpeg_file *jpeg) {
    while (n > 0) {
        if (n < 17 || p[0] >> 4 > 1 || (p[0] & 15) > 3)
            return false;
        size_t codes = 0;
        for (int length = 1; length <= 16; length++)
            codes += p[length];
        if (codes > 256 || 17 + codes > n)
            return false;
        *(p[0] >> 4 ? &jpeg->ac_codes : &jpeg->dc_codes) |= 1u << (p[0] & 15);
        p += 17 + codes;
        n -= 17 + codes;
    }
    return true;
}

/* Whether a scan's components exist and have all the tables that it will use. */
static bool scan_is_sound(const uint8_t *p, size_t n, const jpeg_file *jpeg) {
    if (n < 1 || p[0] < 1 || p[0] > 4 || n != 4 + 2 * (size_t)p[0])
        return false;
    const uint8_t *spectrum = p + 1 + 2 * (size_t)p[0];
    bool first = spectrum[0] == 0, refines = spectrum[2] >> 4 > 0;
    bool dc = !jpeg->progressive || (first && !refines), ac = !jpeg->progressive || !first;
    for (const uint8_t *c = p + 1; c < spectrum; c += 2) {
        int i = 0;
        while (i < jpeg->components && jpeg->id[i] != c[0])
            i++;
        if (i == jpeg->components || jpeg->quantiser[i] > 3 || c[1] >> 4 > 3 || (c[1] & 15) > 3)
            return false;
        if (!(jpeg->quantisers >> jpeg->quantiser[i] & 1) ||
            (dc && !(jpeg->dc_codes >> (c[1] >> 4) & 1)) ||
            (ac && !(jpeg->ac_codes >> (c[1] & 15) & 1)))
            return false;
    }
    return true;
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
    if (marker == APP14 && n >= 12 && !memcmp(p, "Adobe", 5))
        jpeg->has_adobe = true;
    else if (marker == APP1 && n >= 6 && !memcmp(p, "Exif\0\0", 6) && !jpeg->from_exif)
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
        } else if ((marker == DHT && !note_codes(p, n, jpeg)) ||
                   (marker == DQT && !note_quantisers(p, n, jpeg))) {
            return pali_image_fail_damaged(in, "JPEG", "its tables are wrong", err);
        } else if (marker == SOS) {
            if (!scan_is_sound(p, n, jpeg))
                return pali_image_fail_damaged(
                    in, "JPEG", "a scan uses tables or components that are not there", err);
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
    if (jpeg->scans > MAX_SCANS || jpeg->scans * pixels > MAX_SCAN_WORK)
        return pali_fail(err, PALI_ELIMIT, "save the picture again",
                         "%s: the JPEG builds up its picture in %zu passes, too many to decode",
                         in->name, jpeg->scans);
    return 0;
}

/* CMYK without Adobe's marker: Pillow takes its inks for inverted, as Adobe's are. So a
 * copy with the marker (no transform) in front is decoded. Caller frees. */
static uint8_t *with_adobe_marker(const uint8_t *bytes, size_t n, size_t *larger) {
    static const uint8_t adobe[16] = {0xff, APP14, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100};
    uint8_t *copy = malloc(n + sizeof adobe);
    if (!copy)
        return NULL;
    memcpy(copy, bytes, 2);
    memcpy(copy + 2, adobe, sizeof adobe);
    memcpy(copy + 2 + sizeof adobe, bytes + 2, n - 2);
    *larger = n + sizeof adobe;
    return copy;
}

static int decode(const pali_image_input *in, const jpeg_file *jpeg, pali_image *out,
                  pali_error *err) {
    const uint8_t *bytes = in->bytes;
    size_t n = jpeg->end;
    uint8_t *copy = NULL;
    if (jpeg->components == 4 && !jpeg->has_adobe) {
        bytes = copy = with_adobe_marker(bytes, n, &n);
        if (!copy)
            return pali_fail_nomem(err, "decoding a picture");
    }
    int width, height;
    const char *why;
    out->rgb = pali_stb_jpeg(bytes, n, &width, &height, &why);
    free(copy);
    if (!out->rgb)
        return !strcmp(why, PALI_STB_NOMEM) ? pali_fail_nomem(err, "decoding a picture")
                                            : pali_image_fail_damaged(in, "JPEG", why, err);
    if (width != jpeg->width || height != jpeg->height) /* would be a fault of ours above */
        return pali_image_fail_damaged(in, "JPEG", "it states two sizes", err);
    out->width = width;
    out->height = height;
    return 0;
}

int pali_jpeg_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                   pali_error *err) {
    jpeg_file jpeg = {0};
    int rc = read_markers(in, &jpeg, err);
    if (!rc)
        rc = decode(in, &jpeg, out, err);
    if (jpeg.from_exif || jpeg.from_xmp)
        notes->orientation = jpeg.from_exif ? jpeg.from_exif : jpeg.from_xmp;
    if (!rc && jpeg.components == 3 && jpeg.profile_next == jpeg.profile_segments)
        pali_image_note_profile(notes, jpeg.profile, jpeg.profile_bytes);
    free(jpeg.profile);
    return rc;
}
