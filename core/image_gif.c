/* image_gif.c - the first picture of a GIF, or some of its frames.
 *
 * stb_image's reader is not used: it composites against the background and makes
 * transparent pixels black, where Pillow's convert("RGB") shows the palette's
 * colour of every index. Like Pillow:
 *   - a palette whose entry i is (i, i, i) throughout, or no palette at all, means grey;
 *   - an index beyond the palette is black;
 *   - what the picture leaves free of the screen has the transparent index, or 0;
 *   - a picture that sticks out of the screen enlarges it.
 * Unlike Pillow 11.3, a grey palette of the picture's own counts although the file
 * has another palette as well (Pillow shows the wrong colours).
 * The data must fill the picture; a shorter stream is an error.
 *
 * A frame is drawn over those before it, as Pillow does: a transparent index leaves what is
 * there, and when its time is over its rectangle stays, is filled (with the colour of the
 * transparent index, else of the background), or gets back what was there. Frames do not
 * enlarge the screen, and a frame that says nothing stays (in Pillow 11.3 it does what the one
 * before it did).                                                                         */
#include "core/image_formats.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_CODES = 4096,
    MAX_CODE_BITS = 12,
    NO_CODE = -1,
};

enum { /* what becomes of a frame's rectangle afterwards; anything else: it stays */
    DISPOSE_FILL = 2,
    DISPOSE_RESTORE = 3,
};

/* The screen, and the frame at hand: its palette and where it goes. */
typedef struct {
    uint8_t global[256][3], palette[256][3];
    uint32_t screen_width, screen_height, x, y, width, height;
    bool interlaced;
    int transparent; /* index; -1: none */
    unsigned dispose, background;
    unsigned code_bits; /* of a literal, from the file */
} gif_file;

/* Bytes left to read; every take checks. */
typedef struct {
    const uint8_t *p, *end;
} span;

static const uint8_t *take(span *s, size_t n) {
    if ((size_t)(s->end - s->p) < n)
        return NULL;
    s->p += n;
    return s->p - n;
}

/* A chain of blocks, each with its length in front, ends with an empty one. */
static bool skip_blocks(span *s) {
    for (;;) {
        const uint8_t *length = take(s, 1);
        if (!length || !take(s, *length))
            return false;
        if (*length == 0)
            return true;
    }
}

static bool read_palette(span *s, unsigned flags, uint8_t palette[256][3]) {
    size_t n = (size_t)2 << (flags & 7);
    const uint8_t *p = take(s, 3 * n);
    if (!p)
        return false;
    bool grey = true;
    for (size_t i = 0; i < n; i++)
        grey = grey && p[3 * i] == i && p[3 * i + 1] == i && p[3 * i + 2] == i;
    memset(palette, 0, 256 * 3);
    for (size_t i = 0; i < 256; i++)
        if (grey)
            memset(palette[i], (int)i, 3);
        else if (i < n)
            memcpy(palette[i], p + 3 * i, 3);
    return true;
}

static int read_screen(const pali_image_input *in, span *s, gif_file *gif, pali_error *err) {
    const uint8_t *screen = take(s, 13);
    if (!screen)
        return pali_image_fail_short(in, "GIF", err);
    gif->screen_width = pali_le16(screen + 6);
    gif->screen_height = pali_le16(screen + 8);
    gif->background = screen[11];
    for (size_t i = 0; i < 256; i++)
        memset(gif->global[i], (int)i, 3);
    if (screen[10] & 0x80 && !read_palette(s, screen[10], gif->global))
        return pali_image_fail_short(in, "GIF", err);
    return 0;
}

