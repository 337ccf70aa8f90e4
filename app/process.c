/* process.c - see process.h. */
#include "app/process.h"

#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

static atomic_int stop;
static const int stop_signals[] = {SIGINT, SIGTERM};

enum {
    STOP_SIGNALS = sizeof stop_signals / sizeof *stop_signals
};

void app_process_start(void) {
    /* Only LC_CTYPE: numbers are read and written with a point everywhere. */
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8"))
        setlocale(LC_CTYPE, "C.UTF-8");
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY); /* using it fails, as before */
}

/* A second signal meets the default action once this handler returns. */
static void on_signal(int number) {
    if (atomic_exchange(&stop, 1)) {
        signal(number, SIG_DFL);
        raise(number);
    }
}

void app_process_catch_signals(void) {
    for (size_t i = 0; i < STOP_SIGNALS; i++) {
        struct sigaction old, new = {.sa_handler = on_signal}; /* no SA_RESTART: wake reads */
        sigemptyset(&new.sa_mask);
        if (!sigaction(stop_signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(stop_signals[i], &new, NULL);
    }
}

const atomic_int *app_process_stop_flag(void) {
    return &stop;
}

bool app_process_stopped(void) {
    return atomic_load(&stop) != 0;
}

void app_process_stop(void) {
    atomic_store(&stop, 1);
}

bool app_process_wait_input(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    sigset_t held, before;
    sigemptyset(&held);
    for (size_t i = 0; i < STOP_SIGNALS; i++)
        sigaddset(&held, stop_signals[i]);
    pthread_sigmask(SIG_BLOCK, &held, &before);
    while (!app_process_stopped() && ppoll(&p, 1, NULL, &before) < 0)
        continue; /* EINTR: only there the signals come through */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !app_process_stopped();
}
