/* clipboard.c - asking another program for the clipboard; see clipboard.h.
 *
 * The program is started by its name and arguments, without a shell. Its owner on the other
 * side may never answer, so reading has a deadline, and a size limit.                       */
#include "app/clipboard.h"

#include "core/image.h"

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

enum {
    DEADLINE_MS = 5000
};

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* All that comes from fd until its end; false on the deadline, the limit or no memory. */
static bool read_all(int fd, uint8_t **bytes, size_t *n) {
    size_t cap = 0;
    for (long until = now_ms() + DEADLINE_MS;;) {
        long left = until - now_ms();
        struct pollfd p = {fd, POLLIN, 0};
        if (left <= 0 || (poll(&p, 1, (int)left) <= 0 && errno != EINTR))
            return false;
        if (*n == cap) {
            cap = cap ? 2 * cap : 65536;
            uint8_t *more = cap > PALI_IMAGE_MAX_BYTES ? NULL : realloc(*bytes, cap);
            if (!more)
                return false;
            *bytes = more;
        }
        ssize_t k = read(fd, *bytes + *n, cap - *n);
        if (k == 0)
            return true;
        if (k > 0)
            *n += (size_t)k;
        else if (errno != EINTR)
            return false;
    }
}

/* Runs argv; true when it ended well and said something. *missing: there is no such program. */
static bool run(const char *const argv[], uint8_t **bytes, size_t *n, bool *missing) {
    int p[2];
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
    bool ok = rc == 0 && read_all(p[0], bytes, n);
    close(p[0]);
    if (rc)
        return false;
    if (!ok)
        kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return ok && *n > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int clipboard_read_png(uint8_t **bytes, size_t *n, pali_error *err) {
    static const char *const ways[][8] = {
        {"wl-paste", "--type", "image/png"},
        {"xclip", "-selection", "clipboard", "-t", "image/png", "-o"},
    };
    bool found = false;
    for (size_t i = 0; i < 2; i++) {
        bool missing = false;
        *bytes = NULL;
        *n = 0;
        if (run(ways[i], bytes, n, &missing))
            return 0;
        free(*bytes);
        *bytes = NULL;
        found |= !missing;
    }
    if (!found)
        return pali_fail(err, PALI_EUNSUPPORTED, "install wl-clipboard or xclip",
                         "the clipboard cannot be read: neither wl-paste nor xclip is there");
    return pali_fail(err, PALI_EFORMAT, "copy a picture, or use /image PATH",
                     "there is no picture on the clipboard");
}