/* Reads up to the compressed data of the next frame. *end: there is none. */
static int read_frame(const pali_image_input *in, span *s, gif_file *gif, bool *end,
                      pali_error *err) {
    gif->transparent = -1;
    gif->dispose = 0;
    *end = false;
    for (;;) {
        const uint8_t *kind = take(s, 1);
        if (!kind)
            return pali_image_fail_short(in, "GIF", err);
        if (*kind == ';') {
            *end = true;
            return 0;
        }
        if (*kind == '!') {
            const uint8_t *label = take(s, 2); /* with the length of the first block */
            if (!label || s->end - s->p < label[1])
                return pali_image_fail_short(in, "GIF", err);
            if (label[0] == 0xf9 && label[1] >= 4) {
                gif->dispose = s->p[0] >> 2 & 7;
                gif->transparent = s->p[0] & 1 ? s->p[3] : -1;
            }
            s->p--; /* back to that length: the chain starts there */
            if (!skip_blocks(s))
                return pali_image_fail_short(in, "GIF", err);
        } else if (*kind == ',') {
            break;
        } /* anything else is padding between blocks */
    }
    const uint8_t *p = take(s, 9);
    if (!p)
        return pali_image_fail_short(in, "GIF", err);
    gif->x = pali_le16(p);
    gif->y = pali_le16(p + 2);
    gif->width = pali_le16(p + 4);
    gif->height = pali_le16(p + 6);
    gif->interlaced = p[8] & 0x40;
    memcpy(gif->palette, gif->global, sizeof gif->palette);
    if (p[8] & 0x80 && !read_palette(s, p[8], gif->palette))
        return pali_image_fail_short(in, "GIF", err);
    const uint8_t *code_bits = take(s, 1);
    if (!code_bits)
        return pali_image_fail_short(in, "GIF", err);
    gif->code_bits = *code_bits;
    if (gif->code_bits < 1 || gif->code_bits > 8)
        return pali_image_fail_damaged(in, "GIF", "its codes have an impossible length", err);
    return pali_image_check_size(in, "GIF", gif->width, gif->height, err);
}

/* --- LZW ------------------------------------------------------------------------------ */

/* Takes codes of a varying number of bits out of a chain of blocks. */
typedef struct {
    span s;
    size_t block_left;
    uint32_t bits;
    unsigned n_bits;
} code_reader;

static int next_code(code_reader *r, unsigned width) {
    while (r->n_bits < width) {
        if (r->block_left == 0) {
            const uint8_t *length = take(&r->s, 1);
            if (!length || *length == 0 || r->s.end - r->s.p < *length)
                return NO_CODE;
            r->block_left = *length;
        }
        r->bits |= (uint32_t)*r->s.p++ << r->n_bits;
        r->n_bits += 8;
        r->block_left--;
    }
    int code = (int)(r->bits & ((1u << width) - 1));
    r->bits >>= width;
    r->n_bits -= width;
    return code;
}

/* Where the next index goes. Interlaced rows come in four sweeps. */
typedef struct {
    const gif_file *gif;
    pali_image *out;
    uint32_t x, y;
    int sweep;
    int skip; /* index that draws nothing; -1: all draw */
    bool full;
} pen;

static void put(pen *to, unsigned index) {
    static const uint32_t start[4] = {0, 4, 2, 1}, step[4] = {8, 8, 4, 2};
    const gif_file *gif = to->gif;
    if (to->full)
        return;
    uint32_t x = gif->x + to->x, y = gif->y + to->y;
    if ((int)index != to->skip && x < (uint32_t)to->out->width && y < (uint32_t)to->out->height)
        memcpy(to->out->rgb + 3 * ((size_t)y * (size_t)to->out->width + x), gif->palette[index], 3);
    if (++to->x < gif->width)
        return;
    to->x = 0;
    to->y += gif->interlaced ? step[to->sweep] : 1;
    while (to->y >= gif->height) {
        if (!gif->interlaced || to->sweep == 3) {
            to->full = true;
            return;
        }
        to->y = start[++to->sweep];
    }
}

/* Decodes into out until the picture is full. A code stands for a string of indices:
 * suffix[code] preceded by the string of prefix[code]. */
