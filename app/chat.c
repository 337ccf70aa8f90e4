/* chat.c - the event loop of the terminal chat.
 *
 * One thread owns the terminal. It polls the keyboard, the signals, the inference thread and
 * the painter; every event changes the chat's state and marks it dirty; a frame is drawn at
 * most 60 times a second. While a frame is due, the inference thread is left out of the poll,
 * so that a fast model wakes the loop once a frame and not once a token. Nothing here waits.  */
#include "app/chat.h"

#include "app/chat_state.h"
#include "ui/text.h"
#include "ui/theme.h"

#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME_MS = 16,
    NOTICE_MS = 6000
};

long chat_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- telling the user ------------------------------------------------------------------ */

void chat_notice(chat *c, const char *fmt, ...) {
    char raw[sizeof c->notice];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    ui_text_clean(UI_TEXT_LINE, raw, c->notice, sizeof c->notice);
    c->notice_error = c->notice_opening = false;
    c->notice_new = true; /* its time begins when it is seen */
    c->notice_ms = chat_now();
    c->notice_until = c->notice_ms + NOTICE_MS;
    c->dirty = true;
}

void chat_error(chat *c, const pali_error *err) {
    char line[sizeof err->what + sizeof err->hint + 8];
    snprintf(line, sizeof line, "%s%s%s%s", err->what, *err->hint ? " (" : "", err->hint,
             *err->hint ? ")" : "");
    if (!c->busy) {
        ui_transcript_add(c->log, UI_FROM_ERROR, line, strlen(line));
        c->dirty = true;
        return;
    }
    char **late = realloc(c->late, (c->nlate + 1) * sizeof *late);
    if (late) {
        c->late = late;
        if ((late[c->nlate] = strdup(line)))
            c->nlate++;
    }
    chat_notice(c, "%s", line);
    c->notice_error = true;
}

/* After an answer: what went wrong meanwhile. */
static void tell_late(chat *c) {
    for (size_t i = 0; i < c->nlate; i++) {
        ui_transcript_add(c->log, UI_FROM_ERROR, c->late[i], strlen(c->late[i]));
        free(c->late[i]);
    }
    free(c->late);
    c->late = NULL;
    c->nlate = 0;
}

static void no_memory(chat *c) {
    pali_error err = {0};
    pali_fail_nomem(&err, "chatting");
    chat_error(c, &err);
}

void chat_refresh_picture(chat *c) {
    c->stale = c->dirty = true;
}

/* --- turns --------------------------------------------------------------------------------- */

/* Copies t. */
static bool keep_turn(chat *c, const chat_turn *from) {
    if (c->nturns == c->turns_cap) {
        size_t cap = c->turns_cap ? 2 * c->turns_cap : 16;
        chat_turn *turns = realloc(c->turns, cap * sizeof *turns);
        if (!turns)
            return false;
        c->turns = turns;
        c->turns_cap = cap;
    }
    chat_turn t = {strdup(from->question), strdup(from->answer),
                   strdup(from->stop ? from->stop : ""), from->width, from->height};
    if (!t.question || !t.answer || !t.stop) {
        free(t.question);
        free(t.answer);
        free(t.stop);
        return false;
    }
    c->turns[c->nturns++] = t;
    return true;
}

static void forget_turns(chat *c, size_t n) {
    while (n-- && c->nturns) {
        chat_turn *t = &c->turns[--c->nturns];
        free(t->question);
        free(t->answer);
        free(t->stop);
    }
}

static void forget_objects(chat *c) {
    c->serial = 0; /* the legend's rows change hands */
    app_marks_close(&c->marks);
}

static bool begins(const char *s, const char *with) {
    return !strncmp(s, with, strlen(with));
}

