/* tty.h - runs a program on a pseudo-terminal and keeps the screen it draws.
 *
 * The screen is libvterm's: the bytes the program writes are fed to it, and what it answers
 * (device attributes, cursor reports) is written back, as a terminal would. Tests wait for
 * conditions, never for a fixed time, and see what was on the screen for a moment only, however
 * late they look: while they wait for a text its bytes reach the screen a few at a time.
 * Everything the program wrote is kept in log.                                               */
#ifndef PALI_TTY_H
#define PALI_TTY_H

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <vterm.h>

enum {
    TTY_WAIT_MS = 600000, /* until silence is a failure: the program may stand still */
    TTY_STEP = 8,         /* bytes; no text comes and goes within fewer */
    TTY_ROWS = 512
};

typedef struct {
    pid_t pid;
    int fd, slave; /* slave stays open so that its modes can be read after the end */
    int rows, cols;
    VTerm *vt;
    VTermScreen *screen;
    bool alt, cursor;
    char *log;
    size_t nlog, log_cap;
    char ahead[4096]; /* read, and not on the screen yet */
    size_t ahead_from, ahead_to;
    bool changed[TTY_ROWS]; /* rows, since they were looked at */
    bool mute;              /* answer no queries */
    const char *colour; /* what is answered when asked for attributes; NULL: what libvterm says */
    struct termios before;
} tty;

static inline long tty_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline bool tty_pump(tty *t, int ms);

/* Reads meanwhile: a program that waits for its output to be read reads nothing itself. */
static inline void tty_raw_send(tty *t, const char *bytes, size_t n) {
    while (n) {
        ssize_t k = write(t->fd, bytes, n);
        if (k < 0 && errno == EAGAIN && tty_pump(t, 10))
            continue;
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return;
        bytes += k;
        n -= (size_t)k;
    }
}

static inline int tty_on_prop(VTermProp prop, VTermValue *v, void *user) {
    tty *t = user;
    if (prop == VTERM_PROP_ALTSCREEN)
        t->alt = v->boolean;
    if (prop == VTERM_PROP_CURSORVISIBLE)
        t->cursor = v->boolean;
    return 1;
}

static inline int tty_on_damage(VTermRect r, void *user) {
    tty *t = user;
    for (int y = r.start_row; y < r.end_row && y < TTY_ROWS; y++)
        t->changed[y] = true;
    return 1;
}

static const VTermScreenCallbacks tty_callbacks = {.damage = tty_on_damage,
                                                   .settermprop = tty_on_prop};

/* Starts argv[0] with the environment env (both NULL-terminated). */
static inline void tty_start(tty *t, int rows, int cols, const char *const *argv,
                             const char *const *env) {
    *t = (tty){.rows = rows, .cols = cols, .cursor = true};
    struct winsize w = {(unsigned short)rows, (unsigned short)cols, 0, 0};
    assert_int_equal(openpty(&t->fd, &t->slave, NULL, NULL, &w), 0);
    assert_true(rows <= TTY_ROWS);
    fcntl(t->fd, F_SETFD, FD_CLOEXEC);
    fcntl(t->fd, F_SETFL, fcntl(t->fd, F_GETFL) | O_NONBLOCK);
    fcntl(t->slave, F_SETFD, FD_CLOEXEC);
    tcgetattr(t->slave, &t->before);
    t->vt = vterm_new(rows, cols);
    vterm_set_utf8(t->vt, 1);
    t->screen = vterm_obtain_screen(t->vt);
    vterm_screen_enable_altscreen(t->screen, 1);
    vterm_screen_set_callbacks(t->screen, &tty_callbacks, t);
    vterm_screen_reset(t->screen, 1);
    t->pid = fork();
    assert_true(t->pid >= 0);
    if (t->pid == 0) {
        /* Whoever runs the tests may ignore signals: in the background shells do. */
        static const int usual[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE};
        sigset_t none;
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
            signal(usual[i], SIG_DFL);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setsid();
        ioctl(t->slave, TIOCSCTTY, 0);
        for (int i = 0; i < 3; i++)
            dup2(t->slave, i);
        execve(argv[0], (char *const *)argv, (char *const *)env);
        _exit(127);
    }
}

