/* text.h - making outside text safe to show, and measuring it. Pure.
 *
 * Model output, file names and error sentences may hold anything: escape
 * sequences that drive the terminal, direction overrides that spoof, bytes that
 * are no characters. All of it passes through here before it is shown. Nothing is
 * parsed as an escape sequence: once ESC is visible text, what follows is harmless.
 *
 * Zero-width marks and unknown characters are recognised by wcwidth(), so LC_CTYPE
 * should be a UTF-8 locale; under another one those two rules rest, all others hold. */
#ifndef UI_TEXT_H
#define UI_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Each rule does what the one before it does, and more. */
typedef enum {
    UI_TEXT_VALID,    /* bytes that are no UTF-8 become U+FFFD, nothing else changes */
    UI_TEXT_PIPE,     /* C0 except LF and TAB, DEL: ^X. C1: U+FFFD */
    UI_TEXT_TERMINAL, /* direction controls, invisible and unknown characters, tags,
                         noncharacters: U+FFFD. Zero-width marks: at most 4 in a row */
    UI_TEXT_LINE,     /* LF and TAB too: ^J ^I. The result is one line */
} ui_text_rule;

/* Text arriving in pieces that may end inside a character. {.rule = R} is ready;
 * how the bytes are cut into pieces never changes the output. */
typedef struct {
    ui_text_rule rule;
    uint32_t code;        /* bits of the newest character */
    int missing;          /* bytes it still needs; 0: it is whole */
    unsigned char lo, hi; /* what the next of them may be */
    int marks;            /* zero-width characters since the last visible one */
} ui_text;

/* Most bytes that ui_text_feed writes for n bytes. */
#define UI_TEXT_ROOM(n) (3 * (size_t)(n) + 4)

/* Feeds n bytes, writes at most UI_TEXT_ROOM(n) bytes of valid UTF-8 to out (no
 * NUL), returns how many. */
size_t ui_text_feed(ui_text *t, const char *bytes, size_t n, char *out);

/* End of text: an unfinished character becomes one U+FFFD. At most 3 bytes; t is
 * ready for another text. */
size_t ui_text_finish(ui_text *t, char *out);

/* The whole string s by rule into out[size] with NUL, cut at a character when it
 * does not fit. Returns out. size > 0. */
char *ui_text_clean(ui_text_rule rule, const char *s, char *out, size_t size);

/* Columns a terminal gives to n bytes of one cleaned line. */
size_t ui_text_width(const char *s, size_t n);

/* Bytes of the first character of s[0..n): 0 when it is unfinished, -1 when no
 * character begins so. *code (may be NULL) is its number. */
int ui_text_char(const char *s, size_t n, uint32_t *code);

/* Bytes of the first character of cleaned text and of the marks that sit on it;
 * *width = its columns. n > 0. */
size_t ui_text_cluster(const char *s, size_t n, int *width);

/* Breaks cleaned text into lines: returns the bytes of s[0..n) that go on a line of
 * `width` columns, broken at a line feed, else after the last space that fits, else
 * between characters. *next = bytes until the next line starts (the space or line
 * feed between them is on neither). At least one character is taken. */
size_t ui_text_wrap(const char *s, size_t n, int width, size_t *next);

#endif
