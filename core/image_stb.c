/* image_stb.c - Targa, Photoshop and Radiance HDR, by stb_image.
 *
 * The one unit that compiles stb_image, and only those three of its readers: the
 * formats that this library knows and that no other one here does. For the rest pali
 * has readers that give Pillow's pixels; Softimage PIC is left out, whose reader falls
 * over damaged files. Everything in it is static, so nothing
 * clashes with a libstb that happens to be linked.
 *
 * stb_image trusts files more than pali does, so this is done before it sees one:
 * sizes are read from the header and checked against the limits, and what it would
 * misread is refused (a Targa palette that does not begin at entry 0; packed rows of 16
 * bits in a Photoshop file; bad run lengths in Radiance rows). It takes missing bytes for zeros; a file that
 * ends too early is found because it is read through a function that notices. A Targa
 * file has no signature: it is one when every field of its header makes sense.
 *
 * Asserts are off: each one guards a state that bytes from outside may reach, and the
 * code around it handles it or fails. Its memory is zeroed, because damaged data can
 * make it use what it never set; the Makefile makes its overflows wrap.
 *
 * Pixels: Targa's and Photoshop's are Pillow's; the latter are those of the flattened
 * picture that the file keeps beside its layers, without transparency. Radiance files hold light: 1 becomes 255, what is
 * brighter too, by a gamma of 2.2.                                                    */
#include "core/image_formats.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_TGA
#define STBI_ONLY_PSD
#define STBI_ONLY_HDR
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS PALI_IMAGE_MAX_SIDE
#define STBI_MALLOC(n)      calloc(1, n)
#define STBI_REALLOC(p, n)  realloc(p, n)
#define STBI_FREE(p)        free(p)
#define STBI_ASSERT(x)      ((void)0)
#include <stb_image.h>

enum {
    TGA_HEADER = 18,
    PSD_HEADER = 26,
    HDR_HEADER_MAX = 64 * 1024,
};

/* --- the file, as stb_image reads it ------------------------------------------------ */

typedef struct {
    const uint8_t *bytes;
    size_t n, at;
    bool short_of; /* it wanted more than there is */
} source;

/* Its buffer is filled with what there is, 128 bytes or fewer; every other read has to
 * bring all that was asked for. */
static int source_read(void *user, char *to, int size) {
    source *s = user;
    size_t left = s->n - s->at, take = size < 0 ? 0 : (size_t)size;
    if (take > left) {
        s->short_of = s->short_of || left == 0 || take != sizeof((stbi__context *)0)->buffer_start;
        take = left;
    }
    memcpy(to, s->bytes + s->at, take);
    s->at += take;
    return (int)take;
}

static void source_skip(void *user, int n) {
    source *s = user;
    if (n < 0 || (size_t)n > s->n - s->at) {
        s->short_of = true;
        s->at = s->n;
    } else {
        s->at += (size_t)n;
    }
}

static int source_eof(void *user) {
    const source *s = user;
    return s->at >= s->n;
}

/* The size was checked. Only then is stb_image called. */
static int decode(const pali_image_input *in, const char *format, uint64_t width, uint64_t height,
                  pali_image *out, pali_error *err) {
    static const stbi_io_callbacks calls = {source_read, source_skip, source_eof};
    source s = {in->bytes, in->n, 0, false};
    int channels;
    stbi__g_failure_reason = NULL; /* remembered for ever, and failures do not always set it */
    out->rgb = stbi_load_from_callbacks(&calls, &s, &out->width, &out->height, &channels, 3);
    if (s.short_of)
        return pali_image_fail_short(in, format, err); /* image.c frees the pixels */
    if (out->rgb && (uint64_t)out->width == width && (uint64_t)out->height == height)
        return 0;
    const char *why = stbi_failure_reason();
    if (why && !strcmp(why, "outofmem"))
        return pali_fail_nomem(err, "decoding a picture");
    return pali_image_fail_damaged(in, format, why ? why : "broken data", err);
}

/* These readers keep up to 16 bytes a pixel, and the whole picture at once. */
static int check_size(const pali_image_input *in, const char *format, uint64_t width,
                      uint64_t height, pali_error *err) {
    pali_image_input less = *in;
    less.max_pixels /= 3;
    return pali_image_check_size(&less, format, width, height, err);
}

/* --- Targa ------------------------------------------------------------------------- */

static bool is_one_of(unsigned value, const char *list) {
    return value && strchr(list, (int)value);
}

