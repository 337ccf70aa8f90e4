/* input.c - readline kept away from the terminal; see input.h.
 *
 * What readline would do to the terminal is taken from it one by one: its streams are
 * /dev/null, its redisplay and getc are ours, it handles no signal, no resize, no terminal
 * mode, no LINES or COLUMNS. It is fed whole units only: with a part of a sequence it would
 * wait for the rest inside read_char. Painting reads rl_line_buffer and rl_point when a frame
 * is drawn, so a thousand keys cost one painting.                                           */
#include "ui/input.h"

#include "ui/text.h"
#include "ui/theme.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <ncurses.h>
#include <stdio.h>
#include <readline/history.h>
#include <readline/readline.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char PROMPT[] = "> ";

static struct {
    ui_input_options o;
    char *history_file;
    const char *queue; /* bytes of the unit being fed */
    size_t queued;
    char **matches; /* completions on show */
    bool open;
} in;

/* --- what readline calls ------------------------------------------------------------- */

static int queue_getc(FILE *stream) {
    (void)stream;
    if (!in.queued)
        return EOF;
    in.queued--;
    return (unsigned char)*in.queue++;
}

static int queue_nonempty(void) {
    return in.queued > 0;
}

static void redisplay(void) {
}

static void forget_matches(void) {
    if (!in.matches)
        return;
    for (char **m = in.matches; *m; m++)
        free(*m);
    free(in.matches);
    in.matches = NULL;
}

/* matches[0] is the common prefix, 1..count the candidates. */
static void show_matches(char **matches, int count, int longest) {
    (void)longest;
    forget_matches();
    in.matches = calloc((size_t)count + 1, sizeof *in.matches);
    for (int i = 0; in.matches && i < count; i++) {
        in.matches[i] = strdup(matches[i + 1]);
        if (!in.matches[i])
            break;
    }
}

static char **complete(const char *word, int start, int end) {
    rl_attempted_completion_over = 1;
    bool is_path = false;
    char **found =
        in.o.complete ? in.o.complete(in.o.user, rl_line_buffer, start, end, &is_path) : NULL;
    if (is_path) {
        rl_filename_completion_desired = 1;
        return rl_completion_matches(word, rl_filename_completion_function);
    }
    if (!found || !found[0]) {
        free(found);
        return NULL;
    }
    /* readline wants the longest common prefix in front. */
    size_t n = 0, common = strlen(found[0]);
    for (; found[n]; n++) {
        size_t same = 0;
        while (same < common && found[n][same] == found[0][same])
            same++;
        common = same;
    }
    char **all = malloc((n + 2) * sizeof *all);
    if (all)
        all[0] = strndup(found[0], common);
    if (!all || !all[0]) {
        for (size_t i = 0; i < n; i++)
            free(found[i]);
        free(found);
        free(all);
        return NULL;
    }
    memcpy(all + 1, found, (n + 1) * sizeof *found);
    free(found);
    if (n == 1) { /* a single one replaces the word */
        free(all[0]);
        all[0] = all[1];
        all[1] = NULL;
    }
    return all;
}

static void on_line(char *line) {
    forget_matches();
    if (line && *line) {
        HIST_ENTRY *last = history_length ? history_get(history_base + history_length - 1) : NULL;
        if (!last || strcmp(last->line, line)) {
            add_history(line);
            if (in.history_file) /* now: the program may be killed, and others may run too */
                append_history(1, in.history_file);
        }
    }
    in.o.on_line(in.o.user, line);
}

static int insert_newline(int count, int key) {
    (void)key;
    while (count-- > 0)
        rl_insert_text("\n");
    return 0;
}

/* --- open, close ------------------------------------------------------------------------ */

static void bind_if_free(const char *seq, rl_command_func_t *f) {
    int type;
    rl_command_func_t *bound = rl_function_of_keyseq(seq, NULL, &type);
    if (!bound)
        rl_bind_keyseq(seq, f);
}

static int history_max(void) {
    return in.o.history_max > 0 ? in.o.history_max : 1000;
}

/* Prompts are private: the file is its owner's alone. */
static bool make_private(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    fchmod(fd, 0600);
    close(fd);
    return true;
}

static void load_history(void) {
    if (!in.o.history_file || !make_private(in.o.history_file))
        return;
    in.history_file = strdup(in.o.history_file);
    history_comment_char = '#'; /* time stamps keep the lines of one entry together */
    history_write_timestamps = 1;
    stifle_history(history_max());
    read_history(in.o.history_file);
}

