/* picture.c - see picture.h.
 *
 * Every kind of output goes one way: the seen part of the picture is averaged down to the
 * pixels that will be shown, boxes and masks are drawn into those (so that a thin line
 * survives), and bytes are made that write over curses' placeholders. Characters too are
 * written past curses: it has no true colours without a -direct terminfo entry, and so few
 * colour pairs elsewhere that a photo would run out of them.
 *
 *   kind              pixels of a cell         padding to whole cells
 *   symbols           8 x 8, chafa's own grid  to half cells, then transparent
 *   ascii, one colour 8 x 8                    none: rounded to whole cells
 *   sixel             cell_w x cell_h          transparent; height a multiple of 6, because
 *                                              chafa would squeeze it to one
 *   kitty, iTerm2     cell_w x cell_h or less  transparent PNG that the terminal stretches
 *                                              over the cells
 *
 * As characters, labels and boxes are characters of their own in cells, since a cell has but
 * two colours; masks, and all of it elsewhere, are drawn in pixels.                          */
#include "ui/picture.h"

#include <chafa.h>
#include <math.h>
#include <ncurses.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum {
    MAX_CELLS = 4096,   /* a side of a pane */
    MAX_CELL = 512,     /* a side of a cell in pixels */
    MAX_SIDE = 1 << 20, /* of a picture */
    SYMBOL = 8,         /* pixels of a symbol, both ways */
    SIXEL_SIDE = 1000,  /* xterm shows nothing of a larger picture, unless configured */
    CHUNK = 4096,       /* base64 of one kitty command */
    KITTY_ID = 0x70616c69,
    UNSET = -1, /* the terminal's own colour */
};
#define MAX_ZOOM   32.0f
#define MAX_PIXELS ((double)(2 << 20))  /* sent to terminals that stretch pictures */
#define MAX_CANVAS ((double)(16 << 20)) /* any kind */
#define SYNC_ON    "\033[?2026h"
#define SYNC_OFF   "\033[?2026l"

struct ui_picture {
    ui_view view;
    ui_rect area;
    double crop[4];  /* x0 y0 x1 y1, pixels of the picture */
    double off[2];   /* of the image in its area, cells: x, y */
    double shown[2]; /* size of the image, cells: w, h */
    char *bytes;     /* SYNC_ON body SYNC_OFF */
    size_t n;
};

/* --- bytes ------------------------------------------------------------------------- */

typedef struct {
    char *at;
    size_t n, room;
    bool failed; /* memory ran out; everything after is dropped */
} buffer;

static void put(buffer *b, const void *bytes, size_t n) {
    if (b->failed)
        return;
    if (n > b->room - b->n) {
        size_t room = b->room * 2 + n + 1024;
        char *at = realloc(b->at, room);
        if (!at) {
            b->failed = true;
            return;
        }
        b->at = at;
        b->room = room;
    }
    memcpy(b->at + b->n, bytes, n);
    b->n += n;
}

static void puts_to(buffer *b, const char *s) {
    put(b, s, strlen(s));
}

__attribute__((format(printf, 2, 3))) static void putf(buffer *b, const char *fmt, ...) {
    char s[160];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(s, sizeof s, fmt, ap);
    va_end(ap);
    put(b, s, (size_t)n);
}

static void put_at(buffer *b, int y, int x) {
    putf(b, "\033[%d;%dH", y + 1, x + 1);
}

/* Base64 of a run; only the last run of a payload may have a length not divisible by 3. */
static void put_base64(buffer *b, const uint8_t *p, size_t n) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        if (i + 1 < n)
            v |= (uint32_t)p[i + 1] << 8;
        if (i + 2 < n)
            v |= p[i + 2];
        char out[4] = {digit[v >> 18], digit[v >> 12 & 63], i + 1 < n ? digit[v >> 6 & 63] : '=',
                       i + 2 < n ? digit[v & 63] : '='};
        put(b, out, 4);
    }
}

static void put_utf8(buffer *b, uint32_t c) {
    char out[6];
    put(b, out, (size_t)g_unichar_to_utf8(c, out));
}

/* --- geometry ------------------------------------------------------------------------- */

/* What is shown where, in whole pixels of the output. */
typedef struct {
    int cols, rows; /* of the area */
    int ux, uy;     /* pixels of a cell */
    int w, h;       /* of the image */
    int left, top;  /* of the image inside the canvas */
    int cw, ch;     /* of the canvas: the whole area, but for sixel's height */
} plan;

static bool is_text(ui_graphics g) {
    return g == UI_GRAPHICS_SYMBOLS || g == UI_GRAPHICS_ASCII;
}

static float clampf(float v, float lo, float hi, float otherwise) {
    if (isnan(v))
        return otherwise;
    return v < lo ? lo : v > hi ? hi : v;
}

void ui_view_clamp(ui_view *v) {
    v->cx = clampf(v->cx, 0, 1, 0.5f);
    v->cy = clampf(v->cy, 0, 1, 0.5f);
    v->zoom = clampf(v->zoom, 1, MAX_ZOOM, 1);
}