static int read_codes(const pali_image_input *in, span s, pen *to, pali_error *err) {
    uint16_t prefix[MAX_CODES] = {0};
    uint8_t suffix[MAX_CODES], string[MAX_CODES];
    const unsigned clear = 1u << to->gif->code_bits, end = clear + 1;
    code_reader reader = {.s = s};
    unsigned width = to->gif->code_bits + 1, next = clear + 2, first = 0;
    int previous = NO_CODE;
    while (!to->full) {
        int got = next_code(&reader, width);
        if (got == NO_CODE || (unsigned)got == end)
            return pali_image_fail_short(in, "GIF", err);
        unsigned code = (unsigned)got;
        if (code == clear) {
            width = to->gif->code_bits + 1;
            next = clear + 2;
            previous = NO_CODE;
            continue;
        }
        /* The code about to be defined may be used already: it is the previous string
         * and that string's first index again. */
        if (code > next || (code >= clear && previous == NO_CODE))
            return pali_image_fail_damaged(in, "GIF", "the compressed data is broken", err);
        size_t n = 0;
        unsigned c = code;
        if (code == next) {
            string[n++] = (uint8_t)first;
            c = (unsigned)previous;
        }
        for (; c >= clear; c = prefix[c])
            string[n++] = suffix[c];
        string[n++] = (uint8_t)c;
        first = c;
        while (n > 0)
            put(to, string[--n]);
        if (previous != NO_CODE && next < MAX_CODES) {
            prefix[next] = (uint16_t)previous;
            suffix[next] = (uint8_t)first;
            if (++next == 1u << width && width < MAX_CODE_BITS)
                width++;
        }
        previous = (int)code;
    }
    return 0;
}

/* --- one picture ------------------------------------------------------------------------ */

/* The first frame on a screen that is large enough for it. */
static int read_first(const pali_image_input *in, span *s, gif_file *gif, pali_image *out,
                      pali_error *err) {
    bool none = false;
    int rc = read_screen(in, s, gif, err);
    if (!rc)
        rc = read_frame(in, s, gif, &none, err);
    if (!rc && none)
        rc = pali_image_fail_damaged(in, "GIF", "no picture in it", err);
    if (rc)
        return rc;
    uint32_t right = gif->x + gif->width, bottom = gif->y + gif->height;
    uint32_t width = right > gif->screen_width ? right : gif->screen_width;
    uint32_t height = bottom > gif->screen_height ? bottom : gif->screen_height;
    rc = pali_image_alloc(in, "GIF", width, height, out, err);
    if (rc)
        return rc;
    if (gif->width < width || gif->height < height) {
        const uint8_t *free_colour = gif->palette[gif->transparent < 0 ? 0 : gif->transparent];
        for (size_t i = 0; i < (size_t)width * height; i++)
            memcpy(out->rgb + 3 * i, free_colour, 3);
    }
    pen to = {.gif = gif, .out = out, .skip = -1};
    return read_codes(in, *s, &to, err);
}

/* --- frames ------------------------------------------------------------------------------- */

/* Whole frames in the file after s, which stands before the first. A cut end ends them. */
static size_t count_frames(const pali_image_input *in, span s, gif_file gif) {
    size_t n = 0;
    bool end = false;
    while (!read_frame(in, &s, &gif, &end, NULL) && !end && skip_blocks(&s))
        n++;
    return n;
}

/* Rows of the frame's rectangle between screen and copy, which is as large. */
static void move_rectangle(const gif_file *gif, const pali_image *from, pali_image *to) {
    uint32_t w = (uint32_t)from->width, h = (uint32_t)from->height;
    uint32_t right = gif->x + gif->width < w ? gif->x + gif->width : w;
    uint32_t bottom = gif->y + gif->height < h ? gif->y + gif->height : h;
    for (uint32_t y = gif->y; y < bottom && gif->x < right; y++) {
        size_t at = 3 * ((size_t)y * w + gif->x);
        memcpy(to->rgb + at, from->rgb + at, 3 * (size_t)(right - gif->x));
    }
}

static void fill_rectangle(const gif_file *gif, pali_image *screen) {
    const uint8_t *colour =
        gif->palette[gif->transparent >= 0 ? (unsigned)gif->transparent : gif->background];
    for (uint32_t y = gif->y; y < gif->y + gif->height && y < (uint32_t)screen->height; y++)
        for (uint32_t x = gif->x; x < gif->x + gif->width && x < (uint32_t)screen->width; x++)
            memcpy(screen->rgb + 3 * ((size_t)y * (size_t)screen->width + x), colour, 3);
}

