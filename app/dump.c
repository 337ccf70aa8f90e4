/* dump.c - the .npy format, version 1.0; see dump.h.
 *
 * 6 bytes magic, 2 bytes version, u16 little-endian length of the rest of the header,
 * then a Python dictionary padded with spaces and ended by a newline, so that the
 * data starts at a multiple of 64. All our headers are 128 bytes: shapes up to
 * three dimensions fit with room to spare.                                       */
#include "app/dump.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER_BYTES = 128,
    PREAMBLE_BYTES = 10
};

static const char *const names[] = {"pixel_values", "image_embeds", "prefix_ids", "logits",
                                    "output_ids"};

static void make_header(char out[HEADER_BYTES + 1], bool is_int, int ndim, const size_t *shape) {
    char dims[80] = "";
    for (int i = 0, n = 0; i < ndim; i++)
        n += snprintf(dims + n, sizeof dims - (size_t)n, "%zu,", shape[i]);
    static const char order = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? '<' : '>';
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = HEADER_BYTES - PREAMBLE_BYTES;
    out[9] = 0;
    int used = snprintf(out + PREAMBLE_BYTES, HEADER_BYTES - PREAMBLE_BYTES,
                        "{'descr': '%c%c4', 'fortran_order': False, 'shape': (%s), }", order,
                        is_int ? 'i' : 'f', dims);
    memset(out + PREAMBLE_BYTES + used, ' ', (size_t)(HEADER_BYTES - PREAMBLE_BYTES - used));
    out[HEADER_BYTES - 1] = '\n';
}

static int cannot(const char *what, const char *path, pali_error *err) {
    return pali_fail(err, PALI_EIO, "give --dump a folder with room that you may write to",
                     "%.200s: cannot %s: %s", path, what, strerror(errno));
}

static int make_dir(const char *dir, pali_error *err) {
    if (mkdir(dir, 0777) && errno != EEXIST)
        return cannot("make this folder", dir, err);
    struct stat st;
    if (stat(dir, &st) || !S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return cannot("write tensors there", dir, err);
    }
    return access(dir, W_OK | X_OK) ? cannot("write tensors there", dir, err) : 0;
}

static int file_path(const app_dump *d, const char *name, char out[PATH_MAX], pali_error *err) {
    if (snprintf(out, PATH_MAX, "%s/%s.npy", d->dir, name) < PATH_MAX)
        return 0;
    errno = ENAMETOOLONG;
    return cannot("write tensors there", d->dir, err);
}

int app_dump_prepare(const char *dir, pali_error *err) {
    return make_dir(dir, err);
}

int app_dump_open(app_dump *d, const char *dir, int turn, pali_error *err) {
    *d = (app_dump){0};
    int n = turn ? snprintf(d->dir, sizeof d->dir, "%s/turn-%d", dir, turn)
                 : snprintf(d->dir, sizeof d->dir, "%s", dir);
    if (n >= (int)sizeof d->dir) {
        errno = ENAMETOOLONG;
        return cannot("write tensors there", dir, err);
    }
    int rc = make_dir(d->dir, err);
    for (size_t i = 0; !rc && i < sizeof names / sizeof *names; i++) {
        char path[PATH_MAX];
        rc = file_path(d, names[i], path, err);
        if (!rc && unlink(path) && errno != ENOENT)
            rc = cannot("replace this file", path, err);
    }
    return rc;
}

static int create(app_dump *d, const char *name, bool is_int, int ndim, const size_t *shape,
                  FILE **out) {
    char path[PATH_MAX], header[HEADER_BYTES + 1];
    int rc = file_path(d, name, path, &d->err);
    if (rc)
        return rc;
    *out = fopen(path, "wbe");
    if (!*out)
        return cannot("write this file", path, &d->err);
    make_header(header, is_int, ndim, shape);
    fwrite(header, 1, HEADER_BYTES, *out); /* a failure shows in finish */
    return 0;
}

static int finish(app_dump *d, const char *name, FILE *f) {
    int failed = ferror(f), number = errno;
    if (fclose(f) && !failed) {
        failed = 1;
        number = errno;
    }
    if (!failed)
        return 0;
    errno = number;
    char path[PATH_MAX];
    return file_path(d, name, path, &d->err) ? PALI_EIO : cannot("write this file", path, &d->err);
}

/* One step of the logits, whatever leading 1 its shape has. */
static int append_logits(app_dump *d, const pali_traced *t) {
    size_t width = t->shape[t->ndim - 1];
    if (!d->logits) {
        d->width = width;
        if (create(d, t->name, t->is_int, 2, (size_t[]){0, width}, &d->logits))
            return PALI_EIO;
    }
    if (fwrite(t->data, 4, width, d->logits) != width) {
        FILE *f = d->logits;
        d->logits = NULL;
        return finish(d, t->name, f);
    }
    d->steps++;
    return 0;
}

int app_dump_tensor(app_dump *d, const pali_traced *t) {
    if (d->err.code)
        return d->err.code;
    if (!strcmp(t->name, "logits"))
        return append_logits(d, t);
    FILE *f;
    if (create(d, t->name, t->is_int, t->ndim, t->shape, &f))
        return PALI_EIO;
    size_t count = 1;
    for (int i = 0; i < t->ndim; i++)
        count *= t->shape[i];
    if (count)
        fwrite(t->data, 4, count, f);
    return finish(d, t->name, f);
}

int app_dump_close(app_dump *d, pali_error *err) {
    if (d->logits) {
        char header[HEADER_BYTES + 1];
        make_header(header, false, 2, (size_t[]){d->steps, d->width});
        rewind(d->logits);
        fwrite(header, 1, HEADER_BYTES, d->logits);
        finish(d, "logits", d->logits);
        d->logits = NULL;
    }
    return d->err.code ? pali_fail(err, d->err.code, d->err.hint, "%s", d->err.what) : 0;
}