/* The newest message is the whole answer of t: shows it in words, and why it ended. */
static void show_answer(chat *c, const chat_turn *t, const pali_object *objects, size_t n) {
    char *pretty = chat_pretty(objects, n, t->answer, true);
    const char *words = pretty, *stop = t->stop ? t->stop : "";
    bool done = !strcmp(stop, "eos"), empty = !t->answer[strspn(t->answer, " \n")];
    if (empty && done) {
        bool looked = begins(t->question, "detect ") || begins(t->question, "segment ");
        words = looked ? "[nothing was found]" : "[no answer]";
    }
    ui_transcript_pretty(c->log, words, words ? strlen(words) : 0);
    free(pretty);
    const char *why = !strcmp(stop, "cancel")    ? "[stopped]"
                      : !strcmp(stop, "length")  ? "[cut at the length limit]"
                      : !strcmp(stop, "context") ? "[cut: the context is full]"
                                                 : NULL;
    if (why)
        ui_transcript_note(c->log, why);
}

static void mark_objects(chat *c, const pali_object *objects, size_t n) {
    pali_error err = {0};
    if (app_marks_set(&c->marks, &c->masks, objects, n, &err))
        chat_error(c, &err);
    c->serial = 0; /* the legend's rows change hands */
}

/* A chat that is gone on with: what its last answer names is on the picture again. */
static void mark_last_turn(chat *c) {
    const chat_turn *t = c->nturns ? &c->turns[c->nturns - 1] : NULL;
    pali_object *objects;
    size_t n;
    if (!c->recall || !c->image || !c->loaded) /* weights of masks lie beside the model */
        return;
    c->recall = false;
    /* Of another size it was about a part that is not shown. */
    if (!t || t->width != pali_image_full_width(&c->image->image) ||
        t->height != pali_image_full_height(&c->image->image) ||
        pali_locate(t->answer, strlen(t->answer), t->width, t->height, &objects, &n, NULL))
        return;
    if (n) {
        mark_objects(c, objects, n);
        chat_refresh_picture(c);
    }
    free(objects);
}

/* Hands questions to the worker once there is a picture they are about. */
static void post_questions(chat *c) {
    while (c->nposted < c->nwaiting && !c->opening) {
        if (worker_ask(c->worker, c->waiting[c->nposted], &c->ask) < 0) {
            no_memory(c);
            return;
        }
        c->nposted++;
        c->working = true;
    }
}

void chat_ask(chat *c, const char *prompt) {
    if (!c->image && !c->opening) {
        chat_notice(c, "open an image first: /image PATH");
        return;
    }
    if (c->load_failed) {
        chat_notice(c, "there is no model: choose one with /model DIR");
        return;
    }
    if (c->nwaiting == c->waiting_cap) {
        size_t cap = c->waiting_cap ? 2 * c->waiting_cap : 8;
        char **waiting = realloc(c->waiting, cap * sizeof *waiting);
        if (!waiting) {
            no_memory(c);
            return;
        }
        c->waiting = waiting;
        c->waiting_cap = cap;
    }
    char *copy = strdup(prompt);
    if (!copy) {
        no_memory(c);
        return;
    }
    c->waiting[c->nwaiting++] = copy;
    post_questions(c);
    ui_transcript_bottom(c->log);
    c->dirty = true;
}

void chat_stop(chat *c, bool all) {
    size_t dropped = worker_stop(c->worker, all);
    if (!all)
        return;
    /* The newest were dropped; news of older ones may still be on its way. */
    size_t keep = c->nposted - dropped;
    while (c->nwaiting > keep)
        free(c->waiting[--c->nwaiting]);
    c->nposted = c->nwaiting;
    c->dirty = true;
}

static void take_back(chat *c, size_t n) {
    for (size_t i = 0; i < n; i++)
        ui_transcript_drop_turn(c->log);
    forget_turns(c, n);
    worker_drop_turns(c->worker, n);
    pali_error err = {0};
    if (c->file && n && chatfile_drop(c->file, n, &err))
        chat_error(c, &err);
    forget_objects(c);
    chat_refresh_picture(c);
}

