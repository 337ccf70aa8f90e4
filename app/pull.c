/* pull.c - see pull.h. */
#include "app/pull.h"

#include "app/cache.h"
#include "app/hub_api.h"
#include "app/human.h"
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    LISTING_MAX = 16 << 20,
    SPARE_BYTES = 16 << 20, /* for folders, links and the small files of others */
    TICK_MS = 50,
    BUSY_MS = 200
};

typedef struct {
    const pull_request *r;
    const pull_listener *listener;
    hub_http_options options;
    hub_http *http;
    hub_listing list;
    char id[2 * PALI_HUB_PART_MAX + 2];
    const char *revision;
    char cache[CACHE_PATH_BYTES], folder[CACHE_PATH_BYTES], snapshot[CACHE_PATH_BYTES];
    pull_event e;
    long ticked_at;

    /* the file being pulled */
    const hub_file *file;
    char blob[CACHE_PATH_BYTES], part[CACHE_PATH_BYTES], link[CACHE_PATH_BYTES];
    int fd;
    GChecksum *sum;
} pull;

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void tell(pull *p, pull_what what) {
    p->e.what = what;
    if (p->listener && p->listener->on)
        p->listener->on(p->listener->user, &p->e);
}

static void tell_waiting(void *user, const char *why, int seconds) {
    pull *p = user;
    p->e.why = why;
    p->e.seconds = seconds;
    tell(p, PULL_WAIT);
}

static bool is_cancelled(const pull *p) {
    return atomic_load(p->r->http.cancel) != 0;
}

static int stopped(const pull *p, pali_error *err) {
    return pali_fail(err, PALI_ECANCEL, "what has come is kept", "%s: stopped", p->id);
}

/* --- the disk ------------------------------------------------------------------------- */

static int refused(const char *path, const char *what, pali_error *err) {
    int number = errno;
    bool full = number == ENOSPC || number == EDQUOT || number == EFBIG;
    return pali_fail(err, PALI_EIO,
                     full ? "make room and pull again: what has come is kept"
                          : "check the folder, or name another one with HF_HOME",
                     full ? "%s: the disk is full: %s %s" : "%s: cannot %s: %s",
                     pali_file_brief(path), full ? "cannot" : what, full ? what : strerror(number));
}

/* Makes the folders above the last slash of path. */
static int make_folders(const char *path, pali_error *err) {
    char p[CACHE_PATH_BYTES];
    int rc = cache_path(p, err, "%s", path);
    for (char *c = p + 1; !rc && *c; c++)
        if (*c == '/') {
            *c = '\0';
            if (mkdir(p, 0777) && errno != EEXIST)
                rc = refused(p, "make this folder", err);
            *c = '/';
        }
    return rc;
}

/* The size of a regular file, links followed; -1 when there is none. */
static int64_t size_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
}

/* The lock that every tool of the hub takes for this blob; closing it lets go. */
static int lock_blob(pull *p, int *lock, pali_error *err) {
    char path[CACHE_PATH_BYTES];
    int rc = cache_path(path, err, "%s/.locks/models--%s--%s/%s.lock", p->cache, p->r->id.org,
                        p->r->id.name, p->file->hash);
    if (!rc)
        rc = make_folders(path, err);
    if (rc)
        return rc;
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*lock < 0)
        return refused(path, "open it", err);
    for (bool told = false; flock(*lock, LOCK_EX | LOCK_NB); told = true) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return 0; /* a file system without locks: other tools go on without, too */
        if (is_cancelled(p))
            return stopped(p, err);
        if (!told)
            tell(p, PULL_BUSY);
        nanosleep(&(struct timespec){.tv_nsec = BUSY_MS * 1000000L}, NULL);
    }
    return 0;
}

/* --- checksums -------------------------------------------------------------------------- */

static int start_sum(pull *p, pali_error *err) {
    bool sha256 = hub_hash_is_sha256(p->file->hash);
    g_clear_pointer(&p->sum, g_checksum_free);
    p->sum = g_checksum_new(sha256 ? G_CHECKSUM_SHA256 : G_CHECKSUM_SHA1);
    if (!p->sum)
        return pali_fail_nomem(err, "checking a file");
    char head[32];
    if (!sha256) /* the NUL counts */
        g_checksum_update(
            p->sum, (const guchar *)head,
            snprintf(head, sizeof head, "blob %llu", (unsigned long long)p->file->size) + 1);
    return 0;
}

