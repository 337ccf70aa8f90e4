/* npz.c - see npz.h for the formats.
 *
 * The directory at the end of a zip file says where every member is. It is read from the
 * mapping here rather than by a zip library because those hide where a member's bytes lie,
 * and to use them where they lie is the point; the inflating is zlib's. What is refused:
 * members that overlap each other or the directory (how small zip bombs are made), two of
 * one name, sizes that deflate cannot reach, an array whose shape and size disagree. So
 * what an array may make a caller allocate is what its header says, and never more comes
 * out of the decoder than that.
 *
 * A file that is shortened while mapped ends the process, as with safetensors.c.       */
#include "core/npz.h"

#include "core/file.h"
#include "core/size.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

enum {
    END_BYTES = 22, /* the record that ends a zip file, without its comment */
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    ENTRY_BYTES = 46, /* of the directory, and of the copy before the member's data */
    LOCAL_BYTES = 30,
    ENTRIES_MAX = 1 << 17,
    NPY_HEADER_MAX = 4096, /* NumPy writes 118 bytes for most arrays */
    DEFLATE_RATIO_MAX = 1032,
};

static const char again[] = "download it again";

typedef struct {
    pali_tensor t;       /* first: a pali_tensor handed out is its member */
    uint64_t at, packed; /* where its bytes lie, and how many */
    uint64_t local;      /* where its local header begins */
    uint64_t raw;        /* bytes when unpacked, .npy header included */
    size_t header;       /* of the .npy */
    uint32_t crc;
    bool deflated, fortran, is_array;
} member;

struct pali_npz {
    unsigned char *map;
    size_t size;
    char *path; /* for sentences */
    member *members;
    const member **by_name;
    size_t count;
    char *names;
};

static unsigned u16(const unsigned char *p) {
    return p[0] | (unsigned)p[1] << 8;
}

static uint32_t u32(const unsigned char *p) {
    return u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p) {
    return u32(p) | (uint64_t)u32(p + 4) << 32;
}

/* --- a member's bytes in order ----------------------------------------------------------- */

typedef struct {
    const unsigned char *in;
    size_t left;
    bool deflated;
    z_stream z;
    uLong crc;
} source;

static int source_open(source *s, const pali_npz *z, const member *m, pali_error *err) {
    *s = (source){.in = z->map + m->at, .left = (size_t)m->packed, .deflated = m->deflated};
    if (s->deflated && inflateInit2(&s->z, -MAX_WBITS) != Z_OK)
        return pali_fail_nomem(err, "unpacking an array");
    return 0;
}

static void source_close(source *s) {
    if (s->deflated)
        inflateEnd(&s->z);
}

/* The next bytes, at most n; fewer where the data ends or is damaged. */
static size_t source_some(source *s, unsigned char *out, size_t n) {
    if (!s->deflated) {
        size_t take = n < s->left ? n : s->left;
        memcpy(out, s->in, take);
        s->in += take;
        s->left -= take;
        return take;
    }
    const size_t most = 1 << 30; /* zlib counts in 32 bits */
    size_t got = 0;
    while (got < n) {
        uInt give = (uInt)(s->left < most ? s->left : most);
        uInt room = (uInt)(n - got < most ? n - got : most);
        s->z.next_in = (unsigned char *)s->in; /* zlib's interface: it does not write there */
        s->z.avail_in = give;
        s->z.next_out = out + got;
        s->z.avail_out = room;
        int rc = inflate(&s->z, Z_NO_FLUSH);
        s->in += give - s->z.avail_in;
        s->left -= give - s->z.avail_in;
        got += room - s->z.avail_out;
        if (rc != Z_OK)
            break;
    }
    return got;
}

/* Exactly n bytes; false when there are not so many. */
static bool source_read(source *s, void *out, size_t n) {
    if (source_some(s, out, n) != n)
        return false;
    s->crc = crc32_z(s->crc, out, n);
    return true;
}

