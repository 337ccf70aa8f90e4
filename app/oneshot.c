/* oneshot.c - see oneshot.h. */
#include "app/oneshot.h"

#include "app/dump.h"
#include "app/emit.h"
#include "app/output.h"
#include "app/process.h"
#include "app/session.h"
#include "app/tiled.h"
#include "ui/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    QUESTION_BYTES = 65536
};

/* --- where questions come from ------------------------------------------------------- */

typedef struct {
    const char *const *list; /* borrowed; NULL: standard input */
    size_t count, next;
    char line[QUESTION_BYTES];
    unsigned char input[4096]; /* of standard input: bytes from..to are not used yet */
    size_t from, to;
} questions;

/* The next byte of standard input, or EOF at its end; then *rc may hold a failure. */
static int next_byte(questions *q, int *rc, pali_error *err) {
    while (q->from == q->to) {
        if (!app_process_wait_input(STDIN_FILENO)) {
            *rc = PALI_ECANCEL;
            return EOF;
        }
        ssize_t n = read(STDIN_FILENO, q->input, sizeof q->input);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            *rc = pali_fail(err, PALI_EIO, NULL, "standard input: %s", strerror(errno));
        if (n <= 0)
            return EOF;
        q->from = 0;
        q->to = (size_t)n;
    }
    return q->input[q->from++];
}

/* Reads one line of standard input without its end. 1, or 0 at the end of the input. */
static int read_line(questions *q, pali_error *err) {
    size_t n = 0;
    int c, rc = 0;
    while ((c = next_byte(q, &rc, err)) != EOF && c != '\n') {
        if (n == sizeof q->line - 1)
            return pali_fail(err, PALI_ELIMIT, "ask one question a line",
                             "question %zu on standard input is longer than %d bytes", q->next + 1,
                             QUESTION_BYTES - 1);
        if (c == '\0')
            return pali_fail(err, PALI_EFORMAT, "ask one question a line, as text",
                             "standard input is not text: there is a zero byte in it");
        q->line[n++] = (char)c;
    }
    if (rc)
        return rc;
    if (n && q->line[n - 1] == '\r')
        n--;
    q->line[n] = '\0';
    return n || c != EOF;
}

/* The next question: 1 and *out, borrowed until the next call; 0 when all are asked. */
static int next_question(questions *q, const char **out, pali_error *err) {
    if (app_process_stopped())
        return PALI_ECANCEL;
    if (q->list) {
        if (q->next == q->count)
            return 0;
        *out = q->list[q->next++];
        return 1;
    }
    int rc;
    do
        rc = read_line(q, err);
    while (rc > 0 && !*q->line);
    q->next += rc > 0;
    *out = q->line;
    return rc;
}

/* --- one turn --------------------------------------------------------------------- */

typedef struct {
    app_session *session;
    bool transcript;     /* of the demo, for a person: boxes in readable form */
    bool plain;          /* the answer streams as text */
    ui_text clean;       /* of the answer being written */
    size_t newlines;     /* held back: they belong to the answer only if more follows */
    double asked, first; /* clock; first is 0 before the first piece */
    app_emit *emit;
    app_dump *dump;     /* NULL without --dump */
    pali_error failure; /* of output, which ends the turn */
} turn;

static void write_text(turn *t, const char *text, size_t n) {
    static const char newline = '\n';
    for (size_t from = 0, to; from < n && !t->failure.code; from = to) {
        for (to = from; to < n && text[to] == '\n'; to++)
            t->newlines++;
        if (to > from)
            continue;
        for (; t->newlines; t->newlines--)
            app_out_write(&newline, 1, &t->failure);
        while (to < n && text[to] != '\n')
            to++;
        app_out_write(text + from, to - from, &t->failure);
    }
}

/* The model's text: what could harm a terminal is made harmless. */
static void write_clean(turn *t, const char *text, size_t n) {
    char out[UI_TEXT_ROOM(256)];
    for (size_t i = 0; i < n; i += 256)
        write_text(t, out, ui_text_feed(&t->clean, text + i, n - i < 256 ? n - i : 256, out));
}

static void on_piece(void *user, const pali_piece *piece) {
    turn *t = user;
    if (t->first == 0)
        t->first = app_clock();
    app_err_progress_clear();
    if (t->plain)
        write_clean(t, piece->text, piece->n);
    if (t->failure.code)
        app_process_stop();
}

static void on_tensor(void *user, const pali_traced *tensor) {
    turn *t = user;
    if (app_dump_tensor(t->dump, tensor))
        app_process_stop();
}