bool pali_tga_is(const pali_image_input *in) {
    const uint8_t *p = in->bytes;
    if (in->n < TGA_HEADER || p[1] > 1)
        return false;
    unsigned bits = p[16];
    bool grey = p[2] == 3 || p[2] == 11;
    if (p[1] ? !is_one_of(p[2], "\1\11") || !is_one_of(p[7], "\17\20\30\40") ||
                   !is_one_of(bits, "\10\20") || pali_le16(p + 5) == 0
             : !(grey ? is_one_of(bits, "\10\20")
                      : is_one_of(p[2], "\2\12") && is_one_of(bits, "\17\20\30\40")))
        return false;
    return pali_le16(p + 12) && pali_le16(p + 14) && (p[17] & 0xc0) == 0 && (p[17] & 15) <= 8;
}

int pali_tga_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                  pali_error *err) {
    const uint8_t *p = in->bytes;
    uint64_t width = pali_le16(p + 12), height = pali_le16(p + 14);
    int rc = check_size(in, "TGA", width, height, err);
    if (rc)
        return rc;
    if (p[1] && pali_le16(p + 3))
        return pali_image_fail_kind(in, "a TGA whose palette does not begin at its entry 0", err);
    if (p[2] < 8) { /* as they are: their end is known */
        uint64_t palette = p[1] ? (uint64_t)pali_le16(p + 5) * (uint64_t)((p[7] + 7) / 8) : 0;
        if (TGA_HEADER + p[0] + palette + width * height * (uint64_t)((p[16] + 7) / 8) > in->n)
            return pali_image_fail_short(in, "TGA", err);
    }
    if (p[17] & 0x10)
        notes->orientation = 2; /* stored from right to left */
    return decode(in, "TGA", width, height, out, err);
}

/* --- Photoshop --------------------------------------------------------------------- */

/* Where the flattened picture's compression stands: behind three sections of a stated length. */
static bool psd_picture(const pali_image_input *in, size_t *at) {
    *at = PSD_HEADER;
    for (int i = 0; i < 3; i++) {
        if (in->n - *at < 4 || pali_be32(in->bytes + *at) > in->n - *at - 4)
            return false;
        *at += 4 + (size_t)pali_be32(in->bytes + *at);
    }
    return in->n - *at >= 2;
}

/* stb_image gets three channels and empty sections: a fourth channel, which may be a selection, it
 * would take for transparency, and long sections it skips wrongly. */
static int psd_decode(const pali_image_input *in, size_t at, uint64_t width, uint64_t height,
                      pali_image *out, pali_error *err) {
    const uint8_t *p = in->bytes;
    size_t channels = pali_be16(p + 12), row_lengths = pali_be16(p + at) ? 2 * (size_t)height : 0;
    if ((in->n - at - 2) / channels < row_lengths)
        return pali_image_fail_short(in, "PSD", err);
    size_t from = at + 2 + row_lengths * channels;
    size_t head = PSD_HEADER + 12 + 2 + 3 * row_lengths;
    uint8_t *small = calloc(1, head + (in->n - from));
    if (!small)
        return pali_fail_nomem(err, "decoding a picture");
    memcpy(small, p, PSD_HEADER);
    small[12] = 0, small[13] = 3;
    memcpy(small + PSD_HEADER + 12, p + at, 2);
    memcpy(small + head, p + from, in->n - from);
    pali_image_input three = *in;
    three.bytes = small;
    three.n = head + (in->n - from);
    int rc = decode(&three, "PSD", width, height, out, err);
    free(small);
    return rc;
}

int pali_psd_read(const pali_image_input *in, pali_image *out, pali_error *err) {
    const uint8_t *p = in->bytes;
    size_t at;
    if (in->n < PSD_HEADER)
        return pali_image_fail_short(in, "PSD", err);
    unsigned depth = pali_be16(p + 22);
    if (pali_be16(p + 4) == 2)
        return pali_image_fail_kind(in, "a large Photoshop document (PSB)", err);
    if (pali_be16(p + 24) != 3)
        return pali_image_fail_kind(in, "a Photoshop file that is not RGB", err);
    if (pali_be16(p + 12) < 3)
        return pali_image_fail_damaged(in, "PSD", "fewer than three channels", err);
    if (depth != 8 && depth != 16)
        return pali_image_fail_kind(in, "a Photoshop file of neither 8 nor 16 bits", err);
    uint64_t width = pali_be32(p + 18), height = pali_be32(p + 14);
    int rc = check_size(in, "PSD", width, height, err);
    if (rc)
        return rc;
    if (!psd_picture(in, &at))
        return pali_image_fail_short(in, "PSD", err);
    unsigned packed = pali_be16(p + at);
    if (packed > 1 || (packed && depth == 16))
        return pali_image_fail_kind(in, "a Photoshop file packed in a way that is not read", err);
    return psd_decode(in, at, width, height, out, err);
}

