/* save.c - see save.h; the layout of the file is in safetensors.h, that of quantised matrices in
 * quant.h. Their scales lie before everything else, where they are aligned whatever the
 * sizes of the rest, and are written last, when they are known.                        */
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

/* What a tensor of w is in the file. */
typedef struct {
    pali_dtype dtype;
    uint64_t codes, scale_codes, scales; /* bytes; a plain matrix is all codes */
} form;

/* What the matrices of w are to become. */
typedef struct {
    pali_quant quant;
    bool all; /* the tower's and the projector's too */
} wish;

static bool coded(pali_dtype t) {
    return t == PALI_INT8 || t == PALI_NF4;
}

static bool lies_in(const void *p, const void *from, size_t bytes) {
    return (uintptr_t)p >= (uintptr_t)from && (uintptr_t)p - (uintptr_t)from < bytes;
}

static bool is_of_decoder(const pali_weights *w, const pali_matrix *m) {
    return lies_in(m, w->text, (size_t)w->config.text.layers * sizeof *w->text);
}

/* Of the two-dimensional ones: those of layers, and the projector. */
static bool is_meant(const pali_weights *w, const pali_matrix *m, bool all) {
    size_t tower = (size_t)w->config.vision.layers * sizeof *w->vision;
    return is_of_decoder(w, m) || (all && (lies_in(m, w->vision, tower) || m == &w->proj_w));
}

static form form_of(const pali_weights *w, const pali_weights_tensor *t, wish to) {
    const pali_matrix *m = t->matrix;
    uint64_t n = (uint64_t)m->rows * (uint64_t)m->cols;
    form f = {.dtype = m->dtype};
    if (to.quant != PALI_QUANT_NONE && t->ndim == 2 && !coded(m->dtype) && is_meant(w, m, to.all))
        f.dtype = to.quant == PALI_QUANT_NF4 ? PALI_NF4 : PALI_INT8;
    if (f.dtype == PALI_INT8) {
        f.codes = n;
        f.scales = (uint64_t)m->rows * sizeof(float);
    } else if (f.dtype == PALI_NF4) {
        f.codes = n / 2;
        f.scale_codes = (n + PALI_NF4_BLOCK - 1) / PALI_NF4_BLOCK;
        f.scales = ((f.scale_codes + PALI_NF4_GROUP - 1) / PALI_NF4_GROUP + 1) * sizeof(float);
    } else {
        f.codes = n * pali_dtype_size(f.dtype);
    }
    return f;
}

static int refused(const char *path, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EIO, "check the disk and the folder", "%s: cannot %s: %s",
                     pali_file_brief(path), what, strerror(errno));
}

