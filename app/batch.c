/* batch.c - see batch.h.
 *
 *   picture_list -> reader thread: decodes -> queue of at most AHEAD -> this thread: asks, writes
 *
 * The reader gets no signals; it is told to stop. Standard input as a picture is read before the
 * thread starts, so that a picture that never comes can be interrupted; a reader that waits for
 * another pipe is left behind when the program ends.                                             */
#include "app/batch.h"

#include "app/emit.h"
#include "app/output.h"
#include "app/picture_list.h"
#include "app/process.h"
#include "app/results.h"
#include "app/session.h"
#include "app/tiled.h"
#include "ui/text.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    AHEAD = 2, /* decoded pictures that wait; each may be large */
    POLL_MS = 50,
    GRACE_MS = 200, /* to the reader, once told to stop */
};

/* A picture on its way from the reader to the model. */
typedef struct {
    char *path; /* owned */
    bool known; /* an earlier run answered it: without an image */
    pali_image image;
    pali_error failure; /* code 0: image is good */
} picture;

typedef struct {
    const app_options *o;
    const char *prompt;
    picture_list *list;
    results *results;
    app_emit *emit;
    app_session session;
    picture piped; /* standard input, when it is one of the pictures; path NULL once taken */

    pthread_t reader;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    picture queue[AHEAD]; /* oldest first; all below under lock */
    size_t nqueue;
    bool ended, stop;
    bool left; /* the reader did not end: what it uses must stay */
    pali_error list_failure;

    size_t done, failed, skipped, turns;
    double started, waited; /* when the model was ready; seconds it then waited for pictures */
} batch;

static void picture_close(picture *p) {
    free(p->path);
    pali_image_close(&p->image);
    *p = (picture){0};
}

/* --- the reader ------------------------------------------------------------------- */

static void read_picture(batch *b, const char *path, picture *out) {
    if (!strcmp(path, "-") && b->piped.path) {
        *out = b->piped;
        b->piped = (picture){0};
        return;
    }
    *out = (picture){.path = strdup(path)};
    if (!out->path)
        pali_fail_nomem(&out->failure, "listing the pictures");
    else
        pali_image_open(path, &out->image, &out->failure);
}

static void *reader_run(void *user) {
    batch *b = user;
    const char *path;
    pali_error failure = {0};
    while (picture_list_next(b->list, &path, &failure) > 0) {
        picture p = {0};
        if (!results_have(b->results, path))
            read_picture(b, path, &p);
        else if (!(p = (picture){.path = strdup(path), .known = true}).path)
            pali_fail_nomem(&p.failure, "listing the pictures");
        pthread_mutex_lock(&b->lock);
        while (b->nqueue == AHEAD && !b->stop)
            pthread_cond_wait(&b->changed, &b->lock);
        if (!b->stop)
            b->queue[b->nqueue++] = p;
        else
            picture_close(&p);
        pthread_cond_broadcast(&b->changed);
        pthread_mutex_unlock(&b->lock);
    }
    pthread_mutex_lock(&b->lock);
    b->ended = true;
    b->list_failure = failure;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

static int reader_start(batch *b, pali_error *err) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&b->reader, NULL, reader_run, b);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc ? pali_fail(err, PALI_EIO, NULL, "cannot start a thread: %s", strerror(rc)) : 0;
}

/* For something to change, under lock, but not long: a signal changes nothing here. */
static void wait_a_moment(batch *b) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += POLL_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&b->changed, &b->lock, &until);
}

static void reader_end(batch *b) {
    picture_list_stop(b->list);
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_broadcast(&b->changed);
    for (int ms = 0; !b->ended && ms < GRACE_MS; ms += POLL_MS)
        wait_a_moment(b);
    b->left = !b->ended;
    while (b->nqueue)
        picture_close(&b->queue[--b->nqueue]);
    pthread_mutex_unlock(&b->lock);
    if (b->left)
        pthread_detach(b->reader);
    else
        pthread_join(b->reader, NULL);
}

/* Waits for the next picture: 1 and *out, 0 after the last, or an error. */
static int next_picture(batch *b, picture *out, pali_error *err) {
    int rc = 0;
    double from = app_clock();
    pthread_mutex_lock(&b->lock);
    while (!b->nqueue && !b->ended && !app_process_stopped())
        wait_a_moment(b);
    if (app_process_stopped()) {
        rc = PALI_ECANCEL;
    } else if (b->nqueue) {
        rc = 1;
        *out = b->queue[0];
        memmove(b->queue, b->queue + 1, --b->nqueue * sizeof *b->queue);
        pthread_cond_broadcast(&b->changed);
    } else if (b->list_failure.code) {
        rc = pali_fail(err, b->list_failure.code, b->list_failure.hint, "%s", b->list_failure.what);
    }
    pthread_mutex_unlock(&b->lock);
    if (b->started > 0)
        b->waited += app_clock() - from;
    return rc;
}