static void ask_again(chat *c) {
    char *again = strdup(c->turns[c->nturns - 1].question);
    if (!again) {
        no_memory(c);
        return;
    }
    take_back(c, 1);
    c->ask.sampling.seed++; /* with a temperature: another answer */
    chat_ask(c, again);
    free(again);
}

/* Does now what had to wait for the end of an answer. */
static void do_then(chat *c) {
    int then = c->then;
    c->then = THEN_NOTHING;
    if (then == THEN_UNDO && c->nturns)
        take_back(c, 1);
    else if (then == THEN_RETRY && c->nturns)
        ask_again(c);
    else if (then == THEN_CLEAR) {
        take_back(c, c->nturns);
        ui_transcript_clear(c->log);
    }
}

static void do_when_stopped(chat *c, int then) {
    c->then = then;
    if (c->busy || c->nwaiting)
        chat_stop(c, true);
    if (!c->busy)
        do_then(c);
}

void chat_undo(chat *c) {
    if (c->nturns || c->busy)
        do_when_stopped(c, THEN_UNDO);
    else
        chat_notice(c, "there is nothing to take back");
}

void chat_retry(chat *c) {
    if (c->nturns || c->busy)
        do_when_stopped(c, THEN_RETRY);
    else
        chat_notice(c, "there is no question to repeat");
}

void chat_clear(chat *c) {
    do_when_stopped(c, THEN_CLEAR);
}

/* --- picture ----------------------------------------------------------------------------------- */

static void open_image(chat *c, const char *path, bool forget, bool add) {
    char full[PATH_MAX];
    if (path && path[0] == '~' && path[1] == '/' && c->o->env.home &&
        snprintf(full, sizeof full, "%s%s", c->o->env.home, path + 1) < (int)sizeof full)
        path = full;
    if (painter_open_image(c->painter, path, forget, add)) {
        no_memory(c);
        return;
    }
    c->opening++;
    chat_notice(c, "opening %s", path ? path : "the clipboard");
    c->notice_opening = true;
}

void chat_open_image(chat *c, const char *path) {
    open_image(c, path, true, false);
}

void chat_add_image(chat *c, const char *path) {
    open_image(c, path, false, true);
}

/* Tells the worker what is asked about. */
static void post_images(chat *c, bool forget) {
    shared_image **all = malloc((1 + c->nfurther) * sizeof *all);
    if (all) {
        all[0] = c->image;
        for (size_t i = 0; i < c->nfurther; i++)
            all[i + 1] = c->further[i];
    }
    if (!all || worker_images(c->worker, all, 1 + c->nfurther, forget) < 0)
        no_memory(c);
    free(all);
}

static void forget_further(chat *c) {
    while (c->nfurther)
        shared_image_unref(c->further[--c->nfurther]);
    free(c->further);
    c->further = NULL;
}

/* One more picture for every question to come. Takes over the reference. */
static void add_image(chat *c, shared_image *image) {
    int most = c->loaded ? (c->info.context - 8) / c->info.image_tokens : INT_MAX;
    shared_image **more = NULL;
    if ((int)c->nfurther + 2 > most) {
        chat_notice(c, "there is room for %d pictures: start pali with all of them", most);
    } else if (!(more = realloc(c->further, (c->nfurther + 1) * sizeof *more))) {
        no_memory(c);
    } else {
        c->further = more;
        c->further[c->nfurther++] = shared_image_ref(image);
        post_images(c, false);
        c->working = true;
        chat_notice(c, "%zu pictures are asked about; boxes are in the first", c->nfurther + 1);
    }
    shared_image_unref(image);
}

void chat_set_image(chat *c, shared_image *image, bool forget) {
    shared_image *old = c->image;
    c->image = shared_image_ref(image);
    shared_image_unref(old);
    c->view = UI_VIEW_FIT;
    forget_objects(c);
    if (forget) {
        pali_error err = {0};
        if (c->file && c->nturns && chatfile_drop(c->file, c->nturns, &err))
            chat_error(c, &err);
        forget_turns(c, c->nturns);
    }
    post_images(c, forget);
    c->working = true;
    chat_refresh_picture(c);
}

