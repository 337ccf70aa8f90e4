/* image.c - files to upright RGB pixels; see image.h.
 *
 * The steps are: read the file (bounded), recognise it by its first bytes, let the
 * reader of that format (image_png.c and its neighbours) produce the pixels as
 * stored, make them sRGB by the file's colour profile, turn them by the EXIF orientation. Formats that pali does not read are
 * recognised too, so that the user is told how to convert instead of "not a
 * picture".                                                                    */
#include "core/image.h"

#include "core/image_formats.h"
#include "core/image_sandbox.h"
#include "core/size.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef PALI_HEIF
#define READS "pali reads PNG, JPEG, WebP, HEIC, AVIF, BMP, GIF, PNM, TGA, PSD and HDR"
#else
#define READS "pali reads PNG, JPEG, WebP, BMP, GIF, PNM, TGA, PSD and HDR"
#endif

enum {
    MB = 1 << 20,
    READ_CHUNK = 1 << 16,
};

static const char *shown_name(const char *path) {
    return strcmp(path, "-") ? path : "standard input";
}

/* --- reading --------------------------------------------------------------------- */

static int fail_bytes(const char *name, pali_error *err) {
    return pali_fail(err, PALI_ELIMIT, "save the picture smaller, or as JPEG",
                     "%s: larger than %zu MB, the most pali reads", name,
                     PALI_IMAGE_MAX_BYTES / MB);
}

/* Reads fd to its end into a buffer that starts at `expected` bytes and grows: the size
 * of a pipe is not known, and a file may grow while it is read. */
static int read_all(int fd, const char *name, size_t expected, uint8_t **bytes, size_t *n,
                    pali_error *err) {
    size_t room = expected + 1, used = 0; /* one more, so that the end is seen without growing */
    uint8_t *buffer = malloc(room);
    if (!buffer)
        return pali_fail_nomem(err, "reading a picture");
    for (;;) {
        ssize_t got = read(fd, buffer + used, room - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(buffer);
            return pali_fail(err, PALI_EIO, NULL, "%s: cannot read: %s", name, strerror(errno));
        }
        if (got == 0)
            break;
        used += (size_t)got;
        if (used > PALI_IMAGE_MAX_BYTES) {
            free(buffer);
            return fail_bytes(name, err);
        }
        if (used < room)
            continue;
        room = room < PALI_IMAGE_MAX_BYTES / 2 ? room * 2 : PALI_IMAGE_MAX_BYTES + 1;
        uint8_t *larger = realloc(buffer, room);
        if (!larger) {
            free(buffer);
            return pali_fail_nomem(err, "reading a picture");
        }
        buffer = larger;
    }
    if (used == 0) {
        free(buffer);
        return pali_fail(err, PALI_EFORMAT, READS, "%s: empty, no picture in it", name);
    }
    *bytes = buffer;
    *n = used;
    return 0;
}

