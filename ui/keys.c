/* keys.c - cutting the terminal's bytes into events; see keys.h.
 *
 * One growing buffer holds what was read and not yet taken. The parser looks at its head
 * only: a whole unit there becomes an event, an unfinished one waits for more bytes. Three
 * things end the wait: time (a lone ESC, a sequence or a paste whose rest never comes), size
 * (a reply or paste beyond its limit, whose rest is thrown away), and a control character
 * where none can be: what follows is typed text and is not lost. Nothing is parsed twice
 * except the few bytes of an unfinished sequence; a paste remembers how far it looked.     */
#include "ui/keys.h"

#include "ui/text.h"

#include <stdlib.h>
#include <string.h>

enum {
    ESC = 27,
    SEQUENCE_MS = 500, /* the rest of a sequence over a slow line */
    PASTE_MS = 5000,   /* the rest of a paste: long, since what comes later is typed text */
    MAX_SEQUENCE = 64, /* bytes of a CSI sequence */
    MAX_REPLY = 4096,  /* bytes of a string reply */
};
static const char paste_end[] = "\033[201~";
enum {
    PASTE_END = sizeof paste_end - 1
};

struct ui_keys {
    char *buf;
    size_t head, n, cap; /* first byte not yet handed out; filled; room */
    long since;          /* when the newest bytes came */
    bool vi;
    bool pasting;
    bool skipping; /* the rest of a reply that is too long */
    size_t looked; /* bytes of a paste known to hold no terminator */
};

ui_keys *ui_keys_open(void) {
    return calloc(1, sizeof(ui_keys));
}

void ui_keys_close(ui_keys *k) {
    if (!k)
        return;
    free(k->buf);
    free(k);
}

void ui_keys_vi(ui_keys *k, bool vi) {
    k->vi = vi;
}

/* Drops what was handed out. Done once a read, not once an event: a megabyte of typed
 * text must not be moved a million times. */
static void compact(ui_keys *k) {
    if (!k->head)
        return;
    memmove(k->buf, k->buf + k->head, k->n - k->head);
    k->n -= k->head;
    k->looked = 0;
    k->head = 0;
}

int ui_keys_feed(ui_keys *k, const char *bytes, size_t n, long now_ms) {
    if (!n)
        return 0;
    compact(k);
    if (now_ms - k->since >= SEQUENCE_MS)
        k->skipping = false;
    if (k->n + n > k->cap) {
        size_t cap = 2 * (k->n + n) + 256;
        char *buf = realloc(k->buf, cap);
        if (!buf)
            return -1;
        k->buf = buf;
        k->cap = cap;
    }
    memcpy(k->buf + k->n, bytes, n);
    k->n += n;
    k->since = now_ms;
    return 0;
}

int ui_keys_wait(const ui_keys *k, long now_ms) {
    if (!k->pasting && (k->n == k->head || k->buf[k->head] != ESC))
        return -1;
    long limit = k->pasting                            ? PASTE_MS
                 : k->n - k->head <= 2 && !k->skipping ? UI_KEYS_ESC_MS
                                                       : SEQUENCE_MS;
    long left = k->since + limit - now_ms;
    return left < 0 ? 0 : (int)left;
}

/* --- one unit --------------------------------------------------------------------- */

/* What parsing the head found: bytes used; 0 = wait for more. silent: nothing to tell. */
typedef struct {
    size_t used;
    bool silent;
    ui_event ev;
} unit;

static unit plain(ui_event_type type, int key, const char *text, size_t n, size_t used) {
    unit u = {.used = used, .ev = {.type = type, .key = key, .text = text, .n = n}};
    return u;
}

static unit silent(size_t used) {
    return (unit){.used = used, .silent = true};
}

