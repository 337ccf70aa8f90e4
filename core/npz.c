/* npz.c - see npz.h for the formats, core/zip.h for the archive.
 *
 * Refused beside what zip.c refuses: two arrays of one name, an array whose shape and size
 * disagree. So what an array may make a caller allocate is what its header says, and never more
 * comes out of the decoder than that.
 *
 * A file that is shortened while mapped ends the process, as with safetensors.c.       */
#include "core/npz.h"

#include "core/file.h"
#include "core/size.h"
#include "core/zip.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    NPY_HEADER_MAX = 4096, /* NumPy writes 118 bytes for most arrays */
};

static const char again[] = "download it again";

typedef struct {
    pali_tensor t; /* first: a pali_tensor handed out is its member */
    pali_zip_member zip;
    size_t header; /* of the .npy */
    bool fortran;
} member;

struct pali_npz {
    unsigned char *map;
    size_t size;
    char *path;  /* for sentences */
    bool single; /* no archive */
    pali_zip zip;
    member *members; /* the arrays */
    const member **by_name;
    size_t count;
};

/* --- the header of an array ---------------------------------------------------------------- */

typedef struct {
    const char *at, *end;
} text;

static void skip_spaces(text *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t'))
        s->at++;
}

/* Steps over word, spaces around it allowed. */
static bool take(text *s, const char *word) {
    size_t n = strlen(word);
    skip_spaces(s);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
        return false;
    s->at += n;
    skip_spaces(s);
    return true;
}

/* A short quoted string without escapes. */
static bool take_string(text *s, char *out, size_t room) {
    char quote = s->at < s->end ? *s->at : 0;
    if (quote != '\'' && quote != '"')
        return false;
    const char *from = ++s->at;
    while (s->at < s->end && *s->at != quote && *s->at != '\\')
        s->at++;
    size_t n = (size_t)(s->at - from);
    if (s->at == s->end || *s->at != quote || n >= room)
        return false;
    memcpy(out, from, n);
    out[n] = 0;
    s->at++;
    return true;
}

static bool take_number(text *s, int64_t *out) {
    const char *from = s->at;
    int64_t v = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s->at - '0', &v))
            return false;
    *out = v;
    bool any = s->at > from;
    (void)take(s, "L"); /* as Python 2 wrote long numbers */
    return any;
}

static bool take_shape(text *s, pali_tensor *t) {
    if (!take(s, "("))
        return false;
    for (t->ndim = 0; !take(s, ")"); t->ndim++) {
        if (t->ndim == PALI_TENSOR_MAX_DIMS || !take_number(s, &t->shape[t->ndim]))
            return false;
        if (!take(s, ",") && !(s->at < s->end && *s->at == ')'))
            return false;
    }
    return true;
}

/* What a type string means and the bytes of one element; 0 bytes: they vary. */
static pali_dtype dtype_of(const char *descr, size_t *bytes) {
    static const struct {
        const char *descr;
        pali_dtype dtype;
    } known[] = {
        {"<f4", PALI_F32}, {"<f2", PALI_F16}, {"|V2", PALI_BF16}, {"<V2", PALI_BF16},
        {"=f4", PALI_F32}, {"=f2", PALI_F16}, {"=V2", PALI_BF16},
    };
    *bytes = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(descr, known[i].descr)) {
            *bytes = known[i].dtype == PALI_F32 ? 4 : 2;
            return known[i].dtype;
        }
    char kind = strlen(descr) > 2 ? descr[1] : 0;
    if (kind && strchr("biufcSVUmM", kind))
        *bytes = (size_t)strtoul(descr + 2, NULL, 10) * (kind == 'U' ? 4 : 1);
    return PALI_DTYPE_OTHER;
}

/* {'descr': ..., 'fortran_order': ..., 'shape': ...} in any order. */
static bool take_dictionary(text *s, char descr[16], bool *fortran, pali_tensor *t) {
    unsigned seen = 0;
    if (!take(s, "{"))
        return false;
    while (!take(s, "}")) {
        char key[16];
        unsigned bit = 0;
        bool ok = take_string(s, key, sizeof key) && take(s, ":");
        if (ok && !strcmp(key, "descr")) {
            bit = 1;
            ok = take_string(s, descr, 16);
        } else if (ok && !strcmp(key, "fortran_order")) {
            bit = 2;
            *fortran = take(s, "True");
            ok = *fortran || take(s, "False");
        } else if (ok && !strcmp(key, "shape")) {
            bit = 4;
            ok = take_shape(s, t);
        }
        if (!ok || !bit || seen & bit)
            return false;
        seen |= bit;
        if (!take(s, ",") && !(s->at < s->end && *s->at == '}'))
            return false;
    }
    skip_spaces(s);
    return seen == 7 && s->at == s->end;
}

