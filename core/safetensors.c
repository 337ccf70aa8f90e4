/* safetensors.c - see safetensors.h for the format.
 *
 * The header is read (not mapped) and parsed with jansson; then the whole file is
 * mapped once and every tensor is a pointer into the mapping. As the format demands,
 * the tensors must tile the data: no overlap, no hole, nothing after the last. So a
 * file that was cut short, or is not what it says, never opens.
 *
 * What the mapping does not cover: a program that shortens the file while it is
 * mapped makes the next touch of the lost pages end this process with SIGBUS, as with
 * every mapping. Downloaders write beside the file and rename, which leaves a mapped
 * file whole, so pali neither copies the weights nor installs a signal handler.     */
#include "core/safetensors.h"

#include "core/file.h"
#include "core/json.h"
#include "core/size.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Largest header accepted. The largest PaliGemma needs about 130 KB; other
 * implementations allow 100 MB, but parsed JSON takes some thirty times its size in
 * memory, and a hostile header of 8 MB kept a core busy for seconds. */
#define HEADER_MAX ((uint64_t)2 << 20)

static const char damaged[] = "the file may be cut short; download it again";

struct pali_safetensors {
    void *map;
    size_t map_size;
    pali_tensor *tensors;        /* by position in the file */
    const pali_tensor **by_name; /* the same, sorted by name */
    size_t count;
    char *names;      /* all names, one after the other */
    json_t *metadata; /* NULL: none */
};

/* --- dtypes ------------------------------------------------------------------ */

size_t pali_dtype_size(pali_dtype t) {
    switch (t) {
    case PALI_F32:
        return 4;
    case PALI_BF16:
    case PALI_F16:
        return 2;
    case PALI_INT8:
    case PALI_NF4:
    case PALI_I8:
    case PALI_U8:
    case PALI_DTYPE_OTHER:
        break;
    }
    return 0;
}

const char *pali_dtype_name(pali_dtype t) {
    switch (t) {
    case PALI_F32:
        return "F32";
    case PALI_BF16:
        return "BF16";
    case PALI_F16:
        return "F16";
    case PALI_INT8:
        return "INT8";
    case PALI_NF4:
        return "NF4";
    case PALI_I8:
        return "I8";
    case PALI_U8:
        return "U8";
    case PALI_DTYPE_OTHER:
        break;
    }
    return "other";
}

/* What a dtype string means and its bytes per element; 0 bytes for a name we do not
 * know (the format grows), whose size is then not checked. */
static pali_dtype dtype_of(const char *s, size_t *bytes) {
    static const struct {
        const char *name;
        size_t bytes;
        pali_dtype dtype;
    } known[] = {
        {"F32", 4, PALI_F32},
        {"BF16", 2, PALI_BF16},
        {"F16", 2, PALI_F16},
        {"F64", 8, PALI_DTYPE_OTHER},
        {"I64", 8, PALI_DTYPE_OTHER},
        {"U64", 8, PALI_DTYPE_OTHER},
        {"I32", 4, PALI_DTYPE_OTHER},
        {"U32", 4, PALI_DTYPE_OTHER},
        {"I16", 2, PALI_DTYPE_OTHER},
        {"U16", 2, PALI_DTYPE_OTHER},
        {"I8", 1, PALI_I8},
        {"U8", 1, PALI_U8},
        {"BOOL", 1, PALI_DTYPE_OTHER},
        {"F8_E5M2", 1, PALI_DTYPE_OTHER},
        {"C64", 8, PALI_DTYPE_OTHER},
        {"F8_E4M3", 1, PALI_DTYPE_OTHER},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(s, known[i].name) == 0) {
            *bytes = known[i].bytes;
            return known[i].dtype;
        }
    *bytes = 0;
    return PALI_DTYPE_OTHER;
}

/* --- header ------------------------------------------------------------------ */

