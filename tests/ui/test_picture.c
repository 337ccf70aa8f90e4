/* Pictures as a terminal gets them. Characters go through libvterm and its cells are compared
 * with the picture; sixels, PNGs of kitty and of iTerm2 are decoded and compared with averages
 * computed here in the plainest way. curses runs on files, and what it writes goes through
 * libvterm too. */
#include "tests/test.h"

#include "ui/picture.h"

#include <locale.h>
#include <math.h>
#include <ncurses.h>
#include <png.h>
#include <vterm.h>

/* --- what ui_picture_show writes -------------------------------------------------- */

static char *written;
static size_t nwritten;
static int write_result;

int ui_term_write(const char *bytes, size_t n) {
    written = realloc(written, nwritten + n + 1);
    assert_non_null(written);
    memcpy(written + nwritten, bytes, n);
    nwritten += n;
    written[nwritten] = 0;
    return write_result;
}

static void forget_written(void) {
    free(written);
    written = NULL;
    nwritten = 0;
}

/* --- pictures ------------------------------------------------------------------------ */

static unsigned next_random(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Smooth colours with some hard squares, different everywhere. */
static uint8_t *scene(int w, int h) {
    uint8_t *rgb = malloc((size_t)w * (size_t)h * 3), *p = rgb;
    assert_non_null(rgb);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            int square = (x * 8 / w + y * 6 / h) % 5 == 0 ? 60 : 0;
            *p++ = (uint8_t)(x * 195 / w + square);
            *p++ = (uint8_t)(y * 195 / h + square);
            *p++ = (uint8_t)(100 + (x * 70 / w - y * 90 / h) + square / 2);
        }
    return rgb;
}

static ui_picture_request request(const uint8_t *rgb, int w, int h, ui_rect pane,
                                  ui_graphics graphics) {
    return (ui_picture_request){.rgb = rgb,
                                .width = w,
                                .height = h,
                                .view = UI_VIEW_FIT,
                                .pane = pane,
                                .cell_w = 8,
                                .cell_h = 16,
                                .graphics = graphics,
                                .colours = UI_COLOURS_TRUE};
}

static ui_picture *render(const ui_picture_request *r) {
    char why[200] = "";
    ui_picture *p = ui_picture_render(r, why, sizeof why);
    if (!p)
        fail_msg("%s", why);
    return p;
}

/* Mean of the source rectangle under pixel (i, j) of w x h, pixel by pixel in doubles. */
static void mean(const ui_picture_request *r, const float crop[4], int w, int h, int i, int j,
                 double out[3]) {
    double sx = ((double)crop[2] - crop[0]) / w, sy = ((double)crop[3] - crop[1]) / h, all = 0;
    double x0 = crop[0] + i * sx, y0 = crop[1] + j * sy;
    out[0] = out[1] = out[2] = 0;
    for (int y = (int)y0; y < r->height && y < y0 + sy; y++)
        for (int x = (int)x0; x < r->width && x < x0 + sx; x++) {
            double weight =
                (fmin(x0 + sx, x + 1) - fmax(x0, x)) * (fmin(y0 + sy, y + 1) - fmax(y0, y));
            for (int k = 0; k < 3; k++)
                out[k] +=
                    weight * r->rgb[((size_t)y * (size_t)r->width + (size_t)x) * 3 + (size_t)k];
            all += weight;
        }
    for (int k = 0; k < 3; k++)
        out[k] /= all;
}

/* --- decoders --------------------------------------------------------------------------- */

typedef struct {
    int w, h;
    uint8_t *rgba;
} decoded;

/* The part of an image that is not transparent: x0 y0 x1 y1. */
static void opaque(const decoded *d, int box[4]) {
    box[0] = d->w, box[1] = d->h, box[2] = box[3] = 0;
    for (int y = 0; y < d->h; y++)
        for (int x = 0; x < d->w; x++)
            if (d->rgba[(y * d->w + x) * 4 + 3]) {
                box[0] = x < box[0] ? x : box[0];
                box[1] = y < box[1] ? y : box[1];
                box[2] = x >= box[2] ? x + 1 : box[2];
                box[3] = y >= box[3] ? y + 1 : box[3];
            }
    for (int y = box[1]; y < box[3]; y++)
        for (int x = box[0]; x < box[2]; x++)
            assert_int_equal(d->rgba[(y * d->w + x) * 4 + 3], 255);
}

static uint8_t *from_base64(const char *s, size_t n, size_t *out_n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *out = malloc(n + 3), *p = out;
    assert_non_null(out);
    assert_int_equal(n % 4, 0);
    for (size_t i = 0; i < n; i += 4) {
        uint32_t v = 0;
        int pad = 0;
        for (int k = 0; k < 4; k++) {
            const char *d = strchr(digits, s[i + (size_t)k]);
            if (s[i + (size_t)k] == '=' && i + 4 == n)
                pad++;
            else if (!d || pad)
                fail_msg("not base64: %c", s[i + (size_t)k]);
            v = v << 6 | (uint32_t)(pad ? 0 : d - digits);
        }
        for (int k = 0; k < 3 - pad; k++)
            *p++ = (uint8_t)(v >> (16 - 8 * k));
    }
    *out_n = (size_t)(p - out);
    return out;
}

static decoded from_png(const uint8_t *bytes, size_t n) {
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&image, bytes, n));
    image.format = PNG_FORMAT_RGBA;
    decoded d = {(int)image.width, (int)image.height, malloc(PNG_IMAGE_SIZE(image))};
    assert_non_null(d.rgba);
    assert_true(png_image_finish_read(&image, NULL, d.rgba, 0, NULL));
    return d;
}

static const char *expect(const char *s, const char *want) {
    if (strncmp(s, want, strlen(want)) != 0)
        fail_msg("expected %s at: %.60s", want + (*want == 033), s + (*s == 033));
    return s + strlen(want);
}

/* ESC 7, CUP of the area; what comes next. */
static const char *expect_start(const ui_picture *p, const char *s) {
    char cup[40];
    ui_rect a = ui_picture_area(p);
    snprintf(cup, sizeof cup, "\033[%d;%dH", a.y + 1, a.x + 1);
    return expect(s, cup);
}

static const char *bytes_of(const ui_picture *p) {
    /* The accessor's bytes have no NUL: a copy that has one. */
    static char *copy;
    size_t n;
    const char *bytes = ui_picture_bytes(p, false, &n);
    free(copy);
    copy = malloc(n + 1);
    assert_non_null(copy);
    if (n)
        memcpy(copy, bytes, n);
    copy[n] = 0;
    assert_int_equal(strlen(copy), n);
    if (!n) {
        free(copy);
        copy = NULL;
    }
    return copy;
}