static void entry(FILE *f, const char *name, const char *more, const char *dtype, int ndim,
                  const int64_t *shape, uint64_t *at, uint64_t bytes) {
    fprintf(f, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[", name, more, dtype);
    for (int k = 0; k < ndim; k++)
        fprintf(f, k ? ",%lld" : "%lld", (long long)shape[k]);
    fprintf(f, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at,
            (unsigned long long)(*at + bytes));
    *at += bytes;
}

/* The header with its length before it, padded with spaces. Caller frees *out. *scales and
 * *all: bytes of the scales and of all data. */
static int make_header(const pali_weights *w, wish wanted, char **out, size_t *n, uint64_t *scales,
                       uint64_t *all, pali_error *err) {
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    if (!f)
        return pali_fail_nomem(err, "saving a model");
    uint64_t at = 0;
    bool any = false, beyond = false; /* the decoder */
    for (size_t i = 0; i < w->ntensors; i++)
        if (coded(form_of(w, &w->tensors[i], wanted).dtype)) {
            any = true;
            beyond = beyond || !is_of_decoder(w, w->tensors[i].matrix);
        }
    fwrite("\0\0\0\0\0\0\0", 1, 8, f);
    fputs("{\"__metadata__\":{\"format\":\"pt\"", f);
    if (any)
        fprintf(f, ",\"%s\":\"%s\",\"%s\":\"%s\"", PALI_QUANT_KEY, PALI_QUANT_VERSION,
                PALI_QUANT_MODULES, beyond ? "all" : "decoder");
    fputc('}', f);
    for (size_t i = 0; i < w->ntensors; i++) {
        form to = form_of(w, &w->tensors[i], wanted);
        int64_t count = (int64_t)(to.scales / sizeof(float));
        if (count)
            entry(f, w->tensors[i].name, PALI_QUANT_SCALES, "F32", 1, &count, &at, to.scales);
    }
    *scales = at;
    for (size_t i = 0; i < w->ntensors; i++) {
        const pali_weights_tensor *t = &w->tensors[i];
        form to = form_of(w, t, wanted);
        int64_t shape[4], blocks = (int64_t)to.scale_codes;
        memcpy(shape, t->shape, sizeof shape);
        shape[1] /= to.dtype == PALI_NF4 ? 2 : 1;
        const char *dtype = to.dtype == PALI_NF4    ? "U8"
                            : to.dtype == PALI_INT8 ? "I8"
                                                    : pali_dtype_name(to.dtype);
        entry(f, t->name, "", dtype, t->ndim, shape, &at, to.codes);
        if (blocks)
            entry(f, t->name, PALI_QUANT_CODES, "U8", 1, &blocks, &at, to.scale_codes);
    }
    *all = at;
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

/* One tensor's codes; its scales go to *scales, which moves on. */
static int put_tensor(writer *o, const pali_matrix *m, const form *to, unsigned char **scales,
                      pali_error *err) {
    pali_matrix q = *m;
    void *mem = NULL;
    int rc = 0;
    if (to->dtype != m->dtype) {
        size_t n = pali_quant_bytes(to->dtype, m->rows, m->cols);
        mem = n ? aligned_alloc(PALI_QUANT_ALIGN, n) : NULL;
        if (!mem)
            return pali_fail_nomem(err, "quantising a matrix");
        pali_quant_parts parts = pali_quant_place(to->dtype, m->rows, m->cols, mem);
        rc = pali_quantize(m, &parts, err);
        q = pali_quant_matrix(&parts);
    }
    if (!rc)
        rc = put(o, q.data, to->codes, err);
    if (!rc)
        rc = put(o, q.scale_codes, to->scale_codes, err);
    if (!rc && to->scales) {
        memcpy(*scales, q.scales, to->scales);
        *scales += to->scales;
    }
    free(mem);
    return rc;
}

static int write_all(writer *o, const pali_weights *w, wish wanted, pali_error *err) {
    char *header = NULL;
    size_t n;
    uint64_t nscales = 0, all = 0;
    struct statvfs fs;
    int rc = make_header(w, wanted, &header, &n, &nscales, &all, err);
    if (rc)
        return rc;
    unsigned char *scales = calloc(1, nscales + 1), *at = scales;
    if (!scales)
        rc = pali_fail_nomem(err, "saving a model");
    o->all = n + all;
    if (!rc && !fstatvfs(o->fd, &fs) && (uint64_t)fs.f_bavail * fs.f_frsize < o->all)
        rc = pali_fail(err, PALI_EIO, "make room there",
                       "%s: needs %llu MB, and there are only %llu free", pali_file_brief(o->path),
                       (unsigned long long)(o->all / 1000000 + 1),
                       (unsigned long long)((uint64_t)fs.f_bavail * fs.f_frsize / 1000000));
    if (!rc)
        rc = put(o, header, n, err);
    if (!rc)
        rc = put(o, scales, nscales, err); /* zeros, for the place */
    for (size_t i = 0; i < w->ntensors && !rc; i++) {
        form to = form_of(w, &w->tensors[i], wanted);
        rc = put_tensor(o, w->tensors[i].matrix, &to, &at, err);
    }
    if (!rc && nscales && lseek(o->fd, (off_t)n, SEEK_SET) < 0)
        rc = refused(o->path, "write to it", err);
    if (!rc)
        rc = put(o, scales, nscales, err);
    free(scales);
    free(header);
    return rc;
}

/* Whether w can be written so. */
static int check(const pali_weights *w, wish wanted, pali_error *err) {
    for (size_t i = 0; i < w->ntensors; i++) {
        const pali_matrix *m = w->tensors[i].matrix;
        form to = form_of(w, &w->tensors[i], wanted);
        if (coded(m->dtype) && wanted.quant != PALI_QUANT_NONE &&
            (wanted.quant == PALI_QUANT_NF4) != (m->dtype == PALI_NF4))
            return pali_fail(err, PALI_EUNSUPPORTED, "take the model that it was made from",
                             "the weights are stored as %s already", pali_dtype_name(m->dtype));
        if (to.dtype == PALI_NF4 && m->cols % 2)
            return pali_fail(err, PALI_EUNSUPPORTED, "take int8",
                             "tensor %s has rows of %d weights, an odd number", w->tensors[i].name,
                             m->cols);
    }
    return 0;
}

int pali_save(const pali_weights *w, pali_quant quant, bool all, const char *path,
              const pali_run *run, pali_error *err) {
    wish wanted = {quant, all};
    int rc = check(w, wanted, err);
    if (rc)
        return rc;
    char *part;
    if (asprintf(&part, "%s.incomplete", path) < 0)
        return pali_fail_nomem(err, "saving a model");
    writer o = {.fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666),
                .path = path,
                .run = run};
    rc = o.fd < 0 ? refused(part, "make it", err) : write_all(&o, w, wanted, err);
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