void chat_crop(chat *c, float x0, float y0, float x1, float y1) {
    if (!c->image)
        return;
    const pali_image *from = &c->image->image;
    int a = (int)x0, b = (int)y0, w = (int)x1 - a, h = (int)y1 - b;
    if (a < 0 || b < 0 || w < 2 || h < 2 || a + w > from->width || b + h > from->height) {
        chat_notice(c, "that part is not inside the picture");
        return;
    }
    pali_image part = {.width = w, .height = h, .rgb = malloc((size_t)w * (size_t)h * 3)};
    if (!part.rgb) {
        no_memory(c);
        return;
    }
    for (int y = 0; y < h; y++)
        memcpy(part.rgb + (size_t)y * (size_t)w * 3,
               from->rgb + ((size_t)(b + y) * (size_t)from->width + (size_t)a) * 3, (size_t)w * 3);
    shared_image *s = shared_image_new(&part);
    if (!s) {
        no_memory(c);
        return;
    }
    chat_set_image(c, s, false);
    shared_image_unref(s);
    chat_notice(c, "asking about a part of %dx%d pixels; /crop off for all of it", w, h);
}

void chat_uncrop(chat *c) {
    if (c->full && c->image != c->full)
        chat_set_image(c, c->full, false);
}

/* Questions about a picture that is not there. */
static void drop_unposted(chat *c) {
    pali_error err = {0};
    size_t n = c->nwaiting - c->nposted;
    while (c->nwaiting > c->nposted)
        free(c->waiting[--c->nwaiting]);
    if (n) {
        pali_fail(&err, PALI_EARG, NULL, "%zu question%s about it %s not asked", n,
                  n == 1 ? "" : "s", n == 1 ? "was" : "were");
        chat_error(c, &err);
    }
}

static void on_painter(chat *c, painter_event *e) {
    if (c->notice_opening && e->type != PAINTER_PICTURE)
        c->notice_until = 0; /* the status line has its name now, or the conversation why not */
    switch (e->type) {
    case PAINTER_IMAGE:
        c->opening--;
        if (e->add && c->image) {
            add_image(c, e->image);
            post_questions(c);
            break;
        }
        forget_further(c);
        shared_image_unref(c->full);
        c->full = e->image;
        bool first = c->image == NULL;
        free(c->image_path);
        c->image_path = e->path;
        e->path = NULL;
        if (!first && e->forget)
            ui_transcript_clear(c->log);
        chat_set_image(c, c->full, e->forget && !first);
        pali_error err = {0};
        if (c->file && chatfile_image(c->file, e->clipboard ? NULL : c->image_path, &err))
            chat_error(c, &err);
        post_questions(c);
        mark_last_turn(c);
        break;
    case PAINTER_PICTURE:
        if (e->serial != c->serial) {
            ui_picture_close(e->picture);
            break;
        }
        ui_picture_close(c->picture);
        c->picture = e->picture;
        c->generation++;
        c->emit = c->dirty = true;
        break;
    case PAINTER_FAILED:
        chat_error(c, &e->error);
        if (!e->path) /* only the preview */
            break;
        c->opening--;
        drop_unposted(c);
        break;
    }
    free(e->path);
}

/* --- the inference thread's events --------------------------------------------------------------- */

static void show_objects(chat *c, const pali_object *objects, size_t n, const char *raw) {
    mark_objects(c, objects, n);
    char *pretty = chat_pretty(objects, n, raw, true);
    ui_transcript_pretty(c->log, pretty, pretty ? strlen(pretty) : 0);
    free(pretty);
}