static int clampi(int v, int lo, int hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

/* v rounded to a multiple of step, at least one step and at most limit (a multiple too). */
static int snap(double v, int step, int limit) {
    return clampi((int)lrint(v / step) * step, step, limit);
}

/* Fills plan and p's geometry. The picture is fitted into the pane, enlarged zoom times and
 * cut at the pane, so that a zoomed picture uses all of the pane. */
static void make_plan(const ui_picture_request *r, ui_picture *p, plan *g) {
    int cell_w = clampi(r->cell_w, 0, MAX_CELL), cell_h = clampi(r->cell_h, 0, MAX_CELL);
    if (cell_w == 0 || cell_h == 0) {
        /* Small, so that sixels of a terminal that does not tell stay inside the pane. */
        cell_w = 6;
        cell_h = 12;
    }
    int pane_w = clampi(r->pane.w, 1, MAX_CELLS), pane_h = clampi(r->pane.h, 1, MAX_CELLS);
    bool sixel = r->graphics == UI_GRAPHICS_SIXEL;
    double room_w = (double)pane_w * cell_w, room_h = (double)pane_h * cell_h;
    if (sixel) {
        int most_w = clampi(r->sixel_w > 0 ? r->sixel_w : SIXEL_SIDE, cell_w, 1 << 16);
        int most_h = clampi(r->sixel_h > 0 ? r->sixel_h : SIXEL_SIDE, 6, 1 << 16);
        room_w = fmin(room_w, most_w / cell_w * cell_w);
        room_h = fmax(6, floor(fmin(room_h, most_h) / 6) * 6);
    }

    /* In pixels of the screen. */
    double fit = fmin(room_w / r->width, room_h / r->height), scale = fit * p->view.zoom;
    double w = fmin(room_w, r->width * scale), h = fmin(room_h, r->height * scale);
    double seen_w = w / scale / r->width, seen_h = h / scale / r->height; /* shares */
    p->view.cx = (float)fmin(fmax(p->view.cx, seen_w / 2), 1 - seen_w / 2);
    p->view.cy = (float)fmin(fmax(p->view.cy, seen_h / 2), 1 - seen_h / 2);
    p->crop[0] = fmax(0, (p->view.cx - seen_w / 2) * r->width);
    p->crop[1] = fmax(0, (p->view.cy - seen_h / 2) * r->height);
    p->crop[2] = fmin(r->width, p->crop[0] + seen_w * r->width);
    p->crop[3] = fmin(r->height, p->crop[1] + seen_h * r->height);

    g->ux = cell_w;
    g->uy = cell_h;
    if (is_text(r->graphics)) {
        g->ux = g->uy = SYMBOL;
    } else if (!sixel) {
        double shrink = sqrt(MAX_PIXELS / (w * h));
        if (shrink < 1) {
            g->ux = clampi((int)(cell_w * shrink), 1, cell_w);
            g->uy = clampi((int)(cell_h * shrink), 1, cell_h);
        }
    }
    int step = !is_text(r->graphics)                                               ? 1
               : r->graphics == UI_GRAPHICS_ASCII || r->colours == UI_COLOURS_MONO ? SYMBOL
                                                                                   : SYMBOL / 2;
    g->w = snap(w / cell_w * g->ux, step, pane_w * g->ux);
    g->h = snap(h / cell_h * g->uy, step, pane_h * g->uy);
    g->cols = (g->w + g->ux - 1) / g->ux;
    g->rows = (g->h + g->uy - 1) / g->uy;
    g->cw = g->cols * g->ux;
    g->ch = sixel ? (g->h + 5) / 6 * 6 : g->rows * g->uy;
    /* A cell can be cut in halves from any side, but has two colours: symbols are padded on
     * one side only. */
    g->left = is_text(r->graphics) ? 0 : (g->cw - g->w) / 2;
    g->top = is_text(r->graphics) ? 0 : (g->ch - g->h) / 2;

    p->area = (ui_rect){r->pane.y + (pane_h - g->rows) / 2, r->pane.x + (pane_w - g->cols) / 2,
                        g->rows, g->cols};
    p->off[0] = (double)g->left / g->ux;
    p->off[1] = (double)g->top / g->uy;
    p->shown[0] = (double)g->w / g->ux;
    p->shown[1] = (double)g->h / g->uy;
}

/* --- pixels ----------------------------------------------------------------------------- */

/* The crop of r->rgb averaged by area to w x h: each result is the mean of the rectangle of
 * source pixels it covers, borders by their share. Rows first: that pass sees every source
 * byte and is a plain loop over them. */
static int average(const ui_picture_request *r, const double crop[4], int w, int h, uint8_t *out) {
    int x0 = clampi((int)floor(crop[0]), 0, r->width - 1);
    int x1 = clampi((int)ceil(crop[2]), x0 + 1, r->width);
    size_t n = (size_t)(x1 - x0) * 3;
    float *sum = malloc(n * sizeof *sum);
    if (!sum)
        return -1;
    double sx = (crop[2] - crop[0]) / w, sy = (crop[3] - crop[1]) / h;
    for (int j = 0; j < h; j++) {
        double top = crop[1] + j * sy, bottom = top + sy, rows = 0;
        int y0 = clampi((int)floor(top), 0, r->height - 1);
        int y1 = clampi((int)ceil(bottom), y0 + 1, r->height);
        memset(sum, 0, n * sizeof *sum);
        for (int y = y0; y < y1; y++) {
            float weight = (float)(fmin(bottom, y + 1) - fmax(top, y));
            if (weight <= 0)
                continue;
            const uint8_t *from = r->rgb + ((size_t)y * (size_t)r->width + (size_t)x0) * 3;
            if (weight == 1)
                for (size_t i = 0; i < n; i++)
                    sum[i] += (float)from[i];
            else
                for (size_t i = 0; i < n; i++)
                    sum[i] += weight * (float)from[i];
            rows += weight;
        }
        for (int i = 0; i < w; i++) {
            double left = crop[0] + i * sx, right = left + sx, all = 0, c[3] = {0};
            int a = clampi((int)floor(left), x0, x1 - 1);
            int b = clampi((int)ceil(right), a + 1, x1);
            for (int x = a; x < b; x++) {
                double weight = fmin(right, x + 1) - fmax(left, x);
                if (weight <= 0)
                    continue;
                const float *s = sum + (size_t)(x - x0) * 3;
                c[0] += weight * s[0], c[1] += weight * s[1], c[2] += weight * s[2];
                all += weight;
            }
            for (int k = 0; k < 3; k++)
                *out++ = (uint8_t)(c[k] / fmax(all * rows, 1e-12) + 0.5);
        }
    }
    free(sum);
    return 0;
}

/* Objects moved from pixels of the picture to units of the image shown. NULL: no memory. */
static ui_object *move_objects(const ui_picture_request *r, const double crop[4], double w,
                               double h) {
    ui_object *o = calloc((size_t)r->nobjects + 1, sizeof *o);
    for (int i = 0; o && i < r->nobjects; i++) {
        o[i] = r->objects[i];
        for (int k = 0; k < 4; k++) {
            double size = k % 2 ? h : w;
            o[i].box[k] =
                (float)((o[i].box[k] - crop[k % 2]) * (size / (crop[k % 2 + 2] - crop[k % 2])));
        }
    }
    return o;
}

/* --- characters ----------------------------------------------------------------------------- */

typedef struct {
    uint32_t c;
    int fg, bg;    /* 0xRRGGBB or a palette number, as the colours are; UNSET */
    uint8_t width; /* 0: the right half of the character before */
    bool reverse, bold;
} cell;

/* Appends ";38;2;..." to the n characters of sgr; returns their new number. */
static int add_colour(char sgr[96], int n, int colour, ui_colours kind, bool back) {
    char *at = sgr + n;
    size_t room = 96 - (size_t)n;
    if (colour == UNSET)
        return n + snprintf(at, room, ";%d", back ? 49 : 39);
    if (kind == UI_COLOURS_TRUE)
        return n + snprintf(at, room, ";%d;2;%d;%d;%d", back ? 48 : 38, colour >> 16 & 255,
                            colour >> 8 & 255, colour & 255);
    if (kind == UI_COLOURS_256)
        return n + snprintf(at, room, ";%d;5;%d", back ? 48 : 38, colour & 255);
    return n + snprintf(at, room, ";%d", (colour & 7) + (colour & 8 ? 90 : 30) + (back ? 10 : 0));
}

static void put_cells(buffer *b, const cell *cells, const ui_rect *area, ui_colours kind) {
    for (int y = 0; y < area->h; y++) {
        put_at(b, area->y + y, area->x);
        puts_to(b, "\033[0m");
        cell now = {.fg = UNSET, .bg = UNSET};
        for (int x = 0; x < area->w; x++) {
            const cell *c = &cells[(size_t)y * (size_t)area->w + (size_t)x];
            if (c->width == 0)
                continue;
            char sgr[96] = "";
            int n = 0;
            if (c->reverse != now.reverse || c->bold != now.bold) {
                n = snprintf(sgr, sizeof sgr, ";0%s%s", c->bold ? ";1" : "",
                             c->reverse ? ";7" : "");
                now.fg = now.bg = UNSET;
            }
            if (c->fg != now.fg)
                n = add_colour(sgr, n, c->fg, kind, false);
            if (c->bg != now.bg)
                n = add_colour(sgr, n, c->bg, kind, true);
            if (n > 0)
                putf(b, "\033[%sm", sgr + 1);
            now = *c;
            put_utf8(b, c->c);
        }
        puts_to(b, "\033[0m");
    }
}

/* chafa's characters for rgba [ch][cw] as cells of our own. */
static void chafa_cells(const ui_picture_request *r, const plan *g, const uint8_t *rgba,
                        cell *cells) {
    bool ascii = r->graphics == UI_GRAPHICS_ASCII, mono = r->colours == UI_COLOURS_MONO;
    static const ChafaCanvasMode modes[] = {
        [UI_COLOURS_MONO] = CHAFA_CANVAS_MODE_FGBG_BGFG,
        [UI_COLOURS_16] = CHAFA_CANVAS_MODE_INDEXED_16,
        /* The 16 below 240 are the user's to change: their colours are unknown. */
        [UI_COLOURS_256] = CHAFA_CANVAS_MODE_INDEXED_240,
        [UI_COLOURS_TRUE] = CHAFA_CANVAS_MODE_TRUECOLOR,
    };
    ChafaCanvasConfig *config = chafa_canvas_config_new();
    ChafaSymbolMap *map = chafa_symbol_map_new();
    chafa_symbol_map_apply_selectors(map, ascii ? "ascii" : "block+border+space-wide", NULL);
    chafa_canvas_config_set_symbol_map(config, map);
    chafa_canvas_config_set_geometry(config, g->cols, g->rows);
    chafa_canvas_config_set_canvas_mode(config,
                                        ascii && mono ? CHAFA_CANVAS_MODE_FGBG : modes[r->colours]);
    if (mono) {
        chafa_canvas_config_set_fg_color(config, r->light ? 0x000000 : 0xffffff);
        chafa_canvas_config_set_bg_color(config, r->light ? 0xffffff : 0x000000);
        chafa_canvas_config_set_dither_mode(config, CHAFA_DITHER_MODE_DIFFUSION);
    }
    ChafaCanvas *canvas = chafa_canvas_new(config);
    chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGBA8_UNASSOCIATED, rgba, g->cw, g->ch,
                                 g->cw * 4);
    for (int y = 0; y < g->rows; y++)
        for (int x = 0; x < g->cols; x++) {
            cell *c = &cells[(size_t)y * (size_t)g->cols + (size_t)x];
            c->c = chafa_canvas_get_char_at(canvas, x, y);
            c->width = 1;
            chafa_canvas_get_raw_colors_at(canvas, x, y, &c->fg, &c->bg);
            if (c->c < ' ' || (c->fg == UNSET && c->bg == UNSET))
                c->c = ' ';
            if (mono && c->fg != UNSET && c->bg != UNSET)
                c->c = ' ', c->fg = UNSET;
            /* A hole in the shape of the symbol: reversed, it is in the background's colour. */
            if (c->fg == UNSET && c->bg != UNSET && (mono || c->c != ' ')) {
                c->reverse = true;
                c->fg = c->bg;
                c->bg = UNSET;
            }
            if (mono)
                c->fg = c->bg = UNSET;
        }
    chafa_canvas_unref(canvas);
    chafa_symbol_map_unref(map);
    chafa_canvas_config_unref(config);
}

