/* chat_screen.c - drawing the chat: panes, legend, status line, popups.
 *
 * A frame is: panes into curses' screen, doupdate, then the picture over its placeholders if
 * they were rewritten. Renderings are asked of the painter here, once a frame at most, when
 * something they depend on changed.                                                         */
#include "app/chat_state.h"
#include "ui/text.h"
#include "ui/theme.h"

#include <ncurses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ncurses names that ours would shadow are not used here. Lines are drawn by the WACS names:
 * for the others curses switches character sets back and forth, 36 bytes a row. */

static void look(ui_look l) {
    unsigned long attr;
    short pair;
    ui_theme_get(l, &attr, &pair);
    attr_set((attr_t)attr, pair, NULL);
}

/* Puts as much of clean text s as fits into w columns at (y, x); returns the columns used. */
static int put(int y, int x, int w, const char *s) {
    size_t n = strlen(s), at = 0;
    int used = 0;
    while (at < n) {
        int width;
        size_t bytes = ui_text_cluster(s + at, n - at, &width);
        if (used + width > w)
            break;
        mvaddnstr(y, x + used, s + at, (int)bytes);
        used += width;
        at += bytes;
    }
    return used;
}

static void fill(ui_rect r) {
    for (int y = 0; y < r.h; y++)
        mvhline(r.y + y, r.x, ' ', r.w);
}

/* What is shown no longer fits; nor does a rendering under way, which was made for another
 * place on the screen and would be drawn over its neighbours. */
void chat_forget_picture(chat *c) {
    ui_picture_close(c->picture);
    c->picture = NULL;
    c->serial = 0;
    c->stale = true;
}

/* --- layout ---------------------------------------------------------------------------- */

void chat_layout(chat *c) {
    c->want.rows = c->caps.rows;
    c->want.cols = c->caps.cols;
    ui_layout before = c->layout;
    /* How wide the input is does not depend on how high it is. */
    c->want.input_rows = 1;
    ui_layout_compute(&c->want, &c->layout);
    if (!c->layout.too_small) {
        c->want.input_rows = ui_input_rows(c->layout.input.w);
        ui_layout_compute(&c->want, &c->layout);
    }
    if (memcmp(&before.picture, &c->layout.picture, sizeof before.picture) ||
        before.too_small != c->layout.too_small) {
        chat_forget_picture(c);
        c->generation++;
    }
    c->dirty = true;
}

/* --- picture ------------------------------------------------------------------------------ */

enum {
    LEGEND_MOST = 5
};

/* Rows of the pane's foot given to the legend. */
static int legend_rows(const chat *c) {
    int n = c->overlay ? (int)c->marks.n : 0;
    if (n > LEGEND_MOST)
        n = LEGEND_MOST;
    int most = c->layout.picture.h / 4;
    return n < most ? n : most;
}

static void request_rendering(chat *c) {
    c->stale = false;
    if (!c->image || !c->want.picture || c->layout.too_small || c->graphics == UI_GRAPHICS_NONE)
        return;
    const app_marks none = {0}, *marks = c->overlay ? &c->marks : &none;
    size_t n = marks->n + (c->dragging ? 1 : 0), i = marks->n;
    ui_object *objects = app_marks_draw(marks, &c->image->image, n - marks->n);
    if (!objects)
        return;
    if (c->dragging) {
        for (int k = 0; k < 2; k++) {
            objects[i].box[k] = c->drag[k] < c->drag[k + 2] ? c->drag[k] : c->drag[k + 2];
            objects[i].box[k + 2] = c->drag[k] < c->drag[k + 2] ? c->drag[k + 2] : c->drag[k];
        }
        objects[i].label = "";
        objects[i].colour = UI_OBJECT_COLOURS - 1;
    }
    ui_rect pane = c->layout.picture;
    pane.h -= legend_rows(c);
    ui_picture_request r = {
        .view = c->view,
        .objects = objects,
        .nobjects = (int)n,
        .pane = pane,
        .cell_w = c->caps.cell_w,
        .cell_h = c->caps.cell_h,
        .graphics = c->graphics,
        .colours = c->caps.colours,
        .light = !c->caps.dark,
    };
    c->serial = painter_render(c->painter, c->image, &r);
    free(objects);
}