static void on_started(chat *c) {
    free(c->question);
    c->question = c->nwaiting ? c->waiting[0] : NULL;
    if (c->nwaiting) {
        memmove(c->waiting, c->waiting + 1, --c->nwaiting * sizeof *c->waiting);
        c->nposted--;
    }
    const char *q = c->question && *c->question ? c->question : "(no question)";
    ui_transcript_add(c->log, UI_FROM_YOU, q, strlen(q));
    ui_transcript_add(c->log, UI_FROM_MODEL, "", 0);
    c->busy = true;
    c->nanswer = 0;
    c->ntokens = 0;
    c->started_ms = c->stage_ms = chat_now();
    c->first_ms = 0;
    c->recall = false;
    if (c->marks.n) {
        forget_objects(c);
        c->stale = true;
    }
}

static void on_piece(chat *c, const worker_event *e) {
    if (!c->first_ms)
        c->first_ms = chat_now();
    c->ntokens += e->count;
    size_t at = 0;
    for (int i = 0; i < e->count; i++) {
        ui_transcript_append(c->log, e->text + at, e->tokens[i].to - at);
        ui_transcript_probability(c->log, e->tokens[i].p);
        at = e->tokens[i].to;
    }
    ui_transcript_append(c->log, e->text + at, e->n - at);
    if (c->nanswer + e->n + 1 > c->answer_cap) {
        size_t cap = 2 * (c->nanswer + e->n + 1) + 256;
        char *answer = realloc(c->answer, cap);
        if (!answer)
            return;
        c->answer = answer;
        c->answer_cap = cap;
    }
    memcpy(c->answer + c->nanswer, e->text, e->n);
    c->nanswer += e->n;
    c->answer[c->nanswer] = 0;
    pali_object *objects;
    size_t n;
    /* Boxes appear as soon as their tokens are there, their names as they come. */
    if (c->image && (c->marks.n || memchr(e->text, '>', e->n)) &&
        !pali_locate(c->answer, c->nanswer, pali_image_full_width(&c->image->image),
                     pali_image_full_height(&c->image->image), &objects, &n, NULL)) {
        size_t boxes = c->marks.n, masks = c->marks.nmasks;
        if (n)
            show_objects(c, objects, n, c->answer);
        if (n > boxes || c->marks.nmasks > masks)
            chat_refresh_picture(c);
        free(objects);
    }
}

static void on_answer(chat *c, const worker_event *e) {
    const pali_result *r = &e->result;
    if (r->nobjects) {
        mark_objects(c, r->objects, r->nobjects);
        chat_refresh_picture(c);
    }
    double generating = r->decode_s > 0 ? r->decode_s : 1e-9;
    c->tok_s = (double)r->ntokens / generating;
    c->ttft_s = c->first_ms ? 1e-3 * (double)(c->first_ms - c->started_ms) : 0;
    c->used = r->prefix_tokens + (int)r->ntokens;
    const pali_image *seen = c->image ? &c->image->image : NULL;
    chat_turn turn = {.question = c->question ? c->question : "",
                      .answer = r->text,
                      .stop = (char *)pali_stop_name(r->stop),
                      .width = seen ? pali_image_full_width(seen) : 0,
                      .height = seen ? pali_image_full_height(seen) : 0};
    show_answer(c, &turn, r->objects, r->nobjects);
    if (!keep_turn(c, &turn))
        no_memory(c);
    c->busy = false;
    pali_error err = {0};
    if (c->file && chatfile_turn(c->file, &turn, &err))
        chat_error(c, &err);
    do_then(c);
    tell_late(c); /* what was taken back does not take it along */
}

static void on_failed(chat *c, const worker_event *e) {
    if (c->loading && e->job == c->load_job) { /* the model before it, if any, goes on */
        free(c->loading);
        c->loading = NULL;
    }
    if (!c->loaded && !c->busy)
        c->load_failed = true;
    if (c->busy) {
        c->busy = false;
        c->then = THEN_NOTHING;
        if (c->nanswer)
            ui_transcript_note(c->log, "[failed]");
        else
            ui_transcript_pretty(c->log, "[failed]", strlen("[failed]"));
    }
    tell_late(c);
    chat_error(c, &e->error);
}