/* Answers the program as libvterm does, but for t->colour in place of DECRQSS's answer. */
static inline void tty_answer(tty *t, const char *reply, size_t n) {
    const char *at = t->colour ? memmem(reply, n, "\033P1$r", 5) : NULL;
    if (t->mute)
        return;
    if (!at) {
        tty_raw_send(t, reply, n);
        return;
    }
    const char *end = memmem(at, n - (size_t)(at - reply), "\033\\", 2);
    assert_non_null(end);
    tty_raw_send(t, reply, (size_t)(at - reply));
    tty_raw_send(t, t->colour, strlen(t->colour));
    tty_raw_send(t, end + 2, n - (size_t)(end + 2 - reply));
}

/* The next bytes that were read, at most n, go to log and screen. */
static inline void tty_show(tty *t, size_t n) {
    const char *bytes = t->ahead + t->ahead_from;
    if (n > t->ahead_to - t->ahead_from)
        n = t->ahead_to - t->ahead_from;
    if (t->nlog + n + 1 > t->log_cap) {
        t->log_cap = 2 * (t->nlog + n + 1);
        t->log = realloc(t->log, t->log_cap);
        assert_non_null(t->log);
    }
    memcpy(t->log + t->nlog, bytes, n);
    t->nlog += n;
    t->log[t->nlog] = 0;
    vterm_input_write(t->vt, bytes, n);
    t->ahead_from += n;
    char reply[1024];
    size_t m;
    while ((m = vterm_output_read(t->vt, reply, sizeof reply)) > 0)
        tty_answer(t, reply, m);
}

/* Shows at most n bytes of what there is within ms; false when the program's end is reached. */
static inline bool tty_pump_some(tty *t, int ms, size_t n) {
    if (t->ahead_from == t->ahead_to) {
        struct pollfd p = {t->fd, POLLIN, 0};
        if (poll(&p, 1, ms) <= 0)
            return true;
        ssize_t got = read(t->fd, t->ahead, sizeof t->ahead);
        if (got <= 0)
            return got < 0 && (errno == EINTR || errno == EAGAIN);
        t->ahead_from = 0;
        t->ahead_to = (size_t)got;
    }
    tty_show(t, n);
    return true;
}

/* Reads what there is within ms; false when the program's end is reached. */
static inline bool tty_pump(tty *t, int ms) {
    return tty_pump_some(t, ms, sizeof t->ahead);
}

/* Row y as UTF-8, trailing blanks cut; into out[size]. */
static inline char *tty_row(tty *t, int y, char *out, size_t size) {
    VTermRect r = {y, y + 1, 0, t->cols};
    size_t n = vterm_screen_get_text(t->screen, out, size - 1, r);
    out[n < size ? n : size - 1] = 0;
    for (n = strlen(out); n && (out[n - 1] == ' ' || out[n - 1] == '\n');)
        out[--n] = 0;
    return out;
}

static inline bool tty_shows_in(tty *t, const char *text, bool only_changed) {
    char row[4096];
    for (int y = 0; y < t->rows; y++) {
        bool look = t->changed[y] || !only_changed;
        t->changed[y] = false;
        if (look && strstr(tty_row(t, y, row, sizeof row), text))
            return true;
    }
    return false;
}

static inline bool tty_shows(tty *t, const char *text) {
    return tty_shows_in(t, text, false);
}

static inline void tty_print(tty *t) {
    char row[4096];
    for (int y = 0; y < t->rows; y++)
        fprintf(stderr, "|%s\n", tty_row(t, y, row, sizeof row));
}