/* Adds to the sum what is there from an earlier time, n bytes. */
static int sum_beginning(pull *p, uint64_t n, pali_error *err) {
    static const size_t room = 1 << 20;
    unsigned char *bytes = malloc(room);
    if (!bytes)
        return pali_fail_nomem(err, "checking a file");
    int rc = 0;
    for (uint64_t at = 0; at < n && !rc;) {
        ssize_t got = pread(p->fd, bytes, n - at < room ? (size_t)(n - at) : room, (off_t)at);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            rc = refused(p->part, "read it", err);
        if (is_cancelled(p) && !rc)
            rc = stopped(p, err);
        if (!rc) {
            g_checksum_update(p->sum, bytes, (gssize)got);
            at += (uint64_t)got;
        }
    }
    free(bytes);
    return rc;
}

/* --- one file ------------------------------------------------------------------------------- */

static int write_part(void *user, const void *bytes, size_t n, pali_error *err) {
    pull *p = user;
    const char *at = bytes;
    while (n) {
        ssize_t w = write(p->fd, at, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return refused(p->part, "write to it", err);
        g_checksum_update(p->sum, (const guchar *)at, (gssize)w);
        p->e.file_have += (uint64_t)w;
        p->e.have += (uint64_t)w;
        at += w;
        n -= (size_t)w;
    }
    return 0;
}

static void tick(void *user, uint64_t ahead) {
    pull *p = user;
    long now = now_ms();
    if (now - p->ticked_at < TICK_MS)
        return;
    p->ticked_at = now;
    p->e.file_have += ahead;
    p->e.have += ahead;
    tell(p, PULL_BYTES);
    p->e.file_have -= ahead;
    p->e.have -= ahead;
}

/* Brings what is missing behind the first `from` bytes; *good: the checksum is right. */
static int bring(pull *p, uint64_t from, bool *good, pali_error *err) {
    char path[CACHE_PATH_BYTES];
    hub_http_sink sink = {.write = write_part, .tick = tick, .user = p};
    int rc = start_sum(p, err);
    if (!rc)
        rc = sum_beginning(p, from, err);
    if (!rc && lseek(p->fd, (off_t)from, SEEK_SET) < 0)
        rc = refused(p->part, "write to it", err);
    if (!rc)
        rc = cache_path(path, err, "/%s/resolve/%s/%s", p->id, p->list.commit, p->file->name);
    if (!rc && from < p->file->size)
        rc = hub_http_fetch(p->http, path, from, p->file->size, &sink, err);
    *good = !rc && !strcmp(g_checksum_get_string(p->sum), p->file->hash);
    return rc;
}

/* Forgets what came of the file. */
static int start_over(pull *p, pali_error *err) {
    p->e.have -= p->e.file_have;
    p->e.file_have = 0;
    return ftruncate(p->fd, 0) ? refused(p->part, "write to it", err) : 0;
}

static int fill_part(pull *p, pali_error *err) {
    struct stat st;
    bool good = false;
    p->fd = open(p->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (p->fd < 0 || fstat(p->fd, &st))
        return refused(p->part, "write to it", err);
    bool too_long = (uint64_t)st.st_size > p->file->size;
    uint64_t from = p->e.file_have = too_long ? 0 : (uint64_t)st.st_size;
    int rc = too_long ? start_over(p, err) : 0;
    if (!rc)
        rc = bring(p, from, &good, err);
    if (!rc && !good && from) { /* the beginning may have been another's */
        tell(p, PULL_AGAIN);
        rc = start_over(p, err);
        if (!rc)
            rc = bring(p, 0, &good, err);
    }
    if (!rc && !good) {
        unlink(p->part);
        return pali_fail(
            err, PALI_EFORMAT, "it was removed: pull again, on another network perhaps",
            "%s: %s came damaged: its checksum is not the hub's", p->id, p->file->name);
    }
    /* The name says that the bytes are right, and nobody will look again. */
    if (!rc && fdatasync(p->fd))
        rc = refused(p->part, "write to it", err);
    if (!rc && rename(p->part, p->blob))
        rc = refused(p->blob, "name it", err);
    return rc;
}

/* The snapshot's name for the blob. Where there are no links, the blob itself. */
static int link_blob(pull *p, pali_error *err) {
    char target[HUB_HASH_MAX + 16];
    struct stat st;
    if (size_of(p->link) == (int64_t)p->file->size)
        return 0;
    if (!lstat(p->link, &st) && unlink(p->link))
        return refused(p->link, "replace it", err);
    snprintf(target, sizeof target, "../../blobs/%s", p->file->hash);
    if (symlink(target, p->link) &&
        (errno == EEXIST || (errno != EPERM && errno != EOPNOTSUPP) || rename(p->blob, p->link)))
        return refused(p->link, "make this link", err);
    return 0;
}

static int name_file(pull *p, const hub_file *file, pali_error *err) {
    p->file = file;
    p->e.file = file->name;
    p->e.file_bytes = file->size;
    p->e.file_have = 0;
    int rc = cache_path(p->blob, err, "%s/blobs/%s", p->folder, file->hash);
    if (!rc)
        rc = cache_path(p->part, err, "%s.incomplete", p->blob);
    if (!rc)
        rc = cache_path(p->link, err, "%s/%s", p->snapshot, file->name);
    return rc;
}

static bool is_there(const pull *p) {
    return size_of(p->link) == (int64_t)p->file->size || size_of(p->blob) == (int64_t)p->file->size;
}

static int pull_file(pull *p, const hub_file *file, pali_error *err) {
    int lock = -1, rc = name_file(p, file, err);
    p->fd = -1;
    if (!rc && !is_there(p)) {
        rc = lock_blob(p, &lock, err);
        if (!rc && !is_there(p)) { /* whoever had the lock may have brought it */
            tell(p, PULL_FILE);
            rc = fill_part(p, err);
            if (!rc)
                tell(p, PULL_CHECKED);
        }
    }
    if (!rc)
        rc = link_blob(p, err);
    if (p->fd >= 0)
        close(p->fd);
    if (lock >= 0)
        close(lock);
    return rc;
}

/* --- the model ------------------------------------------------------------------------------- */

/* "refs/pr/1" is one word of the path. */
static int ask(pull *p, pali_error *err) {
    char path[CACHE_PATH_BYTES], word[3 * PALI_HUB_REVISION_MAX + 1], *w = word, *json = NULL;
    size_t n;
    for (const char *c = p->revision; *c; c++)
        if (*c == '/')
            w = stpcpy(w, "%2F");
        else
            *w++ = *c;
    *w = '\0';
    int rc = cache_path(path, err, "/api/models/%s/revision/%s?blobs=true", p->id, word);
    if (!rc)
        rc = hub_http_get(p->http, path, LISTING_MAX, &json, &n, err);
    if (!rc)
        rc = hub_listing_parse(json, n, p->id, &p->list, err);
    free(json);
    if (!rc)
        rc = cache_path(p->snapshot, err, "%s/snapshots/%s", p->folder, p->list.commit);
    return rc;
}

/* Counts what is there, makes the folders, and refuses what the disk has no room for. */
static int prepare(pull *p, pali_error *err) {
    char path[CACHE_PATH_BYTES];
    uint64_t have = 0;
    int rc = 0;
    for (size_t i = 0; i < p->list.nfiles && !rc; i++) {
        const hub_file *f = &p->list.files[i];
        rc = name_file(p, f, err);
        int64_t part = rc ? 0 : size_of(p->part);
        have += is_there(p) ? f->size : part > 0 && (uint64_t)part <= f->size ? (uint64_t)part : 0;
    }
    static const char *const folders[] = {"blobs/x", "refs/x", "snapshots/x"};
    for (size_t i = 0; i < 3 && !rc; i++)
        if (!(rc = cache_path(path, err, "%s/%s", p->folder, folders[i])))
            rc = make_folders(path, err);
    if (!rc && !(rc = cache_path(path, err, "%s/x", p->snapshot)))
        rc = make_folders(path, err);
    struct statvfs fs;
    char needs[HUMAN_BYTES], is[HUMAN_BYTES];
    uint64_t need = p->list.bytes - have, room;
    if (!rc && !statvfs(p->folder, &fs)) {
        room = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (need && need + SPARE_BYTES > room)
            rc = pali_fail(err, PALI_EIO, "make room, or name another disk with HF_HOME",
                           "%s: %s are missing, and %s has only %s free", p->id,
                           human_bytes(need, needs), pali_file_brief(p->folder),
                           human_bytes(room, is));
    }
    p->e.commit = p->list.commit;
    p->e.files = p->list.nfiles;
    p->e.bytes = p->list.bytes;
    p->e.have = have;
    p->e.file = NULL;
    p->e.file_have = p->e.file_bytes = 0;
    return rc;
}

/* A reader sees the old commit or the new one, never half a name. */
static int move_revision(pull *p, pali_error *err) {
    char path[CACHE_PATH_BYTES], new[CACHE_PATH_BYTES], commit[PALI_HUB_COMMIT_MAX + 1];
    if (!strcmp(p->revision, p->list.commit) ||
        (pali_hub_read_ref(p->folder, p->revision, commit) && !strcmp(commit, p->list.commit)))
        return 0;
    int rc = cache_path(path, err, "%s/refs/%s", p->folder, p->revision);
    if (!rc)
        rc = cache_path(new, err, "%s/.ref-%ld", p->folder, (long)getpid());
    if (!rc)
        rc = make_folders(path, err);
    if (rc)
        return rc;
    size_t n = strlen(p->list.commit);
    int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    bool good = fd >= 0 && write(fd, p->list.commit, n) == (ssize_t)n;
    if ((fd >= 0 && close(fd)) || !good || rename(new, path)) {
        rc = refused(path, "write it", err);
        unlink(new);
    }
    return rc;
}

static int run(pull *p, pali_error *err) {
    int rc = pali_hub_cache(&p->r->env, p->cache, sizeof p->cache, err);
    if (!rc)
        rc = cache_path(p->folder, err, "%s/models--%s--%s", p->cache, p->r->id.org, p->r->id.name);
    if (!rc)
        rc = hub_http_open(&p->options, &p->http, err);
    if (!rc)
        rc = ask(p, err);
    if (!rc)
        rc = prepare(p, err);
    if (rc)
        return rc;
    tell(p, PULL_BEGIN);
    for (size_t i = 0; i < p->list.nfiles && !rc; i++) {
        p->e.nfile = i;
        rc = pull_file(p, &p->list.files[i], err);
    }
    return rc ? rc : move_revision(p, err);
}

void pull_token(const pali_hub_env *env, const char *hf_token, const char *hf_token_path, char *out,
                size_t size) {
    char path[CACHE_PATH_BYTES], *text;
    size_t n;
    *out = '\0';
    if (hf_token && *hf_token) {
        snprintf(out, size, "%s", hf_token);
        return;
    }
    if (hf_token_path && *hf_token_path) {
        if (cache_path(path, NULL, "%s", hf_token_path))
            return;
    } else {
        char home[CACHE_PATH_BYTES];
        if (pali_hub_home(env, home, sizeof home, NULL) || cache_path(path, NULL, "%s/token", home))
            return;
    }
    if (pali_file_read(path, 4096, &text, &n, NULL))
        return;
    const char *word = text + strspn(text, " \t\r\n");
    snprintf(out, size, "%.*s", (int)strcspn(word, " \t\r\n"), word);
    explicit_bzero(text, n);
    free(text);
}

int pull_run(const pull_request *r, const pull_listener *listener, char *dir, size_t size,
             pali_error *err) {
    pull *p = calloc(1, sizeof *p);
    if (!p)
        return pali_fail_nomem(err, "preparing a download");
    p->r = r;
    p->listener = listener;
    p->options = r->http;
    p->options.id = p->id;
    p->options.waiting = tell_waiting;
    p->options.user = p;
    p->revision = *r->id.revision ? r->id.revision : "main";
    snprintf(p->id, sizeof p->id, "%s/%s", r->id.org, r->id.name);
    int rc = run(p, err);
    if (!rc && dir && (size_t)snprintf(dir, size, "%s", p->snapshot) >= size)
        rc = pali_fail(err, PALI_EARG, "use a shorter path", "the path of the cache is too long");
    g_clear_pointer(&p->sum, g_checksum_free);
    hub_listing_close(&p->list);
    hub_http_close(p->http);
    free(p);
    return rc;
}