static void on_worker(chat *c, worker_event *e) {
    switch (e->type) {
    case WORKER_LOADED:
        c->loaded = true;
        c->load_failed = false;
        c->info = e->info;
        app_masks_close(&c->masks);
        free(c->model_dir);
        c->model_dir = c->loading;
        c->masks.model_dir = c->model_dir;
        c->loading = NULL;
        mark_last_turn(c);
        if (e->info.fallback && e->info.card)
            chat_notice(c, "not using the graphics card: %s", e->info.fallback);
        else if (e->info.note)
            chat_notice(c, "%s", e->info.note);
        break;
    case WORKER_PROGRESS:
        if (c->stage != e->stage || !c->stage_ms)
            c->stage_ms = chat_now();
        c->stage = e->stage;
        c->done = e->done;
        c->total = e->total;
        break;
    case WORKER_STARTED:
        on_started(c);
        break;
    case WORKER_PIECE:
        on_piece(c, e);
        break;
    case WORKER_ANSWER:
        on_answer(c, e);
        break;
    case WORKER_FAILED:
        on_failed(c, e);
        break;
    case WORKER_IDLE:
        c->working = false;
        c->total = 0;
        break;
    }
    c->dirty = true;
    worker_event_close(e);
}

void chat_load_model(chat *c, const char *dir) {
    pali_engine_options o = c->o->engine;
    o.model_dir = dir;
    char *copy = strdup(dir);
    int job = copy ? worker_load(c->worker, &o) : -1;
    if (job < 0) {
        free(copy);
        no_memory(c);
        return;
    }
    free(c->loading);
    c->loading = copy;
    c->load_job = job;
    c->working = true;
    c->load_failed = false;
    /* The new model gets the picture and the conversation of the old one. */
    if (c->image)
        post_images(c, false);
    for (size_t i = 0; i < c->nturns; i++)
        worker_add_turn(c->worker, c->turns[i].question, c->turns[i].answer);
}

void chat_show_turns(chat *c, const saved_chat *saved) {
    for (size_t i = 0; i < saved->nturns; i++) {
        const chat_turn *t = &saved->turns[i];
        ui_transcript_add(c->log, UI_FROM_YOU, t->question, strlen(t->question));
        ui_transcript_add(c->log, UI_FROM_MODEL, t->answer, strlen(t->answer));
        pali_object *objects = NULL;
        size_t n = 0;
        if (t->width)
            pali_locate(t->answer, strlen(t->answer), t->width, t->height, &objects, &n, NULL);
        show_answer(c, t, objects, n);
        free(objects);
        keep_turn(c, t);
        worker_add_turn(c->worker, t->question, t->answer);
    }
    c->dirty = true;
}

/* --- signals ---------------------------------------------------------------------------- */

static void on_signal(chat *c, int sig) {
    switch (sig) {
    case SIGWINCH:
        ui_term_resize(&c->caps);
        chat_redraw(c);
        break;
    case SIGTSTP:
        ui_picture_hide(c->graphics);
        ui_term_suspend(&c->caps);
        chat_redraw(c);
        break;
    case SIGCONT:
        ui_term_resume(&c->caps);
        chat_redraw(c);
        break;
    default:
        c->signal = sig;
        c->quit = true;
    }
}
/* --- the loop --------------------------------------------------------------------------------------------- */

void chat_redraw(chat *c) {
    ui_term_repaint();
    c->generation++;
    chat_layout(c);
    c->emit = true;
}

/* How long poll may sleep; what must not be late: a held ESC, a frame, a notice's end, the
 * clock of a running job. */
static int timeout(const chat *c, long now) {
    long t = 60000;
    int esc = ui_keys_wait(c->keys, now);
    if (esc >= 0 && esc < t)
        t = esc;
    if (c->dirty) {
        long frame = c->frame_ms + FRAME_MS - now;
        t = frame < 0 ? 0 : frame < t ? frame : t;
    }
    if (c->notice_until) {
        long left = c->notice_until - now;
        t = left < 0 ? 0 : left < t ? left : t;
    }
    if ((c->busy || c->working) && t > 100)
        t = 100;
    return (int)t;
}

