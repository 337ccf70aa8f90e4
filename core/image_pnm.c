/* image_pnm.c - PBM, PGM and PPM, as digits (P1 P2 P3) or as bytes (P4 P5 P6).
 *
 * stb_image's reader is not used: it knows P5 and P6 only and does not scale by the
 * stated maximum. Like Pillow: a sample becomes round(v / maximum * 255), halves to
 * the even number; but grey with a maximum over 255 becomes round(v / maximum *
 * 65535) and is then clipped at 255, so that nearly everything is white (Pillow's
 * mode "I"). A sample over the maximum is cut to it as bytes and refused as digits.
 * The header is read as Pillow reads it: a comment may stand inside a number.     */
#include "core/image_formats.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    MAX_DIGITS = 10,
    END = -1,
    BAD = -2,
};

typedef struct {
    const uint8_t *p, *end;
} span;

static bool is_blank(uint8_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void skip_comment(span *s) {
    while (s->p < s->end && *s->p != '\n' && *s->p != '\r')
        s->p++;
    if (s->p < s->end)
        s->p++;
}

/* The next number and the one blank behind it. END: none left. BAD: not a number. */
static int64_t next_number(span *s) {
    int64_t value = 0;
    int digits = 0;
    while (s->p < s->end) {
        uint8_t c = *s->p++;
        if (c == '#') {
            skip_comment(s);
        } else if (is_blank(c)) {
            if (digits)
                break;
        } else if (c >= '0' && c <= '9' && digits < MAX_DIGITS) {
            value = value * 10 + (c - '0');
            digits++;
        } else {
            return BAD;
        }
    }
    return digits ? value : END;
}

/* The next digit of a P1 file: blanks between them are not needed. */
static int64_t next_bit(span *s) {
    while (s->p < s->end) {
        uint8_t c = *s->p++;
        if (c == '#')
            skip_comment(s);
        else if (c == '0' || c == '1')
            return c - '0';
        else if (!is_blank(c))
            return BAD;
    }
    return END;
}

/* What each sample value becomes. */
static void make_levels(uint8_t levels[65536], unsigned maximum, bool grey) {
    double top = grey && maximum > 255 ? 65535 : 255;
    for (unsigned v = 0; v < 65536; v++) {
        double level = rint((double)v / maximum * top);
        levels[v] = (uint8_t)(level < 255 ? level : 255);
    }
}

static int read_bits(const pali_image_input *in, span *s, bool plain, pali_image *out,
                     pali_error *err) {
    size_t width = (size_t)out->width, row_bytes = (width + 7) / 8;
    if (!plain && row_bytes * (size_t)out->height > (size_t)(s->end - s->p))
        return pali_image_fail_short(in, "PNM", err);
    uint8_t *to = out->rgb;
    for (int y = 0; y < out->height; y++) {
        for (size_t x = 0; x < width; x++, to += 3) {
            int64_t bit = plain ? next_bit(s) : s->p[x / 8] >> (7 - x % 8) & 1;
            if (bit == END)
                return pali_image_fail_short(in, "PNM", err);
            if (bit == BAD)
                return pali_image_fail_damaged(in, "PNM", "a digit that is neither 0 nor 1", err);
            memset(to, bit ? 0 : 255, 3);
        }
        if (!plain)
            s->p += row_bytes;
    }
    return 0;
}

static int read_samples(const pali_image_input *in, span *s, bool plain, bool grey,
                        unsigned maximum, pali_image *out, pali_error *err) {
    size_t pixels = (size_t)out->width * (size_t)out->height;
    size_t n = grey ? pixels : pixels * 3, bytes = maximum > 255 ? 2 : 1;
    if (!plain && n * bytes > (size_t)(s->end - s->p))
        return pali_image_fail_short(in, "PNM", err);
    uint8_t levels[65536];
    make_levels(levels, maximum, grey);
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        if (plain) {
            v = next_number(s);
            if (v == END)
                return pali_image_fail_short(in, "PNM", err);
            if (v == BAD || v > maximum)
                return pali_image_fail_damaged(in, "PNM",
                                               "a sample that is no number up to its "
                                               "maximum",
                                               err);
        } else {
            v = bytes == 1 ? s->p[i] : pali_be16(s->p + 2 * i);
        }
        if (grey)
            memset(out->rgb + 3 * i, levels[v], 3);
        else
            out->rgb[i] = levels[v];
    }
    return 0;
}

int pali_pnm_read(const pali_image_input *in, pali_image *out, pali_error *err) {
    char kind = (char)in->bytes[1];
    bool plain = kind <= '3', bits = kind == '1' || kind == '4', grey = kind == '2' || kind == '5';
    span s = {in->bytes + 3, in->bytes + in->n};
    int64_t header[3] = {0, 0, 1};
    for (int i = 0; i < (bits ? 2 : 3); i++) {
        header[i] = next_number(&s);
        if (header[i] == END)
            return pali_image_fail_short(in, "PNM", err);
        if (header[i] == BAD)
            return pali_image_fail_damaged(in, "PNM", "its header is not made of numbers", err);
    }
    if (header[2] < 1 || header[2] > 65535)
        return pali_image_fail_damaged(in, "PNM", "its maximum is not between 1 and 65535", err);
    int rc = pali_image_alloc(in, "PNM", (uint64_t)header[0], (uint64_t)header[1], out, err);
    if (rc)
        return rc;
    return bits ? read_bits(in, &s, plain, out, err)
                : read_samples(in, &s, plain, grey, (unsigned)header[2], out, err);
}
