/* chat_turns.c - questions and answers: what is asked, what comes from the inference thread, and
 * what of it is kept.
 *
 * A question waits (chat.waiting) until there is a picture, is then the worker's, and becomes
 * the turn under way when the worker says that it has started. Taking turns back waits for the
 * end of an answer. Objects in an answer become marks on the picture as their tokens come.  */
#include "app/chat_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void chat_forget_turns(chat *c, size_t n) {
    while (n-- && c->nturns) {
        chat_turn *t = &c->turns[--c->nturns];
        free(t->question);
        free(t->answer);
        free(t->stop);
    }
}

/* The question under way got no answer. It stays in the conversation, but is no turn. */
static void keep_failed(chat *c) {
    struct chat_failed *failed = realloc(c->failed, (c->nfailed + 1) * sizeof *failed);
    if (failed)
        c->failed = failed;
    char *question = failed ? strdup(c->question ? c->question : "") : NULL;
    if (question)
        failed[c->nfailed++] = (struct chat_failed){c->nturns, question};
    else /* it could not be told from a turn any more */
        ui_transcript_drop_turn(c->log);
}

/* The newest question in the conversation, if it got no answer, else NULL. */
static const char *newest_failed(const chat *c) {
    const struct chat_failed *f = c->nfailed ? &c->failed[c->nfailed - 1] : NULL;
    return f && f->at == c->nturns ? f->question : NULL;
}

void chat_forget_conversation(chat *c) {
    chat_forget_turns(c, c->nturns);
    while (c->nfailed)
        free(c->failed[--c->nfailed].question);
}