/* Nothing may follow what was read. */
static bool source_ends(source *s) {
    unsigned char more;
    return source_some(s, &more, 1) == 0 && s->left == 0;
}

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
    unsigned char head[12];
    char body[NPY_HEADER_MAX];
    source s;
    int rc = source_open(&s, z, m, err);
    if (rc)
        return rc;
    bool ok =
        source_read(&s, head, 10) && !memcmp(head, "\x93NUMPY", 6) && head[6] >= 1 && head[6] <= 3;
    size_t n = ok ? u16(head + 8) : 0;
    m->header = 10 + n;
    if (ok && head[6] > 1) {
        ok = source_read(&s, head + 10, 2);
        n = ok ? u32(head + 8) : 0;
        m->header = 12 + n;
    }
    ok = ok && n <= sizeof body && source_read(&s, body, n);
    source_close(&s);
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
    int wide = 0; /* dimensions whose order matters */
    for (int i = 0; i < m->t.ndim; i++) {
        ok = ok && pali_size_mul(need, (size_t)m->t.shape[i], &need);
        wide += m->t.shape[i] != 1;
    }
    if (!ok)
        return pali_fail(err, PALI_EFORMAT, again, "%s: array %.90s has an impossible shape", brief,
                         name);
    uint64_t data = m->raw - m->header;
    if (m->raw < m->header || data > SIZE_MAX || (element && data != need))
        return pali_fail(err, PALI_EFORMAT, again,
                         "%s: array %.90s has %llu bytes, but its shape needs %zu", brief, name,
                         (unsigned long long)data, need);
    m->t.bytes = (size_t)data;
    m->fortran = m->fortran && wide > 1 && data > 0;
    if (m->fortran && !element)
        return pali_fail(err, PALI_EUNSUPPORTED, "save it in C order",
                         "%s: array %.90s holds objects in Fortran order", brief, name);
    if (!m->deflated && !m->fortran)
        m->t.data = z->map + m->at + m->header;
    return 0;
}

/* --- the directory of the archive ------------------------------------------------------------ */

typedef struct {
    uint64_t at, bytes, entries;
} directory;

static int damaged(const pali_npz *z, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, "the file may be cut short; download it again", "%s: %s",
                     pali_file_brief(z->path), what);
}

/* Finds the directory through the record at the end of the file. */
static int find_directory(const pali_npz *z, directory *d, pali_error *err) {
    const unsigned char *end = NULL;
    for (size_t back = END_BYTES; back <= z->size && back <= END_BYTES + 0xFFFF && !end; back++) {
        const unsigned char *p = z->map + z->size - back;
        if (!memcmp(p, "PK\5\6", 4) && u16(p + 20) == back - END_BYTES)
            end = p;
    }
    if (!end)
        return damaged(z,
                       z->size >= 2 && !memcmp(z->map, "PK", 2)
                           ? "the directory at its end is missing"
                           : "is not a NumPy archive (.npz)",
                       err);
    unsigned disks = u16(end + 4) | u16(end + 6);
    *d = (directory){u32(end + 16), u32(end + 12), u16(end + 10)};
    size_t limit = (size_t)(end - z->map);
    if (limit >= LOCATOR_BYTES && !memcmp(end - LOCATOR_BYTES, "PK\6\7", 4)) {
        uint64_t at = u64(end - LOCATOR_BYTES + 8);
        limit -= LOCATOR_BYTES;
        if (limit < END64_BYTES || at > limit - END64_BYTES || memcmp(z->map + at, "PK\6\6", 4))
            return damaged(z, "the directory at its end makes no sense", err);
        const unsigned char *p = z->map + at;
        disks = u32(p + 16) | u32(p + 20);
        *d = (directory){u64(p + 48), u64(p + 40), u64(p + 32)};
        limit = (size_t)at;
    }
    if (disks || d->bytes > limit || d->at > limit - d->bytes ||
        d->entries > d->bytes / ENTRY_BYTES)
        return damaged(z, "the directory at its end makes no sense", err);
    if (d->entries > ENTRIES_MAX)
        return pali_fail(err, PALI_ELIMIT, "is it the right file?",
                         "%s: has %llu members, at most %d", pali_file_brief(z->path),
                         (unsigned long long)d->entries, ENTRIES_MAX);
    return 0;
}

/* Sizes and offset that did not fit in 32 bits, in this order, from the extra field with
 * number 1; false when one is missing. */
static bool read_zip64(const unsigned char *extra, size_t n, uint64_t *values[3]) {
    for (size_t at = 0; n - at >= 4;) {
        size_t bytes = u16(extra + at + 2);
        const unsigned char *p = extra + at + 4;
        if (bytes > n - at - 4)
            return false;
        if (u16(extra + at) == 1) {
            for (int i = 0; i < 3; i++) {
                if (*values[i] != UINT32_MAX)
                    continue;
                if (bytes < 8)
                    return false;
                *values[i] = u64(p);
                p += 8;
                bytes -= 8;
            }
            return true;
        }
        at += 4 + bytes;
    }
    return *values[0] != UINT32_MAX && *values[1] != UINT32_MAX && *values[2] != UINT32_MAX;
}

/* One entry of the directory at p, n bytes to its end; *used = its length. name: room for
 * the name of the member. */