int pali_image_read_file(const char *path, uint8_t **bytes, size_t *n, pali_error *err) {
    *bytes = NULL;
    *n = 0;
    const char *name = shown_name(path);
    bool from_stdin = !strcmp(path, "-");
    int fd = from_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pali_fail(err, PALI_EIO,
                         errno == ENOENT ? "check the path" : "check who may read the file",
                         "%s: cannot open: %s", name, strerror(errno));
    struct stat st;
    int rc;
    if (fstat(fd, &st) != 0)
        rc = pali_fail(err, PALI_EIO, NULL, "%s: cannot read: %s", name, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        rc = pali_fail(err, PALI_EIO, "name one picture in it", "%s: a directory, not a picture",
                       name);
    else if (S_ISREG(st.st_mode) && st.st_size > (off_t)PALI_IMAGE_MAX_BYTES)
        rc = fail_bytes(name, err);
    else
        rc = read_all(fd, name, S_ISREG(st.st_mode) ? (size_t)st.st_size : READ_CHUNK, bytes, n,
                      err);
    if (!from_stdin)
        close(fd);
    return rc;
}

/* --- what the readers of formats call ------------------------------------------------ */

static int check_size(const pali_image_input *in, const char *format, uint64_t width,
                      uint64_t height, size_t most, pali_error *err) {
    const char *smaller = "make the picture smaller first";
    if (width == 0 || height == 0)
        return pali_fail(err, PALI_EFORMAT, "save the picture again",
                         "%s: the %s has no pixels (%llu x %llu)", in->name, format,
                         (unsigned long long)width, (unsigned long long)height);
    if (width > PALI_IMAGE_MAX_SIDE || height > PALI_IMAGE_MAX_SIDE)
        return pali_fail(
            err, PALI_ELIMIT, smaller, "%s: %llu x %llu pixels; pali takes at most %d a side",
            in->name, (unsigned long long)width, (unsigned long long)height, PALI_IMAGE_MAX_SIDE);
    if (width * height > most)
        return pali_fail(err, PALI_ELIMIT, smaller,
                         "%s: %llu x %llu pixels; pali takes at most %zu million", in->name,
                         (unsigned long long)width, (unsigned long long)height, most / 1000000);
    return 0;
}

int pali_image_check_size(const pali_image_input *in, const char *format, uint64_t width,
                          uint64_t height, pali_error *err) {
    return check_size(in, format, width, height, in->max_pixels, err);
}

int pali_image_alloc(const pali_image_input *in, const char *format, uint64_t width,
                     uint64_t height, pali_image *out, pali_error *err) {
    int rc = pali_image_check_size(in, format, width, height, err);
    if (rc)
        return rc;
    out->rgb = calloc((size_t)(width * height), 3);
    if (!out->rgb)
        return pali_fail_nomem(err, "decoding a picture");
    out->width = (int)width;
    out->height = (int)height;
    return 0;
}

/* --- large pictures ------------------------------------------------------------------ */

static int factor_of(const pali_image_input *in, uint64_t width, uint64_t height) {
    uint64_t f = 1;
    while (f < 4 && (width + f - 1) / f * ((height + f - 1) / f) > in->max_pixels / 3)
        f *= 2;
    return (int)f;
}

int pali_image_factor(const pali_image_input *in, const char *format, uint64_t width,
                      uint64_t height, int *factor, pali_error *err) {
    *factor = factor_of(in, width, height);
    return check_size(in, format, width, height, 4 * in->max_pixels, err);
}

void pali_image_put_row(pali_image_rows *r, const uint8_t *rgb) {
    int f = r->factor, to = r->out->width;
    for (int x = 0, i = 0; i < to; i++)
        for (int end = x + f < r->width ? x + f : r->width; x < end; x++, rgb += 3)
            for (int c = 0; c < 3; c++)
                r->sums[3 * i + c] += rgb[c];
    r->y++;
    int rows = r->y % f ? r->y % f : f;
    if (rows < f && r->y < r->height)
        return;
    uint8_t *out = r->out->rgb + (size_t)((r->y - 1) / f) * (size_t)to * 3;
    for (int i = 0; i < to; i++) {
        int left = r->width - i * f;
        uint32_t n = (uint32_t)(rows * (left < f ? left : f));
        for (int c = 0; c < 3; c++)
            out[3 * i + c] = (uint8_t)((r->sums[3 * i + c] + n / 2) / n);
    }
    memset(r->sums, 0, (size_t)to * 3 * sizeof *r->sums);
}

/* What a reader decoded whole, in its own memory: a row is written after it was read. */
static int reduce(const pali_image_input *in, pali_image *image, pali_error *err) {
    int f = factor_of(in, (uint64_t)image->width, (uint64_t)image->height);
    if (f == 1 || in->frames || image->full_width)
        return 0;
    pali_image small = {(image->width + f - 1) / f, (image->height + f - 1) / f, image->rgb,
                        image->width, image->height};
    pali_image_rows rows = {
        &small, calloc((size_t)small.width * 3, sizeof(uint32_t)), image->width, image->height, f,
        0};
    if (!rows.sums)
        return pali_fail_nomem(err, "decoding a picture");
    for (int y = 0; y < image->height; y++)
        pali_image_put_row(&rows, image->rgb + (size_t)y * (size_t)image->width * 3);
    free(rows.sums);
    uint8_t *less = realloc(small.rgb, (size_t)small.width * (size_t)small.height * 3);
    small.rgb = less ? less : small.rgb;
    *image = small;
    return 0;
}

/* --- what is wrong ------------------------------------------------------------------- */

int pali_image_fail_short(const pali_image_input *in, const char *format, pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, "copy or download the file again",
                     "%s: the %s ends too early; the file was cut short", in->name, format);
}

