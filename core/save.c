/* save.c - see save.h; the layout of the file is in safetensors.h. */
#include "core/save.h"

#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    CHUNK = 16 << 20,
    ALIGN = 64 /* of the data in the file, so that a mapping of it is aligned too */
};

static uint64_t bytes_of(const pali_matrix *m) {
    return (uint64_t)m->rows * (uint64_t)m->cols * pali_dtype_size(m->dtype);
}

static int refused(const char *path, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EIO, "check the disk and the folder", "%s: cannot %s: %s",
                     pali_file_brief(path), what, strerror(errno));
}

/* The header with its length before it, padded with spaces. Caller frees *out. */
static int make_header(const pali_weights *w, char **out, size_t *n, pali_error *err) {
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    if (!f)
        return pali_fail_nomem(err, "saving a model");
    uint64_t at = 0;
    fwrite("\0\0\0\0\0\0\0", 1, 8, f);
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", f);
    for (size_t i = 0; i < w->ntensors; i++) {
        const pali_weights_tensor *t = &w->tensors[i];
        uint64_t end = at + bytes_of(t->matrix);
        fprintf(f, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name,
                pali_dtype_name(t->matrix->dtype));
        for (int k = 0; k < t->ndim; k++)
            fprintf(f, k ? ",%lld" : "%lld", (long long)t->shape[k]);
        fprintf(f, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                (unsigned long long)end);
        at = end;
    }
    fputc('}', f);
    fflush(f);
    while (*n % ALIGN && !ferror(f)) {
        fputc(' ', f);
        fflush(f);
    }
    if (fclose(f)) {
        free(text);
        return pali_fail_nomem(err, "saving a model");
    }
    uint64_t length = *n - 8;
    memcpy(text, &length, 8);
    *out = text;
    return 0;
}

typedef struct {
    int fd;
    const char *path; /* for messages */
    uint64_t done, all;
    const pali_run *run;
} writer;

static int put(writer *w, const void *bytes, uint64_t n, pali_error *err) {
    const char *p = bytes;
    while (n) {
        if (w->run && w->run->cancel && atomic_load(w->run->cancel))
            return pali_fail(err, PALI_ECANCEL, NULL, "stopped while saving");
        ssize_t k = write(w->fd, p, n < CHUNK ? (size_t)n : CHUNK);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return refused(w->path, "write to it", err);
        p += k;
        n -= (uint64_t)k;
        w->done += (uint64_t)k;
        if (w->run && w->run->progress)
            w->run->progress(w->run->user, PALI_STAGE_LOAD, (int)(w->done >> 20),
                             (int)(w->all >> 20) + 1);
    }
    return 0;
}

static int write_all(writer *o, const pali_weights *w, pali_error *err) {
    char *header = NULL;
    size_t n;
    struct statvfs fs;
    int rc = make_header(w, &header, &n, err);
    if (rc)
        return rc;
    o->all = n + w->bytes;
    if (!fstatvfs(o->fd, &fs) && (uint64_t)fs.f_bavail * fs.f_frsize < o->all)
        rc = pali_fail(err, PALI_EIO, "make room there",
                       "%s: needs %llu MB, and there are only %llu free", pali_file_brief(o->path),
                       (unsigned long long)(o->all / 1000000 + 1),
                       (unsigned long long)((uint64_t)fs.f_bavail * fs.f_frsize / 1000000));
    if (!rc)
        rc = put(o, header, n, err);
    free(header);
    for (size_t i = 0; i < w->ntensors && !rc; i++)
        rc = put(o, w->tensors[i].matrix->data, bytes_of(w->tensors[i].matrix), err);
    return rc;
}

int pali_save(const pali_weights *w, const char *path, const pali_run *run, pali_error *err) {
    for (size_t i = 0; i < w->ntensors; i++)
        if (!pali_dtype_size(w->tensors[i].matrix->dtype))
            return pali_fail(err, PALI_EUNSUPPORTED, "take the model that it was made from",
                             "quantised weights cannot be saved so");
    char *part;
    if (asprintf(&part, "%s.incomplete", path) < 0)
        return pali_fail_nomem(err, "saving a model");
    writer o = {.fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666),
                .path = path,
                .run = run};
    int rc = o.fd < 0 ? refused(part, "make it", err) : write_all(&o, w, err);
    if (!rc && fdatasync(o.fd))
        rc = refused(part, "write to it", err);
    if (o.fd >= 0 && close(o.fd) && !rc)
        rc = refused(part, "write to it", err);
    if (!rc && rename(part, path))
        rc = refused(path, "name it", err);
    if (rc && o.fd >= 0)
        unlink(part);
    free(part);
    return rc;
}