/* Reads exactly n bytes at offset 0. */
static int read_start(int fd, const char *path, void *out, size_t n, pali_error *err) {
    for (size_t got = 0; got < n;) {
        ssize_t r = pread(fd, (char *)out + got, n - got, (off_t)got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return pali_fail(err, PALI_EIO, "check the disk", "%s: cannot read it: %s",
                             pali_file_brief(path), strerror(errno));
        if (r == 0)
            return pali_fail(err, PALI_EFORMAT, damaged, "%s: ends inside its header",
                             pali_file_brief(path));
        got += (size_t)r;
    }
    return 0;
}

/* Reads the JSON header of the size-byte file fd. *data_at = where the data begins. */
static int read_header(int fd, const char *path, uint64_t size, json_t **root, size_t *data_at,
                       pali_error *err) {
    const char *brief = pali_file_brief(path);
    unsigned char start[128];
    size_t nstart = size < sizeof start ? (size_t)size : sizeof start;
    if (size == 0)
        return pali_fail(err, PALI_EFORMAT, "download it again", "%s: is empty", brief);
    int rc = read_start(fd, path, start, nstart, err);
    if (!rc)
        rc = pali_file_check_stub(path, start, nstart, err);
    if (rc)
        return rc;
    if (size < 8)
        return pali_fail(err, PALI_EFORMAT, damaged, "%s: has only %d bytes", brief, (int)size);

    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | start[i];
    if (n > HEADER_MAX)
        return pali_fail(err, PALI_EFORMAT, "is it the right file? if so, download it again",
                         "%s: not a safetensors file (its header would have %llu bytes)", brief,
                         (unsigned long long)n);
    if (n > size - 8)
        return pali_fail(err, PALI_EFORMAT, damaged,
                         "%s: ends inside its header, after %llu of %llu bytes", brief,
                         (unsigned long long)(size - 8), (unsigned long long)n);

    char *text = malloc(8 + (size_t)n);
    if (!text)
        return pali_fail_nomem(err, "reading the header of a model file");
    rc = read_start(fd, path, text, 8 + (size_t)n, err);
    if (!rc)
        rc = pali_json_parse(text + 8, (size_t)n, path, root, err);
    free(text);
    *data_at = 8 + (size_t)n;
    return rc;
}

/* A whole number >= 0 from v; false when it is something else. */
static bool natural(const json_t *v, uint64_t *out) {
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* Fills t (its name is set) from its header entry; data and bytes must lie within the
 * data section of ndata bytes at data. */
static int read_entry(const char *brief, const json_t *entry, const char *data, size_t ndata,
                      pali_tensor *t, pali_error *err) {
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *range = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(range))
        return pali_fail(err, PALI_EFORMAT, "download it again",
                         "%s: tensor %.90s lacks its dtype, shape or data_offsets", brief, t->name);

    size_t element;
    t->dtype = dtype_of(json_string_value(dtype), &element);

    if (json_array_size(shape) > PALI_TENSOR_MAX_DIMS)
        return pali_fail(err, PALI_ELIMIT, NULL, "%s: tensor %.90s has %zu dimensions, at most %d",
                         brief, t->name, json_array_size(shape), PALI_TENSOR_MAX_DIMS);
    t->ndim = (int)json_array_size(shape);
    size_t need = element ? element : 1;
    for (int i = 0; i < t->ndim; i++) {
        uint64_t d;
        if (!natural(json_array_get(shape, (size_t)i), &d) ||
            !pali_size_mul(need, (size_t)d, &need))
            return pali_fail(err, PALI_EFORMAT, "download it again",
                             "%s: tensor %.90s has an impossible shape", brief, t->name);
        t->shape[i] = (int64_t)d;
    }

    uint64_t begin, end;
    if (json_array_size(range) != 2 || !natural(json_array_get(range, 0), &begin) ||
        !natural(json_array_get(range, 1), &end) || begin > end)
        return pali_fail(err, PALI_EFORMAT, "download it again",
                         "%s: tensor %.90s has impossible data_offsets", brief, t->name);
    if (end > ndata)
        return pali_fail(err, PALI_EFORMAT, damaged,
                         "%s: tensor %.90s ends at byte %llu of the data, which has %zu", brief,
                         t->name, (unsigned long long)end, ndata);
    t->data = data + begin;
    t->bytes = (size_t)(end - begin);
    if (element && t->bytes != need)
        return pali_fail(err, PALI_EFORMAT, "download it again",
                         "%s: tensor %.90s has %zu bytes, but its shape needs %zu", brief, t->name,
                         t->bytes, need);
    return 0;
}

static int by_position(const void *a, const void *b) {
    const pali_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const pali_tensor *const *)a)->name, (*(const pali_tensor *const *)b)->name);
}

/* The tensors, in order, must tile the data section. */
static int check_tiling(const char *brief, const pali_safetensors *st, const char *data,
                        size_t ndata, pali_error *err) {
    const char *at = data;
    for (size_t i = 0; i < st->count; i++) {
        const pali_tensor *t = &st->tensors[i];
        if ((const char *)t->data != at)
            return pali_fail(err, PALI_EFORMAT, "download it again", "%s: tensor %.90s %s", brief,
                             t->name,
                             (const char *)t->data < at ? "overlaps the one before it"
                                                        : "leaves a hole before it");
        at += t->bytes;
    }
    size_t used = (size_t)(at - data);
    if (used != ndata)
        return pali_fail(err, PALI_EFORMAT, "download it again",
                         "%s: has %zu bytes after its last tensor", brief, ndata - used);
    return 0;
}