int pali_image_fail_damaged(const pali_image_input *in, const char *format, const char *what,
                            pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, "copy or download the file again", "%s: damaged %s: %s",
                     in->name, format, what);
}

int pali_image_fail_kind(const pali_image_input *in, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EUNSUPPORTED, "save the picture as PNG or as an ordinary JPEG",
                     "%s: %s", in->name, what);
}

/* --- recognising --------------------------------------------------------------------- */

static bool has_at(const pali_image_input *in, size_t at, const char *text) {
    size_t n = strlen(text);
    return in->n >= at + n && !memcmp(in->bytes + at, text, n);
}

/* One of a list of four-letter brands, each followed by a blank, names the file's kind. */
static bool has_brand(const pali_image_input *in, const char *brands) {
    for (; *brands; brands += 5)
        if (!memcmp(in->bytes + 8, brands, 4))
            return true;
    return false;
}

/* SVG is text; the tag may come after a declaration, comments and blank lines. */
static bool looks_like_svg(const pali_image_input *in) {
    size_t start = has_at(in, 0, "\xef\xbb\xbf") ? 3 : 0;
    while (start < in->n && start < 64 && strchr(" \t\r\n", in->bytes[start]))
        start++;
    if (!has_at(in, start, "<svg") && !has_at(in, start, "<?xml") && !has_at(in, start, "<!--") &&
        !has_at(in, start, "<!DOCTYPE svg"))
        return false;
    return memmem(in->bytes, in->n < 4096 ? in->n : 4096, "<svg", 4) != NULL;
}

/* Says which other format this is and what converts it. */
static int fail_other_format(const pali_image_input *in, pali_error *err) {
    const char *format = NULL;
    const char *how = "convert it to PNG or JPEG: magick FILE picture.png";
    if (in->n >= 12 && has_at(in, 4, "ftyp")) {
        if (has_brand(in, "avif avis ")) {
            format = "AVIF";
            how = "convert it to PNG or JPEG: avifdec FILE picture.png";
        } else if (has_brand(in, "heic heix heim heis hevc hevx mif1 msf1 ")) {
            format = "HEIC";
            how = "convert it to PNG or JPEG: heif-convert FILE picture.png";
        } else {
            format = "a video (MP4)";
            how = "take one picture out of it: ffmpeg -i FILE -frames:v 1 picture.png";
        }
    } else if (has_at(in, 0, "II*") || (in->n >= 4 && !memcmp(in->bytes, "MM\0*", 4))) {
        format = "TIFF";
    } else if (has_at(in, 0, "%PDF")) {
        format = "PDF";
        how = "convert a page to PNG: pdftoppm -png -r 150 -f 1 -l 1 FILE page";
    } else if (has_at(in, 0, "%!PS")) {
        format = "PostScript";
    } else if (in->n >= 12 && !memcmp(in->bytes, "\0\0\0\x0cjP  \r\n\x87\n", 12)) {
        format = "JPEG 2000";
    } else if (has_at(in, 0, "\xff\x0a") ||
               (in->n >= 12 && !memcmp(in->bytes, "\0\0\0\x0cJXL \r\n\x87\n", 12))) {
        format = "JPEG XL";
        how = "convert it to PNG or JPEG: djxl FILE picture.png";
    } else if (in->n >= 6 && !memcmp(in->bytes, "\0\0\1\0", 4)) {
        format = "ICO";
    } else if (has_at(in, 0, "\x53\x80\xf6\x34")) {
        format = "Softimage PIC";
    } else if (has_at(in, 0, "qoif")) {
        format = "QOI";
    } else if (has_at(in, 0, "v/1\x01")) {
        format = "OpenEXR";
    } else if (has_at(in, 0, "P7\n") || has_at(in, 0, "PF\n") || has_at(in, 0, "Pf\n")) {
        format = "PAM or PFM";
    } else if (in->n >= 14 && (!strncasecmp((const char *)in->bytes, "<!doctype html", 14) ||
                               !strncasecmp((const char *)in->bytes, "<html", 5))) {
        format = "a web page (HTML)";
        how = "download the picture itself instead of the page that shows it";
    } else if (looks_like_svg(in)) {
        format = "SVG";
        how = "convert it to PNG: rsvg-convert FILE -o picture.png";
    }
    if (format)
        return pali_fail(err, PALI_EUNSUPPORTED, how, "%s: %s, not a format pali reads", in->name,
                         format);
    return pali_fail(err, PALI_EFORMAT, READS, "%s: not a picture that pali recognises", in->name);
}