static decoded decode_kitty(const ui_picture *p) {
    const char *s = expect(bytes_of(p), "\0337");
    s = expect(s, "\033_Ga=d,d=I,i=1885432937,q=2\033\\");
    s = expect_start(p, s);
    ui_rect a = ui_picture_area(p);
    char keys[80], *payload = NULL;
    size_t n = 0;
    snprintf(keys, sizeof keys, "\033_Ga=T,f=100,i=1885432937,p=1,c=%d,r=%d,C=1,q=2,m=", a.w, a.h);
    s = expect(s, keys);
    for (bool more = true; more;) {
        more = *s == '1';
        assert_true(more || *s == '0');
        s = expect(s + 1, ";");
        size_t run = strcspn(s, "\033");
        assert_in_range(run, 1, 4096);
        assert_true(!more || run % 4 == 0);
        payload = realloc(payload, n + run);
        assert_non_null(payload);
        memcpy(payload + n, s, run);
        n += run;
        s = expect(s + run, "\033\\");
        if (more)
            s = expect(s, "\033_Gq=2,m=");
    }
    assert_string_equal(s, "\0338");
    size_t png_n;
    uint8_t *png = from_base64(payload, n, &png_n);
    decoded d = from_png(png, png_n);
    free(png);
    free(payload);
    return d;
}

static decoded decode_iterm2(const ui_picture *p) {
    const char *s = expect_start(p, expect(bytes_of(p), "\0337"));
    size_t size = 0;
    int w = 0, h = 0, at = 0;
    ui_rect a = ui_picture_area(p);
    assert_int_equal(sscanf(s,
                            "\033]1337;File=inline=1;size=%zu;width=%d;height=%d;"
                            "preserveAspectRatio=0;doNotMoveCursor=1:%n",
                            &size, &w, &h, &at),
                     3);
    assert_int_equal(w, a.w);
    assert_int_equal(h, a.h);
    s += at;
    size_t run = strcspn(s, "\a"), png_n;
    assert_string_equal(s + run, "\a\0338");
    uint8_t *png = from_base64(s, run, &png_n);
    assert_int_equal(png_n, size);
    decoded d = from_png(png, png_n);
    free(png);
    return d;
}

/* Sixels: raster size, colours in percent, '!' repeats, '$' and '-'. */
static decoded decode_sixel(const ui_picture *p) {
    const char *s = expect_start(p, expect(bytes_of(p), "\0337"));
    s = expect(s, "\033P0;1;0q\"1;1;");
    decoded d = {0};
    int at = 0, x = 0, y = 0, colour = 0;
    static uint8_t palette[1024][3];
    assert_int_equal(sscanf(s, "%d;%d%n", &d.w, &d.h, &at), 2);
    d.rgba = calloc((size_t)d.w * (size_t)d.h, 4);
    assert_non_null(d.rgba);
    for (s += at; *s != 033;) {
        int repeat = 1, c[3], n = 0;
        if (*s == '#') {
            assert_int_equal(sscanf(s, "#%d%n", &colour, &n), 1);
            assert_in_range(colour, 0, 1023);
            s += n;
            if (*s == ';') {
                assert_int_equal(sscanf(s, ";2;%d;%d;%d%n", &c[0], &c[1], &c[2], &n), 3);
                s += n;
                for (int k = 0; k < 3; k++)
                    palette[colour][k] = (uint8_t)(c[k] * 255 / 100);
            }
            continue;
        }
        if (*s == '$' || *s == '-') {
            x = 0;
            y += *s++ == '-' ? 6 : 0;
            continue;
        }
        if (*s == '!') {
            assert_int_equal(sscanf(s, "!%d%n", &repeat, &n), 1);
            s += n;
        }
        assert_in_range(*s, '?', '~');
        int bits = *s++ - '?';
        assert_true(x + repeat <= d.w);
        for (; repeat > 0; repeat--, x++)
            for (int k = 0; k < 6; k++)
                if (bits >> k & 1) {
                    assert_true(y + k < d.h);
                    uint8_t *to = d.rgba + ((y + k) * d.w + x) * 4;
                    memcpy(to, palette[colour], 3);
                    to[3] = 255;
                }
    }
    assert_string_equal(s, "\033\\\0338");
    return d;
}

/* --- a terminal --------------------------------------------------------------------------- */

typedef struct {
    VTerm *vt;
    VTermScreen *screen;
    int rows, cols;
} terminal;

static terminal open_terminal(int rows, int cols) {
    terminal t = {.vt = vterm_new(rows, cols), .rows = rows, .cols = cols};
    assert_non_null(t.vt);
    vterm_set_utf8(t.vt, 1);
    t.screen = vterm_obtain_screen(t.vt);
    vterm_screen_enable_altscreen(t.screen, 1);
    vterm_screen_reset(t.screen, 1);
    return t;
}

static void feed(terminal *t, const char *bytes, size_t n) {
    vterm_input_write(t->vt, bytes, n);
}

static void feed_picture(terminal *t, const ui_picture *p) {
    size_t n;
    const char *bytes = ui_picture_bytes(p, true, &n);
    feed(t, bytes, n);
}

static VTermScreenCell cell_at(const terminal *t, int y, int x) {
    VTermScreenCell c;
    assert_true(vterm_screen_get_cell(t->screen, (VTermPos){.row = y, .col = x}, &c));
    return c;
}

static void colour_at(const VTermScreenCell *c, bool back, int out[3]) {
    const VTermColor *v = back != (bool)c->attrs.reverse ? &c->bg : &c->fg;
    assert_true(VTERM_COLOR_IS_RGB(v));
    out[0] = v->rgb.red, out[1] = v->rgb.green, out[2] = v->rgb.blue;
}

static void fill_terminal(terminal *t) {
    for (int y = 0; y < t->rows; y++) {
        char s[32];
        feed(t, s, (size_t)snprintf(s, sizeof s, "\033[%d;1H", y + 1));
        for (int x = 0; x < t->cols; x++)
            feed(t, "#", 1);
    }
    feed(t, "\033[3;4H", 6);
}

/* --- tests: geometry ------------------------------------------------------------------------- */