/* --- progress --------------------------------------------------------------------- */

/* "1:02:03" or "2:03" */
static void tell_time(double seconds, char out[32]) {
    long s = seconds < 3.6e9 ? (long)(seconds + 0.5) : 3600000000;
    if (s >= 3600)
        snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%ld:%02ld", s / 60, s % 60);
}

static void tell_progress(batch *b) {
    pthread_mutex_lock(&b->lock);
    size_t total = picture_list_total(b->list), skipped = b->skipped;
    pthread_mutex_unlock(&b->lock);
    size_t done = b->done + b->failed;
    char bar[32] = "", count[64], pace[48] = "", left[48] = "", text[192];
    for (size_t i = 0; total && i < 20; i++)
        bar[i] = i < 20 * (done + skipped) / total ? '#' : '.';
    if (total)
        strcat(bar, " ");
    snprintf(count, sizeof count, total ? "%zu of %zu" : "%zu", done + skipped, total);
    double took = app_clock() - b->started;
    if (done && took > 0) {
        double rate = (double)done / took;
        if (rate >= 1)
            snprintf(pace, sizeof pace, ", %.1f a second", rate);
        else
            snprintf(pace, sizeof pace, ", %.1f s each", 1 / rate);
        if (total) {
            char when[32];
            tell_time((double)(total - done - skipped) / rate, when);
            snprintf(left, sizeof left, ", %s left", when);
        }
    }
    snprintf(text, sizeof text, "%s%s%s%s", bar, count, pace, left);
    app_err_status(text);
}

/* --- one picture ------------------------------------------------------------------ */

static int write_answer(batch *b, const picture *p, const pali_result *r, const app_timings *at,
                        pali_error *err) {
    char *line;
    app_turn turn = {.images = (const char *const *)&p->path,
                     .nimages = 1,
                     .prompt = b->prompt,
                     .result = r,
                     .timings = at,
                     .logprobs = b->o->logprobs ? b->session.engine : NULL};
    int rc = app_emit_answer(b->emit, &turn, &p->image, &line, err);
    if (!rc && !line) {
        bool shown = !b->o->output && isatty(STDOUT_FILENO);
        char *raw = results_line(p->path, r->text);
        size_t room = raw ? UI_TEXT_ROOM(strlen(raw)) + 1 : 0;
        line = raw ? malloc(room) : NULL;
        if (line)
            ui_text_clean(shown ? UI_TEXT_TERMINAL : UI_TEXT_PIPE, raw, line, room);
        else
            rc = pali_fail_nomem(err, "writing the answer");
        free(raw);
    }
    if (!rc)
        rc = results_write(b->results, line, strlen(line), err);
    free(line);
    return rc;
}

typedef struct {
    double asked, first; /* clock; first is 0 before the first piece */
} moments;

static void on_piece(void *user, const pali_piece *piece) {
    moments *m = user;
    (void)piece;
    if (m->first == 0)
        m->first = app_clock();
}

static int answer(batch *b, const picture *p, pali_error *err) {
    const app_options *o = b->o;
    const pali_run run = {.cancel = app_process_stop_flag()};
    moments m = {.asked = app_clock()};
    pali_ask how = {
        .sampling = o->sampling,
        .max_tokens = o->max_tokens,
        .history = PALI_HISTORY_NONE,
        .on_piece = on_piece,
        .user = &m,
    };
    pali_result r = {0};
    pali_dialog *d = b->session.dialog;
    app_tiling tiles = app_session_tiling(&b->session, &p->image);
    bool whole = tiles.cols * tiles.rows == 1;
    int rc = whole ? pali_dialog_set_image(d, &p->image, true, err)
                   : app_tiled_ask(d, &p->image, tiles, b->prompt, &how, &run, &r, err);
    if (!rc && whole)
        rc = pali_dialog_ask(d, b->prompt, &how, &run, &r, err);
    if (!rc && r.stop == PALI_STOP_CANCEL)
        rc = PALI_ECANCEL;
    app_timings at = {
        .load_s = b->turns++ ? 0 : b->session.load_s,
        .first_s = m.first > 0 ? m.first - m.asked : 0,
    };
    if (!rc)
        rc = write_answer(b, p, &r, &at, err);
    pali_result_close(&r);
    return rc;
}

