/* spawn.h - runs the built program and collects what it says, with a time limit.
 * The program is $PALI, or build/release/pali.                                   */
#ifndef PALI_SPAWN_H
#define PALI_SPAWN_H

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SPAWN_LIMIT_S =
        1500, /* until silence is a failure: ten seconds of computing may take minutes */
    SPAWN_ARGS = 40
};

typedef struct {
    pid_t pid;
    int in, out, err; /* our ends; -1: not ours or closed */
    char *text[2];    /* what came on stdout and stderr, NUL at the end */
    size_t n[2];
    int status; /* exit status, or 128 + signal */
} spawned;

static inline const char *spawn_program(void) {
    const char *p = getenv("PALI");
    return p && *p ? p : "build/release/pali";
}

static inline double spawn_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Starts the program with args (NULL-terminated, without the program's name). Its
 * streams are pipes where in, out, err are -1, else those descriptors. */
static inline spawned spawn_start(const char *const *args, int in, int out, int err) {
    const char *argv[SPAWN_ARGS] = {spawn_program()};
    for (int i = 0; args[i]; i++) {
        assert_true(i + 2 < SPAWN_ARGS);
        argv[i + 1] = args[i];
    }
    int pin[2] = {in, -1}, pout[2] = {-1, out}, perr[2] = {-1, err};
    if (in < 0)
        assert_int_equal(pipe2(pin, O_CLOEXEC), 0);
    if (out < 0)
        assert_int_equal(pipe2(pout, O_CLOEXEC), 0);
    if (err < 0)
        assert_int_equal(pipe2(perr, O_CLOEXEC), 0);
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, pin[0], 0);
    posix_spawn_file_actions_adddup2(&fa, pout[1], 1);
    posix_spawn_file_actions_adddup2(&fa, perr[1], 2);
    /* Whoever runs the tests may ignore what stops a program: in the background shells do. */
    static const int stopping[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t usual, none;
    posix_spawnattr_t attributes;
    sigemptyset(&none);
    sigemptyset(&usual);
    for (size_t i = 0; i < sizeof stopping / sizeof *stopping; i++)
        sigaddset(&usual, stopping[i]);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    spawned s = {.in = pin[1], .out = pout[0], .err = perr[0]};
    extern char **environ;
    int rc =
        posix_spawn(&s.pid, argv[0], &fa, &attributes, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&attributes);
    if (rc)
        fail_msg("%s: %s: build it with make, or set PALI", argv[0], strerror(rc));
    if (in < 0)
        close(pin[0]);
    if (out < 0)
        close(pout[1]);
    if (err < 0)
        close(perr[1]);
    for (int i = 0; i < 2; i++) {
        s.text[i] = calloc(1, 1);
        assert_non_null(s.text[i]);
    }
    return s;
}

/* A pipe that holds one page: who writes more waits for us, however late we are. Returns the
 * program's end (for `out`; close it after the start), *ours is for spawned.out. */
static inline int spawn_narrow_pipe(int *ours) {
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_true(fcntl(p[1], F_SETPIPE_SZ, 4096) > 0);
    *ours = p[0];
    return p[1];
}

static inline void spawn_close(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* What the program does not wait for is lost, as from any pipe: its words say the rest. */
static inline void spawn_write(spawned *s, const char *bytes, size_t n) {
    struct sigaction before;
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &before);
    while (n) {
        ssize_t w = write(s->in, bytes, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0 && errno == EPIPE)
            break;
        assert_true(w > 0);
        bytes += w;
        n -= (size_t)w;
    }
    sigaction(SIGPIPE, &before, NULL);
}

/* Reads until both streams end, or until stdout holds `want` bytes. */
static inline void spawn_read(spawned *s, size_t want) {
    double limit = spawn_clock() + SPAWN_LIMIT_S;
    int *fds[2] = {&s->out, &s->err};
    while ((s->out >= 0 || s->err >= 0) && s->n[0] < want) {
        struct pollfd p[2] = {{.fd = s->out, .events = POLLIN}, {.fd = s->err, .events = POLLIN}};
        int ready = poll(p, 2, 1000);
        if (spawn_clock() > limit) {
            kill(s->pid, SIGKILL);
            fail_msg("no end after %d s; stdout so far: %s", SPAWN_LIMIT_S, s->text[0]);
        }
        for (int i = 0; i < 2 && ready > 0; i++) {
            if (*fds[i] < 0 || !p[i].revents)
                continue;
            char buf[4096];
            ssize_t n = read(*fds[i], buf, sizeof buf);
            if (n <= 0) {
                spawn_close(fds[i]);
                continue;
            }
            s->text[i] = realloc(s->text[i], s->n[i] + (size_t)n + 1);
            assert_non_null(s->text[i]);
            memcpy(s->text[i] + s->n[i], buf, (size_t)n);
            s->n[i] += (size_t)n;
            s->text[i][s->n[i]] = '\0';
        }
    }
}

/* Ends the input, reads the rest, takes the status. */
static inline void spawn_finish(spawned *s) {
    spawn_close(&s->in);
    spawn_read(s, SIZE_MAX);
    int status;
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    s->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void spawn_free(spawned *s) {
    free(s->text[0]);
    free(s->text[1]);
}

/* From start to end; input NULL: /dev/null. */
static inline spawned spawn_run(const char *input, const char *const *args) {
    int null = input ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
    spawned s = spawn_start(args, null, -1, -1);
    if (input)
        spawn_write(&s, input, strlen(input));
    spawn_finish(&s);
    if (null >= 0)
        close(null);
    return s;
}

#define RUN(input, ...)     spawn_run((input), (const char *const[]){__VA_ARGS__, NULL})
#define START(in, out, ...) spawn_start((const char *const[]){__VA_ARGS__, NULL}, (in), (out), -1)

#endif