static void picture_keeps_the_aspect(void **state) {
    (void)state;
    static const int cells[][2] = {{8, 16}, {10, 20}, {7, 15}, {9, 18}, {6, 13}, {12, 12}, {0, 0}};
    static const int sizes[][2] = {{64, 48}, {1, 2000}, {2000, 1}, {1, 1}, {300, 100}, {33, 77}};
    static const int panes[][2] = {{24, 40}, {7, 60}, {30, 9}, {1, 1}};
    for (size_t c = 0; c < 7; c++)
        for (size_t i = 0; i < 6; i++)
            for (size_t k = 0; k < 4; k++) {
                int w = sizes[i][0], h = sizes[i][1];
                uint8_t *rgb = scene(w, h);
                ui_picture_request r = request(rgb, w, h, (ui_rect){3, 5, panes[k][0], panes[k][1]},
                                               UI_GRAPHICS_KITTY);
                r.cell_w = cells[c][0], r.cell_h = cells[c][1];
                ui_picture *p = render(&r);
                ui_rect a = ui_picture_area(p);
                assert_true(a.h >= 1 && a.w >= 1 && a.y >= 3 && a.x >= 5);
                assert_true(a.y + a.h <= 3 + panes[k][0] && a.x + a.w <= 5 + panes[k][1]);

                decoded d = decode_kitty(p);
                int cw = cells[c][0] ? cells[c][0] : 6, ch = cells[c][1] ? cells[c][1] : 12, box[4];
                assert_int_equal(d.w, a.w * cw);
                assert_int_equal(d.h, a.h * ch);
                opaque(&d, box);
                double scale = fmin((double)panes[k][1] * cw / w, (double)panes[k][0] * ch / h);
                assert_true(fabs(box[2] - box[0] - fmax(1, w * scale)) <= 0.5);
                assert_true(fabs(box[3] - box[1] - fmax(1, h * scale)) <= 0.5);
                /* In the middle of its cells. */
                assert_in_range(d.w - box[2] - box[0] + 1, 0, 2);
                assert_in_range(d.h - box[3] - box[1] + 1, 0, 2);
                free(d.rgba);
                ui_picture_close(p);
                free(rgb);
            }
}

static void picture_symbols_keep_the_aspect_to_half_a_cell(void **state) {
    (void)state;
    static const int cells[][2] = {{8, 16}, {7, 15}, {12, 12}};
    for (size_t c = 0; c < 3; c++) {
        uint8_t *rgb = scene(300, 200);
        ui_picture_request r = request(rgb, 300, 200, (ui_rect){0, 0, 20, 60}, UI_GRAPHICS_SYMBOLS);
        r.cell_w = cells[c][0], r.cell_h = cells[c][1];
        ui_picture *p = render(&r);
        ui_rect a = ui_picture_area(p);
        double scale = fmin(60.0 * cells[c][0] / 300, 20.0 * cells[c][1] / 200);
        assert_true(fabs(a.w - 300 * scale / cells[c][0]) <= 0.75);
        assert_true(fabs(a.h - 200 * scale / cells[c][1]) <= 0.75);
        assert_int_equal(a.x, (60 - a.w) / 2);
        assert_int_equal(a.y, (20 - a.h) / 2);
        ui_picture_close(p);
        free(rgb);
    }
}

static void assert_crop(const ui_picture *p, float x0, float y0, float x1, float y1) {
    float want[4] = {x0, y0, x1, y1}, got[4];
    ui_picture_crop(p, got);
    for (int i = 0; i < 4; i++)
        if (fabsf(want[i] - got[i]) > 0.01f)
            fail_msg("crop[%d] is %g, not %g", i, (double)got[i], (double)want[i]);
}

static void picture_zooms_and_pans(void **state) {
    (void)state;
    uint8_t *rgb = scene(400, 300);
    /* A pane of 320 x 320 pixels: the picture is fitted by its width, scale 0.8. */
    ui_picture_request r = request(rgb, 400, 300, (ui_rect){0, 0, 20, 40}, UI_GRAPHICS_KITTY);
    ui_picture *p = render(&r);
    assert_crop(p, 0, 0, 400, 300);
    ui_picture_close(p);

    r.view.zoom = 2; /* 640 x 480: the pane is full both ways */
    p = render(&r);
    assert_crop(p, 100, 50, 300, 250);
    assert_int_equal(ui_picture_area(p).h, 20);
    assert_int_equal(ui_picture_area(p).w, 40);
    ui_picture_close(p);

    r.view.cx = r.view.cy = 0; /* too far: stays inside, and says where it is */
    p = render(&r);
    assert_crop(p, 0, 0, 200, 200);
    assert_float_equal(ui_picture_view(p).cx, 0.25, 1e-6);
    assert_float_equal(ui_picture_view(p).cy, 1.0 / 3, 1e-6);
    assert_float_equal(ui_picture_view(p).zoom, 2, 0);
    ui_picture_close(p);

    r.view = (ui_view){1, 1, 1e9f};
    p = render(&r);
    assert_crop(p, 387.5f, 287.5f, 400, 300);
    assert_float_equal(ui_picture_view(p).zoom, 32, 0);
    ui_picture_close(p);

    ui_view v = {NAN, -3, NAN};
    ui_view_clamp(&v);
    assert_true(v.cx == 0.5f && v.cy == 0 && v.zoom == 1);
    free(rgb);
}

static void picture_cells_and_pixels_agree(void **state) {
    (void)state;
    uint8_t *rgb = scene(400, 300);
    static const ui_graphics kinds[] = {UI_GRAPHICS_KITTY, UI_GRAPHICS_SYMBOLS, UI_GRAPHICS_SIXEL};
    for (int k = 0; k < 3; k++)
        for (float zoom = 1; zoom < 8; zoom *= 1.7f) {
            ui_picture_request r = request(rgb, 400, 300, (ui_rect){2, 3, 17, 50}, kinds[k]);
            r.view = (ui_view){0.3f, 0.8f, zoom};
            ui_picture *p = render(&r);
            ui_rect a = ui_picture_area(p);
            float crop[4], x, y;
            ui_picture_crop(p, crop);
            assert_false(ui_picture_pixel(p, a.y - 1, a.x, &x, &y));
            assert_false(ui_picture_pixel(p, a.y, a.x - 1, &x, &y));
            assert_false(ui_picture_pixel(p, a.y + a.h, a.x, &x, &y));
            assert_false(ui_picture_pixel(p, a.y, a.x + a.w, &x, &y));
            for (int i = 0; i < a.h; i++)
                for (int j = 0; j < a.w; j++) {
                    assert_true(ui_picture_pixel(p, a.y + i, a.x + j, &x, &y));
                    assert_true(x >= crop[0] && x <= crop[2] && y >= crop[1] && y <= crop[3]);
                    /* Back: the picture is centred in the pane, and padded by less than a
                     * cell, so its cells are off by less than one. */
                    float u = (x - crop[0]) / (crop[2] - crop[0]) * (float)a.w;
                    float v = (y - crop[1]) / (crop[3] - crop[1]) * (float)a.h;
                    assert_true(fabsf(u - (float)j - 0.5f) < 1 && fabsf(v - (float)i - 0.5f) < 1);
                }
            ui_picture_close(p);
        }
    /* Exactly, where the picture fills its cells: 20 cells of 160 pixels. */
    ui_picture_request r = request(rgb, 400, 200, (ui_rect){0, 0, 5, 20}, UI_GRAPHICS_KITTY);
    ui_picture *p = render(&r);
    float x, y;
    assert_true(ui_picture_pixel(p, 2, 7, &x, &y));
    assert_float_equal(x, 150, 1e-4);
    assert_float_equal(y, 100, 1e-4);
    ui_picture_close(p);
    free(rgb);
}

