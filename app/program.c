/* program.c - see program.h. */
#include "app/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* All that comes from fd until its end; false on the deadline, the limit or no memory. */
static bool read_all(int fd, size_t most, int deadline_ms, uint8_t **bytes, size_t *n) {
    size_t cap = 0;
    for (long until = now_ms() + deadline_ms;;) {
        long left = until - now_ms();
        struct pollfd p = {fd, POLLIN, 0};
        if (left <= 0 || (poll(&p, 1, (int)left) <= 0 && errno != EINTR))
            return false;
        if (*n == cap) {
            cap = cap ? 2 * cap : 65536;
            uint8_t *more = cap > 2 * most + 65536 ? NULL : realloc(*bytes, cap);
            if (!more)
                return false;
            *bytes = more;
        }
        if (*n > most)
            return false;
        ssize_t k = read(fd, *bytes + *n, cap - *n);
        if (k == 0)
            return true;
        if (k > 0)
            *n += (size_t)k;
        else if (errno != EINTR)
            return false;
    }
}

bool program_read(const char *const argv[], size_t most, int deadline_ms, uint8_t **bytes,
                  size_t *n, bool *missing) {
    int p[2];
    *bytes = NULL;
    *n = 0;
    *missing = false;
    if (pipe2(p, O_CLOEXEC))
        return false;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, p[1], 1);
    posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0);
    pid_t pid;
    int rc = posix_spawnp(&pid, argv[0], &fa, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(p[1]);
    *missing = rc == ENOENT;
    bool ok = rc == 0 && read_all(p[0], most, deadline_ms, bytes, n);
    close(p[0]);
    if (rc)
        return false;
    if (!ok)
        kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (ok && *n > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    free(*bytes);
    *bytes = NULL;
    return false;
}