static void read_keys(chat *c) {
    char buf[65536];
    ssize_t n = read(STDIN_FILENO, buf, sizeof buf);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
        c->quit = true; /* the terminal is gone */
        return;
    }
    if (n > 0)
        ui_keys_feed(c->keys, buf, (size_t)n, chat_now());
}

static void loop(chat *c) {
    while (!c->quit) {
        struct pollfd p[] = {
            {STDIN_FILENO, POLLIN, 0},
            {ui_term_signal_fd(), POLLIN, 0},
            {painter_fd(c->painter), POLLIN, 0},
            {worker_fd(c->worker), POLLIN, 0},
        };
        if (poll(p, c->dirty ? 3 : 4, timeout(c, chat_now())) < 0 && errno != EINTR)
            return;
        for (int sig; (sig = ui_term_signal());)
            on_signal(c, sig);
        /* What was held back may have got its rest while this thread stood still: the clock is
         * read before the keyboard, so that nothing is late that had come by then. */
        long seen = chat_now();
        if (poll(p, 1, 0) > 0 && (p[0].revents & (POLLIN | POLLHUP | POLLERR)))
            read_keys(c);
        ui_event e;
        bool at_once = false;
        while (!c->quit && ui_keys_next(c->keys, seen, &e)) {
            chat_event(c, &e);
            at_once = true;
        }
        ui_keys_vi(c->keys, ui_input_vi());
        painter_event pe;
        while (painter_take(c->painter, &pe)) {
            on_painter(c, &pe);
            at_once = true;
        }
        worker_event we;
        while (worker_take(c->worker, &we))
            on_worker(c, &we);
        long now = chat_now();
        if (c->notice_until && !c->notice_new && now >= c->notice_until) {
            c->notice_until = 0;
            c->dirty = true;
        }
        /* What was typed and a picture show at once; the rest at most 60 times a second. */
        bool due = now - c->frame_ms >= FRAME_MS;
        if ((c->dirty && (at_once || due)) ||
            ((c->busy || c->working) && now - c->frame_ms >= 100)) {
            chat_draw(c);
            c->frame_ms = chat_now();
            if (c->notice_new) {
                c->notice_new = false;
                c->notice_ms = c->frame_ms;
                c->notice_until = c->notice_ms + NOTICE_MS;
            }
        }
    }
}

static int start(chat *c, pali_error *err) {
    c->log = ui_transcript_open();
    c->keys = ui_keys_open();
    if (!c->log || !c->keys)
        return pali_fail_nomem(err, "starting the chat");
    c->worker = worker_open(err);
    c->painter = c->worker ? painter_open(err) : NULL;
    if (!c->painter)
        return -1;
    return 0;
}

/* The chat that is gone on with, or a fresh file. */
static int open_chat(chat *c, saved_chat *saved, pali_error *err) {
    if (!c->o->state_dir)
        return 0;
    if (!c->o->resume)
        return chatfile_open(c->o->state_dir, c->o->engine.model_dir, &c->file, err);
    int rc = chatfile_read(c->o->state_dir, c->o->resume_id, saved, err);
    return rc ? rc : chatfile_resume(c->o->state_dir, saved->id, &c->file, err);
}

static void greet(chat *c) {
    char hello[160];
    snprintf(hello, sizeof hello, "%s Keys and commands: F%d or ?",
             c->opening
                 ? "Ask about the picture, or try: caption en, detect THING."
                 : "First a picture: /image PATH, or drop or paste a file. Then ask about it.",
             c->o->keys.f[APP_KEY_HELP]);
    ui_transcript_add(c->log, UI_FROM_PROGRAM, hello, strlen(hello));
}