/* Up to 3 numbers of a CSI's parameter bytes; missing ones are 0. */
static void numbers(const char *p, size_t n, int out[3]) {
    int i = 0;
    out[0] = out[1] = out[2] = 0;
    for (size_t j = 0; j < n; j++) {
        if (p[j] == ';') {
            if (++i == 3)
                return;
        } else if (p[j] >= '0' && p[j] <= '9' && out[i] < 100000) {
            out[i] = out[i] * 10 + (p[j] - '0');
        }
    }
}

static unit mouse(const char *p, size_t n, char final, size_t used) {
    int v[3];
    numbers(p, n, v);
    unit u = plain(UI_EV_MOUSE, 0, NULL, 0, used);
    int button = v[0] & 3;
    if (v[0] & 64) {
        if (button > 1) /* sideways wheel */
            return silent(used);
        u.ev.mouse.what = button ? UI_MOUSE_WHEEL_DOWN : UI_MOUSE_WHEEL_UP;
    } else {
        u.ev.mouse.what = v[0] & 32      ? UI_MOUSE_MOVE
                          : final == 'm' ? UI_MOUSE_RELEASE
                                         : UI_MOUSE_PRESS;
        u.ev.mouse.button = button == 3 ? 0 : button + 1;
    }
    u.ev.mouse.x = v[1] - 1;
    u.ev.mouse.y = v[2] - 1;
    if (u.ev.mouse.x < 0 || u.ev.mouse.y < 0)
        return silent(used);
    return u;
}

/* ESC [ parameters final, whole. */
static unit csi(ui_keys *k, const char *s, size_t used) {
    const char *p = s + 2;
    size_t np = used - 3;
    char final = s[used - 1];
    int v[3];
    if (np && *p == '<' && (final == 'M' || final == 'm'))
        return mouse(p + 1, np - 1, final, used);
    if ((np && (*p == '?' || *p == '>' || *p == '=')) || strchr("cntRy", final))
        return plain(UI_EV_REPLY, 0, s, used, used);
    numbers(p, np, v);
    bool ctrl = v[1] >= 5 && ((v[1] - 1) & 4);
    switch (final) {
    case 'I':
    case 'O':
        return plain(UI_EV_FOCUS, final == 'I', NULL, 0, used);
    case 'Z':
        return plain(UI_EV_KEY, UI_KEY_SHIFT_TAB, s, used, used);
    case 'A':
    case 'B':
    case 'C':
    case 'D': {
        static const int arrows[] = {UI_KEY_UP, UI_KEY_DOWN, UI_KEY_RIGHT, UI_KEY_LEFT};
        return plain(UI_EV_BYTES, arrows[final - 'A'], s, used, used);
    }
    case 'H':
    case 'F':
        if (ctrl)
            return plain(UI_EV_KEY, final == 'H' ? UI_KEY_CTRL_HOME : UI_KEY_CTRL_END, s, used,
                         used);
        return plain(UI_EV_BYTES, 0, s, used, used);
    case 'P':
    case 'Q':
    case 'S':
        return plain(UI_EV_KEY,
                     final == 'P'   ? UI_KEY_F1
                     : final == 'Q' ? UI_KEY_F2
                                    : UI_KEY_F4,
                     s, used, used);
    case 'u': /* kitty's keyboard protocol: Shift-Enter and Alt-Enter are line breaks */
        return v[0] == 13 ? plain(UI_EV_BYTES, 0, "\n", 1, used) : silent(used);
    case '~':
        break;
    default:
        return silent(used);
    }
    switch (v[0]) {
    case 200:
        k->pasting = true;
        k->looked = 0;
        return silent(used);
    case 5:
    case 6:
        return plain(UI_EV_KEY, v[0] == 5 ? UI_KEY_PAGE_UP : UI_KEY_PAGE_DOWN, s, used, used);
    case 11:
    case 12:
    case 13:
    case 14:
    case 15:
        return plain(UI_EV_KEY, UI_KEY_F1 + v[0] - 11, s, used, used);
    case 17:
        return plain(UI_EV_KEY, UI_KEY_F6, s, used, used);
    case 27: /* xterm's modifyOtherKeys */
        return v[2] == 13 ? plain(UI_EV_BYTES, 0, "\n", 1, used) : silent(used);
    case 1:
    case 2:
    case 3:
    case 4:
    case 7:
    case 8:
        return plain(UI_EV_BYTES, 0, s, used, used);
    default:
        return silent(used);
    }
}

