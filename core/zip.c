/* zip.c - see zip.h. */
#include "core/zip.h"

#include "core/file.h"

#include <stdlib.h>
#include <string.h>

enum {
    END_BYTES = 22, /* the record that ends a zip file, without its comment */
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    ENTRY_BYTES = 46, /* of the directory, and of the copy before the member's data */
    LOCAL_BYTES = 30,
    ENTRIES_MAX = 1 << 17,
    DEFLATE_RATIO_MAX = 1032,
};

static const char again[] = "download it again";

static unsigned u16(const unsigned char *p) {
    return p[0] | (unsigned)p[1] << 8;
}

static uint32_t u32(const unsigned char *p) {
    return u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p) {
    return u32(p) | (uint64_t)u32(p + 4) << 32;
}

/* --- the directory ------------------------------------------------------------------- */

typedef struct {
    const unsigned char *map;
    size_t size;
    const char *path;
} file;

typedef struct {
    uint64_t at, bytes, entries;
} directory;

static int damaged(const file *z, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, "the file may be cut short; download it again", "%s: %s",
                     pali_file_brief(z->path), what);
}

/* Finds the directory through the record at the end of the file. */
static int find_directory(const file *z, directory *d, pali_error *err) {
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
                           : "is not a zip archive",
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
static int read_entry(const file *z, const directory *d, const unsigned char *p, uint64_t n,
                      char *name, pali_zip_member *m, size_t *used, pali_error *err) {
    static const char senseless[] = "an entry of its directory makes no sense";
    if (n < ENTRY_BYTES || memcmp(p, "PK\1\2", 4))
        return damaged(z, senseless, err);
    size_t nname = u16(p + 28), nextra = u16(p + 30);
    *used = ENTRY_BYTES + nname + nextra + u16(p + 32);
    if (*used > n || u16(p + 34) || memchr(p + ENTRY_BYTES, 0, nname))
        return damaged(z, senseless, err);
    memcpy(name, p + ENTRY_BYTES, nname);
    name[nname] = 0;
    unsigned flags = u16(p + 8), method = u16(p + 10);
    *m = (pali_zip_member){.name = name,
                           .cannot = flags & 1 ? "encrypted"
                                     : method != 0 && method != Z_DEFLATED
                                         ? "compressed in a way I do not know"
                                         : NULL,
                           .crc = u32(p + 16),
                           .packed = u32(p + 20),
                           .raw = u32(p + 24),
                           .local = u32(p + 42),
                           .deflated = method == Z_DEFLATED};
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
    if (!m->cannot && (m->deflated ? m->raw / DEFLATE_RATIO_MAX > m->packed : m->raw != m->packed))
        return pali_fail(err, PALI_EFORMAT, again,
                         "%s: member %.90s cannot have %llu bytes from %llu",
                         pali_file_brief(z->path), name, (unsigned long long)m->raw,
                         (unsigned long long)m->packed);
    return 0;
}

static int by_position(const void *a, const void *b) {
    const pali_zip_member *x = a, *y = b;
    return x->local < y->local ? -1 : x->local > y->local;
}

int pali_zip_open(const unsigned char *map, size_t size, const char *path, pali_zip *out,
                  pali_error *err) {
    *out = (pali_zip){0};
    const file z = {map, size, path};
    directory d = {0};
    int rc = find_directory(&z, &d, err);
    if (rc)
        return rc;
    out->members = calloc((size_t)d.entries + 1, sizeof *out->members);
    out->names = malloc((size_t)d.bytes + 1); /* an entry is longer than its name */
    if (!out->members || !out->names)
        return pali_fail_nomem(err, "reading a zip archive");
    size_t used = 0, name = 0;
    for (uint64_t i = 0, at = 0; i < d.entries; i++, at += used) {
        rc = read_entry(&z, &d, map + d.at + at, d.bytes - at, out->names + name, &out->members[i],
                        &used, err);
        if (rc)
            return rc;
        name += strlen(out->names + name) + 1;
    }
    out->count = (size_t)d.entries;
    qsort(out->members, out->count, sizeof *out->members, by_position);
    for (size_t i = 0; i + 1 < out->count; i++)
        if (out->members[i].at + out->members[i].packed > out->members[i + 1].local)
            return pali_fail(err, PALI_EFORMAT, again, "%s: member %.90s overlaps the next",
                             pali_file_brief(path), out->members[i].name);
    return 0;
}

void pali_zip_close(pali_zip *z) {
    free(z->members);
    free(z->names);
    *z = (pali_zip){0};
}

/* --- a member's bytes in order ------------------------------------------------------------ */

int pali_zip_source_open(pali_zip_source *s, const unsigned char *map, const pali_zip_member *m,
                         pali_error *err) {
    *s = (pali_zip_source){.in = map + m->at, .left = (size_t)m->packed, .deflated = m->deflated};
    if (s->deflated && inflateInit2(&s->z, -MAX_WBITS) != Z_OK)
        return pali_fail_nomem(err, "unpacking a file");
    return 0;
}

void pali_zip_source_close(pali_zip_source *s) {
    if (s->deflated)
        inflateEnd(&s->z);
}

/* The next bytes, at most n; fewer where the data ends or is damaged. */
static size_t source_some(pali_zip_source *s, unsigned char *out, size_t n) {
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

bool pali_zip_source_read(pali_zip_source *s, void *out, size_t n) {
    if (source_some(s, out, n) != n)
        return false;
    s->crc = crc32_z(s->crc, out, n);
    return true;
}

bool pali_zip_source_ends(pali_zip_source *s) {
    unsigned char more;
    return source_some(s, &more, 1) == 0 && s->left == 0;
}
