/* results.c - see results.h. */
#include "app/results.h"

#include "app/output.h"
#include "core/file.h"
#include "ui/text.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct results {
    const char *path; /* borrowed; NULL: standard output */
    int fd;           /* -1 without a file */
    /* What the file had: 'j' and the name in JSON, or 't' and the name in a line of text; sorted. */
    char **keys; /* owned strings */
    size_t nkeys, cap;
};

/* --- lines ---------------------------------------------------------------------------- */

/* Writes s[0..n) to out, which has room for 4 n bytes; returns the end. */
static char *escape(char *out, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *special = c ? strchr("\n\t\r\\", c) : NULL;
        if (special) {
            *out++ = '\\';
            *out++ = "ntr\\"[special - "\n\t\r\\"];
        } else if (c < 0x20 || c == 0x7F) {
            out += sprintf(out, "\\x%02X", c);
        } else {
            *out++ = (char)c;
        }
    }
    return out;
}

char *results_line(const char *name, const char *text) {
    size_t nname = strlen(name), ntext = strlen(text);
    while (ntext && (text[ntext - 1] == '\n' || text[ntext - 1] == '\r'))
        ntext--;
    char *line = calloc(nname + ntext + 1, 4), *end = line;
    if (!line)
        return NULL;
    end = escape(end, name, nname);
    *end++ = '\t';
    end = escape(end, text, ntext);
    *end++ = '\n';
    return line;
}

/* 'j' and name as JSON has it, or 't' and name as a line of text has it. Caller frees. */
static char *key_of(char kind, const char *name) {
    size_t n = strlen(name), room = UI_TEXT_ROOM(n) + 4 * n + 8;
    char *key = calloc(room, 1);
    if (!key)
        return NULL;
    *key = kind;
    if (kind == 'j')
        ui_text_clean(UI_TEXT_VALID, name, key + 1, room - 1);
    else
        escape(key + 1, name, n);
    return key;
}

/* --- what the file has ---------------------------------------------------------------- */

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Takes over key. */
static int add_key(results *r, char *key, pali_error *err) {
    if (key && r->nkeys == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        char **more = reallocarray(r->keys, cap, sizeof *more);
        if (more) {
            r->keys = more;
            r->cap = cap;
        }
    }
    if (!key || r->nkeys == r->cap) {
        free(key);
        return pali_fail_nomem(err, "reading the results so far");
    }
    r->keys[r->nkeys++] = key;
    return 0;
}

/* One line without its newline. */
static int read_line(results *r, const char *line, size_t n, size_t number, const char *prompt,
                     pali_error *err) {
    if (*line == '{') {
        json_t *j = json_loadb(line, n, 0, NULL);
        const char *image = json_string_value(json_object_get(j, "image"));
        const char *asked = json_string_value(json_object_get(j, "prompt"));
        int rc = 1;
        if (image && asked)
            rc = strcmp(asked, prompt) ? 0 : add_key(r, key_of('j', image), err);
        json_decref(j);
        if (rc <= 0)
            return rc;
    }
    const char *tab = memchr(line, '\t', n);
    if (!tab || tab == line || memchr(line, '\0', n))
        return pali_fail(err, PALI_EFORMAT, "name the file of an earlier run, or a new one",
                         "%s:%zu: not a line of results", pali_file_brief(r->path), number);
    char *key = calloc((size_t)(tab - line) + 2, 1);
    if (key) {
        *key = 't';
        memcpy(key + 1, line, (size_t)(tab - line));
    }
    return add_key(r, key, err);
}

/* Reads all whole lines and cuts off what follows the last. */
static int read_file(results *r, const char *prompt, pali_error *err) {
    int fd = dup(r->fd);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
    if (!f) {
        if (fd >= 0)
            close(fd);
        return pali_fail_nomem(err, "reading the results so far");
    }
    char *line = NULL;
    size_t room = 0, number = 0;
    off_t whole = 0;
    ssize_t n = 0;
    int rc = 0;
    while (!rc && (n = getline(&line, &room, f)) > 0 && line[n - 1] == '\n') {
        line[n - 1] = '\0';
        rc = read_line(r, line, (size_t)n - 1, ++number, prompt, err);
        whole += n;
    }
    if (!rc && ferror(f))
        rc = pali_fail(err, PALI_EIO, NULL, "%s: %s", pali_file_brief(r->path), strerror(errno));
    free(line);
    fclose(f);
    if (!rc && n > 0 && ftruncate(r->fd, whole))
        rc = pali_fail(err, PALI_EIO, NULL, "%s: %s", pali_file_brief(r->path), strerror(errno));
    if (r->nkeys)
        qsort(r->keys, r->nkeys, sizeof *r->keys, by_bytes);
    return rc;
}

static int open_file(results *r, bool resume, const char *prompt, pali_error *err) {
    struct stat st;
    r->fd = open(r->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (r->fd < 0 || fstat(r->fd, &st))
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", pali_file_brief(r->path), strerror(errno));
    if (!S_ISREG(st.st_mode))
        return pali_fail(err, PALI_EIO, "leave out -o: results go to standard output then",
                         "%s: not a file", pali_file_brief(r->path));
    if (flock(r->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return pali_fail(err, PALI_EIO, "wait for it, or name another file",
                         "%s: another pali writes to this file", pali_file_brief(r->path));
    if (!resume && st.st_size)
        return pali_fail(err, PALI_EIO, "--resume goes on with it; or remove it first",
                         "%s: the file is not empty", pali_file_brief(r->path));
    return st.st_size ? read_file(r, prompt, err) : 0;
}

/* --- all of it ------------------------------------------------------------------------ */

int results_open(const char *path, bool resume, const char *prompt, results **out,
                 pali_error *err) {
    results *r = *out = calloc(1, sizeof *r);
    if (!r)
        return pali_fail_nomem(err, "opening the results");
    r->path = path;
    r->fd = -1;
    int rc = path ? open_file(r, resume, prompt, err) : 0;
    if (rc) {
        results_close(r, NULL);
        *out = NULL;
    }
    return rc;
}

int results_close(results *r, pali_error *err) {
    int rc = 0;
    if (!r)
        return 0;
    if (r->fd >= 0 && (fsync(r->fd) && errno != EINVAL))
        rc = pali_fail(err, PALI_EIO, NULL, "%s: %s", pali_file_brief(r->path), strerror(errno));
    if (r->fd >= 0)
        close(r->fd);
    for (size_t i = 0; i < r->nkeys; i++)
        free(r->keys[i]);
    free(r->keys);
    free(r);
    return rc;
}

bool results_have(const results *r, const char *image) {
    bool found = false;
    for (const char *kind = "jt"; r->nkeys && !found && *kind; kind++) {
        char *key = key_of(*kind, image);
        found = key && bsearch(&key, r->keys, r->nkeys, sizeof *r->keys, by_bytes);
        free(key);
    }
    return found;
}

int results_write(results *r, const char *line, size_t n, pali_error *err) {
    if (!r->path) {
        if (isatty(STDOUT_FILENO)) /* the line of progress is there too */
            app_err_progress_clear();
        return app_out_write(line, n, err);
    }
    while (n) {
        ssize_t w = write(r->fd, line, n);
        if (w < 0 && errno != EINTR)
            return pali_fail(err, PALI_EIO, "what was written before is whole: --resume goes on",
                             "%s: %s", pali_file_brief(r->path), strerror(errno));
        if (w > 0) {
            line += w;
            n -= (size_t)w;
        }
    }
    return 0;
}