static bool printable(char c) {
    return c >= 0x20 && c < 0x7f;
}

/* ESC [ ...: finds the final byte. */
static unit csi_head(ui_keys *k, const char *s, size_t n, bool late) {
    /* The Linux console sends ESC [ [ A for F1. */
    if (n >= 3 && s[2] == '[') {
        if (n < 4)
            return late ? silent(n) : (unit){0};
        if (s[3] >= 'A' && s[3] <= 'E')
            return plain(UI_EV_KEY, UI_KEY_F1 + s[3] - 'A', s, 4, 4);
        return silent(printable(s[3]) ? 4 : 3);
    }
    for (size_t i = 2; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x40 && c <= 0x7e)
            return csi(k, s, i + 1);
        if (c < 0x20 || c > 0x7e || i >= MAX_SEQUENCE)
            return silent(i); /* not a sequence after all: drop its start */
    }
    return late ? silent(n) : (unit){0};
}

/* Where a string that starts at from ends: at BEL, ESC or another control character, which no
 * reply holds; n when it goes on. */
static size_t string_end(const char *s, size_t from, size_t n) {
    while (from < n && (unsigned char)s[from] >= 0x20)
        from++;
    return from;
}

/* ESC ] ..., ESC P ..., ESC _ ...: a reply up to ST (or BEL). */
static unit string_head(ui_keys *k, const char *s, size_t n, bool late) {
    size_t end = string_end(s, 2, n < MAX_REPLY ? n : MAX_REPLY);
    if (end == MAX_REPLY) {
        k->skipping = true;
        return silent(end);
    }
    if (end == n)
        return late ? silent(n) : (unit){0};
    if (s[end] == 7)
        return plain(UI_EV_REPLY, 0, s, end + 1, end + 1);
    if (s[end] != ESC)
        return silent(end);
    if (end + 1 == n)
        return late ? silent(end) : (unit){0};
    return s[end + 1] == '\\' ? plain(UI_EV_REPLY, 0, s, end + 2, end + 2) : silent(end);
}

/* Drops the rest of a reply; false when all there is belongs to it. */
static bool skip(ui_keys *k) {
    size_t end = string_end(k->buf, k->head, k->n);
    k->head = end;
    if (end == k->n)
        return false;
    if (k->buf[end] == ESC && end + 1 == k->n)
        return false;
    if (k->buf[end] == 7)
        k->head++;
    else if (k->buf[end] == ESC && k->buf[end + 1] == '\\')
        k->head += 2;
    k->skipping = false;
    return true;
}

static unit escape(ui_keys *k, const char *s, size_t n, bool late, bool late_esc) {
    if (n == 1) {
        if (!late_esc)
            return (unit){0};
        return k->vi ? plain(UI_EV_BYTES, UI_KEY_ESC, s, 1, 1)
                     : plain(UI_EV_KEY, UI_KEY_ESC, s, 1, 1);
    }
    unsigned char c = (unsigned char)s[1];
    if (c == ESC) /* two presses, or Alt in front of a sequence: the first one is a key */
        return plain(UI_EV_KEY, UI_KEY_ESC, s, 1, 1);
    if (n == 2 && c && strchr("[]P_^XO", c))
        return late_esc ? plain(UI_EV_BYTES, 0, s, 2, 2) : (unit){0};
    if (c == '[')
        return csi_head(k, s, n, late);
    if (c == ']' || c == 'P' || c == '_' || c == '^' || c == 'X')
        return string_head(k, s, n, late);
    if (c == 'O') {
        if (s[2] >= 'P' && s[2] <= 'S')
            return plain(UI_EV_KEY, UI_KEY_F1 + s[2] - 'P', s, 3, 3);
        if (s[2] >= 'A' && s[2] <= 'D') {
            static const int arrows[] = {UI_KEY_UP, UI_KEY_DOWN, UI_KEY_RIGHT, UI_KEY_LEFT};
            return plain(UI_EV_BYTES, arrows[s[2] - 'A'], s, 3, 3);
        }
        if (s[2] == 'H' || s[2] == 'F')
            return plain(UI_EV_BYTES, 0, s, 3, 3);
        return silent(printable(s[2]) ? 3 : 2);
    }
    if (c < 0x80)
        return plain(UI_EV_BYTES, 0, s, 2, 2);
    return silent(1); /* Alt with a character beyond ASCII: take the character */
}