static void close_chat(chat *c) {
    painter_close(c->painter);
    worker_close(c->worker);
    chatfile_close(c->file);
    ui_picture_close(c->picture);
    forget_further(c);
    shared_image_unref(c->image);
    shared_image_unref(c->full);
    ui_transcript_close(c->log);
    ui_keys_close(c->keys);
    forget_turns(c, c->nturns);
    free(c->turns);
    while (c->nwaiting)
        free(c->waiting[--c->nwaiting]);
    free(c->waiting);
    app_marks_close(&c->marks);
    app_masks_close(&c->masks);
    while (c->nlate)
        free(c->late[--c->nlate]);
    free(c->late);
    free(c->question);
    free(c->answer);
    free(c->model_dir);
    free(c->loading);
    free(c->image_path);
}

static ui_theme pick_theme(const chat *c) {
    const char *t = c->o->theme;
    if (c->caps.colours == UI_COLOURS_MONO || (t && !strcmp(t, "none")))
        return UI_THEME_NONE;
    if (t)
        return !strcmp(t, "light") ? UI_THEME_LIGHT : UI_THEME_DARK;
    return c->caps.dark ? UI_THEME_DARK : UI_THEME_LIGHT;
}

int chat_run(const chat_options *o, pali_error *err) {
    chat c = {.o = o, .ask = o->ask, .view = UI_VIEW_FIT, .overlay = true, .dirty = true};
    c.masks.file = o->mask_weights;
    saved_chat saved = {0};
    char *early = NULL, why[256] = "";
    size_t nearly = 0;
    c.want.picture = true;
    int rc = start(&c, err);
    if (!rc)
        rc = open_chat(&c, &saved, err);
    if (rc)
        goto out;
    ui_transcript_confidence(c.log, o->confidence);
    /* Reading the weights and the picture begins before the terminal is asked anything. */
    chat_load_model(&c, o->engine.model_dir);
    const char *image = o->image ? o->image : saved.image;
    if (image) {
        if (painter_open_image(c.painter, image, false, false)) {
            rc = pali_fail_nomem(err, "starting the chat");
            goto out;
        }
        c.opening++;
    }
    for (size_t i = 0; i < o->nfurther; i++, c.opening++)
        if (painter_open_image(c.painter, o->further[i], false, true)) {
            rc = pali_fail_nomem(err, "starting the chat");
            goto out;
        }
    ui_term_options to = {
        .mouse = true,
        .no_colour = o->theme && !strcmp(o->theme, "none"),
        .term = o->env.term,
        .colorterm = o->env.colorterm,
        .term_program = o->env.term_program,
        .tmux = o->env.tmux,
    };
    if (ui_term_open(&to, &c.caps, &early, &nearly, why, sizeof why)) {
        rc = pali_fail(err, PALI_EUNSUPPORTED, "ask with -p QUESTION instead", "no chat here: %s",
                       why);
        goto out;
    }
    char history[4096];
    if (o->state_dir)
        snprintf(history, sizeof history, "%s/history", o->state_dir);
    ui_input_options io = {chat_line, command_complete, &c, o->state_dir ? history : NULL, 2000};
    if (ui_input_open(&io, why, sizeof why)) {
        rc = pali_fail(err, PALI_EIO, NULL, "the input line cannot be set up: %s", why);
        goto down;
    }
    ui_theme_start(pick_theme(&c));
    c.graphics = o->graphics == -2 ? c.caps.graphics : (ui_graphics)o->graphics;
    if (c.graphics == UI_GRAPHICS_NONE)
        c.want.picture = false;
    if (nearly)
        ui_keys_feed(c.keys, early, nearly, chat_now());
    greet(&c);
    chat_show_turns(&c, &saved);
    c.recall = !o->image; /* another picture than that of the chat */
    chat_layout(&c);
    loop(&c);
    ui_picture_hide(c.graphics);
    ui_input_close();
down:
    ui_term_close();
out:
    free(early);
    saved_chat_close(&saved);
    close_chat(&c);
    if (rc)
        return -1;
    if (c.signal) {
        signal(c.signal, SIG_DFL);
        raise(c.signal);
    }
    return 0;
}