/* --- tests: what terminals get ------------------------------------------------------------------ */

static void compare_exactly(const ui_picture_request *r, const ui_picture *p, const decoded *d) {
    int box[4];
    float crop[4];
    opaque(d, box);
    ui_picture_crop(p, crop);
    int w = box[2] - box[0], h = box[3] - box[1];
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            double want[3];
            mean(r, crop, w, h, x, y, want);
            for (int k = 0; k < 3; k++) {
                int got = d->rgba[((y + box[1]) * d->w + x + box[0]) * 4 + k];
                /* Seen: 0.5, rounding. A crop or scale off by a pixel: 10 and more. */
                if (fabs(got - want[k]) > 0.51)
                    fail_msg("pixel %d,%d channel %d: %d, not %.2f", x, y, k, got, want[k]);
            }
        }
}

static void picture_png_is_the_averaged_picture(void **state) {
    (void)state;
    static const ui_graphics kinds[] = {UI_GRAPHICS_KITTY, UI_GRAPHICS_ITERM2};
    static const int sizes[][2] = {{211, 157}, {40, 30}, {5, 3}, {1, 1}};
    static const ui_view views[] = {{0.5f, 0.5f, 1}, {0.2f, 0.7f, 1.9f}, {1, 0, 5}};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++)
            for (int v = 0; v < 3; v++) {
                int w = sizes[i][0], h = sizes[i][1];
                uint8_t *rgb = scene(w, h);
                ui_picture_request r = request(rgb, w, h, (ui_rect){1, 1, 6, 11}, kinds[k]);
                r.view = views[v];
                ui_picture *p = render(&r);
                decoded d = k ? decode_iterm2(p) : decode_kitty(p);
                compare_exactly(&r, p, &d);
                free(d.rgba);
                ui_picture_close(p);
                free(rgb);
            }
}

static void picture_large_payload_comes_in_chunks(void **state) {
    (void)state;
    uint8_t *rgb = scene(300, 200);
    unsigned seed = 3;
    for (int i = 0; i < 300 * 200 * 3; i++)
        rgb[i] = (uint8_t)next_random(&seed);
    ui_picture_request r = request(rgb, 300, 200, (ui_rect){0, 0, 14, 40}, UI_GRAPHICS_KITTY);
    ui_picture *p = render(&r);
    size_t n;
    ui_picture_bytes(p, false, &n);
    assert_true(n > 3 * 4096);
    decoded d = decode_kitty(p);
    compare_exactly(&r, p, &d);
    free(d.rgba);
    ui_picture_close(p);
    free(rgb);
}

static void picture_huge_pane_is_sent_small_and_stretched(void **state) {
    (void)state;
    uint8_t *rgb = scene(60, 40);
    ui_picture_request r = request(rgb, 60, 40, (ui_rect){0, 0, 100, 300}, UI_GRAPHICS_KITTY);
    r.cell_w = 20, r.cell_h = 40;
    ui_picture *p = render(&r);
    decoded d = decode_kitty(p);
    assert_true(d.w * d.h <= 2 << 20);
    assert_int_equal(ui_picture_area(p).w, 300);
    free(d.rgba);
    ui_picture_close(p);
    free(rgb);
}

static void picture_sixels_keep_to_the_largest_size(void **state) {
    (void)state;
    static const int limits[][2] = {{0, 0}, {300, 0}, {0, 100}, {1, 1}, {5000, 5000}};
    uint8_t *rgb = scene(60, 40);
    for (int i = 0; i < 5; i++)
        for (int cell = 6; cell < 12; cell++) {
            ui_picture_request r =
                request(rgb, 60, 40, (ui_rect){0, 0, 60, 190}, UI_GRAPHICS_SIXEL);
            r.cell_w = cell, r.cell_h = 2 * cell + 1;
            r.sixel_w = limits[i][0], r.sixel_h = limits[i][1];
            ui_picture *p = render(&r);
            decoded d = decode_sixel(p);
            int w = limits[i][0] ? limits[i][0] : 1000, h = limits[i][1] ? limits[i][1] : 1000;
            assert_true(d.w <= (w > cell ? w : cell) && d.h <= (h > 6 ? h : 6));
            ui_rect a = ui_picture_area(p);
            assert_true(a.w * cell == d.w && a.x == (190 - a.w) / 2 && a.y == (60 - a.h) / 2);
            free(d.rgba);
            ui_picture_close(p);
        }
    free(rgb);
}

static void picture_sixels_are_the_picture(void **state) {
    (void)state;
    static const int heights[] = {16, 17, 13, 20};
    for (int i = 0; i < 4; i++) {
        uint8_t *rgb = scene(160, 120);
        ui_picture_request r = request(rgb, 160, 120, (ui_rect){1, 2, 11, 40}, UI_GRAPHICS_SIXEL);
        r.cell_h = heights[i];
        ui_picture *p = render(&r);
        decoded d = decode_sixel(p);
        ui_rect a = ui_picture_area(p);
        int box[4];
        float crop[4];
        assert_int_equal(d.w, a.w * 8);
        assert_int_equal(d.h % 6, 0);
        assert_true(d.h <= a.h * heights[i] && d.h > (a.h - 1) * heights[i]);
        opaque(&d, box);
        ui_picture_crop(p, crop);
        int w = box[2] - box[0], h = box[3] - box[1];
        assert_true(abs(w * 120 - h * 160) <= 160);
        double sum = 0;
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                double want[3];
                mean(&r, crop, w, h, x, y, want);
                for (int k = 0; k < 3; k++) {
                    double e = d.rgba[((y + box[1]) * d.w + x + box[0]) * 4 + k] - want[k];
                    sum += e * e;
                }
            }
        double psnr = 10 * log10(255.0 * 255.0 * w * h * 3 / sum);
        /* Seen: 32.9 to 33.6 dB (256 colours); shifted by one pixel: 30.0. */
        if (psnr < 32)
            fail_msg("cells of %d pixels: %.1f dB", heights[i], psnr);
        free(d.rgba);
        ui_picture_close(p);
        free(rgb);
    }
}

