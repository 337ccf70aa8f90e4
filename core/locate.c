/* locate.c - see locate.h for the grammar. Every byte is looked at a fixed number of
 * times, so a long answer of garbage costs no more than a long answer.             */
#include "core/locate.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/size.h"
#include "core/utf8.h"

typedef struct {
    const char *text;
    size_t n, at;
} cursor;

enum {
    LOC_DIGITS = 4,
    LOC_LIMIT = 1024,
    SEG_DIGITS = 3,
    SEG_LIMIT = 128
};

/* Steps over "<locNNNN>" or "<segNNN>" and returns its number; -1 (and no step) when
 * something else is there. */
static int take(cursor *c, const char word[4], size_t digits, int limit) {
    const char *s = c->text + c->at;
    size_t length = 4 + digits + 1;
    int value = 0;
    if (c->n - c->at < length || memcmp(s, word, 4) != 0 || s[length - 1] != '>')
        return -1;
    for (size_t i = 4; i < 4 + digits; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        value = value * 10 + (s[i] - '0');
    }
    if (value >= limit)
        return -1;
    c->at += length;
    return value;
}

static bool is_space(char ch) {
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static bool ends_label(char ch) {
    return ch == ';' || ch == '<' || ch == '>';
}

static void skip_spaces(cursor *c) {
    while (c->at < c->n && is_space(c->text[c->at]))
        c->at++;
}

/* Four locs in a row. When there are fewer the cursor stands after those there are:
 * none of them can begin an item. */
static bool take_locs(cursor *c, int loc[4]) {
    for (int i = 0; i < 4; i++)
        if ((loc[i] = take(c, "<loc", LOC_DIGITS, LOC_LIMIT)) < 0)
            return false;
    return true;
}

/* Any number of segs. Returns how many; the first 16 are in codes. */
static size_t take_segs(cursor *c, int codes[PALI_MASK_CODES]) {
    size_t found = 0;
    for (int code; (code = take(c, "<seg", SEG_DIGITS, SEG_LIMIT)) >= 0; found++)
        if (found < PALI_MASK_CODES)
            codes[found] = code;
    return found;
}

/* Whether the character of len bytes at s is a control character (C0, DEL, C1). */
static bool is_control(const unsigned char *s, int len) {
    return (len == 1 && (s[0] < 0x20 || s[0] == 0x7F)) || (len == 2 && s[0] == 0xC2 && s[1] < 0xA0);
}

/* Copies text[0..n) to label as valid UTF-8, as many whole characters as fit. */
static void write_label(char label[PALI_LABEL_MAX], const char *text, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        const unsigned char *s = (const unsigned char *)text + i;
        int len = pali_utf8_step(s, n - i);
        const char *put = text + i;
        size_t size = (size_t)len;
        if (len <= 0) {
            put = "\xEF\xBF\xBD";
            size = 3;
            len = 1;
        } else if (*s == ' ' || is_control(s, len)) {
            put = " ";
            size = used > 0; /* none in front */
        }
        if (used + size > PALI_LABEL_MAX - 1)
            break;
        memcpy(label + used, put, size);
        used += size;
        i += (size_t)len;
    }
    while (used > 0 && label[used - 1] == ' ')
        used--;
    label[used] = 0;
}

/* The item whose locs end at the cursor: segs, label, range. */
static void finish_item(cursor *c, pali_object *o) {
    o->to = c->at;
    skip_spaces(c);
    size_t segs = take_segs(c, o->codes);
    o->has_mask = segs >= PALI_MASK_CODES;
    if (segs)
        o->to = c->at;
    skip_spaces(c);
    size_t begin = c->at, end;
    while (c->at < c->n && !ends_label(c->text[c->at]))
        c->at++;
    for (end = c->at; end > begin && is_space(c->text[end - 1]);)
        end--;
    if (end > begin)
        o->to = end;
    write_label(o->label, c->text + begin, end - begin);
}

int pali_locate(const char *text, size_t n, int image_width, int image_height,
                pali_object **objects, size_t *count, pali_error *err) {
    pali_object *list = NULL;
    size_t used = 0, room = 0;
    cursor c = {text, n, 0};
    *objects = NULL;
    *count = 0;
    if (image_width <= 0 || image_height <= 0)
        return pali_fail(err, PALI_EARG, NULL, "an image of %d x %d pixels has no boxes",
                         image_width, image_height);
    while (c.at < n) {
        pali_object o = {.from = c.at};
        if (!take_locs(&c, o.loc)) {
            c.at++; /* no loc is there, so no item begins there */
            continue;
        }
        finish_item(&c, &o);
        if (o.loc[2] <= o.loc[0] || o.loc[3] <= o.loc[1])
            continue;
        for (int i = 0; i < 4; i++) /* y x y x -> x y x y */
            o.box[i] =
                (float)((double)o.loc[i ^ 1] / LOC_LIMIT * (i % 2 ? image_height : image_width));
        if (used == room) {
            size_t bytes;
            room = room ? 2 * room : 8;
            pali_object *grown =
                pali_size_mul(room, sizeof o, &bytes) ? realloc(list, bytes) : NULL;
            if (!grown) {
                free(list);
                return pali_fail_nomem(err, "reading the boxes of an answer");
            }
            list = grown;
        }
        list[used++] = o;
    }
    *objects = list;
    *count = used;
    return 0;
}
