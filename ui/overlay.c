/* overlay.c - see overlay.h.
 *
 * A line lies inside its box, so that a box as large as the picture is seen whole. Along
 * both sides of every line runs an edge in the opposite brightness, half transparent: a
 * yellow line stays readable on a yellow flower, a blue one on a night sky. Letters are a
 * 5x7 dot matrix; enlarged, the dots are blended by bilinear interpolation and cut at one
 * half, which rounds corners and joins diagonals.                                        */
#include "ui/overlay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const unsigned char ui_object_rgb[UI_OBJECT_COLOURS][3] = {
    {230, 159, 0}, {86, 180, 233},  {0, 158, 115}, {240, 228, 66},
    {213, 94, 0},  {204, 121, 167}, {0, 114, 178}, {255, 255, 255},
};

enum {
    GLYPH_W = 5,
    GLYPH_H = 9, /* 7 above the base line, 2 below */
    ADVANCE = 6,
    PLATE_H = 11,
    FIRST = ' ',
    MISSING = 95, /* a box: a character that is not ASCII */
    CUT,          /* dots: the label goes on */
    GLYPHS,
    TINT = 105,    /* of 256: how much of a mask's colour lies over the picture */
    EDGE = 150,    /* of 256: how much of black or white lies in an edge */
    FAR = 1 << 24, /* coordinates beyond it are cut; exact in float */
};