/* Whether the program is over and all that it said is on the screen. */
static inline bool tty_is_over(tty *t) {
    siginfo_t i = {0};
    return t->pid && waitid(P_PID, (id_t)t->pid, &i, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           i.si_pid == t->pid && t->ahead_from == t->ahead_to &&
           poll(&(struct pollfd){t->fd, POLLIN, 0}, 1, 0) == 0;
}

/* Waits until the screen shows text (or shows it no more). Fails the test otherwise. */
static inline void tty_wait_for(tty *t, const char *text, bool there) {
    long until = tty_now() + TTY_WAIT_MS;
    bool shows = tty_shows(t, text);
    while (shows != there) {
        size_t before = t->nlog;
        bool good = tty_pump_some(t, 50, there ? TTY_STEP : sizeof t->ahead);
        bool nothing = t->nlog == before;
        if (!good || tty_now() > until || (nothing && tty_is_over(t))) {
            tty_print(t);
            fail_msg("the screen %s \"%s\"", there ? "never showed" : "still shows", text);
        }
        if (!nothing)
            shows = tty_shows_in(t, text, there);
    }
    tty_show(t, sizeof t->ahead); /* the rest of what was read */
}
/* Waits until the screen is as the test wants it; false when it never is. */
static inline bool tty_wait_until(tty *t, bool (*is)(tty *t, const void *user), const void *user) {
    long until = tty_now() + TTY_WAIT_MS;
    while (!is(t, user)) {
        size_t before = t->nlog;
        if (tty_now() > until || !tty_pump_some(t, 50, TTY_STEP) ||
            (t->nlog == before && tty_is_over(t)))
            return false;
    }
    tty_show(t, sizeof t->ahead);
    return true;
}

#define tty_wait(t, text)      tty_wait_for(t, text, true)
#define tty_wait_gone(t, text) tty_wait_for(t, text, false)

static inline void tty_send(tty *t, const char *text) {
    size_t n = strlen(text);
    /* In small parts: the program's own output must be read meanwhile. */
    while (n) {
        size_t k = n < 512 ? n : 512;
        tty_raw_send(t, text, k);
        text += k;
        n -= k;
        tty_pump(t, 0);
    }
}

static inline void tty_resize(tty *t, int rows, int cols) {
    struct winsize w = {(unsigned short)rows, (unsigned short)cols, 0, 0};
    t->rows = rows;
    t->cols = cols;
    assert_true(rows <= TTY_ROWS);
    vterm_set_size(t->vt, rows, cols);
    ioctl(t->fd, TIOCSWINSZ, &w);
}

/* Waits for the end; returns waitpid's status. Fails the test when it does not come. */
static inline int tty_end(tty *t) {
    long until = tty_now() + TTY_WAIT_MS;
    int status;
    while (waitpid(t->pid, &status, WNOHANG) == 0) {
        if (tty_now() > until) {
            tty_print(t);
            kill(t->pid, SIGKILL);
            waitpid(t->pid, &status, 0);
            fail_msg("the program did not end");
        }
        tty_pump(t, 20);
    }
    do
        tty_pump(t, 0);
    while (poll(&(struct pollfd){t->fd, POLLIN, 0}, 1, 20) > 0);
    t->pid = 0;
    return status;
}

/* The modes of the terminal are what they were before the program started. */
static inline void tty_expect_restored(tty *t) {
    struct termios now;
    assert_int_equal(tcgetattr(t->slave, &now), 0);
    assert_int_equal(now.c_lflag, t->before.c_lflag);
    assert_int_equal(now.c_iflag, t->before.c_iflag);
    assert_int_equal(now.c_oflag, t->before.c_oflag);
    assert_false(t->alt);
    assert_true(t->cursor);
    /* The last word on bracketed paste and on the mouse is "off". */
    static const char *const modes[] = {"\033[?2004", "\033[?1000", "\033[?1002", "\033[?1006"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        const char *last = NULL;
        for (const char *p = t->log; (p = strstr(p, modes[i])); p++)
            last = p;
        assert_non_null(last); /* it had been on */
        assert_int_equal(last[strlen(modes[i])], 'l');
    }
}

static inline void tty_close(tty *t) {
    if (t->pid) {
        kill(t->pid, SIGKILL);
        waitpid(t->pid, NULL, 0);
    }
    vterm_free(t->vt);
    close(t->fd);
    close(t->slave);
    free(t->log);
}

#endif