/* Draws frame after frame on screen, which shows the first, and copies those that are
 * wanted: of `all`, the middles of `want` equal parts. */
static int play(const pali_image_input *in, span s, gif_file *gif, size_t all, unsigned want,
                pali_image *screen, pali_image *before, uint8_t *out, pali_error *err) {
    size_t bytes = (size_t)screen->width * (size_t)screen->height * 3, drawn = 0;
    const size_t most = 16 * PALI_IMAGE_MAX_PIXELS;
    for (size_t k = 0, i = 0;; k++) {
        for (; i < want && (2 * i + 1) * all / (2 * want) == k; i++)
            memcpy(out + i * bytes, screen->rgb, bytes);
        if (i == want)
            return 0;
        /* There was nothing before the first. */
        if (gif->dispose == DISPOSE_FILL ||
            (gif->dispose == DISPOSE_RESTORE && k == 0 && gif->transparent >= 0))
            fill_rectangle(gif, screen);
        else if (gif->dispose == DISPOSE_RESTORE && k > 0)
            move_rectangle(gif, before, screen);
        skip_blocks(&s);
        bool end;
        int rc = read_frame(in, &s, gif, &end, err);
        drawn += (size_t)gif->width * gif->height;
        if (!rc && drawn > most)
            rc = pali_fail(err, PALI_ELIMIT, "ask about a shorter one",
                           "%s: the animation is too long", in->name);
        if (rc)
            return rc;
        if (gif->dispose == DISPOSE_RESTORE)
            move_rectangle(gif, screen, before);
        pen to = {.gif = gif, .out = screen, .skip = gif->transparent};
        rc = read_codes(in, s, &to, err);
        if (rc)
            return rc;
    }
}

/* *out, the first frame, becomes those that in->frames asks for. */
static int read_frames(const pali_image_input *in, span before, span after, gif_file *gif,
                       pali_image *out, pali_error *err) {
    size_t all = count_frames(in, before, *gif);
    unsigned want = *in->frames < all ? *in->frames : (unsigned)all;
    want = want ? want : 1; /* what was decoded was whole enough */
    *in->frames = want;
    if (all < 2)
        return 0;
    pali_image stack = {0}, copy = {0};
    size_t bytes = (size_t)out->width * (size_t)out->height * 3;
    int rc = pali_image_check_size(in, "GIF", (uint64_t)out->width, (uint64_t)out->height, err);
    if (!rc && ((size_t)want * (bytes / 3) > in->max_pixels ||
                (size_t)want * (size_t)out->height > PALI_IMAGE_MAX_SIDE))
        rc = pali_fail(err, PALI_ELIMIT, "take fewer frames",
                       "%s: %u frames of %d x %d pixels are too many", in->name, want, out->width,
                       out->height);
    if (!rc && (!(stack.rgb = malloc(want * bytes)) || !(copy.rgb = malloc(bytes))))
        rc = pali_fail_nomem(err, "opening an animation");
    copy.width = out->width, copy.height = out->height;
    if (!rc)
        rc = play(in, after, gif, all, want, out, &copy, stack.rgb, err);
    free(copy.rgb);
    if (rc) {
        free(stack.rgb);
        return rc;
    }
    free(out->rgb);
    *out = (pali_image){.width = out->width, .height = out->height * (int)want, .rgb = stack.rgb};
    return 0;
}

int pali_gif_read(const pali_image_input *in, pali_image *out, pali_error *err) {
    gif_file gif = {0};
    span s = {in->bytes, in->bytes + in->n};
    int rc = read_first(in, &s, &gif, out, err);
    if (rc || !in->frames)
        return rc;
    gif_file screen = {0};
    span start = {in->bytes, in->bytes + in->n};
    read_screen(in, &start, &screen, NULL);
    return read_frames(in, start, s, &gif, out, err);
}