static void picture_symbols_have_the_colours_of_the_picture(void **state) {
    (void)state;
    /* Two pixels a cell, one above the other: half blocks, whose colours are exact. */
    enum {
        W = 30,
        H = 20
    };
    uint8_t rgb[W * H * 3];
    unsigned seed = 5;
    for (int i = 0; i < W * H * 3; i++)
        rgb[i] = (uint8_t)next_random(&seed);
    ui_picture_request r = request(rgb, W, H, (ui_rect){2, 3, H / 2, W}, UI_GRAPHICS_SYMBOLS);
    ui_picture *p = render(&r);
    terminal t = open_terminal(16, 40);
    feed_picture(&t, p);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            VTermScreenCell c = cell_at(&t, 2 + y / 2, 3 + x);
            assert_true(c.chars[0] == 0x2580 || c.chars[0] == 0x2584);
            int got[3];
            colour_at(&c, (c.chars[0] == 0x2584) != (y % 2), got);
            for (int k = 0; k < 3; k++) /* seen: 1; the other half: any */
                assert_in_range(got[k] + 1 - rgb[(y * W + x) * 3 + k], 0, 2);
        }
    vterm_free(t.vt);
    ui_picture_close(p);
}

/* The same in palettes, with the palette's own colours. */
static void picture_palette_colours_are_found(void **state) {
    (void)state;
    enum {
        W = 30,
        H = 20
    };
    static const int level[6] = {0, 95, 135, 175, 215, 255};
    static const uint8_t basic[5][4] = {
        {0, 0, 0, 0}, {255, 0, 0, 9}, {0, 255, 0, 10}, {0, 0, 255, 12}, {255, 255, 255, 15}};
    for (int colours = UI_COLOURS_16; colours <= UI_COLOURS_256; colours++) {
        uint8_t rgb[W * H * 3], want[W * H];
        unsigned seed = 9;
        for (int i = 0; i < W * H; i++) {
            int n = (int)(next_random(&seed) % 216), b = (int)(next_random(&seed) % 5);
            bool cube = colours == UI_COLOURS_256;
            for (int k = 0, step = 36; k < 3; k++, step /= 6)
                rgb[i * 3 + k] = cube ? (uint8_t)level[n / step % 6] : basic[b][k];
            want[i] = cube ? (uint8_t)(16 + n) : basic[b][3];
        }
        ui_picture_request r = request(rgb, W, H, (ui_rect){2, 3, H / 2, W}, UI_GRAPHICS_SYMBOLS);
        r.colours = (ui_colours)colours;
        ui_picture *p = render(&r);
        terminal t = open_terminal(16, 40);
        feed_picture(&t, p);
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                VTermScreenCell c = cell_at(&t, 2 + y / 2, 3 + x);
                bool same = want[y * W + x] == want[(y ^ 1) * W + x];
                assert_true(same || c.chars[0] == 0x2580 || c.chars[0] == 0x2584);
                VTermColor v = (c.chars[0] == 0x2584) != (y % 2) ? c.bg : c.fg;
                if (same)
                    v = c.chars[0] == 0x2588 ? c.fg : c.bg;
                assert_true(VTERM_COLOR_IS_INDEXED(&v));
                assert_int_equal(v.indexed.idx, want[y * W + x]);
            }
        vterm_free(t.vt);
        ui_picture_close(p);
    }
}

/* Of any scene, the colour of a cell lies between the two that it shows. */
static void picture_characters_look_like_the_picture(void **state) {
    (void)state;
    static const ui_graphics kinds[] = {UI_GRAPHICS_SYMBOLS, UI_GRAPHICS_ASCII};
    uint8_t *rgb = scene(160, 160);
    for (int k = 0; k < 2; k++) {
        ui_picture_request r = request(rgb, 160, 160, (ui_rect){0, 0, 20, 40}, kinds[k]);
        ui_picture *p = render(&r);
        terminal t = open_terminal(22, 42);
        feed_picture(&t, p);
        double error = 0;
        float crop[4];
        ui_picture_crop(p, crop);
        for (int y = 0; y < 20; y++)
            for (int x = 0; x < 40; x++) {
                VTermScreenCell c = cell_at(&t, y, x);
                double want[3];
                int fg[3], bg[3];
                mean(&r, crop, 40, 20, x, y, want);
                colour_at(&c, false, fg);
                colour_at(&c, true, bg);
                for (int i = 0; i < 3; i++) {
                    double lo = fmin(fg[i], bg[i]), hi = fmax(fg[i], bg[i]);
                    error += fmax(0, fmax(lo - want[i], want[i] - hi));
                }
            }
        error /= 20 * 40 * 3;
        /* Seen: 0.12 and 0.17. Red and blue swapped: 25. */
        if (error > 1)
            fail_msg("kind %d: off by %.2f", kinds[k], error);
        vterm_free(t.vt);
        ui_picture_close(p);
    }
    free(rgb);
}

static void picture_one_colour_follows_the_background(void **state) {
    (void)state;
    uint8_t rgb[2 * 3] = {0, 0, 0, 255, 255, 255}; /* black left, white right */
    for (int light = 0; light < 2; light++)
        for (int ascii = 0; ascii < 2; ascii++) {
            ui_picture_request r = request(rgb, 2, 1, (ui_rect){0, 0, 4, 16},
                                           ascii ? UI_GRAPHICS_ASCII : UI_GRAPHICS_SYMBOLS);
            r.colours = UI_COLOURS_MONO;
            r.light = light;
            ui_picture *p = render(&r);
            terminal t = open_terminal(6, 20);
            feed_picture(&t, p);
            for (int x = 0; x < 16; x++) {
                VTermScreenCell c = cell_at(&t, 2, x);
                bool ink = c.attrs.reverse || (c.chars[0] && c.chars[0] != ' ');
                assert_int_equal(ink, (x >= 8) != light);
                assert_true(VTERM_COLOR_IS_DEFAULT_FG(&c.fg) && VTERM_COLOR_IS_DEFAULT_BG(&c.bg));
            }
            vterm_free(t.vt);
            ui_picture_close(p);
        }
}