int ui_input_open(const ui_input_options *o, char *why, size_t why_size) {
    in.o = *o;
    rl_instream = fopen("/dev/null", "r");
    rl_outstream = fopen("/dev/null", "w");
    if (!rl_instream || !rl_outstream) {
        snprintf(why, why_size, "/dev/null: %s", strerror(errno));
        return -1;
    }
    rl_readline_name = "pali";
    rl_catch_signals = 0;
    rl_catch_sigwinch = 0;
    rl_change_environment = 0;
    rl_prep_term_function = NULL;
    rl_deprep_term_function = NULL;
    rl_redisplay_function = redisplay;
    rl_getc_function = queue_getc;
    rl_input_available_hook = queue_nonempty;
    rl_completion_display_matches_hook = show_matches;
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = " \t\n";
    rl_completer_quote_characters = "'\"";
    rl_filename_quote_characters = " \t\n'\"";
    rl_initialize();
    rl_variable_bind("bell-style", "none");
    rl_variable_bind("show-all-if-ambiguous", "on");
    rl_variable_bind("enable-bracketed-paste", "off");
    rl_bind_keyseq("\\C-j", insert_newline);
    rl_bind_keyseq("\\e\\C-m", insert_newline);
    bind_if_free("\\e[3~", rl_delete);
    bind_if_free("\\e[H", rl_beg_of_line);
    bind_if_free("\\e[F", rl_end_of_line);
    bind_if_free("\\e[1~", rl_beg_of_line);
    bind_if_free("\\e[4~", rl_end_of_line);
    bind_if_free("\\e[1;5C", rl_forward_word);
    bind_if_free("\\e[1;5D", rl_backward_word);
    using_history();
    load_history();
    rl_callback_handler_install(PROMPT, on_line);
    in.open = true;
    return 0;
}

static void close_history(void) {
    if (!in.history_file)
        return;
    history_truncate_file(in.history_file, history_max());
    make_private(in.history_file);
    free(in.history_file);
    in.history_file = NULL;
}

void ui_input_close(void) {
    if (!in.open)
        return;
    close_history();
    forget_matches();
    rl_callback_handler_remove();
    clear_history();
    fclose(rl_instream);
    fclose(rl_outstream);
    rl_instream = rl_outstream = NULL;
    in.open = false;
}

/* --- typing --------------------------------------------------------------------------------- */

void ui_input_feed(const char *bytes, size_t n) {
    forget_matches();
    in.queue = bytes;
    in.queued = n;
    while (in.queued)
        rl_callback_read_char();
}

void ui_input_paste(const char *s, size_t n) {
    forget_matches();
    char *clean = malloc(UI_TEXT_ROOM(n) + 4);
    if (!clean)
        return;
    ui_text t = {.rule = UI_TEXT_TERMINAL};
    size_t m = ui_text_feed(&t, s, n, clean);
    m += ui_text_finish(&t, clean + m);
    clean[m] = 0;
    rl_begin_undo_group();
    rl_insert_text(clean);
    rl_end_undo_group();
    free(clean);
}

static void reset(const char *text) {
    forget_matches();
    if (RL_ISSTATE(RL_STATE_NUMERICARG)) /* sigcleanup forgets the prompt that was put aside */
        rl_restore_prompt();
    rl_free_line_state();
    rl_callback_sigcleanup();
    rl_callback_handler_remove();
    rl_callback_handler_install(PROMPT, on_line);
    rl_replace_line(text, 1);
    rl_point = rl_end;
}

bool ui_input_cancel(void) {
    bool had = rl_end > 0 || RL_ISSTATE(RL_STATE_ISEARCH | RL_STATE_NSEARCH | RL_STATE_NUMERICARG);
    reset("");
    return had;
}

const char *ui_input_text(void) {
    return rl_line_buffer ? rl_line_buffer : "";
}

void ui_input_set(const char *text) {
    reset(text);
}

bool ui_input_vi(void) {
    return rl_editing_mode == 0;
}

const char *const *ui_input_matches(void) {
    return (const char *const *)in.matches;
}

/* --- painting ----------------------------------------------------------------------------------- */

/* Where characters go when text runs on over rows of width w. */
typedef struct {
    int w, row, col;
} pen;

static void step(pen *p, int columns) {
    if (p->col + columns > p->w) {
        p->row++;
        p->col = 0;
    }
    p->col += columns;
}

