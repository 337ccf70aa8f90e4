/* keep.c - see keep.h. */
#include "core/keep.h"

#include "core/file.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum {
    KEY = 32, /* bytes of a SHA-256 */
    NAME = 2 * KEY + 4,
    STALE_S = 3600, /* a file that nobody finished for so long never will be */
};
static const char ending[] = ".emb", unfinished[] = ".new-";

/* Numbers as the machine has them: the files are for this one. */
typedef struct {
    char magic[8];
    uint32_t rows, cols;
    uint32_t crc; /* of the rows */
    uint32_t zero[3];
    unsigned char key[KEY];
} header;
_Static_assert(sizeof(header) == 64, "no holes");

struct pali_keep {
    char folder[PATH_MAX - NAME - 2];
    uint64_t most_bytes;
    GChecksum *base; /* of everything but the picture */
    uint32_t rows, cols;
};

/* --- names --------------------------------------------------------------------------------- */

static void add_stamp(GChecksum *sum, const char *what, const pali_file_stamp *s) {
    char line[160];
    int n =
        snprintf(line, sizeof line, "%s %llu %llu %lld %lld\n", what, (unsigned long long)s->inode,
                 (unsigned long long)s->size, (long long)s->modified, (long long)s->changed);
    g_checksum_update(sum, (const guchar *)line, n);
}

/* The file that holds a function's code: the program, or a plugin. */
static bool add_code(GChecksum *sum, const void *function) {
    Dl_info here, there;
    pali_file_stamp s;
    if (!dladdr((const void *)&ending, &here) || !dladdr(function, &there))
        return false;
    const char *path = here.dli_fbase == there.dli_fbase ? "/proc/self/exe" : there.dli_fname;
    if (!pali_file_look(path, &s))
        return false;
    add_stamp(sum, "code", &s);
    return true;
}

static bool add_model(GChecksum *sum, const pali_weights *w) {
    const pali_vision_config *v = &w->config.vision;
    char line[256];
    int n = snprintf(line, sizeof line, "encoder %d %d %d %d %d %d %d %d %d %a %d\n", v->S,
                     v->patch, v->channels, v->P, v->layers, v->D, v->H, v->E, v->F, (double)v->eps,
                     w->config.text.D);
    g_checksum_update(sum, (const guchar *)line, n);
    const pali_file_stamp *s;
    size_t i = 0;
    for (; (s = pali_weights_stamp(w, i)); i++)
        add_stamp(sum, "weights", s);
    return i > 0;
}

static bool add_backend(GChecksum *sum, const pali_backend *b, const pali_model *m) {
    char line[PALI_ARITHMETIC];
    const void *code;
    if (!b->embeds_write)
        return false;
    memcpy(&code, &b->encode_image, sizeof code); /* ISO C has no cast from code to data */
    b->arithmetic(m, line);
    g_checksum_update(sum, (const guchar *)b->name, -1);
    g_checksum_update(sum, (const guchar *)line, -1);
    return add_code(sum, code) && add_code(sum, &ending);
}

static void key_of(const pali_keep *k, const pali_image *square, unsigned char key[KEY]) {
    GChecksum *sum = g_checksum_copy(k->base);
    gsize n = KEY;
    g_checksum_update(sum, square->rgb, (gssize)square->width * square->height * 3);
    g_checksum_get_digest(sum, key, &n);
    g_checksum_free(sum);
}

static void path_of(const pali_keep *k, const unsigned char key[KEY], char path[PATH_MAX]) {
    int n = snprintf(path, PATH_MAX, "%s/", k->folder);
    for (int i = 0; i < KEY; i++)
        n += snprintf(path + n, PATH_MAX - (size_t)n, "%02x", key[i]);
    strcpy(path + n, ending); /* the folder's name leaves room */
}

/* --- opening ------------------------------------------------------------------------------- */

static int cannot(const char *path, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EIO, "check the disk, and who owns the folder", "%s: cannot %s: %s",
                     pali_file_brief(path), what, strerror(errno));
}

/* Somebody else could put other pictures' embeddings into a folder of theirs, or look into one
 * that is open to all. */
static int make_private(const char *folder, pali_error *err) {
    struct stat st;
    if (!pali_file_make_folders(folder) || lstat(folder, &st))
        return cannot(folder, "make the folder", err);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return pali_fail(err, PALI_EIO, "move it away", "%s: is not a folder of yours",
                         pali_file_brief(folder));
    if (st.st_mode & 077 && chmod(folder, 0700))
        return cannot(folder, "close it to others", err);
    return 0;
}

int pali_keep_open(const char *folder, uint64_t most_bytes, const pali_weights *w,
                   const pali_backend *b, const pali_model *m, pali_keep **out, pali_error *err) {
    *out = NULL;
    pali_keep *k = calloc(1, sizeof *k);
    if (!k)
        return pali_fail_nomem(err, "opening the folder of pictures");
    k->most_bytes = most_bytes;
    k->rows = (uint32_t)w->config.vision.P;
    k->cols = (uint32_t)w->config.text.D;
    k->base = g_checksum_new(G_CHECKSUM_SHA256);
    int rc = 0;
    if (snprintf(k->folder, sizeof k->folder, "%s", folder) >= (int)sizeof k->folder)
        rc = pali_fail(err, PALI_EIO, "use a shorter one", "%s: the path is too long",
                       pali_file_brief(folder));
    else if (!add_model(k->base, w) || !add_backend(k->base, b, m))
        rc = pali_fail(err, PALI_EUNSUPPORTED, NULL,
                       "there is no telling what the embeddings of this model depend on");
    else
        rc = make_private(folder, err);
    if (rc)
        pali_keep_close(k);
    else
        *out = k;
    return rc;
}