static void picture_ascii_is_ascii(void **state) {
    (void)state;
    uint8_t *rgb = scene(100, 80);
    ui_object o = {.box = {20, 20, 70, 60}, .label = "caf\xc3\xa9 \xe7\x8c\xab"};
    for (int colours = UI_COLOURS_MONO; colours <= UI_COLOURS_TRUE; colours++) {
        ui_picture_request r = request(rgb, 100, 80, (ui_rect){0, 0, 20, 50}, UI_GRAPHICS_ASCII);
        r.colours = (ui_colours)colours;
        r.objects = &o, r.nobjects = 1;
        ui_picture *p = render(&r);
        const char *s = bytes_of(p);
        for (; *s; s++)
            assert_true(*s == 033 || (*s >= ' ' && *s <= '~'));
        assert_non_null(strstr(bytes_of(p), " caf? ? "));
        ui_picture_close(p);
    }
    free(rgb);
}

/* --- tests: objects ------------------------------------------------------------------------------ */

static void picture_boxes_are_pixels_in_graphics(void **state) {
    (void)state;
    uint8_t *rgb = scene(160, 160);
    ui_object o = {.box = {40, 40, 120, 130}, .colour = 4};
    ui_picture_request r = request(rgb, 160, 160, (ui_rect){0, 0, 10, 20}, UI_GRAPHICS_KITTY);
    r.objects = &o, r.nobjects = 1;
    r.view = (ui_view){0.5f, 0.5f, 2}; /* shown 40..120: the box's sides are at the rim */
    ui_picture *p = render(&r);
    decoded d = decode_kitty(p);
    assert_int_equal(d.w, 160);
    for (int y = 0; y < 160; y++) {
        assert_memory_equal(d.rgba + (y * 160 + 0) * 4, ui_object_rgb[4], 3);
        assert_memory_equal(d.rgba + (y * 160 + 159) * 4, ui_object_rgb[4], 3);
    }
    assert_memory_not_equal(d.rgba + (159 * 160 + 80) * 4, ui_object_rgb[4], 3);
    free(d.rgba);
    ui_picture_close(p);
    free(rgb);
}

static void picture_boxes_and_labels_are_characters_in_symbols(void **state) {
    (void)state;
    uint8_t *rgb = scene(160, 160);
    ui_object o[] = {{.box = {40, 48, 120, 128}, .label = "\xe7\x8c\xab cat", .colour = 4},
                     {.box = {-90, -90, 900, 900}, .label = "round it", .colour = 1}};
    for (int colours = UI_COLOURS_MONO; colours <= UI_COLOURS_TRUE; colours++) {
        ui_picture_request r = request(rgb, 160, 160, (ui_rect){1, 2, 10, 20}, UI_GRAPHICS_SYMBOLS);
        r.colours = (ui_colours)colours;
        r.objects = o, r.nobjects = 2;
        ui_picture *p = render(&r);
        terminal t = open_terminal(12, 24);
        feed_picture(&t, p);
        /* Cells of 8 x 16 pixels: columns 5..14 and rows 3..7 of the picture. */
        assert_int_equal(cell_at(&t, 1 + 3, 2 + 5).chars[0], 0x250f);
        assert_int_equal(cell_at(&t, 1 + 3, 2 + 14).chars[0], 0x2513);
        assert_int_equal(cell_at(&t, 1 + 7, 2 + 5).chars[0], 0x2517);
        assert_int_equal(cell_at(&t, 1 + 7, 2 + 14).chars[0], 0x251b);
        assert_int_equal(cell_at(&t, 1 + 5, 2 + 5).chars[0], 0x2503);
        assert_int_equal(cell_at(&t, 1 + 7, 2 + 9).chars[0], 0x2501);
        /* The label in the row above, a wide character in it. */
        static const uint32_t text[] = {' ', 0x732b, 0, ' ', 'c', 'a', 't', ' '};
        for (int i = 0; i < 8; i++) {
            VTermScreenCell c = cell_at(&t, 1 + 2, 2 + 5 + i);
            if (text[i])
                assert_int_equal(c.chars[0], text[i]);
            int bg[3];
            if (colours == UI_COLOURS_TRUE && text[i]) {
                colour_at(&c, true, bg);
                for (int k = 0; k < 3; k++)
                    assert_int_equal(bg[k], ui_object_rgb[4][k]);
            }
            if (colours == UI_COLOURS_MONO && text[i])
                assert_true(c.attrs.reverse);
        }
        assert_int_equal(cell_at(&t, 1, 2 + 1).chars[0], 'r'); /* the other one's, at the top */
        vterm_free(t.vt);
        ui_picture_close(p);
    }
    free(rgb);
}

/* A picture of two colours, and a box whose lines run along their border and across: the lines
 * stand on one of the two, not on something between. Yellow on white gets a darker ground. */
static void picture_boxes_stand_on_colours_of_the_picture(void **state) {
    (void)state;
    uint8_t *rgb = malloc(160 * 160 * 3);
    assert_non_null(rgb);
    for (int y = 0; y < 160; y++)
        for (int x = 0; x < 160; x++) {
            bool red = x >= 43 && x < 122 && y >= 50;
            memcpy(rgb + (y * 160 + x) * 3, red ? "\xdc\x14\x14" : "\xff\xff\xff", 3);
        }
    for (int colour = 0; colour <= 3; colour += 3) {
        ui_object o = {.box = {40, 48, 120, 128}, .label = "", .colour = colour};
        ui_picture_request r = request(rgb, 160, 160, (ui_rect){1, 2, 10, 20}, UI_GRAPHICS_SYMBOLS);
        r.colours = UI_COLOURS_TRUE;
        r.objects = &o, r.nobjects = 1;
        ui_picture *p = render(&r);
        terminal t = open_terminal(12, 24);
        feed_picture(&t, p);
        int red = 0, white = 0;
        for (int y = 3; y <= 7; y++)
            for (int x = 5; x <= 14; x++) {
                if (y > 3 && y < 7 && x > 5 && x < 14)
                    continue;
                VTermScreenCell c = cell_at(&t, 1 + y, 2 + x);
                int bg[3];
                colour_at(&c, true, bg);
                if (colour == 0) {
                    red += abs(bg[0] - 220) < 4 && abs(bg[1] - 20) < 4 && abs(bg[2] - 20) < 4;
                    white += bg[0] > 251 && bg[1] > 251 && bg[2] > 251;
                } else {
                    assert_true(bg[1] < 200);
                }
            }
        if (colour == 0 && (red + white != 26 || red < 10))
            fail_msg("%d red, %d white", red, white);
        vterm_free(t.vt);
        ui_picture_close(p);
    }
    free(rgb);
}