/* Colours of an object's text: plate and letters, as cells have them. */
static void dress(cell *c, const ui_picture_request *r, int colour, bool plate) {
    const unsigned char *rgb = ui_object_rgb[(unsigned)colour % UI_OBJECT_COLOURS];
    bool dark = ui_object_dark_ink(colour);
    int own = UNSET, ink = UNSET;
    if (r->colours == UI_COLOURS_TRUE) {
        own = rgb[0] << 16 | rgb[1] << 8 | rgb[2];
        ink = dark ? 0 : 0xffffff;
    } else if (r->colours != UI_COLOURS_MONO) {
        own = ui_object_palette(colour, r->colours == UI_COLOURS_256 ? 256 : 16);
        ink = r->colours == UI_COLOURS_256 ? (dark ? 16 : 231) : (dark ? 0 : 15);
    }
    c->bold = r->colours != UI_COLOURS_16; /* there, bold black is grey */
    c->reverse = plate && r->colours == UI_COLOURS_MONO;
    c->fg = plate ? ink : own;
    c->bg = plate ? own : UNSET;
}

/* Empties the cell at (x, y), and the other half of a wide character that it cuts. */
static cell *clear_cell(cell *cells, const plan *g, int x, int y) {
    cell *at = &cells[(size_t)y * (size_t)g->cols + (size_t)x];
    if (at->width == 0)
        at[-1].c = ' ', at[-1].width = 1;
    if (at->width == 2)
        at[1].c = ' ', at[1].width = 1;
    *at = (cell){.c = ' ', .width = 1, .fg = UNSET, .bg = UNSET};
    return at;
}

