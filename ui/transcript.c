/* transcript.c - messages, their lines, and the window on them; see transcript.h.
 *
 * A message keeps its text and, for the width drawn last, where its lines start. Appending
 * re-wraps from the last line on; a new width re-wraps everything, lazily, in draw. The view
 * is either at the bottom (following) or anchored to one character of one message, so that
 * neither new text nor a resize moves what is being read.                                   */
#include "ui/transcript.h"

#include "ui/text.h"
#include "ui/theme.h"

#include <ncurses.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *s;
    size_t n, cap;
} text;

typedef struct {
    size_t from, to; /* bytes of the shown text */
} line;

/* Text up to byte `to` of the raw form, and how sure it is. */
typedef struct {
    size_t to;
    ui_look shade; /* UI_LOOK_MODEL: sure, or nobody said */
} span;

enum {
    MAX_MARKS = 64
};

typedef struct {
    ui_from from;
    ui_text clean; /* state of the sanitiser between appends */
    text raw, pretty;
    bool has_pretty;
    struct {
        size_t at;
        int colour;
    } marks[MAX_MARKS]; /* coloured squares in pretty */
    int nmarks;
    span *spans;
    size_t nspans, spans_cap;
    text note;
    line *lines;
    size_t nlines, lines_cap;
    int width; /* the lines are for this width; 0 = none are */
    bool wrapped_pretty;
} message;

struct ui_transcript {
    message *messages;
    size_t n, cap;
    bool raw, confidence;
    bool anchored;                                    /* else at the bottom */
    size_t anchor_message, anchor_byte, anchor_after; /* lines below the text's last: note, blank */
    int height, width;                                /* of the last draw */
    size_t below;
};

/* --- text ------------------------------------------------------------------------------ */

static int reserve(text *t, size_t more) {
    if (t->n + more + 1 <= t->cap)
        return 0;
    size_t cap = 2 * (t->n + more + 1) + 32;
    char *s = realloc(t->s, cap);
    if (!s)
        return -1;
    t->s = s;
    t->cap = cap;
    return 0;
}

static int set(text *t, const char *s, size_t n) {
    t->n = 0;
    if (reserve(t, n))
        return -1;
    memcpy(t->s, s, n);
    t->n = n;
    t->s[n] = 0;
    return 0;
}

static const text *shown(const ui_transcript *t, const message *m) {
    return m->has_pretty && !t->raw ? &m->pretty : &m->raw;
}

/* --- messages ---------------------------------------------------------------------------- */

ui_transcript *ui_transcript_open(void) {
    return calloc(1, sizeof(ui_transcript));
}

static void message_close(message *m) {
    free(m->raw.s);
    free(m->pretty.s);
    free(m->note.s);
    free(m->spans);
    free(m->lines);
}

void ui_transcript_drop(ui_transcript *t, size_t n) {
    while (n-- && t->n)
        message_close(&t->messages[--t->n]);
    t->anchored = false;
}

void ui_transcript_drop_turn(ui_transcript *t) {
    for (size_t i = t->n; i-- > 0;)
        if (t->messages[i].from == UI_FROM_YOU) {
            ui_transcript_drop(t, t->n - i);
            return;
        }
}

void ui_transcript_clear(ui_transcript *t) {
    ui_transcript_drop(t, t->n);
}

void ui_transcript_close(ui_transcript *t) {
    if (!t)
        return;
    ui_transcript_clear(t);
    free(t->messages);
    free(t);
}

size_t ui_transcript_count(const ui_transcript *t) {
    return t->n;
}

int ui_transcript_append(ui_transcript *t, const char *s, size_t n) {
    if (!t->n)
        return -1;
    message *m = &t->messages[t->n - 1];
    if (reserve(&m->raw, UI_TEXT_ROOM(n)))
        return -1;
    char *c = m->raw.s + m->raw.n;
    m->raw.n += ui_text_feed(&m->clean, s, n, c);
    /* A tab moves the cursor by who knows how much: it becomes a space. */
    for (; c < m->raw.s + m->raw.n; c++)
        if (*c == '\t')
            *c = ' ';
    m->raw.s[m->raw.n] = 0;
    return 0;
}

int ui_transcript_add(ui_transcript *t, ui_from from, const char *s, size_t n) {
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 16;
        message *messages = realloc(t->messages, cap * sizeof *messages);
        if (!messages)
            return -1;
        t->messages = messages;
        t->cap = cap;
    }
    t->messages[t->n] = (message){.from = from, .clean.rule = UI_TEXT_TERMINAL};
    t->n++;
    if (ui_transcript_append(t, s, n)) {
        t->n--;
        return -1;
    }
    return 0;
}