static unit parse(ui_keys *k, const char *s, size_t n, long now_ms) {
    unsigned char c = (unsigned char)*s;
    if (c == ESC)
        return escape(k, s, n, now_ms - k->since >= SEQUENCE_MS,
                      now_ms - k->since >= UI_KEYS_ESC_MS);
    switch (c) {
    case 3:
        return plain(UI_EV_KEY, UI_KEY_CTRL_C, s, 1, 1);
    case 12:
        return plain(UI_EV_KEY, UI_KEY_CTRL_L, s, 1, 1);
    case 26:
        return plain(UI_EV_KEY, UI_KEY_CTRL_Z, s, 1, 1);
    }
    if (c < 0x80)
        return plain(UI_EV_BYTES, 0, s, 1, 1);
    int used = ui_text_char(s, n, NULL);
    if (used == 0)
        return (unit){0};
    return used < 0 ? silent(1) : plain(UI_EV_BYTES, 0, s, (size_t)used, (size_t)used);
}

/* --- paste ------------------------------------------------------------------------- */

/* CR and CRLF -> LF, in place. */
static size_t fold_newlines(char *s, size_t n) {
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r' && i + 1 < n && s[i + 1] == '\n')
            continue;
        s[o++] = s[i] == '\r' ? '\n' : s[i];
    }
    return o;
}

static bool paste(ui_keys *k, long now_ms, ui_event *out) {
    compact(k);
    char *end = k->n - k->looked < PASTE_END
                    ? NULL
                    : memmem(k->buf + k->looked, k->n - k->looked, paste_end, PASTE_END);
    if (!end) {
        size_t tail = k->n < PASTE_END ? k->n : PASTE_END - 1; /* may begin the terminator */
        if (k->n > UI_KEYS_MAX_PASTE + tail) { /* keep the first part, drop what follows it */
            memmove(k->buf + UI_KEYS_MAX_PASTE, k->buf + k->n - tail, tail);
            k->n = UI_KEYS_MAX_PASTE + tail;
        }
        k->looked = k->n - tail;
        if (now_ms - k->since < PASTE_MS)
            return false;
    }
    size_t n = end ? (size_t)(end - k->buf) : k->n;
    k->head = end ? n + PASTE_END : n;
    k->pasting = false;
    if (n > UI_KEYS_MAX_PASTE)
        n = UI_KEYS_MAX_PASTE;
    *out = (ui_event){.type = UI_EV_PASTE, .text = k->buf, .n = fold_newlines(k->buf, n)};
    return true;
}

bool ui_keys_next(ui_keys *k, long now_ms, ui_event *out) {
    while (k->head < k->n || k->pasting) {
        if (k->pasting)
            return paste(k, now_ms, out);
        if (k->skipping) {
            if (skip(k))
                continue;
            if (now_ms - k->since < SEQUENCE_MS)
                return false;
            k->skipping = false;
            continue;
        }
        unit u = parse(k, k->buf + k->head, k->n - k->head, now_ms);
        if (!u.used)
            return false;
        k->head += u.used;
        if (u.silent)
            continue;
        *out = u.ev;
        return true;
    }
    return false;
}