/* Rows from the top, bit 4 is the left column. From ' ' to '~', then MISSING, CUT. */
static const uint8_t font[GLYPHS][GLYPH_H] = {
    {0},
    {0x04, 0x04, 0x04, 0x04, 0x04, 0x00, 0x04},
    {0x0A, 0x0A, 0x0A},
    {0x0A, 0x0A, 0x1F, 0x0A, 0x1F, 0x0A, 0x0A},
    {0x04, 0x0F, 0x14, 0x0E, 0x05, 0x1E, 0x04},
    {0x18, 0x19, 0x02, 0x04, 0x08, 0x13, 0x03},
    {0x0C, 0x12, 0x14, 0x08, 0x15, 0x12, 0x0D},
    {0x04, 0x04, 0x08},
    {0x02, 0x04, 0x08, 0x08, 0x08, 0x04, 0x02},
    {0x08, 0x04, 0x02, 0x02, 0x02, 0x04, 0x08},
    {0x00, 0x04, 0x15, 0x0E, 0x15, 0x04, 0x00},
    {0x00, 0x04, 0x04, 0x1F, 0x04, 0x04, 0x00},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x0C, 0x04, 0x08},
    {0x00, 0x00, 0x00, 0x1F, 0x00, 0x00, 0x00},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x0C, 0x0C},
    {0x01, 0x01, 0x02, 0x04, 0x08, 0x10, 0x10},
    {0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E}, /* 0 */
    {0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E},
    {0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F},
    {0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E},
    {0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02},
    {0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E},
    {0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E},
    {0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08},
    {0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E},
    {0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C},
    {0x00, 0x0C, 0x0C, 0x00, 0x0C, 0x0C, 0x00},
    {0x00, 0x0C, 0x0C, 0x00, 0x0C, 0x04, 0x08},
    {0x02, 0x04, 0x08, 0x10, 0x08, 0x04, 0x02},
    {0x00, 0x00, 0x1F, 0x00, 0x1F, 0x00, 0x00},
    {0x08, 0x04, 0x02, 0x01, 0x02, 0x04, 0x08},
    {0x0E, 0x11, 0x01, 0x02, 0x04, 0x00, 0x04},
    {0x0E, 0x11, 0x01, 0x0D, 0x15, 0x15, 0x0E},
    {0x0E, 0x11, 0x11, 0x11, 0x1F, 0x11, 0x11}, /* A */
    {0x1E, 0x11, 0x11, 0x1E, 0x11, 0x11, 0x1E},
    {0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E},
    {0x1C, 0x12, 0x11, 0x11, 0x11, 0x12, 0x1C},
    {0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F},
    {0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x10},
    {0x0E, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0F},
    {0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11},
    {0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E},
    {0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0C},
    {0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11},
    {0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F},
    {0x11, 0x1B, 0x15, 0x15, 0x11, 0x11, 0x11},
    {0x11, 0x11, 0x19, 0x15, 0x13, 0x11, 0x11},
    {0x0E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E},
    {0x1E, 0x11, 0x11, 0x1E, 0x10, 0x10, 0x10},
    {0x0E, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0D},
    {0x1E, 0x11, 0x11, 0x1E, 0x14, 0x12, 0x11},
    {0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E},
    {0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04},
    {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E},
    {0x11, 0x11, 0x11, 0x11, 0x11, 0x0A, 0x04},
    {0x11, 0x11, 0x11, 0x15, 0x15, 0x15, 0x0A},
    {0x11, 0x11, 0x0A, 0x04, 0x0A, 0x11, 0x11},
    {0x11, 0x11, 0x11, 0x0A, 0x04, 0x04, 0x04},
    {0x1F, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1F},
    {0x0E, 0x08, 0x08, 0x08, 0x08, 0x08, 0x0E},
    {0x10, 0x10, 0x08, 0x04, 0x02, 0x01, 0x01},
    {0x0E, 0x02, 0x02, 0x02, 0x02, 0x02, 0x0E},
    {0x04, 0x0A, 0x11},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1F},
    {0x08, 0x04, 0x02},
    {0x00, 0x00, 0x0E, 0x01, 0x0F, 0x11, 0x0F}, /* a */
    {0x10, 0x10, 0x16, 0x19, 0x11, 0x11, 0x1E},
    {0x00, 0x00, 0x0E, 0x10, 0x10, 0x11, 0x0E},
    {0x01, 0x01, 0x0D, 0x13, 0x11, 0x11, 0x0F},
    {0x00, 0x00, 0x0E, 0x11, 0x1F, 0x10, 0x0E},
    {0x06, 0x09, 0x08, 0x1C, 0x08, 0x08, 0x08},
    {0x00, 0x00, 0x0F, 0x11, 0x11, 0x11, 0x0F, 0x01, 0x0E},
    {0x10, 0x10, 0x16, 0x19, 0x11, 0x11, 0x11},
    {0x04, 0x00, 0x0C, 0x04, 0x04, 0x04, 0x0E},
    {0x02, 0x00, 0x06, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0C},
    {0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12},
    {0x0C, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E},
    {0x00, 0x00, 0x1A, 0x15, 0x15, 0x11, 0x11},
    {0x00, 0x00, 0x16, 0x19, 0x11, 0x11, 0x11},
    {0x00, 0x00, 0x0E, 0x11, 0x11, 0x11, 0x0E},
    {0x00, 0x00, 0x1E, 0x11, 0x11, 0x11, 0x1E, 0x10, 0x10},
    {0x00, 0x00, 0x0F, 0x11, 0x11, 0x11, 0x0F, 0x01, 0x01},
    {0x00, 0x00, 0x16, 0x19, 0x10, 0x10, 0x10},
    {0x00, 0x00, 0x0E, 0x10, 0x0E, 0x01, 0x1E},
    {0x08, 0x08, 0x1C, 0x08, 0x08, 0x09, 0x06},
    {0x00, 0x00, 0x11, 0x11, 0x11, 0x13, 0x0D},
    {0x00, 0x00, 0x11, 0x11, 0x11, 0x0A, 0x04},
    {0x00, 0x00, 0x11, 0x11, 0x15, 0x15, 0x0A},
    {0x00, 0x00, 0x11, 0x0A, 0x04, 0x0A, 0x11},
    {0x00, 0x00, 0x11, 0x11, 0x11, 0x13, 0x0D, 0x01, 0x0E},
    {0x00, 0x00, 0x1F, 0x02, 0x04, 0x08, 0x1F},
    {0x02, 0x04, 0x04, 0x08, 0x04, 0x04, 0x02},
    {0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04},
    {0x08, 0x04, 0x04, 0x02, 0x04, 0x04, 0x08},
    {0x00, 0x00, 0x08, 0x15, 0x02, 0x00, 0x00},
    {0x1F, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1F},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x15},
};

