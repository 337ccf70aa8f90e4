/* prompt.c - see prompt.h for the format.
 *
 * Every line is encoded by itself and the newline token put between: as in training,
 * and what encoding the joined text gives, since a newline is a piece of its own that
 * merges with nothing. So the length of a prefix is a sum over lines, and finding how
 * many turns fit takes one pass from the newest back.                               */
#include "core/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "core/size.h"

typedef struct {
    int32_t *ids; /* owned; NULL when empty */
    size_t count;
} line_ids;

static bool is_break(char c) {
    return c == '\n' || c == '\r';
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || is_break(c);
}

bool pali_prompt_is_task(const char *text) {
    static const char *const words[] = {"caption", "cap",      "describe", "ocr",
                                        "answer",  "question", "detect",   "segment"};
    while (is_blank(*text))
        text++;
    if (!*text)
        return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i]);
        if (strncmp(text, words[i], n) == 0 && (!text[n] || is_blank(text[n])))
            return true;
    }
    return false;
}

/* Length of text without the line breaks at its end. */
static size_t trimmed(const char *text) {
    size_t n = strlen(text);
    while (n > 0 && is_break(text[n - 1]))
        n--;
    return n;
}

/* Encodes text as one line: runs of line breaks inside become a space. */
static int encode_line(const pali_tokenizer *tok, const char *text, line_ids *out,
                       pali_error *err) {
    while (is_break(*text))
        text++;
    size_t n = trimmed(text), used = 0;
    char *line = malloc(n + 1);
    if (!line)
        return pali_fail_nomem(err, "building the prompt");
    for (size_t i = 0; i < n; i++)
        if (!is_break(text[i]))
            line[used++] = text[i];
        else if (!is_break(text[i - 1])) /* i > 0: the first byte is no break */
            line[used++] = ' ';
    int rc = pali_tokenizer_encode(tok, line, used, &out->ids, &out->count, err);
    free(line);
    return rc;
}

/* Appends a line and the newline that ends it, if the line has any tokens. */
static size_t put_line(int32_t *to, const line_ids *line, int32_t newline) {
    if (line->count == 0)
        return 0;
    memcpy(to, line->ids, line->count * sizeof *to);
    to[line->count] = newline;
    return line->count + 1;
}

static size_t length(const line_ids *line) {
    return line->count ? line->count + 1 : 0;
}

/* Encodes turns from the newest back into lines[2 * i], lines[2 * i + 1] until one
 * does not fit in room. *first = the oldest that does, *used = how many do. */
static int fit_turns(const pali_tokenizer *tok, const pali_turn_text *turns, size_t nturns,
                     size_t most, size_t room, line_ids *lines, size_t *first, size_t *used,
                     pali_error *err) {
    *first = nturns;
    *used = 0;
    for (size_t i = nturns; i-- > 0 && *used < most;) {
        if (!turns[i].answer[strspn(turns[i].answer, "\r\n")])
            continue;
        line_ids *q = &lines[2 * i], *a = &lines[2 * i + 1];
        int rc = encode_line(tok, turns[i].question, q, NULL);
        if (!rc)
            rc = encode_line(tok, turns[i].answer, a, NULL);
        if (rc == PALI_ENOMEM)
            return pali_fail_nomem(err, "building the prompt");
        if (rc || length(q) + length(a) > room) /* too long: as are all before it */
            return 0;
        room -= length(q) + length(a);
        *first = i;
        ++*used;
    }
    return 0;
}

int pali_prompt_build(const pali_tokenizer *tok, const pali_turn_text *turns, size_t nturns,
                      int history, const char *prompt, size_t room, int32_t **ids, size_t *count,
                      size_t *used, pali_error *err) {
    int32_t newline = pali_tokenizer_newline(tok);
    line_ids typed = {0}, joined = {0}, *lines = NULL;
    size_t n = trimmed(prompt), first = nturns, fitting = 0, nlines = 0, total;
    int32_t *out = NULL;
    *ids = NULL;
    *count = 0;

    int rc = pali_tokenizer_encode(tok, prompt, n, &typed.ids, &typed.count, err);
    if (rc)
        return rc;
    if (typed.count + 2 > room) {
        rc = pali_fail(err, PALI_ELIMIT, "ask a shorter question",
                       "the question is %zu tokens long, but only %zu fit", typed.count,
                       room < 2 ? 0 : room - 2);
        goto done;
    }

    bool alone = nturns == 0 || history == PALI_HISTORY_NONE || n == 0 ||
                 (history == PALI_HISTORY_AUTO && pali_prompt_is_task(prompt));
    if (!alone) {
        if (!pali_size_mul(nturns, 2, &nlines) || !(lines = calloc(nlines, sizeof *lines))) {
            nlines = 0;
            rc = pali_fail_nomem(err, "building the prompt");
            goto done;
        }
        rc = encode_line(tok, prompt, &joined, err);
        if (!rc && joined.count + 2 <= room)
            rc = fit_turns(tok, turns, nturns, history > 0 ? (size_t)history : nturns,
                           room - 2 - joined.count, lines, &first, &fitting, err);
        if (rc)
            goto done;
    }

    const line_ids *last = fitting ? &joined : &typed;
    total = last->count + 2;
    for (size_t i = 2 * first; i < nlines; i++)
        total += length(&lines[i]);
    if (!(out = malloc(total * sizeof *out))) {
        rc = pali_fail_nomem(err, "building the prompt");
        goto done;
    }
    size_t at = 0;
    out[at++] = pali_tokenizer_bos(tok);
    for (size_t i = 2 * first; i < nlines; i++)
        at += put_line(out + at, &lines[i], newline);
    if (last->count)
        memcpy(out + at, last->ids, last->count * sizeof *out);
    out[total - 1] = newline;
    *ids = out;
    *count = total;

done:
    if (used)
        *used = rc ? 0 : fitting;
    for (size_t i = 0; i < nlines; i++)
        free(lines[i].ids);
    free(lines);
    free(typed.ids);
    free(joined.ids);
    return rc;
}