/* The cells that a box's lines run through: x0 y0 x1 y1, both ends inside; those beyond the
 * picture are -1 and its size. */
static bool box_rim(const plan *g, const ui_object *o, int rim[4]) {
    for (int k = 0; k < 4; k++) {
        if (isnan(o->box[k]))
            return false;
        float v = k < 2 ? floorf(o->box[k]) : ceilf(o->box[k]) - 1;
        rim[k] = (int)clampf(v, -1, (float)(k % 2 ? g->rows : g->cols), 0);
    }
    for (int k = 0; k < 2; k++) /* no width, right between two cells */
        if (rim[k + 2] == rim[k] - 1)
            rim[k + 2] = rim[k];
    return true;
}

static int sides_of(const int rim[4], int x, int y) {
    return (x == rim[0]) | (x == rim[2]) << 1 | (y == rim[1]) << 2 | (y == rim[3]) << 3;
}

/* Of light, 0 to 1, as the contrast of two colours is counted. */
static float luminance(const int rgb[3]) {
    static const float weight[3] = {0.2126f, 0.7152f, 0.0722f};
    float sum = 0;
    for (int k = 0; k < 3; k++)
        sum += weight[k] * powf((float)rgb[k] / 255, 2.2f);
    return sum;
}

/* Whether a line of an object's colour can be told from this ground. */
static bool readable(const int ground[3], int colour) {
    const float enough = 1.8f; /* orange has 2.2 on white, 1.2 on a mean grey */
    const unsigned char *line = ui_object_rgb[(unsigned)colour % UI_OBJECT_COLOURS];
    float a = luminance((int[]){line[0], line[1], line[2]}) + 0.05f, b = luminance(ground) + 0.05f;
    return a / b >= enough || b / a >= enough;
}