/* Turns the header into the tensor table of st, whose mapping is in place. */
static int read_tensors(const char *brief, json_t *root, size_t data_at, pali_safetensors *st,
                        pali_error *err) {
    const char *data = (const char *)st->map + data_at;
    size_t ndata = st->map_size - data_at;
    const char *key;
    json_t *entry;
    size_t total = 0;
    json_object_foreach(root, key, entry) total += strlen(key) + 1;

    size_t n = json_object_size(root);
    st->tensors = calloc(n + 1, sizeof *st->tensors);
    st->by_name = calloc(n + 1, sizeof *st->by_name);
    st->names = malloc(total + 1);
    if (!st->tensors || !st->by_name || !st->names)
        return pali_fail_nomem(err, "reading the header of a model file");

    char *name = st->names;
    json_object_foreach(root, key, entry) {
        if (strcmp(key, "__metadata__") == 0) {
            st->metadata = json_incref(entry);
            continue;
        }
        size_t len = strlen(key) + 1;
        memcpy(name, key, len);
        pali_tensor *t = &st->tensors[st->count];
        t->name = name;
        name += len;
        int rc = read_entry(brief, entry, data, ndata, t, err);
        if (rc)
            return rc;
        st->count++;
    }
    qsort(st->tensors, st->count, sizeof *st->tensors, by_position);
    for (size_t i = 0; i < st->count; i++)
        st->by_name[i] = &st->tensors[i];
    qsort(st->by_name, st->count, sizeof *st->by_name, by_name);
    return check_tiling(brief, st, data, ndata, err);
}

/* --- public ------------------------------------------------------------------ */

int pali_safetensors_open(const char *path, pali_safetensors **out, pali_error *err) {
    *out = NULL;
    const char *brief = pali_file_brief(path);
    uint64_t size;
    int fd = pali_file_open(path, &size, err);
    if (fd < 0)
        return fd;

    json_t *root = NULL;
    size_t data_at = 0;
    pali_safetensors *st = calloc(1, sizeof *st);
    int rc = st ? 0 : pali_fail_nomem(err, "opening a model file");
    if (!rc)
        rc = read_header(fd, path, size, &root, &data_at, err);
    if (!rc && size > SIZE_MAX)
        rc = pali_fail(err, PALI_ELIMIT, "use a 64-bit machine", "%s: too large to map", brief);
    if (!rc) {
        void *map = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            rc = pali_fail(err, PALI_EIO, "is there a limit on address space (ulimit -v)?",
                           "%s: cannot map it: %s", brief, strerror(errno));
        } else {
            st->map = map;
            st->map_size = (size_t)size;
        }
    }
    if (!rc)
        rc = read_tensors(brief, root, data_at, st, err);
    json_decref(root);
    close(fd);
    if (rc) {
        pali_safetensors_close(st);
        return rc;
    }
    *out = st;
    return 0;
}

void pali_safetensors_close(pali_safetensors *st) {
    if (!st)
        return;
    if (st->map)
        munmap(st->map, st->map_size);
    free(st->tensors);
    free(st->by_name);
    free(st->names);
    json_decref(st->metadata);
    free(st);
}

size_t pali_safetensors_count(const pali_safetensors *st) {
    return st->count;
}

const pali_tensor *pali_safetensors_peek(const pali_safetensors *st, size_t i) {
    assert(i < st->count);
    return &st->tensors[i];
}

const pali_tensor *pali_safetensors_find(const pali_safetensors *st, const char *name) {
    const pali_tensor key = {.name = name}, *k = &key;
    const pali_tensor **hit = bsearch(&k, st->by_name, st->count, sizeof *st->by_name, by_name);
    return hit ? *hit : NULL;
}

const char *pali_safetensors_metadata(const pali_safetensors *st, const char *key) {
    return json_string_value(json_object_get(st->metadata, key));
}

size_t pali_safetensors_prefetch(const pali_safetensors *st, size_t from) {
    /* Linux reads no more than the device's readahead for one call, however long the
     * range, so that a single call for the whole file would read its first few MB. */
    const size_t stretch = 128 << 10; /* the smallest readahead in common use */
    if (from >= st->map_size)
        return 0;
    size_t n = st->map_size - from < stretch ? st->map_size - from : stretch;
    madvise((char *)st->map + from, n, MADV_WILLNEED);
    return from + n < st->map_size ? from + n : 0;
}

void pali_safetensors_release(const pali_safetensors *st, const void *data, size_t n) {
    uintptr_t map = (uintptr_t)st->map, at = (uintptr_t)data, page = (uintptr_t)getpagesize();
    if (at < map || n > st->map_size || at - map > st->map_size - n)
        return;
    /* Whole pages only: the ends hold parts of the neighbours. */
    uintptr_t from = (at + page - 1) / page * page, to = (at + n) / page * page;
    if (from < to)
        madvise((unsigned char *)st->map + (from - map), to - from, MADV_DONTNEED);
}
