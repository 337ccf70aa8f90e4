/* picture_list.c - see picture_list.h.
 *
 * Names and the contents of folders are known from the start. A list that is a regular file is read
 * through once to count it, then rewound.                                                         */
#include "app/picture_list.h"

#include "app/dropped.h"
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

struct picture_list {
    char **known; /* owned strings */
    size_t nknown, cap, next;
    const char *from; /* borrowed; for messages */
    int fd;           /* of the list; -1: none, or it has ended */
    int stop;         /* an eventfd: readable once stopped */
    bool counted;     /* total holds */
    size_t total;
    size_t entry; /* of the list, from 1 */
    char end;     /* of each entry, once seen is true */
    bool seen;
    size_t from_byte, nbytes; /* what of buffer is not taken yet */
    char buffer[2 * PATH_MAX], name[PATH_MAX];
};

/* --- names and folders ---------------------------------------------------------------- */

/* Takes over name. */
static int add(picture_list *l, char *name, pali_error *err) {
    if (name && l->nknown == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **more = reallocarray(l->known, cap, sizeof *more);
        if (more) {
            l->known = more;
            l->cap = cap;
        }
    }
    if (!name || l->nknown == l->cap) {
        free(name);
        return pali_fail_nomem(err, "listing the pictures");
    }
    l->known[l->nknown++] = name;
    return 0;
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_folder(picture_list *l, const char *path, pali_error *err) {
    DIR *dir = opendir(path);
    if (!dir)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", pali_file_brief(path), strerror(errno));
    size_t first = l->nknown;
    int rc = 0;
    for (const struct dirent *e; !rc && (e = readdir(dir));) {
        if (*e->d_name == '.')
            continue;
        char *name = pali_file_join(path, e->d_name);
        if (name && !dropped_is_picture(name))
            free(name);
        else
            rc = add(l, name, err);
    }
    closedir(dir);
    if (!rc && l->nknown == first)
        rc = pali_fail(err, PALI_EFORMAT, "name another folder, or files in it",
                       "%s: no picture in this folder", pali_file_brief(path));
    if (!rc)
        qsort(l->known + first, l->nknown - first, sizeof *l->known, by_bytes);
    return rc;
}

/* --- the list ------------------------------------------------------------------------- */

/* Reads more of the list: 1, 0 at its end, or an error. */
static int fill(picture_list *l, pali_error *err) {
    memmove(l->buffer, l->buffer + l->from_byte, l->nbytes);
    l->from_byte = 0;
    struct pollfd p[2] = {{.fd = l->stop, .events = POLLIN}, {.fd = l->fd, .events = POLLIN}};
    ssize_t n = -1;
    while (n < 0) {
        if (poll(p, 2, -1) < 0)
            continue; /* a signal */
        if (p[0].revents)
            return PALI_ECANCEL;
        n = read(l->fd, l->buffer + l->nbytes, sizeof l->buffer - l->nbytes);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return pali_fail(err, PALI_EIO, NULL, "%s: %s", l->from, strerror(errno));
    }
    if (!l->seen && n > 0) {
        l->end = memchr(l->buffer + l->nbytes, '\0', (size_t)n) ? '\0' : '\n';
        l->seen = true;
    }
    l->nbytes += (size_t)n;
    return n > 0;
}

/* The next entry of the list that is not empty, into l->name: 1, 0 at the end, or an error. */
static int next_entry(picture_list *l, pali_error *err) {
    for (;;) {
        char *start = l->buffer + l->from_byte, *end = NULL;
        int more = 1;
        while (!(end = l->seen ? memchr(start, l->end, l->nbytes) : NULL) && more > 0 &&
               l->nbytes < sizeof l->name) {
            if ((more = fill(l, err)) < 0)
                return more;
            start = l->buffer;
        }
        size_t n = end ? (size_t)(end - start) : l->nbytes;
        if (!n && !end)
            return 0;
        l->entry++;
        if (n >= sizeof l->name)
            return pali_fail(err, PALI_EFORMAT, "one name a line, or NUL after each",
                             "%s: entry %zu is longer than any file name", l->from, l->entry);
        l->from_byte += n + (end != NULL);
        l->nbytes -= n + (end != NULL);
        if (l->end == '\n' && n && start[n - 1] == '\r')
            n--;
        memcpy(l->name, start, n);
        l->name[n] = '\0';
        if (n && strlen(l->name) != n)
            return pali_fail(err, PALI_EFORMAT, "one name a line, or NUL after each",
                             "%s: there is a zero byte in entry %zu", l->from, l->entry);
        if (n)
            return 1;
    }
}

/* Counts a list that can be read twice. */
static int count(picture_list *l, pali_error *err) {
    struct stat st;
    off_t start = lseek(l->fd, 0, SEEK_CUR);
    if (fstat(l->fd, &st) || !S_ISREG(st.st_mode) || start < 0)
        return 0;
    int rc;
    size_t n = 0;
    while ((rc = next_entry(l, err)) > 0)
        n++;
    if (rc < 0)
        return rc;
    lseek(l->fd, start, SEEK_SET);
    l->entry = l->from_byte = l->nbytes = 0;
    l->total = l->nknown + n;
    l->counted = true;
    return 0;
}

static int open_list(picture_list *l, pali_error *err) {
    bool piped = !strcmp(l->from, "-");
    l->fd = piped ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(l->from, O_RDONLY | O_CLOEXEC);
    if (piped)
        l->from = "standard input";
    if (l->fd < 0)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", pali_file_brief(l->from), strerror(errno));
    return count(l, err);
}

/* --- all of it ------------------------------------------------------------------------ */

int picture_list_open(const char *const *names, size_t n, const char *from, picture_list **out,
                      pali_error *err) {
    picture_list *l = *out = calloc(1, sizeof *l);
    if (!l)
        return pali_fail_nomem(err, "listing the pictures");
    l->from = from;
    l->fd = -1;
    l->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = l->stop < 0 ? pali_fail(err, PALI_EIO, NULL, "eventfd: %s", strerror(errno)) : 0;
    for (size_t i = 0; !rc && i < n; i++)
        rc = pali_file_is_folder(names[i]) ? add_folder(l, names[i], err)
                                           : add(l, strdup(names[i]), err);
    l->total = l->nknown;
    l->counted = !from;
    if (!rc && from)
        rc = open_list(l, err);
    if (rc) {
        picture_list_close(l);
        *out = NULL;
    }
    return rc;
}

void picture_list_close(picture_list *l) {
    if (!l)
        return;
    for (size_t i = 0; i < l->nknown; i++)
        free(l->known[i]);
    free(l->known);
    if (l->fd >= 0)
        close(l->fd);
    if (l->stop >= 0)
        close(l->stop);
    free(l);
}

int picture_list_next(picture_list *l, const char **path, pali_error *err) {
    struct pollfd stop = {.fd = l->stop, .events = POLLIN};
    if (poll(&stop, 1, 0) > 0)
        return PALI_ECANCEL;
    if (l->next < l->nknown) {
        *path = l->known[l->next++];
        return 1;
    }
    *path = l->name;
    return l->fd < 0 ? 0 : next_entry(l, err);
}

void picture_list_stop(picture_list *l) {
    uint64_t one = 1;
    if (write(l->stop, &one, sizeof one) < 0)
        return; /* it is full: it was stopped already */
}

size_t picture_list_total(const picture_list *l) {
    return l->counted ? l->total : 0;
}