static void tell_timings(const pali_result *r, const app_timings *at) {
    app_err_note("time     load %.3f s, picture %.3f s, question %.3f s (%d tokens, %.0f a second)",
                 at->load_s, r->encode_s, r->prefill_s, r->prefix_tokens,
                 r->prefill_s > 0 ? r->prefix_tokens / r->prefill_s : 0.0);
    app_err_note("         first token after %.3f s, answer %.3f s (%zu tokens, %.1f a second), "
                 "stop: %s, earlier turns used: %zu",
                 at->first_s, r->decode_s, r->ntokens,
                 r->decode_s > 0 ? (double)r->ntokens / r->decode_s : 0.0, pali_stop_name(r->stop),
                 r->turns_used);
}

/* A line for every token of the answer: its probability and its text. */
static int tell_logprobs(const pali_engine *e, const pali_result *r, pali_error *err) {
    int rc = 0;
    for (size_t i = 0; i < r->ntokens && !rc; i++) {
        size_t n;
        const char *bytes = pali_engine_token(e, r->tokens[i], &n);
        char text[256], clean[UI_TEXT_ROOM(sizeof text)], line[sizeof clean + 64];
        snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1), bytes);
        ui_text_clean(UI_TEXT_LINE, text, clean, sizeof clean);
        snprintf(line, sizeof line, "%6.2f %%  \"%s\"\n", 100 * exp((double)r->logprobs[i]), clean);
        rc = app_out_string(line, err);
    }
    return rc;
}

static int end_text(turn *t, pali_error *err) {
    char tail[UI_TEXT_ROOM(0)];
    write_text(t, tail, ui_text_finish(&t->clean, tail));
    return app_out_write("\n", 1, err);
}

/* In a transcript: the lines of an answer's objects, or the answer when there are none. */
static int show_objects(turn *t, const char *path, const pali_result *r, pali_error *err) {
    if (!r->nobjects) {
        write_clean(t, r->text, strlen(r->text));
        return end_text(t, err);
    }
    char *lines;
    int rc = app_emit_objects(t->emit, path, r, &lines, err);
    if (!rc)
        rc = app_out_string(lines, err);
    free(lines);
    return rc;
}

/* Ends the answer on standard output: the last newline, or what the format makes of it. */
static int finish_output(turn *t, const char *prompt, const pali_result *r, const app_timings *at,
                         pali_error *err) {
    const app_options *o = t->session->options;
    int rc = t->plain ? end_text(t, err) : 0;
    app_turn turn_ = {.images = o->nimages ? o->images : &t->session->image_path,
                      .nimages = o->nimages ? o->nimages : 1,
                      .prompt = prompt,
                      .result = r,
                      .timings = at,
                      .logprobs = o->logprobs ? t->session->engine : NULL};
    char *line = NULL;
    if (!rc)
        rc = app_emit_answer(t->emit, &turn_, &t->session->image, &line, err);
    if (!rc && line)
        rc = app_out_string(line, err);
    free(line);
    if (!rc && t->transcript && !t->plain)
        rc = show_objects(t, turn_.images[0], r, err);
    if (!rc && o->logprobs && o->format == APP_FORMAT_TEXT)
        rc = tell_logprobs(t->session->engine, r, err);
    return rc;
}

/* Asks prompt, turn number `number` from 1. */
static int ask(turn *t, const char *prompt, size_t number, const pali_run *run, pali_error *err) {
    const app_options *o = t->session->options;
    t->plain = o->format == APP_FORMAT_TEXT && !app_emit_tells_objects(o) &&
               !(t->transcript && app_emit_wants_objects(prompt));
    t->clean = (ui_text){.rule = isatty(STDOUT_FILENO) ? UI_TEXT_TERMINAL : UI_TEXT_PIPE};
    t->newlines = 0;
    t->first = 0;
    t->asked = app_clock();
    pali_ask how = {
        .sampling = o->sampling,
        .max_tokens = o->max_tokens,
        .history = o->history,
        .on_piece = on_piece,
        .on_tensor = t->dump ? on_tensor : NULL,
        .user = t,
    };
    pali_result r;
    const app_session *s = t->session;
    app_tiling tiles = app_session_tiling(s, &s->image);
    int rc = tiles.cols * tiles.rows > 1
                 ? app_tiled_ask(s->dialog, &s->image, tiles, prompt, &how, run, &r, err)
                 : pali_dialog_ask(s->dialog, prompt, &how, run, &r, err);
    app_err_progress_clear();
    if (rc)
        return rc;
    app_timings at = {
        .load_s = number == 1 ? t->session->load_s : 0,
        .first_s = t->first > 0 ? t->first - t->asked : 0,
    };
    rc = t->failure.code ? pali_fail(err, t->failure.code, t->failure.hint, "%s", t->failure.what)
                         : finish_output(t, prompt, &r, &at, err);
    if (!rc && o->verbose)
        tell_timings(&r, &at);
    if (!rc && r.stop == PALI_STOP_CANCEL)
        rc = PALI_ECANCEL;
    pali_result_close(&r);
    return rc;
}