typedef struct {
    uint8_t *rgb;
    int w, h;
} canvas;

/* --- pixels ------------------------------------------------------------------------ */

static int min(int a, int b) {
    return a < b ? a : b;
}

static int max(int a, int b) {
    return a > b ? a : b;
}

static const uint8_t *colour_of(int i) {
    return ui_object_rgb[(unsigned)i % UI_OBJECT_COLOURS];
}

bool ui_object_dark_ink(int i) {
    const uint8_t *c = colour_of(i);
    return 299 * c[0] + 587 * c[1] + 114 * c[2] > 110 * 1000;
}

int ui_object_palette(int i, int colours) {
    /* By hand: the nearest of 16 would make orange and yellow the same. */
    static const uint8_t of16[UI_OBJECT_COLOURS] = {3, 14, 2, 11, 9, 13, 12, 15};
    static const int level[6] = {0, 95, 135, 175, 215, 255};
    if (colours < 256)
        return of16[(unsigned)i % UI_OBJECT_COLOURS] & (colours < 16 ? 7 : 15);
    int n = 16;
    for (int c = 0, step = 36; c < 3; c++, step /= 6) {
        int v = colour_of(i)[c], best = 0;
        for (int k = 1; k < 6; k++)
            if (abs(level[k] - v) < abs(level[best] - v))
                best = k;
        n += step * best;
    }
    return n;
}

/* Black for the colours that carry black letters, else white. */
static const uint8_t *edge_of(int i) {
    static const uint8_t black[3] = {0, 0, 0}, white[3] = {255, 255, 255};
    return ui_object_dark_ink(i) ? black : white;
}

static void blend(uint8_t *p, const uint8_t c[3], int alpha) {
    for (int k = 0; k < 3; k++)
        p[k] = (uint8_t)((p[k] * (256 - alpha) + c[k] * alpha + 128) >> 8);
}

/* [x0, x1) x [y0, y1), cut at the picture. */
static void fill(canvas *c, int x0, int y0, int x1, int y1, const uint8_t rgb[3], int alpha) {
    x0 = max(x0, 0), y0 = max(y0, 0), x1 = min(x1, c->w), y1 = min(y1, c->h);
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++)
            blend(c->rgb + ((size_t)y * (size_t)c->w + (size_t)x) * 3, rgb, alpha);
}

/* The four sides, t thick, lying inside [x0, x1) x [y0, y1). */
static void frame(canvas *c, int x0, int y0, int x1, int y1, int t, const uint8_t rgb[3],
                  int alpha) {
    if (x1 - x0 <= 2 * t || y1 - y0 <= 2 * t) {
        fill(c, x0, y0, x1, y1, rgb, alpha);
        return;
    }
    fill(c, x0, y0, x1, y0 + t, rgb, alpha);
    fill(c, x0, y1 - t, x1, y1, rgb, alpha);
    fill(c, x0, y0 + t, x0 + t, y1 - t, rgb, alpha);
    fill(c, x1 - t, y0 + t, x1, y1 - t, rgb, alpha);
}

/* --- boxes --------------------------------------------------------------------------- */

static int to_pixel(float v) {
    if (v <= -FAR)
        return -FAR;
    return v >= FAR ? FAR : (int)lrintf(v);
}

/* The box in whole pixels, at least 1 x 1; false when it is none. */
static bool whole(const float box[4], int out[4]) {
    for (int i = 0; i < 4; i++)
        if (isnan(box[i]))
            return false;
    for (int i = 0; i < 4; i++)
        out[i] = to_pixel(box[i]);
    for (int i = 0; i < 2; i++) {
        if (out[i] > out[i + 2])
            return false;
        out[i + 2] = max(out[i + 2], out[i] + 1);
    }
    return true;
}

