/* chat.c - start, event loop and end of the terminal chat.
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

void chat_no_memory(chat *c) {
    pali_error err = {0};
    pali_fail_nomem(&err, "chatting");
    chat_error(c, &err);
}

void chat_refresh_picture(chat *c) {
    c->stale = c->dirty = true;
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
            chat_on_painter(c, &pe);
            at_once = true;
        }
        worker_event we;
        while (worker_take(c->worker, &we))
            chat_on_worker(c, &we);
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
    return rc ? rc : chatfile_resume(c->o->state_dir, saved->id, saved->model, &c->file, err);
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
    chat_forget_further(c);
    shared_image_unref(c->image);
    shared_image_unref(c->full);
    ui_transcript_close(c->log);
    ui_keys_close(c->keys);
    chat_forget_conversation(c);
    free(c->turns);
    free(c->failed);
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
    free(c->kept_image);
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
