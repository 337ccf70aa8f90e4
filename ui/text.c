/* text.c - strict UTF-8, one character at a time; see text.h.
 *
 * The decoder takes single bytes and keeps its state in the ui_text, so a cut
 * anywhere is the same as no cut. A sequence that breaks off gives one U+FFFD for
 * the part that was good so far (the "maximal subpart" of Unicode 3.9), and the
 * byte that broke it is looked at afresh. Checking the second byte against a range
 * rules out overlong forms, surrogates and codes over U+10FFFF; the C library is
 * not asked, since some accept the last of these.                              */
#include "ui/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum {
    REPLACEMENT = 0xFFFD,
    MAX_MARKS = 4
};

/* --- single characters ------------------------------------------------------- */

static size_t encode(uint32_t c, char *out) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Characters that change how others are read or drawn while being invisible
 * themselves, and codes that are no characters. The joiners U+200C and U+200D and
 * the variation selectors stay: Persian and emoji need them. */
static bool is_deceptive(uint32_t c) {
    static const struct {
        uint32_t from, to;
    } ranges[] = {
        {0x00AD, 0x00AD},   /* soft hyphen: drawn or not, by whim of the terminal */
        {0x061C, 0x061C},   /* Arabic letter mark */
        {0x115F, 0x1160},   /* Hangul fillers */
        {0x180E, 0x180E},   /* Mongolian vowel separator */
        {0x200B, 0x200B},   /* zero width space */
        {0x200E, 0x200F},   /* direction marks */
        {0x2028, 0x202E},   /* line and paragraph separators, direction overrides */
        {0x2060, 0x206F},   /* invisible operators, direction isolates */
        {0x3164, 0x3164},   /* Hangul filler */
        {0xFDD0, 0xFDEF},   /* noncharacters */
        {0xFEFF, 0xFEFF},   /* byte order mark */
        {0xFFA0, 0xFFA0},   /* Hangul filler */
        {0xFFF9, 0xFFFB},   /* annotation marks */
        {0xE0000, 0xE007F}, /* tags */
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges && ranges[i].from <= c; i++)
        if (c <= ranges[i].to)
            return true;
    return (c & 0xFFFE) == 0xFFFE;
}

/* Columns of c: 0, 1, 2; -1 when the C library does not know it. Outside a multibyte
 * locale it knows nothing, and every character counts as one column. */
static int columns(uint32_t c) {
    if (c < 0x7F)
        return c >= 0x20 ? 1 : -1;
    return MB_CUR_MAX > 1 ? wcwidth((wchar_t)c) : 1;
}

/* Writes whole character c by the rule of t. */
static size_t put(ui_text *t, uint32_t c, char *out) {
    if (t->rule >= UI_TEXT_PIPE) {
        bool kept = (c == '\n' || c == '\t') && t->rule != UI_TEXT_LINE;
        if ((c < 0x20 || c == 0x7F) && !kept) {
            t->marks = 0;
            out[0] = '^';
            out[1] = (char)(c ^ 0x40);
            return 2;
        }
        if (c >= 0x80 && c < 0xA0)
            c = REPLACEMENT;
    }
    if (t->rule >= UI_TEXT_TERMINAL && c >= 0x80) {
        int wide = is_deceptive(c) ? -1 : columns(c);
        if (wide < 0)
            c = REPLACEMENT;
        else if (wide == 0)
            return t->marks < MAX_MARKS ? (t->marks++, encode(c, out)) : 0;
    }
    t->marks = 0;
    return encode(c, out);
}

/* --- streams ------------------------------------------------------------------ */

/* Gives up on the character begun, if there is one. */
static size_t break_off(ui_text *t, char *out) {
    if (!t->missing)
        return 0;
    t->missing = 0;
    return put(t, REPLACEMENT, out);
}

size_t ui_text_feed(ui_text *t, const char *bytes, size_t n, char *out) {
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)bytes[i];
        if (t->missing && b >= t->lo && b <= t->hi) {
            t->code = t->code << 6 | (b & 63);
            t->lo = 0x80;
            t->hi = 0xBF;
            if (--t->missing == 0)
                w += put(t, t->code, out + w);
            continue;
        }
        w += break_off(t, out + w);
        t->code = b;
        if (b < 0x80) {
            w += put(t, b, out + w);
        } else if (b >= 0xC2 && b <= 0xF4) {
            t->missing = b < 0xE0 ? 1 : b < 0xF0 ? 2 : 3;
            t->code &= 0x3Fu >> t->missing;
            t->lo = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
            t->hi = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
        } else {
            w += put(t, REPLACEMENT, out + w);
        }
    }
    return w;
}

size_t ui_text_finish(ui_text *t, char *out) {
    size_t w = break_off(t, out);
    t->marks = 0;
    return w;
}

char *ui_text_clean(ui_text_rule rule, const char *s, char *out, size_t size) {
    ui_text t = {.rule = rule};
    char piece[UI_TEXT_ROOM(1)];
    size_t used = 0;
    for (;; s++) {
        size_t n = *s ? ui_text_feed(&t, s, 1, piece) : ui_text_finish(&t, piece);
        if (n >= size - used)
            break;
        memcpy(out + used, piece, n);
        used += n;
        if (!*s)
            break;
    }
    out[used] = '\0';
    return out;
}

size_t ui_text_width(const char *s, size_t n) {
    ui_text t = {.rule = UI_TEXT_VALID};
    char piece[UI_TEXT_ROOM(1)];
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        if (ui_text_feed(&t, s + i, 1, piece) && !t.missing) {
            int c = columns(t.code);
            total += c > 0 ? (size_t)c : 0;
        }
    return total;
}

/* --- measuring and breaking ------------------------------------------------------ */

int ui_text_char(const char *s, size_t n, uint32_t *code) {
    ui_text t = {.rule = UI_TEXT_VALID};
    char piece[UI_TEXT_ROOM(1)];
    for (size_t i = 0; i < n && i < 4; i++) {
        if (!ui_text_feed(&t, s + i, 1, piece))
            continue;
        /* Output means a whole character, or that this byte was not the one to come. */
        bool whole = !t.missing && (i > 0 || (unsigned char)s[0] < 0x80) &&
                     (unsigned char)piece[0] == (unsigned char)s[0];
        if (!whole)
            return -1;
        if (code)
            *code = t.code;
        return (int)i + 1;
    }
    return 0;
}

size_t ui_text_cluster(const char *s, size_t n, int *width) {
    uint32_t code;
    int used = ui_text_char(s, n, &code);
    if (used <= 0) {
        *width = 1;
        return 1;
    }
    int w = columns(code);
    *width = w > 0 ? w : 0;
    size_t at = (size_t)used;
    while (at < n) {
        used = ui_text_char(s + at, n - at, &code);
        if (used <= 0 || code < 0x80 || columns(code) != 0)
            break;
        at += (size_t)used;
    }
    return at;
}

size_t ui_text_wrap(const char *s, size_t n, int width, size_t *next) {
    size_t at = 0, space = 0;
    bool has_space = false;
    int used = 0;
    while (at < n) {
        if (s[at] == '\n') {
            *next = at + 1;
            return at;
        }
        int w;
        size_t bytes = ui_text_cluster(s + at, n - at, &w);
        if (s[at] == ' ') { /* a space that ends the line needs no column */
            space = at;
            has_space = true;
        }
        if (used + w > width && at > 0) {
            if (!has_space) {
                *next = at;
                return at;
            }
            *next = space + 1;
            return space;
        }
        used += w;
        at += bytes;
    }
    *next = n;
    return n;
}