#ifdef PALI_HEIF
static bool is_heif(const pali_image_input *in) {
    return in->n >= 12 && has_at(in, 4, "ftyp") &&
           has_brand(in, "avif avis heic heix heim heis hevc hevx mif1 msf1 ");
}
#endif

static int read_pixels(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                       pali_error *err) {
    if (has_at(in, 0, "GIF87a") || has_at(in, 0, "GIF89a"))
        return pali_gif_read(in, out, err);
    if (in->frames)
        *in->frames = 1;
    if (has_at(in, 0, "\x89PNG\r\n\x1a\n"))
        return pali_png_read(in, out, notes, err);
    if (has_at(in, 0, "\xff\xd8\xff"))
        return pali_jpeg_read(in, out, notes, err);
    if (has_at(in, 0, "RIFF") && has_at(in, 8, "WEBP"))
        return pali_webp_read(in, out, notes, err);
#ifdef PALI_HEIF
    if (is_heif(in))
        return pali_heif_read(in, out, notes, err);
#endif
    if (has_at(in, 0, "BM"))
        return pali_bmp_read(in, out, err);
    if (in->n >= 3 && in->bytes[0] == 'P' && in->bytes[1] >= '1' && in->bytes[1] <= '6' &&
        memchr(" \t\n\v\f\r", in->bytes[2], 6))
        return pali_pnm_read(in, out, err);
    if (has_at(in, 0, "8BPS"))
        return pali_psd_read(in, out, err);
    if (has_at(in, 0, "#?RADIANCE\n") || has_at(in, 0, "#?RGBE\n"))
        return pali_hdr_read(in, out, err);
    if (pali_tga_is(in)) /* last: it has no signature */
        return pali_tga_read(in, out, notes, err);
    return fail_other_format(in, err);
}

/* --- orientation --------------------------------------------------------------------- */

/* Turns the stored pixels so that they are as a person sees them. All eight cases are
 * one walk: pixel (x, y) of the result lies at first + x * right + y * down. Done in
 * tiles, because when right is a whole row every step misses the cache.          */
static int turn(pali_image *image, int orientation, pali_error *err) {
    if (orientation < 2 || orientation > 8)
        return 0;
    enum {
        TILE = 32
    };
    ptrdiff_t w = image->width, h = image->height;
    ptrdiff_t last_row = (h - 1) * w, last_column = w - 1;
    ptrdiff_t first = 0, right = 1, down = w;
    switch (orientation) {
    case 2: /* mirrored left to right */
        first = last_column, right = -1;
        break;
    case 3: /* upside down */
        first = last_row + last_column, right = -1, down = -w;
        break;
    case 4: /* mirrored top to bottom */
        first = last_row, down = -w;
        break;
    case 5: /* rows are columns */
        right = w, down = 1;
        break;
    case 6: /* to be turned a quarter clockwise */
        first = last_row, right = -w, down = 1;
        break;
    case 7: /* rows are columns, from the other corner */
        first = last_row + last_column, right = -w, down = -1;
        break;
    case 8: /* to be turned a quarter counter-clockwise */
        first = last_column, right = w, down = -1;
        break;
    }
    bool quarter = orientation >= 5;
    int width = quarter ? image->height : image->width;
    int height = quarter ? image->width : image->height;
    uint8_t *turned = malloc((size_t)width * (size_t)height * 3);
    if (!turned)
        return pali_fail_nomem(err, "turning a picture");
    for (int y0 = 0; y0 < height; y0 += TILE)
        for (int x0 = 0; x0 < width; x0 += TILE)
            for (int y = y0; y < height && y < y0 + TILE; y++)
                for (int x = x0; x < width && x < x0 + TILE; x++) {
                    const uint8_t *from = image->rgb + 3 * (first + x * right + y * down);
                    uint8_t *to = turned + 3 * ((size_t)y * (size_t)width + (size_t)x);
                    to[0] = from[0], to[1] = from[1], to[2] = from[2];
                }
    free(image->rgb);
    *image = (pali_image){width, height, turned, quarter ? image->full_height : image->full_width,
                          quarter ? image->full_width : image->full_height};
    return 0;
}

