/* cache.c - see cache.h. */
#include "app/cache.h"

#include "core/config.h"
#include "core/file.h"
#include "core/weights.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LOCKS_MAX = 256
};

int cache_path(char out[CACHE_PATH_BYTES], pali_error *err, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, CACHE_PATH_BYTES, fmt, ap);
    va_end(ap);
    return n >= 0 && n < CACHE_PATH_BYTES ? 0
                                          : pali_fail(err, PALI_EARG, "use a shorter path",
                                                      "the path of the cache is too long");
}

/* --- the tree -------------------------------------------------------------------------- */

static int by_name(const FTSENT **a, const FTSENT **b) {
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* What lies below path, links as links; NULL when it cannot be read. */
static FTS *walk(const char *path) {
    char *paths[] = {(char *)(uintptr_t)path, NULL};
    return fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
}

/* The name of the blob that a link of a snapshot leads to, "" for any other link. */
static void blob_of(const char *link, char out[NAME_MAX + 1]) {
    char to[CACHE_PATH_BYTES];
    ssize_t n = readlink(link, to, sizeof to - 1);
    to[n > 0 ? n : 0] = '\0';
    const char *at = to;
    while (!strncmp(at, "../", 3))
        at += 3;
    bool good = at > to && !strncmp(at, "blobs/", 6) && !strchr(at + 6, '/') && at[6] != '.' &&
                strlen(at + 6) <= NAME_MAX;
    strcpy(out, good ? at + 6 : "");
}

static uint64_t size_of(const char *path) {
    struct stat st;
    return !lstat(path, &st) && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

/* Whether another snapshot than commit links to blob. */
static bool is_shared(const char *folder, const char *commit, const char *blob) {
    char path[CACHE_PATH_BYTES], mine[CACHE_PATH_BYTES], name[NAME_MAX + 1];
    if (cache_path(path, NULL, "%s/snapshots", folder) ||
        cache_path(mine, NULL, "%s/%s/", path, commit))
        return true;
    FTS *t = walk(path);
    bool found = !t;
    for (FTSENT *e; !found && (e = fts_read(t));) {
        bool link = e->fts_info == FTS_SL || e->fts_info == FTS_SLNONE;
        if (link && strncmp(e->fts_path, mine, strlen(mine))) {
            blob_of(e->fts_path, name);
            found = !strcmp(name, blob);
        }
    }
    if (t)
        fts_close(t);
    return found;
}

/* Bytes of the files of a snapshot. alone: only those that no other one has. */
static uint64_t snapshot_bytes(const char *folder, const char *commit, bool alone) {
    char path[CACHE_PATH_BYTES], blob[CACHE_PATH_BYTES], name[NAME_MAX + 1];
    uint64_t sum = 0;
    if (cache_path(path, NULL, "%s/snapshots/%s", folder, commit))
        return 0;
    FTS *t = walk(path);
    for (FTSENT *e; t && (e = fts_read(t));)
        if (e->fts_info == FTS_F) {
            sum += (uint64_t)e->fts_statp->st_size;
        } else if (e->fts_info == FTS_SL || e->fts_info == FTS_SLNONE) {
            blob_of(e->fts_path, name);
            if (*name && !cache_path(blob, NULL, "%s/blobs/%s", folder, name) &&
                !(alone && is_shared(folder, commit, name)))
                sum += size_of(blob);
        }
    if (t)
        fts_close(t);
    return sum;
}

static uint64_t bytes_below(const char *path) {
    uint64_t sum = 0;
    FTS *t = walk(path);
    for (FTSENT *e; t && (e = fts_read(t));)
        if (e->fts_info == FTS_F)
            sum += (uint64_t)e->fts_statp->st_size;
    if (t)
        fts_close(t);
    return sum;
}

/* What has come of files that are not whole yet. */
static uint64_t incomplete_bytes(const char *folder) {
    static const char tail[] = ".incomplete";
    char path[CACHE_PATH_BYTES];
    uint64_t sum = 0;
    FTS *t = cache_path(path, NULL, "%s/blobs", folder) ? NULL : walk(path);
    for (FTSENT *e; t && (e = fts_read(t));)
        if (e->fts_info == FTS_F && e->fts_namelen > sizeof tail - 1 &&
            !strcmp(e->fts_name + e->fts_namelen - (sizeof tail - 1), tail))
            sum += (uint64_t)e->fts_statp->st_size;
    if (t)
        fts_close(t);
    return sum;
}

/* Calls each for every branch and tag that means commit, with its name and path. */
static void each_ref(const char *folder, const char *commit,
                     void (*each)(void *user, const char *name, const char *path), void *user) {
    char top[CACHE_PATH_BYTES], means[PALI_HUB_COMMIT_MAX + 1];
    FTS *t = cache_path(top, NULL, "%s/refs", folder) ? NULL : walk(top);
    for (FTSENT *e; t && (e = fts_read(t));) {
        const char *name = e->fts_path + strlen(top);
        name += *name == '/';
        if (e->fts_info == FTS_F && pali_hub_is_revision(name) &&
            pali_hub_read_ref(folder, name, means) && !strcmp(means, commit))
            each(user, name, e->fts_path);
    }
    if (t)
        fts_close(t);
}

/* --- listing ----------------------------------------------------------------------------- */

static void add_ref(void *user, const char *name, const char *path) {
    (void)path;
    cached_model *m = user;
    size_t n = strlen(m->refs), room = sizeof m->refs - n;
    if ((size_t)snprintf(m->refs + n, room, "%s%s", n ? ", " : "", name) >= room)
        m->refs[n] = '\0'; /* it would be cut: leave it out */
}

static bool has_file(const char *folder, const char *name) {
    char path[CACHE_PATH_BYTES];
    return !cache_path(path, NULL, "%s/%s", folder, name) && pali_file_exists(path);
}

/* Opens the model as asking would. */
static void look_inside(cached_model *m, pali_error *why) {
    pali_config config;
    pali_weights *w = NULL;
    char path[CACHE_PATH_BYTES];
    int rc = pali_weights_open(m->path, &w, why);
    m->paligemma = !rc || (!cache_path(path, NULL, "%s/config.json", m->path) &&
                           !pali_config_open(path, &config, NULL));
    if (!rc) {
        m->params = w->params;
        m->dtype = pali_dtype_name(w->text[0].q_w.dtype);
        m->generation = w->config.text.gemma;
        m->pixels = w->config.vision.S;
        pali_weights_close(w);
    }
    if (!rc && !has_file(m->path, "tokenizer.model") &&
        !has_file(m->path, "paligemma_tokenizer.model"))
        rc = pali_fail(why, PALI_EIO, NULL, "tokenizer.model is missing");
    m->complete = !rc;
    size_t n = strlen(m->path);
    m->complete = !rc;
    m->why = why->what + (!strncmp(why->what, m->path, n) && why->what[n] == '/' ? n + 1 : 0);
}

typedef struct {
    void (*each)(void *user, const cached_model *m);
    void *user;
} listing;

static void list_snapshot(const char *folder, const char *id, const char *commit,
                          const listing *l) {
    char path[CACHE_PATH_BYTES];
    pali_error why = {0};
    cached_model m = {.path = path, .dtype = ""};
    if (cache_path(path, NULL, "%s/snapshots/%s", folder, commit))
        return;
    snprintf(m.id, sizeof m.id, "%s", id);
    strcpy(m.commit, commit); /* is_commit: it fits */
    each_ref(folder, commit, add_ref, &m);
    look_inside(&m, &why);
    m.bytes = snapshot_bytes(folder, commit, false) + (m.complete ? 0 : incomplete_bytes(folder));
    l->each(l->user, &m);
}

/* The names in a folder, sorted; -1 when it is not there. */
static int names_in(const char *path, struct dirent ***out) {
    return scandir(path, out, NULL, alphasort);
}

static void free_names(struct dirent **names, int n) {
    for (int i = 0; i < n; i++)
        free(names[i]);
    if (n >= 0)
        free(names);
}

/* "models--org--name" -> "org/name". */
static bool id_of(const char *folder, char id[2 * PALI_HUB_PART_MAX + 2]) {
    pali_hub_id parsed;
    const char *org = folder + 8, *sep;
    if (strncmp(folder, "models--", 8) || !(sep = strstr(org, "--")) ||
        snprintf(id, 2 * PALI_HUB_PART_MAX + 2, "%.*s/%s", (int)(sep - org), org, sep + 2) >
            2 * PALI_HUB_PART_MAX + 1)
        return false;
    return pali_hub_parse_id(id, &parsed);
}

int cache_list(const char *cache, void (*each)(void *user, const cached_model *m), void *user,
               pali_error *err) {
    listing l = {each, user};
    struct dirent **models, **commits;
    char id[2 * PALI_HUB_PART_MAX + 2], folder[CACHE_PATH_BYTES], path[CACHE_PATH_BYTES];
    int n = names_in(cache, &models), rc = 0;
    if (n < 0)
        return errno == ENOENT ? 0
                               : pali_fail(err, PALI_EIO, "check the folder, or set HF_HOME",
                                           "%s: cannot look into it: %s", pali_file_brief(cache),
                                           strerror(errno));
    for (int i = 0; i < n && !rc; i++) {
        if (!id_of(models[i]->d_name, id))
            continue;
        rc = cache_path(folder, err, "%s/%s", cache, models[i]->d_name);
        if (!rc)
            rc = cache_path(path, err, "%s/snapshots", folder);
        int k = rc ? -1 : names_in(path, &commits);
        for (int j = 0; j < k; j++)
            if (pali_hub_is_commit(commits[j]->d_name))
                list_snapshot(folder, id, commits[j]->d_name, &l);
        free_names(commits, k);
    }
    free_names(models, n);
    return rc;
}

/* --- removing ----------------------------------------------------------------------------- */

/* The folder of a model, and the commit that id names, "" for all. */
static int find(const char *cache, const pali_hub_id *id, char folder[CACHE_PATH_BYTES],
                char commit[PALI_HUB_COMMIT_MAX + 1], pali_error *err) {
    char path[CACHE_PATH_BYTES];
    struct stat st;
    *commit = '\0';
    int rc = cache_path(folder, err, "%s/models--%s--%s", cache, id->org, id->name);
    if (rc)
        return rc;
    if (lstat(folder, &st))
        return pali_fail(err, PALI_EIO, "`pali models` tells what there is",
                         "%s/%s: is not in the cache %s", id->org, id->name,
                         pali_file_brief(cache));
    if (!S_ISDIR(st.st_mode)) /* a link leads out of the cache */
        return pali_fail(err, PALI_EIO, "remove it by hand", "%s: is not a folder",
                         pali_file_brief(folder));
    if (!*id->revision)
        return 0;
    if (!pali_hub_read_ref(folder, id->revision, commit) && pali_hub_is_commit(id->revision))
        strcpy(commit, id->revision); /* a commit fits */
    rc = cache_path(path, err, "%s/snapshots/%s", folder, commit);
    if (!rc && (!*commit || lstat(path, &st) || !S_ISDIR(st.st_mode)))
        rc =
            pali_fail(err, PALI_EIO, "`pali models` tells what there is",
                      "%s/%s: revision %.40s is not in the cache", id->org, id->name, id->revision);
    return rc;
}

/* Commits that are there. */
static int count_commits(const char *folder) {
    struct dirent **names;
    char path[CACHE_PATH_BYTES];
    int n = cache_path(path, NULL, "%s/snapshots", folder) ? -1 : names_in(path, &names), count = 0;
    for (int i = 0; i < n; i++)
        count += pali_hub_is_commit(names[i]->d_name);
    free_names(names, n);
    return count;
}

int cache_plan_removal(const char *cache, const pali_hub_id *id, cache_removal *out,
                       pali_error *err) {
    char folder[CACHE_PATH_BYTES], commit[PALI_HUB_COMMIT_MAX + 1];
    *out = (cache_removal){0};
    int rc = find(cache, id, folder, commit, err);
    if (rc)
        return rc;
    int all = count_commits(folder);
    out->commits = *commit && all > 1 ? 1 : all;
    out->left = all - out->commits;
    out->bytes = out->left ? snapshot_bytes(folder, commit, true) : bytes_below(folder);
    return 0;
}

static int failed(const char *path, pali_error *err) {
    return pali_fail(err, PALI_EIO, "check who owns it", "%s: cannot remove it: %s",
                     pali_file_brief(path), strerror(errno));
}

/* Removes path and what is below it. A folder comes twice: before and after its contents. */
static int remove_tree(const char *path, pali_error *err) {
    FTS *t = walk(path);
    int rc = t ? 0 : failed(path, err);
    for (FTSENT *e; !rc && (e = fts_read(t));) {
        if (e->fts_info == FTS_D)
            continue;
        if (e->fts_info == FTS_ERR || e->fts_info == FTS_DNR) {
            errno = e->fts_errno;
            rc = errno == ENOENT ? 0 : failed(e->fts_path, err);
        } else if (e->fts_info == FTS_DP ? rmdir(e->fts_accpath) : unlink(e->fts_accpath)) {
            rc = failed(e->fts_path, err);
        }
    }
    if (t)
        fts_close(t);
    return rc;
}

static void remove_ref(void *user, const char *name, const char *path) {
    (void)name;
    pali_error *err = user;
    if (!err->code && unlink(path))
        failed(path, err);
}

static int remove_commit(const char *folder, const char *commit, pali_error *err) {
    char path[CACHE_PATH_BYTES], blob[CACHE_PATH_BYTES], name[NAME_MAX + 1];
    int rc = cache_path(path, err, "%s/snapshots/%s", folder, commit);
    if (rc)
        return rc;
    each_ref(folder, commit, remove_ref, err);
    FTS *t = err->code ? NULL : walk(path);
    for (FTSENT *e; t && !err->code && (e = fts_read(t));) {
        if (e->fts_info != FTS_SL && e->fts_info != FTS_SLNONE)
            continue;
        blob_of(e->fts_path, name);
        if (*name && !is_shared(folder, commit, name) &&
            !cache_path(blob, err, "%s/blobs/%s", folder, name) && unlink(blob) && errno != ENOENT)
            failed(blob, err);
    }
    if (t)
        fts_close(t);
    return err->code ? err->code : remove_tree(path, err);
}

/* Takes the locks that downloads of the model hold, all of them or none. */
static int lock_all(const char *locks, int fds[LOCKS_MAX], int *n, pali_error *err) {
    FTS *t = walk(locks);
    int rc = 0;
    for (FTSENT *e; t && !rc && (e = fts_read(t));) {
        if (e->fts_info != FTS_F || *n == LOCKS_MAX)
            continue;
        int fd = open(e->fts_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        fds[(*n)++] = fd;
        if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
            rc = pali_fail(err, PALI_EIO, "wait for it, or stop it",
                           "somebody is downloading this model");
    }
    if (t)
        fts_close(t);
    return rc;
}

int cache_remove(const char *cache, const pali_hub_id *id, pali_error *err) {
    pali_error own = {0};
    char folder[CACHE_PATH_BYTES], locks[CACHE_PATH_BYTES], commit[PALI_HUB_COMMIT_MAX + 1];
    int fds[LOCKS_MAX], n = 0;
    int rc = find(cache, id, folder, commit, &own);
    if (!rc)
        rc = cache_path(locks, &own, "%s/.locks/models--%s--%s", cache, id->org, id->name);
    if (!rc)
        rc = lock_all(locks, fds, &n, &own);
    if (!rc && *commit && count_commits(folder) > 1)
        rc = remove_commit(folder, commit, &own);
    else if (!rc && !(rc = remove_tree(folder, &own)) && pali_file_is_folder(locks))
        rc = remove_tree(locks, &own);
    while (n)
        close(fds[--n]);
    return rc ? pali_fail(err, rc, own.hint, "%s", own.what) : 0;
}