void pali_keep_close(pali_keep *k) {
    if (!k)
        return;
    g_checksum_free(k->base);
    free(k);
}

/* --- reading ------------------------------------------------------------------------------- */

static size_t count(const pali_keep *k) {
    return (size_t)k->rows * k->cols; /* 2^16 by 2^20 at most: the config's limits */
}

static bool are_finite(const float *x, size_t n) {
    uint32_t bits, all = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, x + i, sizeof bits);
        all |= (bits & 0x7f800000) == 0x7f800000;
    }
    return !all;
}

static uint32_t crc_of(const float *rows, size_t n) {
    return (uint32_t)crc32_z(crc32(0, NULL, 0), (const unsigned char *)rows, n * sizeof *rows);
}

static header header_of(const pali_keep *k, const unsigned char key[KEY], uint32_t crc) {
    header h = {.magic = "palikept", .rows = k->rows, .cols = k->cols, .crc = crc};
    memcpy(h.key, key, KEY);
    return h;
}

static bool read_all(int fd, void *out, size_t n) {
    for (ssize_t got; n; n -= (size_t)got, out = (char *)out + got)
        if ((got = read(fd, out, n)) <= 0) {
            if (got == 0 || errno != EINTR)
                return false;
            got = 0;
        }
    return true;
}

int pali_keep_find(pali_keep *k, const pali_image *square, float *rows, pali_error *err) {
    unsigned char key[KEY];
    char path[PATH_MAX];
    struct stat st;
    header h;
    size_t n = count(k);
    key_of(k, square, key);
    path_of(k, key, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? 0 : cannot(path, "open it", err);
    bool good = !fstat(fd, &st) && S_ISREG(st.st_mode) &&
                (uint64_t)st.st_size == sizeof h + (uint64_t)n * sizeof *rows &&
                read_all(fd, &h, sizeof h) && read_all(fd, rows, n * sizeof *rows);
    if (good) {
        header want = header_of(k, key, crc_of(rows, n));
        good = !memcmp(&h, &want, sizeof h) && are_finite(rows, n);
    }
    if (good)
        futimens(fd, NULL); /* used last now; if that cannot be, it may go sooner */
    close(fd);
    return good ? 1
                : pali_fail(err, PALI_EFORMAT, "it is made anew", "%s: is damaged",
                            pali_file_brief(path));
}

/* --- writing ------------------------------------------------------------------------------- */

typedef struct {
    char name[NAME + 1];
    uint64_t bytes;
    struct timespec used;
} kept;

static int oldest_first(const void *a, const void *b) {
    const struct timespec *x = &((const kept *)a)->used, *y = &((const kept *)b)->used;
    return x->tv_sec != y->tv_sec ? (x->tv_sec > y->tv_sec) - (x->tv_sec < y->tv_sec)
                                  : (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* Only names that are ours: a folder may hold what somebody else put there. */
static bool is_kept(const char *name) {
    return strspn(name, "0123456789abcdef") == 2 * KEY && !strcmp(name + 2 * KEY, ending);
}

/* Removes the oldest until the rest is not too much, and what was never finished. That somebody
 * else does the same at this moment costs a file too many. */
static void trim(const pali_keep *k) {
    DIR *d = opendir(k->folder);
    kept *all = NULL;
    size_t n = 0, room = 0;
    uint64_t sum = 0;
    time_t now = time(NULL);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        bool ours = is_kept(e->d_name),
             cut = !strncmp(e->d_name, unfinished, sizeof unfinished - 1);
        if ((!ours && !cut) || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            !S_ISREG(st.st_mode))
            continue;
        if (cut && st.st_mtime < now - STALE_S)
            unlinkat(dirfd(d), e->d_name, 0);
        if (!ours)
            continue;
        if (n == room) {
            kept *more = realloc(all, (room = 2 * room + 64) * sizeof *all);
            if (!more)
                break; /* next time */
            all = more;
        }
        strcpy(all[n].name, e->d_name);
        all[n].bytes = (uint64_t)st.st_size;
        all[n].used = st.st_mtim;
        sum += all[n++].bytes;
    }
    if (sum > k->most_bytes)
        qsort(all, n, sizeof *all, oldest_first);
    for (size_t i = 0; i < n && sum > k->most_bytes; i++)
        if (!unlinkat(dirfd(d), all[i].name, 0) || errno == ENOENT)
            sum -= all[i].bytes;
    free(all);
    if (d)
        closedir(d);
}

static bool write_all(int fd, const void *from, size_t n) {
    for (ssize_t put; n; n -= (size_t)put, from = (const char *)from + put)
        if ((put = write(fd, from, n)) < 0) {
            if (errno != EINTR)
                return false;
            put = 0;
        }
    return true;
}

int pali_keep_put(pali_keep *k, const pali_image *square, const float *rows, pali_error *err) {
    unsigned char key[KEY];
    char path[PATH_MAX], temporary[PATH_MAX];
    size_t n = count(k);
    if (!are_finite(rows, n))
        return 0;
    key_of(k, square, key);
    path_of(k, key, path);
    snprintf(temporary, sizeof temporary, "%s/%sXXXXXX", k->folder, unfinished);
    header h = header_of(k, key, crc_of(rows, n));
    int fd = mkostemp(temporary, O_CLOEXEC); /* 0600 */
    if (fd < 0)
        return cannot(k->folder, "write into it", err);
    bool good = write_all(fd, &h, sizeof h) && write_all(fd, rows, n * sizeof *rows);
    int why = errno;
    if (close(fd) && good) {
        good = false;
        why = errno;
    }
    if (good && rename(temporary, path)) {
        good = false;
        why = errno;
    }
    if (!good) {
        unlink(temporary);
        errno = why;
        return cannot(path, "write it", err);
    }
    trim(k);
    return 0;
}