/* --- Radiance ---------------------------------------------------------------------- */

/* The line after the empty one that ends the header, "-Y height +X width"; where it ends. */
static bool hdr_size(const pali_image_input *in, uint64_t *width, uint64_t *height, size_t *at) {
    size_t head = in->n < HDR_HEADER_MAX ? in->n : HDR_HEADER_MAX;
    const uint8_t *blank = memmem(in->bytes, head, "\n\n", 2);
    /* stb_image ends the header at a line that begins with a 0, too. */
    if (!blank || memchr(in->bytes, 0, (size_t)(blank - in->bytes)))
        return false;
    char line[64];
    size_t left = (size_t)(in->bytes + head - (blank + 2));
    const uint8_t *end = memchr(blank + 2, '\n', left < sizeof line ? left : sizeof line - 1);
    if (!end)
        return false;
    size_t n = (size_t)(end - (blank + 2));
    memcpy(line, blank + 2, n);
    line[n] = 0;
    char *p = line;
    if (strncmp(p, "-Y ", 3) || p[3] < '0' || p[3] > '9')
        return false;
    *height = strtoull(p + 3, &p, 10);
    while (*p == ' ')
        p++;
    if (strncmp(p, "+X ", 3) || p[3] < '0' || p[3] > '9')
        return false;
    *width = strtoull(p + 3, &p, 10);
    *at = (size_t)(end + 1 - in->bytes);
    return true;
}

/* stb_image would run for ever over a run of no length, and does not know runs of whole
 * pixels (1, 1, 1, count), which old programs wrote. */
static int hdr_check(const pali_image_input *in, size_t at, size_t width, size_t height,
                     pali_error *err) {
    const uint8_t *p = in->bytes + at, *end = in->bytes + in->n;
    bool packed =
        width >= 8 && width < 32768 && end - p >= 4 && p[0] == 2 && p[1] == 2 && p[2] < 128;
    if (!packed) {
        if ((size_t)(end - p) / 4 / width < height)
            return pali_image_fail_short(in, "Radiance HDR", err);
        for (size_t i = 0; i < width * height; i++)
            if (p[4 * i] == 1 && p[4 * i + 1] == 1 && p[4 * i + 2] == 1)
                return pali_image_fail_kind(in, "a Radiance HDR with runs of whole pixels", err);
        return 0;
    }
    for (size_t y = 0; y < height; y++) {
        if (end - p < 4)
            return pali_image_fail_short(in, "Radiance HDR", err);
        if (p[0] != 2 || p[1] != 2 || pali_be16(p + 2) != width)
            return pali_image_fail_damaged(in, "Radiance HDR", "a row of another length", err);
        p += 4;
        for (size_t got = 0; got < 4 * width;) {
            size_t room = width - got % width; /* a run ends with its quarter of the row */
            size_t run = p<end && * p> 128 ? *p - 128u : p < end ? *p : 1;
            if (end - p < 2 || (*p <= 128 && (size_t)(end - p) < 1 + run))
                return pali_image_fail_short(in, "Radiance HDR", err);
            if (run == 0 || run > room)
                return pali_image_fail_damaged(in, "Radiance HDR", "a run of a wrong length", err);
            p += *p > 128 ? 2 : 1 + run;
            got += run;
        }
    }
    return 0;
}

int pali_hdr_read(const pali_image_input *in, pali_image *out, pali_error *err) {
    uint64_t width, height;
    size_t at;
    if (!hdr_size(in, &width, &height, &at))
        return pali_image_fail_damaged(in, "Radiance HDR", "no size that is read (-Y ... +X ...)",
                                       err);
    int rc = check_size(in, "Radiance HDR", width, height, err);
    if (!rc)
        rc = hdr_check(in, at, (size_t)width, (size_t)height, err);
    return rc ? rc : decode(in, "Radiance HDR", width, height, out, err);
}