/* --- all of them ------------------------------------------------------------------ */

static int load_model(batch *b, pali_error *err) {
    const pali_run run = {.cancel = app_process_stop_flag(), .progress = app_err_progress};
    int rc = app_session_load(&b->session, &run, err);
    app_err_progress_clear();
    app_emit_model(b->emit, b->session.model_dir);
    b->started = app_clock();
    return rc == PALI_EARG ? PALI_EUNSUPPORTED : rc; /* a matter of the files */
}

static int answer_all(batch *b, pali_error *err) {
    picture p;
    int rc;
    while ((rc = next_picture(b, &p, err)) > 0) {
        rc = 0;
        if (p.failure.code) {
            app_err_complain(&p.failure);
            app_emit_skip(b->emit, p.path);
            b->failed++;
        } else if (p.known) {
            app_emit_skip(b->emit, p.path);
            b->skipped++;
        } else {
            if (!b->session.engine)
                rc = load_model(b, err);
            if (!rc)
                rc = answer(b, &p, err);
            b->done += !rc;
        }
        picture_close(&p);
        if (rc)
            break;
        if (b->session.engine)
            tell_progress(b);
    }
    app_err_progress_clear();
    return rc;
}

/* What the format has for the end; it is there for the answers before a failure, too. */
static int write_end(batch *b, int rc, pali_error *err) {
    char *line = NULL;
    pali_error late = {0};
    int rc_end = app_emit_end(b->emit, &line, &late);
    if (!rc_end && line)
        rc_end = results_write(b->results, line, strlen(line), &late);
    free(line);
    return rc ? rc : rc_end ? pali_fail(err, rc_end, late.hint, "%s", late.what) : 0;
}

static void tell_summary(const batch *b) {
    double took = app_clock() - b->started;
    app_err_note("pictures %zu answered in %.3f s (%.2f a second), %.3f s of it waiting for them; "
                 "%zu failed, %zu known before",
                 b->done, took, took > 0 ? (double)b->done / took : 0.0, b->waited, b->failed,
                 b->skipped);
}

/* Reads standard input now when it is one of the pictures. */
static void read_piped(batch *b) {
    for (size_t i = 0; i < b->o->nimages && !b->piped.path; i++)
        if (!strcmp(b->o->images[i], "-"))
            read_picture(b, "-", &b->piped);
}

int app_batch_run(const app_options *o, const char *prompt, pali_error *err) {
    static batch b; /* a reader left behind may still look at it */
    b = (batch){
        .o = o,
        .prompt = prompt,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
    };
    if (o->logprobs && !o->json)
        return pali_fail(err, PALI_EARG, NULL, "about many pictures --logprobs goes with --json");
    int rc = app_session_begin(&b.session, o, err);
    bool own = !rc && !o->nimages && !o->files_from; /* the demo's picture */
    const char *const *names = own ? (const char *const *)&b.session.demo.picture : o->images;
    if (!rc)
        rc = picture_list_open(names, own ? 1 : o->nimages, o->files_from, &b.list, err);
    if (!rc) /* of yolo, -o is a folder */
        rc = results_open(o->format == APP_FORMAT_YOLO ? NULL : o->output, o->resume, prompt,
                          &b.results, err);
    if (!rc)
        rc = app_emit_open(o, true, &b.emit, err);
    if (!rc) {
        read_piped(&b);
        app_process_catch_signals();
        rc = reader_start(&b, err);
        if (!rc) {
            rc = answer_all(&b, err);
            reader_end(&b);
            rc = write_end(&b, rc, err);
        }
    }
    int rc_close = results_close(b.results, err);
    if (!rc)
        rc = rc_close;
    if (b.started > 0 && o->verbose)
        tell_summary(&b);
    if (!rc && b.failed)
        rc = pali_fail(err, PALI_EFORMAT, NULL, "%zu of %zu pictures could not be read", b.failed,
                       b.failed + b.done);
    if (!rc && !b.done && !b.skipped)
        rc = pali_fail(err, PALI_EFORMAT, NULL, "the list names no picture");
    int rc_emit = app_emit_close(b.emit, rc ? NULL : err);
    rc = rc ? rc : rc_emit;
    picture_close(&b.piped);
    if (!b.left)
        picture_list_close(b.list);
    app_session_close(&b.session);
    return rc;
}