int ui_transcript_pretty(ui_transcript *t, const char *s, size_t n) {
    if (!t->n)
        return -1;
    message *m = &t->messages[t->n - 1];
    m->width = 0;
    m->has_pretty = false;
    if (!s)
        return 0;
    m->pretty.n = 0;
    m->nmarks = 0;
    if (reserve(&m->pretty, 3 * n))
        return -1;
    char *out = m->pretty.s;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < 1 || s[i] > 8) {
            *out++ = s[i];
            continue;
        }
        if (m->nmarks < MAX_MARKS) {
            m->marks[m->nmarks].at = (size_t)(out - m->pretty.s);
            m->marks[m->nmarks++].colour = s[i] - 1;
        }
        memcpy(out, "\u25a0", 3);
        out += 3;
    }
    m->pretty.n = (size_t)(out - m->pretty.s);
    *out = 0;
    m->has_pretty = true;
    return 0;
}

/* Four steps, so that neighbours differ enough to be told apart. */
static ui_look shade_of(float p) {
    return p >= 0.9f   ? UI_LOOK_MODEL
           : p >= 0.6f ? UI_LOOK_LIKELY
           : p >= 0.3f ? UI_LOOK_UNSURE
                       : UI_LOOK_GUESS;
}

void ui_transcript_probability(ui_transcript *t, float p) {
    message *m = t->n ? &t->messages[t->n - 1] : NULL;
    if (!m)
        return;
    span *last = m->nspans ? &m->spans[m->nspans - 1] : NULL;
    if (last && last->shade == shade_of(p)) {
        last->to = m->raw.n;
        return;
    }
    if (m->nspans == m->spans_cap) {
        size_t cap = m->spans_cap ? 2 * m->spans_cap : 16;
        span *spans = realloc(m->spans, cap * sizeof *spans);
        if (!spans)
            return; /* unshaded, then */
        m->spans = spans;
        m->spans_cap = cap;
    }
    m->spans[m->nspans++] = (span){m->raw.n, shade_of(p)};
}

void ui_transcript_confidence(ui_transcript *t, bool on) {
    t->confidence = on;
}

int ui_transcript_note(ui_transcript *t, const char *s) {
    if (!t->n)
        return -1;
    return set(&t->messages[t->n - 1].note, s, strlen(s));
}

void ui_transcript_raw(ui_transcript *t, bool raw) {
    t->raw = raw;
}

/* --- wrapping ------------------------------------------------------------------------------ */

enum {
    INDENT = 2
}; /* columns in front of every line: the speaker's mark */

static void wrap(const ui_transcript *t, message *m, int width) {
    const text *x = shown(t, m);
    bool pretty = x == &m->pretty;
    size_t at = 0;
    if (m->width == width && m->wrapped_pretty == pretty && m->nlines) {
        /* Only the last line can have changed. */
        if (m->lines[m->nlines - 1].to == x->n)
            return;
        at = m->lines[--m->nlines].from;
    } else {
        m->nlines = 0;
    }
    m->width = width;
    m->wrapped_pretty = pretty;
    int room = width - INDENT > 1 ? width - INDENT : 1;
    do {
        if (m->nlines == m->lines_cap) {
            size_t cap = m->lines_cap ? 2 * m->lines_cap : 4;
            line *lines = realloc(m->lines, cap * sizeof *lines);
            if (!lines)
                return; /* the rest shows again with the next draw */
            m->lines = lines;
            m->lines_cap = cap;
        }
        size_t next = 0;
        size_t used = x->n > at ? ui_text_wrap(x->s + at, x->n - at, room, &next) : 0;
        m->lines[m->nlines++] = (line){at, at + used};
        bool ends_with_newline = next > used && at + next == x->n && x->s[at + used] == '\n';
        at += next;
        if (ends_with_newline && m->from != UI_FROM_MODEL)
            break;
        if (ends_with_newline) { /* an open line, ready for more */
            if (m->nlines < m->lines_cap)
                m->lines[m->nlines++] = (line){at, at};
            break;
        }
    } while (at < x->n);
}

/* Lines of message i with the note's and the blank one behind it. */
static size_t height(const ui_transcript *t, size_t i) {
    const message *m = &t->messages[i];
    bool blank = m->from != UI_FROM_YOU && i + 1 < t->n;
    return m->nlines + (m->note.n > 0) + blank;
}

/* --- the view --------------------------------------------------------------------------------- */

static size_t total_lines(const ui_transcript *t) {
    size_t total = 0;
    for (size_t i = 0; i < t->n; i++)
        total += height(t, i);
    return total;
}

/* Number of the line that holds the anchor. */
static size_t anchor_line(const ui_transcript *t) {
    size_t at = 0;
    for (size_t i = 0; i < t->anchor_message; i++)
        at += height(t, i);
    const message *m = &t->messages[t->anchor_message];
    size_t l = 0;
    while (l + 1 < m->nlines && m->lines[l + 1].from <= t->anchor_byte)
        l++;
    size_t last = height(t, t->anchor_message);
    l += t->anchor_after;
    return at + (l < last || !last ? l : last - 1);
}

static void set_anchor(ui_transcript *t, size_t target) {
    size_t at = 0;
    for (size_t i = 0; i < t->n; i++) {
        size_t h = height(t, i);
        if (target < at + h) {
            const message *m = &t->messages[i];
            size_t l = target - at < m->nlines ? target - at : m->nlines ? m->nlines - 1 : 0;
            t->anchored = true;
            t->anchor_message = i;
            t->anchor_byte = m->nlines ? m->lines[l].from : 0;
            t->anchor_after = target - at - l;
            return;
        }
        at += h;
    }
    t->anchored = false;
}