/* Fills m's tensor from the start of its bytes; its name is set. */
static int read_header(const pali_npz *z, member *m, pali_error *err) {
    const char *brief = pali_file_brief(z->path), *name = m->t.name;
    unsigned char head[12] = {0};
    char body[NPY_HEADER_MAX];
    pali_zip_source s;
    int rc = pali_zip_source_open(&s, z->map, &m->zip, err);
    if (rc)
        return rc;
    bool ok = pali_zip_source_read(&s, head, 10) && !memcmp(head, "\x93NUMPY", 6) && head[6] >= 1 &&
              head[6] <= 3;
    /* The length of the rest: two bytes, four since version 2. */
    size_t wide = head[6] > 1 ? 4 : 2, n = 0;
    if (ok && wide == 4)
        ok = pali_zip_source_read(&s, head + 10, 2);
    for (size_t i = 0; ok && i < wide; i++)
        n |= (size_t)head[8 + i] << 8 * i;
    m->header = 8 + wide + n;
    ok = ok && n <= sizeof body && pali_zip_source_read(&s, body, n);
    pali_zip_source_close(&s);
    if (!ok)
        return pali_fail(err, PALI_EFORMAT, again, "%s: member %.90s is not a NumPy array", brief,
                         name);

    char descr[16];
    text dictionary = {body, body + n};
    if (!take_dictionary(&dictionary, descr, &m->fortran, &m->t))
        return pali_fail(err, PALI_EFORMAT, "it has to hold plain arrays of at most 8 dimensions",
                         "%s: the header of array %.90s makes no sense", brief, name);
    size_t element, need;
    m->t.dtype = dtype_of(descr, &element);
    need = element ? element : 1;
    ok = true;
    int axes = 0; /* dimensions whose order matters */
    for (int i = 0; i < m->t.ndim; i++) {
        ok = ok && pali_size_mul(need, (size_t)m->t.shape[i], &need);
        axes += m->t.shape[i] != 1;
    }
    if (!ok)
        return pali_fail(err, PALI_EFORMAT, again, "%s: array %.90s has an impossible shape", brief,
                         name);
    bool room = m->zip.raw >= m->header;
    uint64_t data = room ? m->zip.raw - m->header : 0;
    if (!room || data > SIZE_MAX || (element && data != need))
        return pali_fail(err, PALI_EFORMAT, again,
                         "%s: array %.90s has %llu bytes, but its shape needs %zu", brief, name,
                         (unsigned long long)data, need);
    m->t.bytes = (size_t)data;
    m->fortran = m->fortran && axes > 1 && data > 0;
    if (m->fortran && !element)
        return pali_fail(err, PALI_EUNSUPPORTED, "save it in C order",
                         "%s: array %.90s holds objects in Fortran order", brief, name);
    if (!m->zip.deflated && !m->fortran)
        m->t.data = z->map + m->zip.at + m->header;
    return 0;
}

/* --- the archive ------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp((*(const member *const *)a)->t.name, (*(const member *const *)b)->t.name);
}

static int read_archive(pali_npz *z, pali_error *err) {
    int rc = pali_zip_open(z->map, z->size, z->path, &z->zip, err);
    if (rc)
        return rc;
    z->members = calloc(z->zip.count + 1, sizeof *z->members);
    if (!z->members)
        return pali_fail_nomem(err, "reading an archive of arrays");
    for (size_t i = 0; i < z->zip.count; i++) {
        pali_zip_member *m = &z->zip.members[i];
        size_t n = strlen(m->name);
        if (n < 4 || strcmp(m->name + n - 4, ".npy"))
            continue;
        m->name[n - 4] = 0;
        if (m->cannot)
            return pali_fail(err, PALI_EUNSUPPORTED, "save it again with numpy.savez",
                             "%s: member %.90s is %s", pali_file_brief(z->path), m->name,
                             m->cannot);
        z->members[z->count++] = (member){.t.name = m->name, .zip = *m};
    }
    return 0;
}

static int read_arrays(pali_npz *z, pali_error *err) {
    z->by_name = calloc(z->count + 1, sizeof *z->by_name);
    if (!z->by_name)
        return pali_fail_nomem(err, "reading an archive of arrays");
    int rc = 0;
    for (size_t i = 0; i < z->count && !rc; i++) {
        z->by_name[i] = &z->members[i];
        rc = read_header(z, &z->members[i], err);
    }
    if (rc)
        return rc;
    qsort(z->by_name, z->count, sizeof *z->by_name, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (!strcmp(z->by_name[i - 1]->t.name, z->by_name[i]->t.name))
            return pali_fail(err, PALI_EFORMAT, again, "%s: holds two arrays named %.90s",
                             pali_file_brief(z->path), z->by_name[i]->t.name);
    return 0;
}

/* --- public ------------------------------------------------------------------------------------ */