/* --- tests: nothing else is touched ---------------------------------------------------------------- */

static void picture_writes_only_its_cells(void **state) {
    (void)state;
    static const int panes[][4] = {{2, 5, 8, 20}, {0, 0, 11, 40}, {4, 39, 3, 1}, {10, 0, 1, 1}};
    static const int sizes[][2] = {{64, 48}, {1, 2000}, {2000, 1}, {1, 1}};
    ui_object o[] = {{.box = {-10, -10, 5000, 5000},
                      .label = "\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab"},
                     {.box = {0, 0, 30, 30},
                      .label = "\033[31m\x07\n\xc2\x9b"
                               "1m",
                      .colour = 1},
                     {.box = {20, 20, 64, 48}, .label = "\xe7\x8c\xab", .colour = 2}};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++)
            for (int kind = UI_GRAPHICS_ASCII; kind <= UI_GRAPHICS_SYMBOLS; kind++)
                for (int colours = UI_COLOURS_MONO; colours <= UI_COLOURS_TRUE; colours++) {
                    int w = sizes[k][0], h = sizes[k][1];
                    uint8_t *rgb = scene(w, h);
                    ui_rect pane = {panes[i][0], panes[i][1], panes[i][2], panes[i][3]};
                    ui_picture_request r = request(rgb, w, h, pane, (ui_graphics)kind);
                    r.colours = (ui_colours)colours;
                    r.objects = o, r.nobjects = 3;
                    ui_picture *p = render(&r);
                    ui_rect a = ui_picture_area(p);
                    terminal t = open_terminal(12, 40);
                    fill_terminal(&t);
                    feed_picture(&t, p);
                    for (int y = 0; y < 12; y++)
                        for (int x = 0; x < 40; x++) {
                            bool in = y >= a.y && y < a.y + a.h && x >= a.x && x < a.x + a.w;
                            if (!in)
                                assert_int_equal(cell_at(&t, y, x).chars[0], '#');
                        }
                    /* Cursor and attributes are where they were. */
                    VTermPos at;
                    vterm_state_get_cursorpos(vterm_obtain_state(t.vt), &at);
                    assert_int_equal(at.row, 2);
                    assert_int_equal(at.col, 3);
                    feed(&t, "x", 1);
                    VTermScreenCell c = cell_at(&t, 2, 3);
                    assert_true(VTERM_COLOR_IS_DEFAULT_BG(&c.bg) && !c.attrs.bold &&
                                !c.attrs.reverse);
                    vterm_free(t.vt);
                    ui_picture_close(p);
                    free(rgb);
                }
}

static void picture_graphics_leave_the_cells_alone(void **state) {
    (void)state;
    uint8_t *rgb = scene(64, 48);
    /* Not kitty: libvterm 0.1 prints application commands. */
    for (int kind = UI_GRAPHICS_SIXEL; kind <= UI_GRAPHICS_ITERM2; kind++) {
        ui_picture_request r = request(rgb, 64, 48, (ui_rect){1, 1, 9, 30}, (ui_graphics)kind);
        ui_picture *p = render(&r);
        terminal t = open_terminal(12, 40);
        fill_terminal(&t);
        feed_picture(&t, p);
        for (int y = 0; y < 12; y++)
            for (int x = 0; x < 40; x++)
                assert_int_equal(cell_at(&t, y, x).chars[0], '#');
        vterm_free(t.vt);
        ui_picture_close(p);
    }
    free(rgb);
}

static void picture_survives_any_request(void **state) {
    (void)state;
    unsigned seed = 11;
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 0, 1, 3, 77};
    for (int round = 0; round < 600; round++) {
        int w = 1 + (int)(next_random(&seed) % 40), h = 1 + (int)(next_random(&seed) % 40);
        uint8_t *rgb = scene(w, h);
        uint8_t mask[6] = {0, 255, 9, 200, 128, 127};
        ui_object o = {
            .label = "some thing", .colour = round, .mask = mask, .mask_w = 3, .mask_h = 2};
        for (int k = 0; k < 4; k++)
            o.box[k] = odd[next_random(&seed) % 9];
        ui_rect pane = {0, 0, (int)(next_random(&seed) % 7) - 1,
                        (int)(next_random(&seed) % 12) - 1};
        ui_picture_request r = request(rgb, w, h, pane, (ui_graphics)(round % 6));
        r.colours = (ui_colours)(next_random(&seed) % 4);
        r.cell_w = (int)(next_random(&seed) % 20) - 2;
        r.cell_h = (int)(next_random(&seed) % 20) - 2;
        r.objects = &o, r.nobjects = 1;
        r.view = (ui_view){odd[next_random(&seed) % 9], odd[next_random(&seed) % 9],
                           odd[next_random(&seed) % 9]};
        ui_picture *p = render(&r);
        ui_rect a = ui_picture_area(p);
        size_t n;
        ui_picture_bytes(p, true, &n);
        if (pane.h < 1 || pane.w < 1 || r.graphics == UI_GRAPHICS_NONE)
            assert_true(n == 0 && a.h == 0 && a.w == 0);
        else
            assert_true(n > 0 && a.h >= 1 && a.w >= 1 && a.h <= pane.h && a.w <= pane.w);
        ui_picture_close(p);
        free(rgb);
    }
}

static void picture_refuses_what_cannot_be(void **state) {
    (void)state;
    uint8_t rgb[3] = {0};
    char why[200] = "";
    ui_picture_request r = request(rgb, 1, 0, (ui_rect){0, 0, 5, 5}, UI_GRAPHICS_SYMBOLS);
    assert_null(ui_picture_render(&r, why, sizeof why));
    assert_non_null(strstr(why, "1 x 0"));
    r = request(rgb, 1, 1, (ui_rect){0, 0, 4000, 4000}, UI_GRAPHICS_SYMBOLS);
    assert_null(ui_picture_render(&r, why, sizeof why));
    assert_non_null(strstr(why, "too many"));
    ui_picture_close(NULL);
}

/* --- tests: on the screen ----------------------------------------------------------------------------- */

