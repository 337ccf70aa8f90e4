/* file.c - see file.h. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BRIEF_MAX = 120
};

const char *pali_file_brief(const char *path) {
    size_t n = strlen(path);
    if (n <= BRIEF_MAX)
        return path;
    const char *end = path + n - BRIEF_MAX;
    const char *slash = strchr(end, '/');
    return slash && slash[1] ? slash + 1 : end;
}

int pali_file_open(const char *path, uint64_t *size, pali_error *err) {
    const char *brief = pali_file_brief(path);
    /* O_NONBLOCK: opening a pipe that nobody writes to would wait for ever. It
     * changes nothing for a regular file. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return pali_fail(err, PALI_EIO, "check the name, or download the file",
                             "%s: no such file", brief);
        if (errno == EACCES || errno == EPERM)
            return pali_fail(err, PALI_EIO, "check the permissions of the file and its folders",
                             "%s: not allowed to read it", brief);
        return pali_fail(err, PALI_EIO, NULL, "%s: cannot open it: %s", brief, strerror(errno));
    }
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st) != 0)
        rc = pali_fail(err, PALI_EIO, NULL, "%s: cannot look at it: %s", brief, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        rc = pali_fail(err, PALI_EIO, "name a file", "%s: is a folder, expected a file", brief);
    else if (!S_ISREG(st.st_mode))
        rc = pali_fail(err, PALI_EIO, "name a file on a disk", "%s: is not a regular file", brief);
    if (rc) {
        close(fd);
        return rc;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

int pali_file_read(const char *path, size_t limit, char **bytes, size_t *n, pali_error *err) {
    *bytes = NULL;
    *n = 0;
    uint64_t size;
    int fd = pali_file_open(path, &size, err);
    if (fd < 0)
        return fd;
    const char *brief = pali_file_brief(path);
    int rc = 0;
    char *buf = NULL;
    size_t got = 0;
    if (size > limit) {
        rc = pali_fail(err, PALI_ELIMIT, "is it the right file?",
                       "%s: has %llu bytes, at most %zu are read", brief, (unsigned long long)size,
                       limit);
        goto out;
    }
    buf = malloc((size_t)size + 1);
    if (!buf) {
        rc = pali_fail_nomem(err, "reading a file");
        goto out;
    }
    while (got < size) {
        ssize_t r = read(fd, buf + got, (size_t)size - got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            rc = pali_fail(err, PALI_EIO, "check the disk", "%s: cannot read it: %s", brief,
                           strerror(errno));
            goto out;
        }
        if (r == 0) /* it became shorter meanwhile: what is there is what it is */
            break;
        got += (size_t)r;
    }
    buf[got] = '\0';
    *bytes = buf;
    *n = got;
    buf = NULL;
out:
    free(buf);
    close(fd);
    return rc;
}

char *pali_file_join(const char *dir, const char *name) {
    size_t nd = strlen(dir), nn = strlen(name);
    while (nd > 1 && dir[nd - 1] == '/')
        nd--;
    char *p = malloc(nd + nn + 2);
    if (!p)
        return NULL;
    memcpy(p, dir, nd);
    if (nd == 0 || p[nd - 1] != '/')
        p[nd++] = '/';
    memcpy(p + nd, name, nn + 1);
    return p;
}

bool pali_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool pali_file_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool pali_file_look(const char *path, pali_file_stamp *out) {
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    *out = (pali_file_stamp){
        .inode = (uint64_t)st.st_ino,
        .size = (uint64_t)st.st_size,
        .modified = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
        .changed = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec,
    };
    return true;
}

bool pali_file_make_folders(const char *path) {
    char *copy = strdup(path);
    bool good = copy != NULL;
    for (char *c = copy; good; c++) {
        if (*c && (*c != '/' || c == copy))
            continue;
        char end = *c;
        *c = '\0';
        good = mkdir(copy, 0700) == 0 || errno == EEXIST;
        *c = end;
        if (!end)
            break;
    }
    int why = errno;
    free(copy);
    errno = why;
    return good;
}

bool pali_file_has_ending(const char *path, const char *tail) {
    size_t n = strlen(path), t = strlen(tail);
    return n > t && strcmp(path + n - t, tail) == 0;
}

/* Whether bytes begin with word, letters in either case. */
static bool begins(const char *bytes, size_t n, const char *word) {
    size_t w = strlen(word);
    return n >= w && strncasecmp(bytes, word, w) == 0;
}

int pali_file_check_stub(const char *path, const void *bytes, size_t n, pali_error *err) {
    const char *p = bytes;
    if (begins(p, n, "version https://git-lfs.github.com/"))
        return pali_fail(err, PALI_EFORMAT,
                         "run 'git lfs pull' in its folder, or download the file",
                         "%s: is a git-lfs pointer, not the file itself", pali_file_brief(path));
    if (begins(p, n, "<!doctype html") || begins(p, n, "<html") || begins(p, n, "<head"))
        return pali_fail(err, PALI_EFORMAT,
                         "accept the model's licence on its page, then download the file again",
                         "%s: is a web page, not the file itself", pali_file_brief(path));
    return 0;
}