static void draw_legend(const chat *c) {
    int rows = legend_rows(c);
    ui_rect p = c->layout.picture;
    for (int i = 0; i < rows; i++) {
        int y = p.y + p.h - rows + i;
        look(UI_LOOK_TEXT);
        mvhline(y, p.x, ' ', p.w);
        bool more = i == rows - 1 && (size_t)rows < c->marks.n;
        char line[PALI_LABEL_MAX * 3 + 64];
        if (more) {
            snprintf(line, sizeof line, "  and %zu more", c->marks.n - (size_t)i);
            look(UI_LOOK_DIM);
            put(y, p.x + 1, p.w - 1, line);
            continue;
        }
        unsigned long attr;
        short pair;
        ui_theme_object(i, &attr, &pair);
        attr_set((attr_t)attr, pair, NULL);
        put(y, p.x + 1, p.w - 1, MB_CUR_MAX > 1 ? "\u25a0" : "#");
        look(UI_LOOK_TEXT);
        ui_text_clean(UI_TEXT_LINE,
                      *c->marks.objects[i].label ? c->marks.objects[i].label : "(no name)", line,
                      sizeof line);
        put(y, p.x + 3, p.w - 3, line);
    }
}

static void draw_picture(chat *c) {
    if (!c->want.picture)
        return;
    ui_rect pane = c->layout.picture;
    pane.h -= legend_rows(c);
    if (c->picture) {
        ui_picture_placeholders(pane, c->generation);
    } else {
        look(UI_LOOK_DIM);
        fill(pane);
        const char *s = c->image                       ? "drawing ..."
                        : c->image_path || c->o->image ? "opening ..."
                                                       : "no picture";
        int n = (int)strlen(s);
        put(pane.y + pane.h / 2, pane.x + (pane.w > n ? (pane.w - n) / 2 : 0), pane.w, s);
    }
    draw_legend(c);
    look(c->focus ? UI_LOOK_PROMPT : UI_LOOK_DIVIDER);
    ui_rect d = c->layout.divider;
    if (c->layout.stacked)
        mvhline_set(d.y, d.x, WACS_HLINE, d.w);
    else
        mvvline_set(d.y, d.x, WACS_VLINE, d.h);
}

/* --- status line ------------------------------------------------------------------------------ */

static const char *stage_name(pali_stage s) {
    switch (s) {
    case PALI_STAGE_LOAD:
        return "loading the model";
    case PALI_STAGE_ENCODE:
        return "looking at the picture";
    case PALI_STAGE_PREFILL:
        return "reading the question";
    case PALI_STAGE_DECODE:
        return "answering";
    }
    return "";
}

/* What is going on, or "". */
static void activity(const chat *c, char *out, size_t size) {
    long now = chat_now();
    *out = 0;
    if (c->busy && c->first_ms) {
        double s = 1e-3 * (double)(now - c->first_ms);
        snprintf(out, size, "answering: %d tokens, %.1f tok/s%s", c->ntokens,
                 s > 0.2 ? c->ntokens / s : 0.0, c->nwaiting ? "" : " (Esc stops)");
    } else if (c->working && c->total > 0) {
        char bar[11] = "----------";
        for (int i = 0; i < 10 && i * c->total < 10 * c->done; i++)
            bar[i] = '#';
        snprintf(out, size, "%s [%s] %.1f s", stage_name(c->stage), bar,
                 1e-3 * (double)(now - c->stage_ms));
    } else if (!c->loaded && !c->load_failed) {
        snprintf(out, size, "opening the model ...");
    }
    if (c->nwaiting && *out) {
        size_t n = strlen(out);
        snprintf(out + n, size - n, ", %zu waiting", c->nwaiting);
    }
}

static void draw_status(const chat *c) {
    ui_rect r = c->layout.status;
    char left[600], right[200] = "";
    look(UI_LOOK_STATUS);
    mvhline(r.y, r.x, ' ', r.w);
    activity(c, left, sizeof left);
    /* While something runs, a remark gives way to it soon. */
    bool notice =
        c->notice_until && (!*left || c->notice_error || chat_now() < c->notice_ms + 1500);
    if (notice) {
        if (c->notice_error)
            look(UI_LOOK_STATUS_KEY);
        snprintf(left, sizeof left, "%s", c->notice);
    } else if (c->focus) {
        snprintf(left, sizeof left, "picture: arrows + - 0, c crop, < > size, Enter back");
    } else if (ui_transcript_below(c->log)) {
        snprintf(left, sizeof left, "%zu lines below (PgDn, Ctrl-End)",
                 ui_transcript_below(c->log));
    } else if (!*left && c->loaded) {
        char name[128];
        const char *slash = c->model_dir ? strrchr(c->model_dir, '/') : NULL;
        ui_text_clean(UI_TEXT_LINE, slash && slash[1] ? slash + 1 : c->model_dir, name,
                      sizeof name);
        snprintf(left, sizeof left, "%s  %s %s", name, c->info.backend, c->info.dtype);
        if (c->image) {
            size_t n = strlen(left);
            char more[32] = "";
            if (c->nfurther)
                snprintf(more, sizeof more, " +%zu", c->nfurther);
            snprintf(left + n, sizeof left - n, "  %dx%d%s -> %d tokens%s",
                     pali_image_full_width(&c->image->image),
                     pali_image_full_height(&c->image->image), more,
                     c->info.image_tokens * (1 + (int)c->nfurther),
                     c->image != c->full ? " (crop)" : "");
        }
    }
    int n = 0;
    if (c->used)
        n = snprintf(right, sizeof right, "%d/%d", c->used, c->info.context);
    if (c->tok_s > 0 && c->used)
        snprintf(right + n, sizeof right - (size_t)n, "  %.1f tok/s  first %.2f s", c->tok_s,
                 c->ttft_s);
    int w = put(r.y, r.x + 1, r.w - 2, left);
    look(UI_LOOK_STATUS);
    int rw = (int)strlen(right);
    if (rw && w + rw + 3 < r.w)
        put(r.y, r.x + r.w - rw - 1, rw, right);
}