/* Moves rgb towards black or white, no further than needed. */
static void make_readable(int rgb[3], int colour) {
    enum {
        STEPS = 16
    };
    for (int step = 0; step <= STEPS; step++)
        for (int to = 0; to <= 255; to += 255) {
            int moved[3];
            for (int k = 0; k < 3; k++)
                moved[k] = (rgb[k] * (STEPS - step) + to * step) / STEPS;
            if (!readable(moved, colour))
                continue;
            memcpy(rgb, moved, sizeof moved);
            return;
        }
}

static int brightness(const uint8_t *p) {
    return 2 * p[0] + 5 * p[1] + p[2];
}

/* The colour that w x h pixels are seen in under a line: the mean of their lighter or of their
 * darker ones, whichever are more. The mean of all would be a third colour between two, and a
 * row of such cells looks like a frame of its own. Where a line cannot be told from it, it is
 * the others' mean, if they are a quarter, else it is moved. at: rows of stride bytes. */
static void ground_of(const uint8_t *at, size_t stride, int w, int h, int colour, int ground[3]) {
    int sum[2][3] = {{0}}, count[2] = {0};
    long mean = 0;
    for (int i = 0; i < w * h; i++)
        mean += brightness(at + (size_t)(i / w) * stride + (size_t)(i % w) * 4);
    mean /= w * h;
    for (int i = 0; i < w * h; i++) {
        const uint8_t *p = at + (size_t)(i / w) * stride + (size_t)(i % w) * 4;
        int part = brightness(p) > mean;
        count[part]++;
        for (int k = 0; k < 3; k++)
            sum[part][k] += p[k];
    }
    int more = count[1] > count[0];
    for (int part = 0; part < 2; part++)
        for (int k = 0; k < 3; k++)
            sum[part][k] /= count[part] > 0 ? count[part] : 1;
    bool other =
        !readable(sum[more], colour) && 4 * count[!more] >= w * h && readable(sum[!more], colour);
    memcpy(ground, sum[other ? !more : more], sizeof *sum);
    make_readable(ground, colour);
}

/* Gives the cells under a box's lines one colour each: what chafa makes of them is the ground
 * that the line's characters stand on. Cells that the picture covers in part are filled, else
 * a line along its border would stand on half a ground. */
static void prepare_box(const plan *g, const ui_object *o, uint8_t *rgba) {
    int rim[4];
    size_t stride = (size_t)g->cw * 4;
    if (!box_rim(g, o, rim))
        return;
    for (int y = rim[1]; y <= rim[3]; y++)
        for (int x = rim[0]; x <= rim[2]; x++) {
            if (!sides_of(rim, x, y) || x < 0 || y < 0 || x >= g->cols || y >= g->rows)
                continue;
            int w = g->w - x * g->ux < g->ux ? g->w - x * g->ux : g->ux;
            int h = g->h - y * g->uy < g->uy ? g->h - y * g->uy : g->uy;
            uint8_t *at = rgba + (size_t)y * (size_t)g->uy * stride + (size_t)(x * g->ux) * 4;
            int ground[4] = {0, 0, 0, 255};
            ground_of(at, stride, w, h, o->colour, ground);
            for (int i = 0; i < g->ux * g->uy * 4; i++)
                at[(size_t)(i / 4 / g->ux) * stride + (size_t)(i % (4 * g->ux))] =
                    (uint8_t)ground[i % 4];
        }
}