/* --- all turns -------------------------------------------------------------------- */

static int show_picture(const app_session *s, pali_error *err) {
    char path[1024], line[1200];
    ui_text_clean(UI_TEXT_LINE, s->image_path, path, sizeof path);
    snprintf(line, sizeof line, "%s (%d x %d)\n", path, pali_image_full_width(&s->image),
             pali_image_full_height(&s->image));
    return app_out_string(line, err);
}

static int show_question(const char *prompt, pali_error *err) {
    char text[1024], line[1100];
    ui_text_clean(UI_TEXT_LINE, prompt, text, sizeof text);
    snprintf(line, sizeof line, "\n> %s\n", text);
    return app_out_string(line, err);
}

/* One turn and its files: in the folder itself when there is only this one. */
static int ask_and_dump(turn *t, const char *prompt, size_t number, bool only, const pali_run *run,
                        pali_error *err) {
    const char *dir = t->session->options->dump;
    if (!dir)
        return ask(t, prompt, number, run, err);
    app_dump dump;
    int rc = app_dump_open(&dump, dir, only ? 0 : (int)number, err);
    if (rc)
        return rc;
    t->dump = &dump;
    rc = ask(t, prompt, number, run, err);
    t->dump = NULL;
    int rc_dump = app_dump_close(&dump, err);
    return rc && rc != PALI_ECANCEL ? rc : rc_dump ? rc_dump : rc;
}

static int ask_all(turn *t, app_questions from, const pali_run *run, pali_error *err) {
    const app_session *s = t->session;
    const app_options *o = s->options;
    questions q = {0};
    if (from == APP_ASK_PROMPTS) {
        q.list = o->prompts;
        q.count = o->nprompts;
    } else if (from == APP_ASK_DEMO) {
        q.list = s->demo.prompts;
        q.count = s->demo.nprompts;
    }
    bool only = q.list && q.count == 1;
    t->transcript = from == APP_ASK_DEMO && o->format == APP_FORMAT_TEXT;
    const char *prompt;
    int rc = t->transcript ? show_picture(s, err) : 0;
    while (!rc && (rc = next_question(&q, &prompt, err)) > 0) {
        rc = t->transcript ? show_question(prompt, err) : 0;
        if (!rc)
            rc = ask_and_dump(t, prompt, q.next, only, run, err);
    }
    if (!rc && !q.next)
        return pali_fail(err, PALI_EARG, "give one with -p, or write one a line",
                         "no question came on standard input");
    return rc;
}

/* What the format has for the end; it is there for the answers before a failure, too. */
static int finish_all(turn *t, int rc, pali_error *err) {
    char *line = NULL;
    pali_error late = {0};
    int rc_end = app_emit_end(t->emit, &line, &late);
    if (!rc_end && line)
        rc_end = app_out_string(line, &late);
    free(line);
    return rc ? rc : rc_end ? pali_fail(err, rc_end, late.hint, "%s", late.what) : 0;
}

int app_oneshot_run(const app_options *o, app_questions from, pali_error *err) {
    const pali_run run = {.cancel = app_process_stop_flag(), .progress = app_err_progress};
    app_session session;
    turn t = {.session = &session};
    int rc = app_session_open(&session, o, &run, err);
    if (rc == PALI_EARG)
        rc = PALI_EUNSUPPORTED; /* a matter of the files: the command line was fine */
    if (!rc)
        rc = app_emit_open(o, false, &t.emit, err);
    if (!rc) {
        app_emit_model(t.emit, session.model_dir);
        rc = finish_all(&t, ask_all(&t, from, &run, err), err);
    }
    app_err_progress_clear();
    int rc_close = app_emit_close(t.emit, rc ? NULL : err);
    app_session_close(&session);
    return rc ? rc : rc_close;
}