static void draw_box(canvas *c, const ui_object *o, int line, bool plain) {
    int b[4];
    if (!whole(o->box, b))
        return;
    if (!plain) {
        int e = max(1, line / 3);
        const uint8_t *rgb = edge_of(o->colour);
        frame(c, b[0] - e, b[1] - e, b[2] + e, b[3] + e, e, rgb, EDGE);
        if (b[2] - b[0] > 2 * (line + e) && b[3] - b[1] > 2 * (line + e))
            frame(c, b[0] + line, b[1] + line, b[2] - line, b[3] - line, e, rgb, EDGE);
    }
    frame(c, b[0], b[1], b[2], b[3], line, colour_of(o->colour), 256);
}

/* --- masks ---------------------------------------------------------------------------- */

/* The mask's value at the middle of pixel (x, y) of its box, interpolated. */
static float mask_at(const ui_object *o, float x, float y) {
    const float *b = o->box;
    float u = (x + 0.5f - b[0]) / (b[2] - b[0]) * (float)o->mask_w - 0.5f;
    float v = (y + 0.5f - b[1]) / (b[3] - b[1]) * (float)o->mask_h - 0.5f;
    u = fminf(fmaxf(u, 0), (float)(o->mask_w - 1));
    v = fminf(fmaxf(v, 0), (float)(o->mask_h - 1));
    int u0 = (int)u, v0 = (int)v;
    int u1 = min(u0 + 1, o->mask_w - 1), v1 = min(v0 + 1, o->mask_h - 1);
    float fu = u - (float)u0, fv = v - (float)v0;
    const uint8_t *r0 = o->mask + (size_t)v0 * (size_t)o->mask_w;
    const uint8_t *r1 = o->mask + (size_t)v1 * (size_t)o->mask_w;
    return (r0[u0] * (1 - fu) + r0[u1] * fu) * (1 - fv) + (r1[u0] * (1 - fu) + r1[u1] * fu) * fv;
}

/* Tints the inside of the mask, draws its contour inside and the edge outside. */
static int draw_mask(canvas *c, const ui_object *o, int t, bool plain) {
    int b[4];
    if (!o->mask || o->mask_w < 1 || o->mask_h < 1 || !whole(o->box, b) ||
        !(o->box[2] > o->box[0] && o->box[3] > o->box[1]))
        return 0;
    int e = plain ? 0 : max(1, t / 2), reach = t + e;
    int x0 = max(b[0], 0) - reach, y0 = max(b[1], 0) - reach;
    int x1 = min(b[2], c->w) + reach, y1 = min(b[3], c->h) + reach;
    if (x1 - x0 <= 2 * reach || y1 - y0 <= 2 * reach)
        return 0;
    int w = x1 - x0, h = y1 - y0;
    size_t row = (size_t)w;
    uint8_t *in = calloc(row, (size_t)h);
    if (!in)
        return -1;
    /* What the view cuts off goes on beyond its border: no contour there. */
    for (int y = max(y0, b[1]); y < min(y1, b[3]); y++)
        for (int x = max(x0, b[0]); x < min(x1, b[2]); x++)
            in[(size_t)(y - y0) * row + (size_t)(x - x0)] =
                mask_at(o, (float)x, (float)y) >= 127.5f;

    const uint8_t *rgb = colour_of(o->colour), *edge = edge_of(o->colour);
    static const int8_t way[8][2] = {{-1, 0},  {1, 0},  {0, -1}, {0, 1},
                                     {-1, -1}, {1, -1}, {-1, 1}, {1, 1}};
    for (int y = max(y0, 0); y < min(y1, c->h); y++)
        for (int x = max(x0, 0); x < min(x1, c->w); x++) {
            size_t at = (size_t)(y - y0) * row + (size_t)(x - x0);
            bool inside = in[at], border = false;
            int far = inside ? t : e;
            for (int k = 0; k < 8 && far > 0 && !border; k++) {
                int d = k < 4 ? far : (far * 181 + 128) >> 8; /* sqrt(1/2): a round pen */
                int nx = x - x0 + way[k][0] * d, ny = y - y0 + way[k][1] * d;
                bool other =
                    nx >= 0 && ny >= 0 && nx < w && ny < h && in[(size_t)ny * row + (size_t)nx];
                border = other != inside;
            }
            uint8_t *p = c->rgb + ((size_t)y * (size_t)c->w + (size_t)x) * 3;
            if (inside)
                blend(p, rgb, border ? 256 : TINT);
            else if (border)
                blend(p, edge, EDGE);
        }
    free(in);
    return 0;
}