/* What is painted for the character at s[0..n): text that is safe to show, its columns, and
 * the bytes of s it stands for. A file name that was completed, a history file and keys
 * themselves may hold anything. */
typedef struct {
    char s[UI_TEXT_ROOM(32)];
    size_t n, bytes;
    int width;
} glyph;

static void shape(const char *s, size_t n, glyph *g) {
    unsigned char c = (unsigned char)*s;
    if (c >= 0x20 && c < 0x7f && (n == 1 || (unsigned char)s[1] < 0x80)) {
        g->s[0] = *s;
        g->n = g->bytes = 1;
        g->width = 1;
        return;
    }
    if (c < 0x20 || c == 0x7f) {
        g->bytes = 1;
    } else {
        g->bytes = ui_text_cluster(s, n, &g->width);
        if (MB_CUR_MAX == 1) {
            g->s[0] = c < 0x80 ? *s : '?';
            g->n = 1;
            g->width = 1;
            return;
        }
    }
    ui_text t = {.rule = UI_TEXT_LINE};
    g->n = ui_text_feed(&t, s, g->bytes < 28 ? g->bytes : 28, g->s);
    g->n += ui_text_finish(&t, g->s + g->n);
    g->width = (int)ui_text_width(g->s, g->n);
}

/* Walks over s, drawing rows [first, first + h) at (y, x) when draw is set. Stops after n
 * bytes. Control characters show as ^X; a line break starts a row. */
static void walk(pen *p, const char *s, size_t n, bool draw, ui_rect r, int first) {
    glyph g;
    for (size_t at = 0; at < n; at += g.bytes) {
        if (s[at] == '\n') {
            p->row++;
            p->col = 0;
            g.bytes = 1;
            continue;
        }
        shape(s + at, n - at, &g);
        step(p, g.width);
        if (draw && p->row >= first && p->row < first + r.h)
            mvaddnstr(r.y + p->row - first, r.x + p->col - g.width, g.s, (int)g.n);
    }
}

/* readline marks invisible parts of a prompt with bytes 1 and 2; ours has none, its search
 * prompts may. */
static size_t visible_prompt(char *out, size_t size) {
    const char *s = rl_display_prompt ? rl_display_prompt : PROMPT;
    size_t n = 0;
    for (; *s && n + 1 < size; s++)
        if (*s != 1 && *s != 2)
            out[n++] = *s;
    out[n] = 0;
    return n;
}

/* The pen after prompt and n bytes of the line. A cursor needs a cell of its own. */
static pen measure(int w, size_t n) {
    char prompt[512];
    size_t np = visible_prompt(prompt, sizeof prompt);
    pen p = {w > 2 ? w : 2, 0, 0};
    ui_rect none = {0};
    walk(&p, prompt, np, false, none, 0);
    walk(&p, ui_input_text(), n, false, none, 0);
    if (p.col == p.w) {
        p.row++;
        p.col = 0;
    }
    return p;
}

int ui_input_rows(int w) {
    return measure(w, (size_t)rl_end).row + 1;
}

void ui_input_draw(ui_rect r) {
    if (r.h <= 0 || r.w <= 0)
        return;
    pen cursor = measure(r.w, (size_t)rl_point);
    int rows = ui_input_rows(r.w);
    int first = rows > r.h ? cursor.row - r.h / 2 : 0;
    if (first > rows - r.h)
        first = rows - r.h;
    if (first < 0)
        first = 0;
    unsigned long attr;
    short pair;
    ui_theme_get(UI_LOOK_TEXT, &attr, &pair);
    attr_set((attr_t)attr, pair, NULL);
    for (int y = 0; y < r.h; y++)
        mvhline(r.y + y, r.x, ' ', r.w);
    char prompt[512];
    size_t np = visible_prompt(prompt, sizeof prompt);
    pen p = {r.w > 2 ? r.w : 2, 0, 0};
    ui_theme_get(UI_LOOK_PROMPT, &attr, &pair);
    attr_set((attr_t)attr, pair, NULL);
    walk(&p, prompt, np, true, r, first);
    ui_theme_get(UI_LOOK_TEXT, &attr, &pair);
    attr_set((attr_t)attr, pair, NULL);
    walk(&p, ui_input_text(), (size_t)rl_end, true, r, first);
    move(r.y + cursor.row - first, r.x + cursor.col);
}