/* --- public -------------------------------------------------------------------------- */

int pali_image_decode_input(const pali_image_input *in, pali_image *out, pali_error *err) {
    *out = (pali_image){0};
    if (in->n > PALI_IMAGE_MAX_BYTES)
        return fail_bytes(in->name, err);
    if (in->n == 0)
        return pali_fail(err, PALI_EFORMAT, READS, "%s: empty, no picture in it", in->name);
    pali_image_notes notes = {.orientation = 1};
    int rc = read_pixels(in, out, &notes, err);
    if (!rc)
        rc = reduce(in, out, err);
    if (!rc)
        pali_image_to_srgb(&notes, out);
    free(notes.profile);
    if (!rc)
        rc = turn(out, notes.orientation, err);
    if (rc)
        pali_image_close(out);
    return rc;
}

static int decode(const pali_image_input *in, pali_image *out, pali_error *err) {
    *out = (pali_image){0};
    return in->n && in->n <= PALI_IMAGE_MAX_BYTES && pali_image_sandbox_on()
               ? pali_image_sandbox_decode(in, out, err)
               : pali_image_decode_input(in, out, err);
}

int pali_image_decode(const uint8_t *bytes, size_t n, const char *name, pali_image *out,
                      pali_error *err) {
    pali_image_input in = {bytes, n, name, PALI_IMAGE_MAX_PIXELS, NULL};
    return decode(&in, out, err);
}

int pali_image_decode_frames(const uint8_t *bytes, size_t nbytes, const char *name, size_t n,
                             pali_image *out, size_t *got, pali_error *err) {
    unsigned frames = n < PALI_IMAGE_MAX_SIDE ? (unsigned)n : PALI_IMAGE_MAX_SIDE;
    pali_image_input in = {bytes, nbytes, name, PALI_IMAGE_MAX_PIXELS, &frames};
    pali_image all;
    *got = 0;
    int rc = decode(&in, &all, err);
    if (rc)
        return rc;
    int height = all.height / (int)frames;
    size_t size = (size_t)all.width * (size_t)height * 3;
    for (unsigned i = 0; i < frames && !rc; i++) {
        pali_image one = {.width = all.width, .height = height, .rgb = malloc(size)};
        if (!one.rgb) {
            rc = pali_fail_nomem(err, "opening an animation");
            break;
        }
        memcpy(one.rgb, all.rgb + i * size, size);
        out[(*got)++] = one;
    }
    pali_image_close(&all);
    while (rc && *got)
        pali_image_close(&out[--*got]);
    return rc;
}

int pali_image_open(const char *path, pali_image *out, pali_error *err) {
    *out = (pali_image){0};
    uint8_t *bytes;
    size_t n;
    int rc = pali_image_read_file(path, &bytes, &n, err);
    if (rc)
        return rc;
    rc = pali_image_decode(bytes, n, shown_name(path), out, err);
    free(bytes);
    return rc;
}

void pali_image_normalize(const pali_image *in, float *chw) {
    float value[256];
    for (int v = 0; v < 256; v++)
        value[v] = (float)v / 127.5f - 1.0f;
    size_t plane = (size_t)in->width * (size_t)in->height;
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++)
            chw[c * plane + i] = value[in->rgb[i * 3 + c]];
}

void pali_image_close(pali_image *image) {
    free(image->rgb);
    *image = (pali_image){0};
}