static void picture_show_writes_the_bytes_at_once(void **state) {
    (void)state;
    uint8_t *rgb = scene(20, 20);
    ui_picture_request r = request(rgb, 20, 20, (ui_rect){0, 0, 5, 10}, UI_GRAPHICS_SYMBOLS);
    ui_picture *p = render(&r);
    size_t n;
    const char *bytes = ui_picture_bytes(p, false, &n);
    assert_int_equal(ui_picture_show(p, false), 0);
    assert_int_equal(n, nwritten);
    assert_memory_equal(bytes, written, n);
    assert_null(strstr(written, "?2026"));
    forget_written();

    assert_int_equal(ui_picture_show(p, true), 0);
    expect(written, "\033[?2026h\0337");
    expect(written + nwritten - 10, "\0338\033[?2026l");
    assert_int_equal(nwritten, n + 16);
    forget_written();

    write_result = -1;
    assert_int_equal(ui_picture_show(p, true), -1);
    write_result = 0;
    forget_written();
    ui_picture_close(p);
    free(rgb);

    for (int g = UI_GRAPHICS_NONE; g < UI_GRAPHICS_KITTY; g++)
        ui_picture_hide((ui_graphics)g);
    assert_int_equal(nwritten, 0);
    ui_picture_hide(UI_GRAPHICS_KITTY);
    assert_string_equal(written, "\033_Ga=d,d=I,i=1885432937,q=2\033\\");
    forget_written();
}

/* curses on files: what it wrote since last time goes to the terminal. */
static void feed_curses(terminal *t, FILE *out, long *read_to) {
    doupdate();
    fflush(out);
    char part[4096];
    size_t n;
    fseek(out, *read_to, SEEK_SET);
    while ((n = fread(part, 1, sizeof part, out)) > 0) {
        feed(t, part, n);
        *read_to += (long)n;
    }
    fseek(out, 0, SEEK_END);
}

static void text_pane(int first, bool clear) {
    for (int y = 0; y < 22; y++)
        mvprintw(y, 42, "%-30.30s", "");
    for (int y = 0; y < 22 && !clear; y++)
        mvprintw(y, 42, "line %d of the talk", first + y);
    wnoutrefresh(stdscr);
}

static void picture_stays_while_the_text_beside_it_scrolls(void **state) {
    (void)state;
    FILE *out = tmpfile(), *in = fopen("/dev/null", "r");
    assert_non_null(out);
    assert_non_null(in);
    setenv("LINES", "24", 1);
    setenv("COLUMNS", "80", 1);
    SCREEN *screen = newterm("xterm-256color", out, in);
    assert_non_null(screen);
    set_term(screen);
    assert_int_equal(LINES, 24);
    assert_int_equal(COLS, 80);
    terminal t = open_terminal(24, 80);
    long read_to = 0;

    uint8_t *rgb = scene(160, 120);
    ui_rect pane = {0, 0, 23, 40};
    ui_picture_request r = request(rgb, 160, 120, pane, UI_GRAPHICS_SYMBOLS);
    ui_picture *p = render(&r);
    ui_rect a = ui_picture_area(p);
    ui_picture_placeholders(pane, 0);
    text_pane(0, false);
    feed_curses(&t, out, &read_to);
    for (int y = 0; y < 23; y++) /* invisible, and no two rows the same */
        for (int k = 0; k < y; k++) {
            int differ = 0;
            for (int x = 0; x < 40; x++) {
                uint32_t c = cell_at(&t, y, x).chars[0];
                assert_true(c == 0 || c == ' ' || c == 0xa0);
                differ += (c == 0xa0) != (cell_at(&t, k, x).chars[0] == 0xa0);
            }
            assert_true(differ > 0);
        }
    feed_picture(&t, p);

    static VTermScreenCell shown[24][40];
    for (int y = 0; y < a.h; y++)
        for (int x = 0; x < a.w; x++)
            shown[y][x] = cell_at(&t, a.y + y, a.x + x);
    assert_true(shown[3][3].chars[0] != 0xa0);
    for (int step = 1; step < 40; step++) {
        text_pane(step < 30 ? step : step * 7, step % 13 == 12);
        feed_curses(&t, out, &read_to);
        for (int y = 0; y < a.h; y++)
            for (int x = 0; x < a.w; x++) {
                VTermScreenCell c = cell_at(&t, a.y + y, a.x + x);
                assert_int_equal(c.chars[0], shown[y][x].chars[0]);
                assert_memory_equal(&c.bg, &shown[y][x].bg, sizeof c.bg);
            }
    }
    /* Another generation: curses writes every placeholder anew and the picture is gone. */
    for (unsigned g = 1; g < 7; g++) {
        ui_picture_placeholders(pane, g);
        wnoutrefresh(stdscr);
        feed_curses(&t, out, &read_to);
        for (int y = 0; y < 23; y++)
            for (int x = 0; x < 40; x++) {
                uint32_t c = cell_at(&t, y, x).chars[0];
                assert_true(c == 0 || c == ' ' || c == 0xa0);
            }
        feed_picture(&t, p);
    }
    ui_picture_close(p);
    free(rgb);
    vterm_free(t.vt);
    endwin();
    delscreen(screen);
    fclose(out);
    fclose(in);
}

int main(void) {
    setlocale(LC_ALL, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(picture_keeps_the_aspect),
        cmocka_unit_test(picture_symbols_keep_the_aspect_to_half_a_cell),
        cmocka_unit_test(picture_zooms_and_pans),
        cmocka_unit_test(picture_cells_and_pixels_agree),
        cmocka_unit_test(picture_png_is_the_averaged_picture),
        cmocka_unit_test(picture_large_payload_comes_in_chunks),
        cmocka_unit_test(picture_huge_pane_is_sent_small_and_stretched),
        cmocka_unit_test(picture_sixels_are_the_picture),
        cmocka_unit_test(picture_sixels_keep_to_the_largest_size),
        cmocka_unit_test(picture_symbols_have_the_colours_of_the_picture),
        cmocka_unit_test(picture_palette_colours_are_found),
        cmocka_unit_test(picture_characters_look_like_the_picture),
        cmocka_unit_test(picture_one_colour_follows_the_background),
        cmocka_unit_test(picture_ascii_is_ascii),
        cmocka_unit_test(picture_boxes_are_pixels_in_graphics),
        cmocka_unit_test(picture_boxes_and_labels_are_characters_in_symbols),
        cmocka_unit_test(picture_boxes_stand_on_colours_of_the_picture),
        cmocka_unit_test(picture_writes_only_its_cells),
        cmocka_unit_test(picture_graphics_leave_the_cells_alone),
        cmocka_unit_test(picture_survives_any_request),
        cmocka_unit_test(picture_refuses_what_cannot_be),
        cmocka_unit_test(picture_show_writes_the_bytes_at_once),
        cmocka_unit_test(picture_stays_while_the_text_beside_it_scrolls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