static int map_file(pali_npz *z, pali_error *err) {
    const char *brief = pali_file_brief(z->path);
    uint64_t size;
    int rc = 0, fd = pali_file_open(z->path, &size, err);
    if (fd < 0)
        return fd;
    void *map = MAP_FAILED;
    if (size == 0)
        rc = pali_fail(err, PALI_EFORMAT, again, "%s: is empty", brief);
    else if (size > SIZE_MAX)
        rc = pali_fail(err, PALI_ELIMIT, "use a 64-bit machine", "%s: too large to map", brief);
    else if ((map = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        rc = pali_fail(err, PALI_EIO, "is there a limit on address space (ulimit -v)?",
                       "%s: cannot map it: %s", brief, strerror(errno));
    close(fd);
    if (!rc) {
        z->map = map;
        z->size = (size_t)size;
        rc = pali_file_check_stub(z->path, map, z->size < 128 ? z->size : 128, err);
    }
    return rc;
}

/* A file that is one array and no archive. */
static int read_single(pali_npz *z, pali_error *err) {
    z->members = calloc(1, sizeof *z->members);
    if (!z->members)
        return pali_fail_nomem(err, "reading an array");
    z->members[0] = (member){.t.name = "", .zip = {.packed = z->size, .raw = z->size}};
    z->count = 1;
    return 0;
}

int pali_npz_open(const char *path, pali_npz **out, pali_error *err) {
    *out = NULL;
    pali_npz *z = calloc(1, sizeof *z);
    if (!z || !(z->path = strdup(path))) {
        free(z);
        return pali_fail_nomem(err, "opening an archive of arrays");
    }
    int rc = map_file(z, err);
    z->single = !rc && z->size >= 6 && !memcmp(z->map, "\x93NUMPY", 6);
    if (!rc)
        rc = z->single ? read_single(z, err) : read_archive(z, err);
    if (!rc)
        rc = read_arrays(z, err);
    if (rc) {
        pali_npz_close(z);
        return rc;
    }
    *out = z;
    return 0;
}

void pali_npz_close(pali_npz *z) {
    if (!z)
        return;
    if (z->map)
        munmap(z->map, z->size);
    free(z->members);
    free(z->by_name);
    pali_zip_close(&z->zip);
    free(z->path);
    free(z);
}

size_t pali_npz_count(const pali_npz *z) {
    return z->count;
}

const pali_tensor *pali_npz_peek(const pali_npz *z, size_t i) {
    return &z->members[i].t;
}

const pali_tensor *pali_npz_find(const pali_npz *z, const char *name) {
    const member key = {.t.name = name}, *pkey = &key;
    const member **found = bsearch(&pkey, z->by_name, z->count, sizeof *z->by_name, by_name);
    return found ? &(*found)->t : NULL;
}

/* from: an array whose first dimension moves fastest; to: the same with its last fastest. */
static void reorder(const pali_tensor *t, const unsigned char *from, unsigned char *to) {
    size_t elements = 1, index[PALI_TENSOR_MAX_DIMS] = {0}, step[PALI_TENSOR_MAX_DIMS];
    for (int i = 0; i < t->ndim; i++) {
        step[i] = elements;
        elements *= (size_t)t->shape[i];
    }
    size_t element = t->bytes / elements, at = 0; /* not empty: see read_header */
    for (size_t k = 0; k < elements; k++) {
        memcpy(to + k * element, from + at * element, element);
        for (int i = t->ndim - 1; i >= 0; i--) {
            at += step[i];
            if (++index[i] < (size_t)t->shape[i])
                break;
            at -= step[i] * (size_t)t->shape[i];
            index[i] = 0;
        }
    }
}

int pali_npz_read(const pali_npz *z, const pali_tensor *t, void *out, pali_error *err) {
    const member *m = (const member *)t;
    unsigned char header[NPY_HEADER_MAX + 12], *to = out;
    unsigned char *turned = m->fortran ? malloc(t->bytes) : NULL;
    if (m->fortran && !turned)
        return pali_fail_nomem(err, "reading an array in Fortran order");
    pali_zip_source s;
    int rc = pali_zip_source_open(&s, z->map, &m->zip, err);
    if (!rc) {
        bool ok = pali_zip_source_read(&s, header, m->header) &&
                  pali_zip_source_read(&s, turned ? turned : to, t->bytes) &&
                  pali_zip_source_ends(&s) &&
                  (z->single || s.crc == m->zip.crc); /* a single .npy has no checksum */
        pali_zip_source_close(&s);
        if (!ok)
            rc = pali_fail(err, PALI_EFORMAT, again, "%s: array %.90s is damaged",
                           pali_file_brief(z->path), t->name);
    }
    if (!rc && turned)
        reorder(t, turned, to);
    free(turned);
    return rc;
}