/* --- popups -------------------------------------------------------------------------------------- */

typedef struct {
    ui_rect r;
    int row;
} card;

static card open_card(const chat *c, int h, int w, const char *title) {
    ui_rect r = {0, 0, h + 2, w + 4};
    if (r.h > c->caps.rows - 1)
        r.h = c->caps.rows - 1;
    if (r.w > c->caps.cols)
        r.w = c->caps.cols;
    r.y = (c->caps.rows - 1 - r.h) / 2;
    r.x = (c->caps.cols - r.w) / 2;
    look(UI_LOOK_POPUP);
    fill(r);
    mvhline_set(r.y, r.x, WACS_HLINE, r.w);
    mvhline_set(r.y + r.h - 1, r.x, WACS_HLINE, r.w);
    mvvline_set(r.y, r.x, WACS_VLINE, r.h);
    mvvline_set(r.y, r.x + r.w - 1, WACS_VLINE, r.h);
    mvadd_wch(r.y, r.x, WACS_ULCORNER);
    mvadd_wch(r.y, r.x + r.w - 1, WACS_URCORNER);
    mvadd_wch(r.y + r.h - 1, r.x, WACS_LLCORNER);
    mvadd_wch(r.y + r.h - 1, r.x + r.w - 1, WACS_LRCORNER);
    put(r.y, r.x + 2, r.w - 4, title);
    return (card){r, 1};
}

static void card_line(card *k, int key_columns, const char *key, const char *text) {
    if (k->row >= k->r.h - 1)
        return;
    int x = k->r.x + 2, w = k->r.w - 4;
    look(UI_LOOK_PROMPT);
    put(k->r.y + k->row, x, w < key_columns ? w : key_columns, key);
    look(UI_LOOK_POPUP);
    if (w > key_columns)
        put(k->r.y + k->row, x + key_columns, w - key_columns, text);
    k->row++;
}

/* Of a function key its action, of others their names. */
static const struct {
    const char *name;
    app_key action;
    const char *text;
} keys[] = {
    {"Enter", 0, "ask; while an answer runs: queue"},
    {"Esc, Ctrl-C", 0, "stop the answer, keep what is there"},
    {"PgUp PgDn wheel", 0, "scroll the conversation"},
    {NULL, APP_KEY_PICTURE, "picture on or off"},
    {NULL, APP_KEY_BOXES, "boxes on or off"},
    {NULL, APP_KEY_TOKENS, "location tokens raw or readable"},
    {NULL, APP_KEY_COPY, "copy the last answer"},
    {NULL, APP_KEY_ZOOM, "move and zoom the picture"},
    {"drag on picture", 0, "ask about that part"},
    {"Tab", 0, "complete commands, prompts, paths"},
    {"Ctrl-D", 0, "leave"},
};
enum {
    KEYS = sizeof keys / sizeof *keys,
    KEY_COLUMNS = 28
};

static void help_line(void *user, const char *name, const char *args, const char *help) {
    char key[64];
    snprintf(key, sizeof key, "/%s %s", name, args);
    card_line(user, KEY_COLUMNS, key, help);
}

static void count_line(void *user, const char *name, const char *args, const char *help) {
    (void)name, (void)args, (void)help;
    ++*(int *)user;
}

static void draw_help(const chat *c) {
    int n = 0;
    command_each(count_line, &n);
    card k = open_card(c, n + (int)KEYS, 76, " keys and commands ");
    for (size_t i = 0; i < KEYS; i++) {
        char name[8];
        snprintf(name, sizeof name, "F%d", c->o->keys.f[keys[i].action]);
        card_line(&k, KEY_COLUMNS, keys[i].name ? keys[i].name : name, keys[i].text);
    }
    command_each(help_line, &k);
}