/* Draws a box's lines as characters. */
static void box_cells(const ui_picture_request *r, const plan *g, const ui_object *o, cell *cells) {
    /* By sides that meet in the cell: 1 left, 2 right, 4 top, 8 bottom. A box of one row or
     * column is a line. */
    static const uint16_t heavy[16] = {0,      0x2503, 0x2503, 0x2503, 0x2501, 0x250f,
                                       0x2513, 0x2533, 0x2501, 0x2517, 0x251b, 0x253b,
                                       0x2501, 0x2523, 0x252b, 0x254b};
    bool ascii = r->graphics == UI_GRAPHICS_ASCII;
    int rim[4];
    if (!box_rim(g, o, rim))
        return;
    for (int y = rim[1]; y <= rim[3]; y++)
        for (int x = rim[0]; x <= rim[2]; x++) {
            int sides = sides_of(rim, x, y);
            if (!sides || x < 0 || y < 0 || x >= g->cols || y >= g->rows)
                continue;
            cell *at = &cells[(size_t)y * (size_t)g->cols + (size_t)x];
            int ground = at->reverse || at->c == 0x2588 ? at->fg : at->bg;
            bool corner = (sides & 3) && (sides & 12);
            at->c = !ascii ? heavy[sides] : corner ? '+' : sides & 3 ? '|' : '-';
            dress(at, r, o->colour, false);
            if (r->colours != UI_COLOURS_MONO)
                at->bg = ground;
        }
}

/* The label's next character as its cell shows it, and its columns: 0 at the end. */
static uint32_t next_char(const ui_picture_request *r, const char **s, int *width) {
    while (**s) {
        gunichar c = g_utf8_get_char_validated(*s, -1);
        bool bad = c == (gunichar)-1 || c == (gunichar)-2;
        *s += bad ? 1 : g_unichar_to_utf8(c, NULL);
        *width = bad || (c > '~' && r->graphics == UI_GRAPHICS_ASCII) ? -1 : wcwidth((wchar_t)c);
        if (*width < 0)
            c = '?', *width = 1;
        if (*width > 0)
            return c;
    }
    *width = 0;
    return 0;
}

static int label_columns(const ui_picture_request *r, const char *s) {
    int n = 0, w = 1;
    while (s && n < MAX_CELLS && w > 0) {
        next_char(r, &s, &w);
        n += w;
    }
    return n;
}

static int label_cells(const ui_picture_request *r, const plan *g, const ui_object *o,
                       cell *cells) {
    ui_plate *plates = calloc((size_t)r->nobjects + 1, sizeof *plates);
    if (!plates)
        return -1;
    for (int i = 0; i < r->nobjects; i++) {
        int n = label_columns(r, o[i].label);
        if (n > 0)
            plates[i] = (ui_plate){0, 0, n + 2, 1};
    }
    ui_overlay_place(o, r->nobjects, g->cols, g->rows, plates);
    for (int i = 0; i < r->nobjects; i++) {
        const ui_plate *p = &plates[i];
        const char *s = o[i].label;
        for (int x = 0; x < p->w; x++)
            dress(clear_cell(cells, g, p->x + x, p->y), r, o[i].colour, true);
        int margin = p->w > 2 ? 1 : 0, w = 1;
        for (int x = margin; x < p->w - margin; x += w) {
            uint32_t c = next_char(r, &s, &w);
            if (w < 1 || x + w > p->w - margin)
                break;
            cell *at = &cells[(size_t)p->y * (size_t)g->cols + (size_t)(p->x + x)];
            at->c = c;
            at->width = (uint8_t)w;
            if (w == 2)
                at[1].width = 0;
        }
    }
    free(plates);
    return 0;
}

static int text_bytes(const ui_picture_request *r, ui_picture *p, const plan *g, uint8_t *rgba,
                      buffer *b) {
    cell *cells = calloc((size_t)g->cols * (size_t)g->rows, sizeof *cells);
    ui_object *o = move_objects(r, p->crop, p->shown[0], p->shown[1]);
    int rc = -1;
    if (cells && o) {
        for (int i = 0; i < r->nobjects; i++)
            prepare_box(g, &o[i], rgba);
        chafa_cells(r, g, rgba, cells);
        for (int i = 0; i < r->nobjects; i++)
            box_cells(r, g, &o[i], cells);
        rc = label_cells(r, g, o, cells);
        if (rc == 0)
            put_cells(b, cells, &p->area, r->colours);
    }
    free(o);
    free(cells);
    return rc;
}

/* --- terminal graphics ------------------------------------------------------------------------ */