/* --- labels ------------------------------------------------------------------------------ */

static bool overlaps(const ui_plate *a, const ui_plate *b) {
    return a->w > 0 && b->w > 0 && a->x < b->x + b->w && b->x < a->x + a->w && a->y < b->y + b->h &&
           b->y < a->y + a->h;
}

static bool taken(const ui_plate *plates, int n, const ui_plate *p) {
    for (int i = 0; i < n; i++)
        if (overlaps(&plates[i], p))
            return true;
    return false;
}

void ui_overlay_place(const ui_object *objects, int nobjects, int width, int height,
                      ui_plate *plates) {
    for (int i = 0; i < nobjects; i++) {
        ui_plate *p = &plates[i];
        int b[4], w = min(p->w, width), h = p->h;
        *p = (ui_plate){0};
        if (w < 1 || h < 1 || h > height || !whole(objects[i].box, b) || b[0] >= width ||
            b[1] >= height || b[2] <= 0 || b[3] <= 0)
            continue;
        int x0 = max(b[0], 0), y0 = max(b[1], 0), x1 = min(b[2], width), y1 = min(b[3], height);
        const int spots[][2] = {
            {x0, y0 - h}, {x0, y0},     {x1 - w, y0 - h}, {x1 - w, y0},
            {x0, y1},     {x0, y1 - h}, {x1, y0},         {x0 - w, y0},
        };
        enum {
            SPOTS = sizeof spots / sizeof spots[0]
        };
        ui_plate best = {0};
        bool found = false;
        for (int k = 0; k < SPOTS && !found; k++) {
            ui_plate at = {max(0, min(spots[k][0], width - w)), spots[k][1], w, h};
            if (at.y < 0 || at.y + h > height)
                continue;
            if (best.w == 0)
                best = at;
            found = !taken(plates, i, &at);
            if (found)
                best = at;
        }
        if (best.w == 0)
            best = (ui_plate){max(0, min(x0, width - w)), max(0, min(y0, height - h)), w, h};
        /* Nowhere at the box: down from it, then up, to the first free row. */
        for (int step = 1; !found && step <= height / h + 1; step++)
            for (int sign = 1; sign >= -1 && !found; sign -= 2) {
                ui_plate at = {best.x, best.y + sign * step * h, w, h};
                found = at.y >= 0 && at.y + h <= height && !taken(plates, i, &at);
                if (found)
                    best = at;
            }
        *p = best;
    }
}

/* The next character of a label: its glyph, or -1 at the end. Accents are left out. */
static int next_glyph(const char **s) {
    unsigned char c = (unsigned char)**s;
    if (c == 0)
        return -1;
    (*s)++;
    if (c < 0x80)
        return c >= FIRST && c < FIRST + MISSING ? c - FIRST : MISSING;
    static const char latin[] = "AAAAAAACEEEEIIIIDNOOOOOxOUUUUYTsaaaaaaaceeeeiiiidnooooo/ouuuuyty";
    unsigned char next = (unsigned char)**s; /* C3 80 .. C3 BF are U+00C0 .. U+00FF */
    while (((unsigned char)**s & 0xC0) == 0x80)
        (*s)++;
    return c == 0xC3 && next >= 0x80 && next < 0xC0 ? latin[next - 0x80] - FIRST : MISSING;
}

static int glyph_count(const char *s) {
    int n = 0;
    while (n < 256 && next_glyph(&s) >= 0)
        n++;
    return n;
}