static void wrap_all(ui_transcript *t, int width) {
    for (size_t i = 0; i < t->n; i++)
        wrap(t, &t->messages[i], width);
}

void ui_transcript_scroll(ui_transcript *t, long lines) {
    if (t->width <= 0 || !t->n)
        return;
    wrap_all(t, t->width);
    size_t total = total_lines(t), h = (size_t)(t->height > 0 ? t->height : 1);
    if (total <= h) {
        t->anchored = false;
        return;
    }
    long last = (long)total - 1;
    long bottom = (t->anchored ? (long)anchor_line(t) : last) + lines;
    if (bottom < (long)h - 1)
        bottom = (long)h - 1;
    if (bottom >= last)
        t->anchored = false;
    else
        set_anchor(t, (size_t)bottom);
}

void ui_transcript_top(ui_transcript *t) {
    ui_transcript_scroll(t, -(1L << 40));
}

void ui_transcript_bottom(ui_transcript *t) {
    t->anchored = false;
}

size_t ui_transcript_below(const ui_transcript *t) {
    return t->below;
}

/* --- drawing ------------------------------------------------------------------------------------ */

static void look(ui_look l) {
    unsigned long attr;
    short pair;
    ui_theme_get(l, &attr, &pair);
    attr_set((attr_t)attr, pair, NULL);
}

static void put(const char *s, size_t n) {
    if (MB_CUR_MAX > 1) {
        addnstr(s, (int)n);
        return;
    }
    for (size_t at = 0, used; at < n; at += used) {
        int w;
        used = ui_text_cluster(s + at, n - at, &w);
        addch((unsigned char)s[at] < 0x80 ? (chtype)s[at] : '?');
    }
}

static ui_look look_of(ui_from from) {
    switch (from) {
    case UI_FROM_YOU:
        return UI_LOOK_YOU;
    case UI_FROM_MODEL:
        return UI_LOOK_MODEL;
    case UI_FROM_PROGRAM:
        return UI_LOOK_NOTICE;
    case UI_FROM_ERROR:
        return UI_LOOK_ERROR;
    }
    return UI_LOOK_TEXT;
}

static void draw_line(const ui_transcript *t, const message *m, size_t l) {
    if (l >= m->nlines) {
        if (l == m->nlines && m->note.n) {
            look(UI_LOOK_DIM);
            addstr("  ");
            size_t next;
            put(m->note.s, ui_text_wrap(m->note.s, m->note.n, t->width - INDENT, &next));
        }
        return;
    }
    const text *x = shown(t, m);
    look(look_of(m->from));
    addstr(l == 0 && m->from == UI_FROM_YOU     ? "> "
           : l == 0 && m->from == UI_FROM_ERROR ? "! "
                                                : "  ");
    size_t from = m->lines[l].from, to = m->lines[l].to;
    for (int i = 0; m->wrapped_pretty && i < m->nmarks; i++) {
        if (m->marks[i].at < from || m->marks[i].at >= to)
            continue;
        put(x->s + from, m->marks[i].at - from);
        unsigned long attr;
        short pair;
        ui_theme_object(m->marks[i].colour, &attr, &pair);
        attr_set((attr_t)attr, pair, NULL);
        put(x->s + m->marks[i].at, 3);
        look(look_of(m->from));
        from = m->marks[i].at + 3;
    }
    for (size_t i = 0; t->confidence && !m->wrapped_pretty && i < m->nspans && from < to; i++) {
        if (m->spans[i].to <= from)
            continue;
        size_t end = m->spans[i].to < to ? m->spans[i].to : to;
        look(m->spans[i].shade);
        put(x->s + from, end - from);
        look(look_of(m->from));
        from = end;
    }
    put(x->s + from, to - from);
}

void ui_transcript_draw(ui_transcript *t, ui_rect r) {
    t->height = r.h;
    t->width = r.w;
    if (r.h <= 0 || r.w <= 0)
        return;
    look(UI_LOOK_TEXT);
    for (int y = 0; y < r.h; y++)
        mvhline(r.y + y, r.x, ' ', r.w);
    wrap_all(t, r.w);
    size_t total = total_lines(t), h = (size_t)r.h;
    if (t->anchored && t->anchor_message >= t->n)
        t->anchored = false;
    size_t bottom = t->anchored ? anchor_line(t) + 1 : total; /* first line not shown */
    if (bottom < h) /* no empty rows above while there is text below */
        bottom = h;
    if (bottom >= total) {
        bottom = total;
        t->anchored = false;
    }
    t->below = total - bottom;
    size_t top = bottom > h ? bottom - h : 0, at = 0;
    for (size_t i = 0; i < t->n && at < bottom; i++) {
        size_t n = height(t, i);
        for (size_t l = at < top ? top - at : 0; l < n && at + l < bottom; l++) {
            move(r.y + (int)(at + l - top), r.x);
            draw_line(t, &t->messages[i], l);
        }
        at += n;
    }
    attr_set(A_NORMAL, 0, NULL);
}