static void sixel_bytes(ui_picture *p, const plan *g, const uint8_t *rgba, buffer *b) {
    ChafaCanvasConfig *config = chafa_canvas_config_new();
    chafa_canvas_config_set_pixel_mode(config, CHAFA_PIXEL_MODE_SIXELS);
    /* One cell as high as the canvas: chafa then has nothing to round. */
    chafa_canvas_config_set_geometry(config, g->cols, 1);
    chafa_canvas_config_set_cell_geometry(config, g->ux, g->ch);
    ChafaCanvas *canvas = chafa_canvas_new(config);
    chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGBA8_UNASSOCIATED, rgba, g->cw, g->ch,
                                 g->cw * 4);
    ChafaTermDb *db = chafa_term_db_new();
    ChafaTermInfo *info = chafa_term_db_get_fallback_info(db);
    GString *s = chafa_canvas_print(canvas, info);
    put_at(b, p->area.y, p->area.x);
    put(b, s->str, s->len);
    g_string_free(s, TRUE);
    chafa_term_info_unref(info);
    chafa_term_db_unref(db);
    chafa_canvas_unref(canvas);
    chafa_canvas_config_unref(config);
}

/* pixels [ch][cw][3 or 4] as a PNG; free() it. NULL: no memory. */
static uint8_t *png(const plan *g, const uint8_t *pixels, bool alpha, size_t *n) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)g->cw,
                       .height = (png_uint_32)g->ch,
                       .format = alpha ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB,
                       .flags = PNG_IMAGE_FLAG_FAST}; /* four times as fast, a third larger */
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    uint8_t *out = malloc(size);
    if (out && !png_image_write_to_memory(&image, out, &size, 0, pixels, 0, NULL)) {
        free(out);
        out = NULL;
    }
    *n = size;
    return out;
}

static void put_kitty_delete(buffer *b) {
    putf(b, "\033_Ga=d,d=I,i=%d,q=2\033\\", KITTY_ID);
}

static void kitty_bytes(const ui_picture *p, const uint8_t *data, size_t n, buffer *b) {
    put_kitty_delete(b);
    put_at(b, p->area.y, p->area.x);
    size_t run = CHUNK / 4 * 3;
    for (size_t at = 0; at < n; at += run) {
        size_t now = n - at < run ? n - at : run;
        puts_to(b, "\033_G");
        if (at == 0)
            putf(b, "a=T,f=100,i=%d,p=1,c=%d,r=%d,C=1,", KITTY_ID, p->area.w, p->area.h);
        putf(b, "q=2,m=%d;", at + now < n);
        put_base64(b, data + at, now);
        puts_to(b, "\033\\");
    }
}

static void iterm2_bytes(const ui_picture *p, const uint8_t *data, size_t n, buffer *b) {
    put_at(b, p->area.y, p->area.x);
    putf(b,
         "\033]1337;File=inline=1;size=%zu;width=%d;height=%d;preserveAspectRatio=0;"
         "doNotMoveCursor=1:",
         n, p->area.w, p->area.h);
    put_base64(b, data, n);
    puts_to(b, "\a");
}

static int graphics_bytes(const ui_picture_request *r, ui_picture *p, const plan *g,
                          const uint8_t *rgb, const uint8_t *rgba, buffer *b) {
    if (r->graphics == UI_GRAPHICS_SIXEL) {
        sixel_bytes(p, g, rgba, b);
        return 0;
    }
    bool padded = g->w != g->cw || g->h != g->ch;
    size_t n;
    uint8_t *data = png(g, padded ? rgba : rgb, padded, &n);
    if (!data)
        return -1;
    if (r->graphics == UI_GRAPHICS_KITTY)
        kitty_bytes(p, data, n, b);
    else
        iterm2_bytes(p, data, n, b);
    free(data);
    return 0;
}

/* --- a picture --------------------------------------------------------------------------------- */

/* The image with what is drawn on it, [h][w][3]. NULL: no memory. */
static uint8_t *shown_pixels(const ui_picture_request *r, const ui_picture *p, const plan *g) {
    uint8_t *rgb = malloc((size_t)g->w * (size_t)g->h * 3);
    ui_object *o = move_objects(r, p->crop, g->w, g->h);
    ui_overlay_style style = {.text = clampi((g->uy + 6) / 12, 1, 16)};
    if (is_text(r->graphics)) /* masks only: lines and labels become characters */
        style = (ui_overlay_style){.line = -1, .text = -1, .plain = true};
    if (!rgb || !o || average(r, p->crop, g->w, g->h, rgb) != 0 ||
        ui_overlay_draw(rgb, g->w, g->h, o, r->nobjects, &style) != 0) {
        free(rgb);
        rgb = NULL;
    }
    free(o);
    return rgb;
}

/* The image on its transparent canvas, [ch][cw][4]. NULL: no memory. */
static uint8_t *padded_pixels(const plan *g, const uint8_t *rgb) {
    uint8_t *rgba = calloc((size_t)g->cw * (size_t)g->ch, 4);
    for (int y = 0; rgba && y < g->h; y++) {
        const uint8_t *from = rgb + (size_t)y * (size_t)g->w * 3;
        uint8_t *to = rgba + ((size_t)(y + g->top) * (size_t)g->cw + (size_t)g->left) * 4;
        for (int x = 0; x < g->w; x++, from += 3, to += 4) {
            memcpy(to, from, 3);
            to[3] = 255;
        }
    }
    return rgba;
}