static float dot(int glyph, int x, int y) {
    if (x < 0 || y < 0 || x >= GLYPH_W || y >= GLYPH_H)
        return 0;
    return (float)(font[glyph][y] >> (GLYPH_W - 1 - x) & 1);
}

/* One glyph, s pixels a dot, its top left dot at (x, y); nothing beyond column end. */
static void draw_glyph(canvas *c, int glyph, int x, int y, int s, int end, const uint8_t ink[3]) {
    for (int j = 0; j < GLYPH_H * s; j++)
        for (int i = -s; i < (GLYPH_W + 1) * s; i++) {
            int px = x + i, py = y + j;
            if (px < 0 || py < 0 || px >= min(c->w, end) || py >= c->h)
                continue;
            float u = ((float)i + 0.5f) / (float)s - 0.5f, v = ((float)j + 0.5f) / (float)s - 0.5f;
            int u0 = (int)floorf(u), v0 = (int)floorf(v);
            float fu = u - (float)u0, fv = v - (float)v0;
            float on = (dot(glyph, u0, v0) * (1 - fu) + dot(glyph, u0 + 1, v0) * fu) * (1 - fv) +
                       (dot(glyph, u0, v0 + 1) * (1 - fu) + dot(glyph, u0 + 1, v0 + 1) * fu) * fv;
            on = s == 1 ? on : fminf(fmaxf((on - 0.5f) * (float)s * 1.4f + 0.5f, 0), 1);
            if (on > 0)
                blend(c->rgb + ((size_t)py * (size_t)c->w + (size_t)px) * 3, ink, (int)(on * 256));
        }
}

static void draw_label(canvas *c, const ui_object *o, const ui_plate *p, int s, bool plain) {
    const uint8_t *ink = edge_of(o->colour);
    if (!plain)
        frame(c, p->x - 1, p->y - 1, p->x + p->w + 1, p->y + p->h + 1, 1, ink, EDGE);
    fill(c, p->x, p->y, p->x + p->w, p->y + p->h, colour_of(o->colour), 256);
    int room = (p->w - s) / (ADVANCE * s), n = glyph_count(o->label);
    const char *text = o->label;
    for (int i = 0; i < min(n, room); i++) {
        int glyph = next_glyph(&text);
        if (i == room - 1 && n > room)
            glyph = CUT;
        draw_glyph(c, glyph, p->x + s + i * ADVANCE * s, p->y + 2 * s, s, p->x + p->w, ink);
    }
}

/* --- all of it ------------------------------------------------------------------------------ */

static int by_size(const canvas *c, float per) {
    return max(1, (int)lrintf(sqrtf((float)c->w * (float)c->h) / per));
}

int ui_overlay_draw(uint8_t *rgb, int width, int height, const ui_object *objects, int nobjects,
                    const ui_overlay_style *style) {
    ui_overlay_style s = style ? *style : (ui_overlay_style){0};
    canvas c = {rgb, width, height};
    if (nobjects < 1 || width < 1 || height < 1)
        return 0;
    int line = s.line ? s.line : by_size(&c, 320), text = s.text ? s.text : by_size(&c, 350);

    for (int i = 0; i < nobjects; i++)
        if (draw_mask(&c, &objects[i], max(1, line), s.plain) != 0)
            return -1;
    for (int i = 0; line > 0 && i < nobjects; i++)
        draw_box(&c, &objects[i], line, s.plain);
    if (text < 1)
        return 0;

    ui_plate *plates = calloc((size_t)nobjects, sizeof *plates);
    if (!plates)
        return -1;
    for (int i = 0; i < nobjects; i++) {
        int n = objects[i].label ? glyph_count(objects[i].label) : 0;
        if (n > 0)
            plates[i] = (ui_plate){0, 0, (n * ADVANCE + 1) * text, PLATE_H * text};
    }
    ui_overlay_place(objects, nobjects, width, height, plates);
    for (int i = 0; i < nobjects; i++)
        if (plates[i].w > 0)
            draw_label(&c, &objects[i], &plates[i], text, s.plain);
    free(plates);
    return 0;
}