void chat_forget_objects(chat *c) {
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

/* Is what the answer under way is about on the screen? After a crop meanwhile it is not. */
static bool shown(const chat *c) {
    return c->image && c->about == c->image->serial;
}

/* Is the whole picture of the chat that is gone on with on the screen, and t about it? */
static bool shown_again(const chat *c, const chat_turn *t) {
    const pali_image *im = &c->image->image;
    char *kept = c->kept_image ? realpath(c->kept_image, NULL) : NULL;
    char *now = c->image_path ? realpath(c->image_path, NULL) : NULL;
    bool same = kept && now && !strcmp(kept, now) && c->image == c->full &&
                t->width == pali_image_full_width(im) && t->height == pali_image_full_height(im);
    free(kept);
    free(now);
    return same;
}

static void mark_objects(chat *c, const pali_object *objects, size_t n) {
    pali_error err = {0};
    if (app_marks_set(&c->marks, &c->masks, objects, n, &err))
        chat_error(c, &err);
    c->serial = 0; /* the legend's rows change hands */
}

/* A chat that is gone on with: what its last answer names is on the picture again. */
void chat_mark_last_turn(chat *c) {
    const chat_turn *t = c->nturns ? &c->turns[c->nturns - 1] : NULL;
    pali_object *objects;
    size_t n;
    if (!c->recall || !c->image || !c->loaded) /* weights of masks lie beside the model */
        return;
    c->recall = false;
    if (!t || !shown_again(c, t) ||
        pali_locate(t->answer, strlen(t->answer), t->width, t->height, &objects, &n, NULL))
        return;
    if (n) {
        mark_objects(c, objects, n);
        chat_refresh_picture(c);
    }
    free(objects);
}

/* Hands questions to the worker once there is a picture they are about. */
void chat_post_questions(chat *c) {
    while (c->nposted < c->nwaiting && !c->opening) {
        if (worker_ask(c->worker, c->waiting[c->nposted], &c->ask) < 0) {
            chat_no_memory(c);
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
            chat_no_memory(c);
            return;
        }
        c->waiting = waiting;
        c->waiting_cap = cap;
    }
    char *copy = strdup(prompt);
    if (!copy) {
        chat_no_memory(c);
        return;
    }
    c->waiting[c->nwaiting++] = copy;
    chat_post_questions(c);
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
    if (c->orphans > c->nposted)
        c->orphans = c->nposted;
    c->dirty = true;
}

static void take_back(chat *c, size_t n) {
    for (size_t i = 0; i < n; i++)
        ui_transcript_drop_turn(c->log);
    chat_forget_turns(c, n);
    worker_drop_turns(c->worker, n);
    pali_error err = {0};
    if (c->file && n && chatfile_drop(c->file, n, &err))
        chat_error(c, &err);
    chat_forget_objects(c);
    chat_refresh_picture(c);
}

static void take_back_newest(chat *c) {
    if (!newest_failed(c)) {
        take_back(c, 1);
        return;
    }
    free(c->failed[--c->nfailed].question);
    ui_transcript_drop_turn(c->log);
    chat_forget_objects(c); /* what there was of its answer */
    chat_refresh_picture(c);
}

static void ask_again(chat *c) {
    const char *failed = newest_failed(c);
    char *again = strdup(failed ? failed : c->turns[c->nturns - 1].question);
    if (!again) {
        chat_no_memory(c);
        return;
    }
    take_back_newest(c);
    c->ask.sampling.seed++; /* with a temperature: another answer */
    chat_ask(c, again);
    free(again);
}

/* Does now what had to wait for the end of an answer. */
static void do_then(chat *c) {
    int then = c->then;
    c->then = THEN_NOTHING;
    if (then == THEN_UNDO && (c->nturns || c->nfailed))
        take_back_newest(c);
    else if (then == THEN_RETRY && (c->nturns || c->nfailed))
        ask_again(c);
    else if (then == THEN_CLEAR) {
        take_back(c, c->nturns);
        chat_forget_conversation(c);
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
    if (c->nturns || c->nfailed || c->busy)
        do_when_stopped(c, THEN_UNDO);
    else
        chat_notice(c, "there is nothing to take back");
}

void chat_retry(chat *c) {
    if (c->nturns || c->nfailed || c->busy)
        do_when_stopped(c, THEN_RETRY);
    else
        chat_notice(c, "there is no question to repeat");
}

void chat_clear(chat *c) {
    do_when_stopped(c, THEN_CLEAR);
}

/* Questions about a picture that is not there. */
void chat_drop_unposted(chat *c) {
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

/* --- the inference thread's events --------------------------------------------------------------- */

static void show_objects(chat *c, const pali_object *objects, size_t n, const char *raw) {
    size_t boxes = c->marks.n, masks = c->marks.nmasks;
    if (shown(c))
        mark_objects(c, objects, n);
    if (c->marks.n > boxes || c->marks.nmasks > masks)
        chat_refresh_picture(c);
    char *pretty = chat_pretty(objects, n, raw, true);
    ui_transcript_pretty(c->log, pretty, pretty ? strlen(pretty) : 0);
    free(pretty);
}

static void on_started(chat *c, const worker_event *e) {
    c->about = e->picture;
    c->about_w = e->width;
    c->about_h = e->height;
    free(c->question);
    c->question = c->nwaiting ? c->waiting[0] : NULL;
    if (c->nwaiting) {
        memmove(c->waiting, c->waiting + 1, --c->nwaiting * sizeof *c->waiting);
        c->nposted--;
    }
    c->orphan = c->orphans > 0;
    if (c->orphan) {
        c->orphans--;
    } else {
        const char *q = c->question && *c->question ? c->question : "(no question)";
        ui_transcript_add(c->log, UI_FROM_YOU, q, strlen(q));
        ui_transcript_add(c->log, UI_FROM_MODEL, "", 0);
    }
    c->busy = true;
    c->nanswer = 0;
    c->ntokens = 0;
    c->started_ms = c->stage_ms = chat_now();
    c->first_ms = 0;
    c->recall = false;
    if (c->marks.n) {
        chat_forget_objects(c);
        c->stale = true;
    }
}

static void on_piece(chat *c, const worker_event *e) {
    if (!c->first_ms)
        c->first_ms = chat_now();
    c->ntokens += e->count;
    if (c->orphan)
        return;
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
    if (c->about_w && memchr(c->answer, '>', c->nanswer) &&
        !pali_locate(c->answer, c->nanswer, c->about_w, c->about_h, &objects, &n, NULL)) {
        if (n)
            show_objects(c, objects, n, c->answer);
        free(objects);
    }
}

static void on_answer(chat *c, const worker_event *e) {
    const pali_result *r = &e->result;
    if (c->orphan) {
        c->busy = c->orphan = false;
        do_then(c);
        tell_late(c);
        return;
    }
    if (r->nobjects && shown(c)) {
        mark_objects(c, r->objects, r->nobjects);
        chat_refresh_picture(c);
    }
    double generating = r->decode_s > 0 ? r->decode_s : 1e-9;
    c->tok_s = (double)r->ntokens / generating;
    c->ttft_s = c->first_ms ? 1e-3 * (double)(c->first_ms - c->started_ms) : 0;
    c->used = r->prefix_tokens + (int)r->ntokens;
    chat_turn turn = {.question = c->question ? c->question : "",
                      .answer = r->text,
                      .stop = (char *)pali_stop_name(r->stop),
                      .width = c->about_w,
                      .height = c->about_h};
    show_answer(c, &turn, r->objects, r->nobjects);
    if (!keep_turn(c, &turn))
        chat_no_memory(c);
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
        if (c->orphan) {
            c->orphan = false;
            tell_late(c);
            return;
        }
        if (c->nanswer)
            ui_transcript_note(c->log, "[failed]");
        else
            ui_transcript_pretty(c->log, "[failed]", strlen("[failed]"));
        keep_failed(c);
    }
    tell_late(c);
    chat_error(c, &e->error);
}

void chat_on_worker(chat *c, worker_event *e) {
    pali_error err = {0};
    switch (e->type) {
    case WORKER_LOADED:
        c->loaded = true;
        c->load_failed = false;
        c->info = e->info;
        app_masks_close(&c->masks);
        free(c->model_dir);
        c->model_dir = e->text;
        e->text = NULL;
        c->masks.model_dir = c->model_dir;
        if (c->file && chatfile_model(c->file, c->model_dir, &err))
            chat_error(c, &err);
        if (e->job == c->load_job) { /* else another one is on its way */
            free(c->loading);
            c->loading = NULL;
        }
        chat_mark_last_turn(c);
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
        on_started(c, e);
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
        chat_no_memory(c);
        return;
    }
    free(c->loading);
    c->loading = copy;
    c->load_job = job;
    c->working = true;
    c->load_failed = false;
    /* The new model gets the picture and the conversation of the old one. */
    if (c->image)
        chat_post_images(c, false);
    for (size_t i = 0; i < c->nturns; i++)
        worker_add_turn(c->worker, c->turns[i].question, c->turns[i].answer);
}

void chat_show_turns(chat *c, const saved_chat *saved) {
    free(c->kept_image);
    c->kept_image = saved->image ? strdup(saved->image) : NULL;
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