ui_picture *ui_picture_render(const ui_picture_request *r, char *why, size_t why_size) {
    if (!r->rgb || r->width < 1 || r->height < 1 || r->width > MAX_SIDE || r->height > MAX_SIDE) {
        snprintf(why, why_size, "a picture of %d x %d pixels cannot be shown", r->width, r->height);
        return NULL;
    }
    ui_picture *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(why, why_size, "not enough memory to show the picture");
        return NULL;
    }
    p->view = r->view;
    ui_view_clamp(&p->view);
    plan g;
    make_plan(r, p, &g);
    if (r->graphics == UI_GRAPHICS_NONE || r->pane.h < 1 || r->pane.w < 1) {
        p->area.h = p->area.w = 0;
        return p;
    }
    if ((double)g.cw * g.ch > MAX_CANVAS) {
        snprintf(why, why_size, "the picture's pane has %d x %d pixels: too many to send", g.cw,
                 g.ch);
        free(p);
        return NULL;
    }

    buffer b = {0};
    uint8_t *rgb = shown_pixels(r, p, &g), *rgba = rgb ? padded_pixels(&g, rgb) : NULL;
    puts_to(&b, SYNC_ON "\0337");
    int rc = !rgba                  ? -1
             : is_text(r->graphics) ? text_bytes(r, p, &g, rgba, &b)
                                    : graphics_bytes(r, p, &g, rgb, rgba, &b);
    puts_to(&b, "\0338" SYNC_OFF);
    free(rgb);
    free(rgba);
    p->bytes = b.at;
    p->n = b.n;
    if (rc != 0 || b.failed) {
        snprintf(why, why_size, "not enough memory to show the picture");
        ui_picture_close(p);
        return NULL;
    }
    return p;
}

void ui_picture_close(ui_picture *p) {
    if (p)
        free(p->bytes);
    free(p);
}

ui_rect ui_picture_area(const ui_picture *p) {
    return p->area;
}

ui_view ui_picture_view(const ui_picture *p) {
    return p->view;
}

void ui_picture_crop(const ui_picture *p, float box[4]) {
    for (int i = 0; i < 4; i++)
        box[i] = (float)p->crop[i];
}

bool ui_picture_pixel(const ui_picture *p, int y, int x, float *px, float *py) {
    const ui_rect *a = &p->area;
    if (y < a->y || x < a->x || y >= a->y + a->h || x >= a->x + a->w)
        return false;
    /* Cells at the rim may have their middle beside the image: they mean its border. */
    double u = (x - a->x + 0.5 - p->off[0]) / p->shown[0];
    double v = (y - a->y + 0.5 - p->off[1]) / p->shown[1];
    *px = (float)(p->crop[0] + fmin(fmax(u, 0), 1) * (p->crop[2] - p->crop[0]));
    *py = (float)(p->crop[1] + fmin(fmax(v, 0), 1) * (p->crop[3] - p->crop[1]));
    return true;
}

/* --- on the screen ------------------------------------------------------------------------------ */

/* curses scrolls rows that it finds again elsewhere and clears rows that end in blanks; both
 * would take the picture along. Rows whose characters differ are never found again: the row's
 * number in binary as no-break space and space. Invisible, if the picture is gone. Rows that
 * differ in attributes only are not different enough. */
void ui_picture_placeholders(ui_rect pane, unsigned generation) {
    static const attr_t attrs[] = {A_BOLD, A_BOLD | A_DIM, A_DIM};
    attr_t attr = attrs[generation % 3];
    /* A locale without no-break space shows no more than ASCII anyway. */
    const wchar_t *solid = MB_CUR_MAX > 1 ? L"\u00a0" : L" ";
    cchar_t on, off;
    setcchar(&on, solid, attr, 0, NULL);
    setcchar(&off, L" ", attr, 0, NULL);
    for (int y = 0; y < pane.h; y++)
        for (int x = 0; x < pane.w; x++)
            mvadd_wch(pane.y + y, pane.x + x, x < 8 && (y >> x & 1) ? &off : &on);
}

const char *ui_picture_bytes(const ui_picture *p, bool sync, size_t *n) {
    *n = 0;
    if (!p->bytes)
        return NULL;
    size_t on = strlen(SYNC_ON), off = strlen(SYNC_OFF);
    *n = sync ? p->n : p->n - on - off;
    return sync ? p->bytes : p->bytes + on;
}

int ui_picture_show(const ui_picture *p, bool sync) {
    size_t n;
    const char *bytes = ui_picture_bytes(p, sync, &n);
    return n > 0 ? ui_term_write(bytes, n) : 0;
}

void ui_picture_hide(ui_graphics g) {
    if (g != UI_GRAPHICS_KITTY)
        return;
    buffer b = {0};
    put_kitty_delete(&b);
    if (!b.failed)
        ui_term_write(b.at, b.n);
    free(b.at);
}