static void draw_info(const chat *c) {
    char line[300], clean[300];
    card k = open_card(c, 9, 70, " about this chat ");
    ui_text_clean(UI_TEXT_LINE, c->model_dir ? c->model_dir : "none", clean, sizeof clean);
    card_line(&k, 12, "model", clean);
    if (c->loaded) {
        snprintf(line, sizeof line, "PaliGemma%s, %.1f M weights, %s, %.1f MB",
                 c->info.generation == 2 ? " 2" : "", 1e-6 * (double)c->info.params, c->info.dtype,
                 1e-6 * (double)c->info.weight_bytes);
        card_line(&k, 12, "", line);
        snprintf(line, sizeof line, "%s, context of %d tokens", c->info.backend, c->info.context);
        card_line(&k, 12, "runs on", line);
    }
    if (c->image_path) {
        ui_text_clean(UI_TEXT_LINE, c->image_path, clean, sizeof clean);
        card_line(&k, 12, "picture", clean);
    }
    if (c->image && c->loaded) {
        snprintf(line, sizeof line, "%dx%d%s, seen as %dx%d, %d tokens",
                 pali_image_full_width(&c->image->image), pali_image_full_height(&c->image->image),
                 c->image != c->full ? " (a part)" : "", c->info.image_size, c->info.image_size,
                 c->info.image_tokens);
        card_line(&k, 12, "", line);
    }
    snprintf(line, sizeof line, "%s, %s, %d x %d cells of %d x %d pixels", c->caps.name,
             ui_graphics_name(c->graphics), c->caps.cols, c->caps.rows, c->caps.cell_w,
             c->caps.cell_h);
    card_line(&k, 12, "terminal", line);
    card_line(&k, 12, "chat", c->file ? chatfile_id(c->file) : "not kept");
    snprintf(line, sizeof line, "temperature %g, top-k %d, top-p %g, seed %llu, %d tokens",
             (double)c->ask.sampling.temperature, c->ask.sampling.top_k,
             (double)c->ask.sampling.top_p, (unsigned long long)c->ask.sampling.seed,
             c->ask.max_tokens);
    card_line(&k, 12, "sampling", line);
}

/* Completions, in columns above the input line. */
static void draw_matches(const chat *c) {
    const char *const *m = ui_input_matches();
    if (!m)
        return;
    int n = 0, widest = 4;
    for (; m[n]; n++) {
        int w = (int)ui_text_width(m[n], strlen(m[n])) + 2;
        widest = w > widest ? w : widest;
    }
    ui_rect in = c->layout.input;
    int columns = in.w / widest > 0 ? in.w / widest : 1;
    int rows = (n + columns - 1) / columns, most = c->layout.transcript.h / 2;
    if (rows > most)
        rows = most > 0 ? most : 1;
    int top = in.y - rows;
    for (int y = 0; y < rows && top + y >= 0; y++) {
        look(UI_LOOK_SELECTED);
        mvhline(top + y, in.x, ' ', in.w);
        for (int x = 0; x < columns && y * columns + x < n; x++) {
            char clean[256];
            ui_text_clean(UI_TEXT_LINE, m[y * columns + x], clean, sizeof clean);
            put(top + y, in.x + x * widest, widest - 1, clean);
        }
    }
}

/* --- the frame ---------------------------------------------------------------------------------------- */

void chat_draw(chat *c) {
    c->dirty = false;
    int rows = c->layout.too_small ? 1 : ui_input_rows(c->layout.input.w);
    if (!c->layout.too_small && rows != c->want.input_rows) {
        chat_layout(c);
        c->dirty = false;
    }
    if (c->layout.too_small) {
        look(UI_LOOK_TEXT);
        erase();
        char line[80];
        snprintf(line, sizeof line, "pali needs %dx%d", UI_LAYOUT_MIN_COLS, UI_LAYOUT_MIN_ROWS);
        put(c->caps.rows / 2, 0, c->caps.cols, line);
        refresh();
        return;
    }
    if (c->stale)
        request_rendering(c);
    ui_transcript_draw(c->log, c->layout.transcript);
    draw_picture(c);
    draw_status(c);
    draw_matches(c);
    ui_input_draw(c->layout.input);
    if (c->popup) {
        int y, x;
        getyx(stdscr, y, x);
        if (c->graphics == UI_GRAPHICS_KITTY)
            ui_picture_hide(c->graphics);
        if (c->popup == POPUP_HELP)
            draw_help(c);
        else
            draw_info(c);
        move(y, x);
    }
    curs_set(c->popup || c->focus ? 0 : 1);
    wnoutrefresh(stdscr);
    doupdate();
    if (c->emit && !c->popup) {
        c->emit = false;
        if (c->picture && c->want.picture)
            ui_picture_show(c->picture, c->caps.sync);
    }
}