static int read_entry(pali_npz *z, const directory *d, const unsigned char *p, uint64_t n,
                      char *name, size_t *used, pali_error *err) {
    static const char senseless[] = "an entry of its directory makes no sense";
    member *m = &z->members[z->count];
    if (n < ENTRY_BYTES || memcmp(p, "PK\1\2", 4))
        return damaged(z, senseless, err);
    size_t nname = u16(p + 28), nextra = u16(p + 30);
    *used = ENTRY_BYTES + nname + nextra + u16(p + 32);
    if (*used > n || u16(p + 34) || memchr(p + ENTRY_BYTES, 0, nname))
        return damaged(z, senseless, err);
    memcpy(name, p + ENTRY_BYTES, nname);
    name[nname] = 0;
    const char *brief = pali_file_brief(z->path);
    unsigned flags = u16(p + 8), method = u16(p + 10);
    *m = (member){.t.name = name, .crc = u32(p + 16), .deflated = method == Z_DEFLATED};
    m->packed = u32(p + 20);
    m->raw = u32(p + 24);
    m->local = u32(p + 42);
    if (!read_zip64(p + ENTRY_BYTES + nname, nextra,
                    (uint64_t *[3]){&m->raw, &m->packed, &m->local}))
        return damaged(z, senseless, err);

    /* Its bytes follow a second header, whose lengths may differ. */
    uint64_t room = d->at;
    if (room < LOCAL_BYTES || m->local > room - LOCAL_BYTES ||
        memcmp(z->map + m->local, "PK\3\4", 4))
        return damaged(z, senseless, err);
    const unsigned char *local = z->map + m->local;
    m->at = m->local + LOCAL_BYTES + u16(local + 26) + u16(local + 28);
    if (m->at > room || m->packed > room - m->at || u16(local + 26) != nname ||
        memcmp(local + LOCAL_BYTES, name, nname))
        return damaged(z, senseless, err);

    m->is_array = nname >= 4 && !strcmp(name + nname - 4, ".npy");
    z->count++;
    if (!m->is_array)
        return 0;
    name[nname - 4] = 0;
    if (flags & 1 || (method != 0 && method != Z_DEFLATED))
        return pali_fail(err, PALI_EUNSUPPORTED, "save it again with numpy.savez",
                         "%s: member %.90s is %s", brief, name,
                         flags & 1 ? "encrypted" : "compressed in a way I do not know");
    if (m->deflated ? m->raw / DEFLATE_RATIO_MAX > m->packed : m->raw != m->packed)
        return pali_fail(err, PALI_EFORMAT, again,
                         "%s: member %.90s cannot have %llu bytes from %llu", brief, name,
                         (unsigned long long)m->raw, (unsigned long long)m->packed);
    return 0;
}

static int by_position(const void *a, const void *b) {
    const member *x = a, *y = b;
    return x->local < y->local ? -1 : x->local > y->local;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const member *const *)a)->t.name, (*(const member *const *)b)->t.name);
}

static int read_archive(pali_npz *z, pali_error *err) {
    directory d = {0};
    int rc = find_directory(z, &d, err);
    if (rc)
        return rc;
    z->members = calloc((size_t)d.entries + 1, sizeof *z->members);
    z->names = malloc((size_t)d.bytes + 1); /* an entry is longer than its name */
    if (!z->members || !z->names)
        return pali_fail_nomem(err, "reading an archive of arrays");
    size_t used = 0, name = 0;
    for (uint64_t i = 0, at = 0; i < d.entries; i++, at += used) {
        rc = read_entry(z, &d, z->map + d.at + at, d.bytes - at, z->names + name, &used, err);
        if (rc)
            return rc;
        name += strlen(z->names + name) + 1;
    }
    qsort(z->members, z->count, sizeof *z->members, by_position);
    size_t arrays = 0;
    for (size_t i = 0; i < z->count; i++) {
        const member *m = &z->members[i];
        if (i + 1 < z->count && m->at + m->packed > m[1].local)
            return pali_fail(err, PALI_EFORMAT, again, "%s: member %.90s overlaps the next",
                             pali_file_brief(z->path), m->t.name);
        if (m->is_array)
            z->members[arrays++] = *m;
    }
    z->count = arrays;
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
    z->members[0] = (member){.t.name = "", .packed = z->size, .raw = z->size};
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
    bool single = !rc && z->size >= 6 && !memcmp(z->map, "\x93NUMPY", 6);
    if (!rc)
        rc = single ? read_single(z, err) : read_archive(z, err);
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
    free(z->names);
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
    source s;
    int rc = source_open(&s, z, m, err);
    if (!rc) {
        bool ok = source_read(&s, header, m->header) &&
                  source_read(&s, turned ? turned : to, t->bytes) && source_ends(&s) &&
                  (!z->names || s.crc == m->crc); /* a single .npy has no checksum */
        source_close(&s);
        if (!ok)
            rc = pali_fail(err, PALI_EFORMAT, again, "%s: array %.90s is damaged",
                           pali_file_brief(z->path), t->name);
    }
    if (!rc && turned)
        reorder(t, turned, to);
    free(turned);
    return rc;
}
