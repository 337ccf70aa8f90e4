/* output.c - see output.h. */
#include "app/output.h"

#include "ui/text.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGE_BYTES = 2048,
    STATUS_BYTES = 512,
    PROGRESS_INTERVAL_MS = 50
};

/* Writes all n bytes; the errno of the failure, or 0. A signal interrupts nothing:
 * stopping is for whoever produces the bytes. */
static int write_all(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t w = write(fd, bytes, n);
        if (w < 0 && errno != EINTR)
            return errno;
        if (w > 0) {
            bytes += w;
            n -= (size_t)w;
        }
    }
    return 0;
}

/* --- standard output -------------------------------------------------------------- */

static int out_errno; /* of the first failure */

static int out_check(int number, pali_error *err) {
    if (!number)
        return 0;
    if (number == EPIPE) { /* whoever started us ignores SIGPIPE: end as if nobody did */
        app_err_progress_clear();
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    out_errno = number;
    return pali_fail(err, PALI_EIO, NULL, "cannot write to standard output: %s", strerror(number));
}

int app_out_write(const char *bytes, size_t n, pali_error *err) {
    return out_check(out_errno ? out_errno : write_all(STDOUT_FILENO, bytes, n), err);
}

int app_out_string(const char *s, pali_error *err) {
    return app_out_write(s, strlen(s), err);
}

int app_out_close(pali_error *err) {
    if (!out_errno && close(STDOUT_FILENO) && errno != EINTR)
        out_errno = errno;
    return out_check(out_errno, err);
}

/* --- standard error: nothing can be told when telling fails ------------------------- */

static size_t progress_columns; /* of the progress line now on the screen */

static void err_line(const char *prefix, const char *text) {
    char clean[MESSAGE_BYTES], line[MESSAGE_BYTES + 16];
    app_err_progress_clear();
    ui_text_clean(UI_TEXT_LINE, text, clean, sizeof clean);
    int n = snprintf(line, sizeof line, "%s%s\n", prefix, clean);
    write_all(STDERR_FILENO, line, (size_t)n);
}

void app_err_complain(const pali_error *err) {
    err_line("pali: ", err->what);
    if (*err->hint)
        err_line("      ", err->hint);
}

void app_err_usage(const pali_error *err, const char *verb) {
    app_err_complain(err);
    app_err_note("try pali %s%s--help", verb ? verb : "", verb ? " " : "");
}

void app_err_note(const char *fmt, ...) {
    char text[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_line("", text);
}

/* --- progress --------------------------------------------------------------------- */

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void app_err_progress_clear(void) {
    if (!progress_columns)
        return;
    char line[STATUS_BYTES];
    int n = snprintf(line, sizeof line, "\r%*s\r", (int)progress_columns, "");
    progress_columns = 0;
    write_all(STDERR_FILENO, line, (size_t)n);
}

/* Over the old text, in one write: it must not flicker. What is wider than the terminal is cut. */
void app_err_status(const char *text) {
    struct winsize w = {0};
    char line[STATUS_BYTES];
    size_t n = strlen(text), room = sizeof line - 3;
    if (!isatty(STDERR_FILENO))
        return;
    if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col && w.ws_col - 1u < room)
        room = w.ws_col - 1u;
    if (n > room)
        n = room;
    if (progress_columns < n)
        progress_columns = n;
    if (progress_columns > room)
        progress_columns = room;
    int written = snprintf(line, sizeof line, "\r%-*.*s", (int)progress_columns, (int)n, text);
    write_all(STDERR_FILENO, line, (size_t)written);
}

void app_err_progress(void *user, pali_stage stage, int done, int total) {
    (void)user;
    static const char *const names[] = {
        [PALI_STAGE_LOAD] = "loading the model",
        [PALI_STAGE_ENCODE] = "looking at the picture",
        [PALI_STAGE_PREFILL] = "reading the question",
    };
    static pali_stage shown;
    static long shown_at;
    if (stage >= PALI_STAGE_DECODE || !isatty(STDERR_FILENO))
        return;
    long now = now_ms();
    if (progress_columns && stage == shown && now - shown_at < PROGRESS_INTERVAL_MS)
        return;
    shown = stage;
    shown_at = now;
    char text[64];
    if (total > 0)
        snprintf(text, sizeof text, "%s %3d%%", names[stage], (int)(100.0 * done / total));
    else
        snprintf(text, sizeof text, "%s", names[stage]);
    app_err_status(text);
}
