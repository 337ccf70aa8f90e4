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

/* In the middle of r, broken into lines that fit; what is too much is left out. */
static void put_middle(ui_rect r, const char *s) {
    enum {
        MOST = 16
    };
    size_t from[MOST], used[MOST], n = strlen(s), at = 0, next;
    int lines = 0;
    while (at < n && lines < MOST && lines < r.h) {
        from[lines] = at;
        used[lines] = ui_text_wrap(s + at, n - at, r.w, &next);
        at += next;
        lines++;
    }
    for (int i = 0; i < lines; i++) {
        char line[80];
        snprintf(line, sizeof line, "%.*s", (int)used[i], s + from[i]);
        int w = (int)ui_text_width(line, strlen(line));
        put(r.y + (r.h - lines) / 2 + i, r.x + (r.w > w ? (r.w - w) / 2 : 0), r.w, line);
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
        put_middle(pane, c->opening ? "opening ..."
                         : c->image ? "drawing ..."
                                    : "no picture yet\n \n/image PATH opens one,\n"
                                      "or drop a file here, or paste its path;\n"
                                      "/paste takes the clipboard's");
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

/* Of the last turn, as much as fits into room columns; returns how many are used. */
static int measures(const chat *c, int room, char *out, size_t size) {
    static const struct {
        bool label, speed;
    } ways[] = {{true, true}, {false, true}, {true, false}, {false, false}};
    for (size_t i = 0; c->used && i < sizeof ways / sizeof *ways; i++) {
        int n = snprintf(out, size, "%s%d/%d", ways[i].label ? "context " : "", c->used,
                         c->info.context);
        if (ways[i].speed && c->tok_s > 0)
            n += snprintf(out + n, size - (size_t)n, "  %.1f tok/s  first %.2f s", c->tok_s,
                          c->ttft_s);
        if (n <= room)
            return n;
    }
    return 0;
}

/* The last part of a path, cleaned; "" for NULL. */
static const char *brief(const char *path, char *out, size_t size) {
    const char *slash = path ? strrchr(path, '/') : NULL;
    return ui_text_clean(UI_TEXT_LINE, slash && slash[1] ? slash + 1 : path ? path : "", out, size);
}

/* At rest: what answers, and what about. */
static void describe(const chat *c, char *out, size_t size) {
    char name[128], more[32] = "";
    int n = snprintf(out, size, "%s  %s %s", brief(c->model_dir, name, sizeof name),
                     c->info.backend, c->info.dtype);
    if (!c->image)
        return;
    if (c->nfurther)
        snprintf(more, sizeof more, " +%zu", c->nfurther);
    snprintf(out + n, size - (size_t)n, "  %dx%d%s -> %d tokens%s",
             pali_image_full_width(&c->image->image), pali_image_full_height(&c->image->image),
             more, c->info.image_tokens * (1 + (int)c->nfurther),
             c->image != c->full ? " (crop)" : "");
}

static void draw_status(const chat *c) {
    ui_rect r = c->layout.status;
    char left[600], right[200] = "", name[256] = "";
    look(UI_LOOK_STATUS);
    mvhline(r.y, r.x, ' ', r.w);
    activity(c, left, sizeof left);
    /* While something runs, a remark gives way to it soon. */
    bool notice = c->notice_until &&
                  (!*left || c->notice_error || c->notice_new || chat_now() < c->notice_ms + 1500);
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
        describe(c, left, sizeof left);
        brief(c->image ? c->image_path : NULL, name, sizeof name);
    }
    int w = put(r.y, r.x + 1, r.w - 2, left);
    look(UI_LOOK_STATUS);
    int rw = measures(c, r.w - w - 4, right, sizeof right);
    if (rw)
        put(r.y, r.x + r.w - rw - 1, rw, right);
    /* The picture's name where there is room for it, or for most of it. */
    int room = r.w - w - 4 - (rw ? rw + 2 : 0);
    if (room >= 12 || room >= (int)ui_text_width(name, strlen(name)))
        put(r.y, r.x + w + 3, room, name);
}

/* --- popups -------------------------------------------------------------------------------------- */

/* A card's lines go by twice: once to be counted, once to be drawn. */
typedef struct {
    ui_rect r;
    int keys; /* columns of the names at the left */
    int line; /* lines so far */
    int top;  /* of them scrolled away */
    bool draw;
} card;

static void card_text(const card *k, ui_look l, int x, const char *s, size_t n) {
    int y = k->line - k->top + 1;
    char line[320];
    if (!k->draw || y < 1 || y > k->r.h - 2)
        return;
    snprintf(line, sizeof line, "%.*s", (int)n, s);
    look(l);
    put(k->r.y + y, k->r.x + 2 + x, k->r.w - 4 - x, line);
}

/* A name and what it means: beside it, or below when the name is too long. */
static void card_line(card *k, const char *name, const char *text) {
    size_t n = strlen(text), at = 0, next;
    int room = k->r.w - 4 - k->keys;
    card_text(k, UI_LOOK_PROMPT, 0, name, strlen(name));
    if (!n || (int)ui_text_width(name, strlen(name)) >= k->keys)
        k->line++;
    for (; at < n; at += next, k->line++) {
        size_t used = ui_text_wrap(text + at, n - at, room > 1 ? room : 1, &next);
        card_text(k, UI_LOOK_POPUP, k->keys, text + at, used);
    }
}

static void draw_border(ui_rect r) {
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
}

/* Says below which lines are seen, and the keys that move them. */
static void draw_card(chat *c, const char *title, int columns, int keys,
                      void (*content)(const chat *c, card *k)) {
    card k = {.r = {0, 0, 0, columns + 4}};
    if (k.r.w > c->caps.cols)
        k.r.w = c->caps.cols;
    /* Where there is little room, texts go below long names and are broken. */
    k.keys = k.r.w < columns + 4 && keys > 12 ? 12 : keys;
    content(c, &k);
    int all = k.line, most = c->caps.rows - 3;
    int rows = all < most ? all : most;
    k.r.h = rows + 2;
    k.r.y = (c->caps.rows - 1 - k.r.h) / 2;
    k.r.x = (c->caps.cols - k.r.w) / 2;
    c->popup_rows = rows;
    c->popup_most = all - rows;
    if (c->popup_top > c->popup_most)
        c->popup_top = c->popup_most;
    draw_border(k.r);
    put(k.r.y, k.r.x + 2, k.r.w - 4, title);
    char foot[80] = " any key closes ";
    if (c->popup_most)
        snprintf(foot, sizeof foot, " Up Down PgUp PgDn: %d-%d of %d%s ", c->popup_top + 1,
                 c->popup_top + rows, all, k.r.w >= 60 ? "; other keys close" : "");
    put(k.r.y + k.r.h - 1, k.r.x + 2, k.r.w - 4, foot);
    k.line = 0;
    k.top = c->popup_top;
    k.draw = true;
    content(c, &k);
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
static void help_line(void *user, const char *name, const char *args, const char *help) {
    char key[64];
    snprintf(key, sizeof key, "/%s%s%s", name, *args ? " " : "", args);
    card_line(user, key, help);
}

static void help_card(const chat *c, card *k) {
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char name[8];
        snprintf(name, sizeof name, "F%d", c->o->keys.f[keys[i].action]);
        card_line(k, keys[i].name ? keys[i].name : name, keys[i].text);
    }
    command_each(help_line, k);
}

static void info_card(const chat *c, card *k) {
    char line[300], clean[300];
    ui_text_clean(UI_TEXT_LINE, c->model_dir ? c->model_dir : "none", clean, sizeof clean);
    card_line(k, "model", clean);
    if (c->loaded) {
        snprintf(line, sizeof line, "PaliGemma%s, %.1f M weights, %s, %.1f MB",
                 c->info.generation == 2 ? " 2" : "", 1e-6 * (double)c->info.params, c->info.dtype,
                 1e-6 * (double)c->info.weight_bytes);
        card_line(k, "", line);
        snprintf(line, sizeof line, "%s, context of %d tokens", c->info.backend, c->info.context);
        card_line(k, "runs on", line);
    }
    if (c->image_path) {
        ui_text_clean(UI_TEXT_LINE, c->image_path, clean, sizeof clean);
        card_line(k, "picture", clean);
    }
    if (c->image && c->loaded) {
        snprintf(line, sizeof line, "%dx%d%s, seen as %dx%d, %d tokens",
                 pali_image_full_width(&c->image->image), pali_image_full_height(&c->image->image),
                 c->image != c->full ? " (a part)" : "", c->info.image_size, c->info.image_size,
                 c->info.image_tokens);
        card_line(k, "", line);
    }
    static const char *const colours[] = {"no colour", "16 colours", "256 colours", "true colours"};
    snprintf(line, sizeof line, "%s, %s, %s, %d x %d cells of %d x %d pixels", c->caps.name,
             colours[c->caps.colours], ui_graphics_name(c->graphics), c->caps.cols, c->caps.rows,
             c->caps.cell_w, c->caps.cell_h);
    card_line(k, "terminal", line);
    card_line(k, "chat", c->file ? chatfile_id(c->file) : "not kept");
    snprintf(line, sizeof line, "temperature %g, top-k %d, top-p %g, seed %llu, %d tokens",
             (double)c->ask.sampling.temperature, c->ask.sampling.top_k,
             (double)c->ask.sampling.top_p, (unsigned long long)c->ask.sampling.seed,
             c->ask.max_tokens);
    card_line(k, "sampling", line);
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
            draw_card(c, " keys and commands ", 76, 28, help_card);
        else
            draw_card(c, " about this chat ", 70, 12, info_card);
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
