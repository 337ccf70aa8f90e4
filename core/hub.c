/* hub.c - see hub.h.
 *
 * An id becomes part of a path, so it is checked first: the characters that the hub
 * allows, no "..", nothing that begins with a dot or a dash. What a refs file says is
 * checked the same way.                                                            */
#include "core/hub.h"

#include "core/file.h"
#include "core/jax.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATH_MAX_BYTES = 4096
};

/* --- paths ----------------------------------------------------------------------- */

/* printf into a path; false when it does not fit. */
static bool build(char out[PATH_MAX_BYTES], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static bool build(char out[PATH_MAX_BYTES], const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, PATH_MAX_BYTES, fmt, ap);
    va_end(ap);
    return n >= 0 && n < PATH_MAX_BYTES;
}

static bool has(const char *folder, const char *file) {
    char path[PATH_MAX_BYTES];
    return build(path, "%s/%s", folder, file) && pali_file_exists(path);
}

/* A model of JAX's needs no other file to be known. */
static bool has_npz(const char *folder) {
    char *path;
    int n = pali_jax_in_folder(folder, &path);
    free(path);
    return n > 0;
}

static bool set(const char *s) {
    return s && *s;
}

/* base then rest, "~/" expanded as the hub's own tools do. False when that cannot be. */
static bool expand(const pali_hub_env *env, const char *base, const char *rest,
                   char out[PATH_MAX_BYTES]) {
    bool tilde = base[0] == '~' && (base[1] == '/' || !base[1]);
    if (tilde && !set(env->home))
        return false;
    return build(out, "%s%s%s", tilde ? env->home : "", tilde ? base + 1 : base, rest);
}

static bool home_folder(const pali_hub_env *env, const char *rest, char out[PATH_MAX_BYTES]) {
    char below[64];
    snprintf(below, sizeof below, "%s%s", set(env->hf_home) ? "" : "/huggingface", rest);
    return expand(env,
                  set(env->hf_home)     ? env->hf_home
                  : set(env->xdg_cache) ? env->xdg_cache
                                        : "~/.cache",
                  below, out);
}

static bool cache_folder(const pali_hub_env *env, char out[PATH_MAX_BYTES]) {
    return set(env->hf_hub_cache) ? expand(env, env->hf_hub_cache, "", out)
                                  : home_folder(env, "/hub", out);
}

/* --- names ------------------------------------------------------------------------- */

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

/* One part of an id: what the hub lets people register. */
static bool is_part(const char *s, size_t n) {
    if (n == 0 || n > PALI_HUB_PART_MAX || s[0] == '.' || s[0] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_word(s[i]) || (i && s[i] == s[i - 1] && (s[i] == '.' || s[i] == '-')))
            return false;
    return true;
}

bool pali_hub_is_revision(const char *s) {
    if (strlen(s) > PALI_HUB_REVISION_MAX)
        return false;
    for (;;) {
        const char *slash = strchr(s, '/');
        size_t n = slash ? (size_t)(slash - s) : strlen(s);
        if (n == 0 || s[0] == '.' || s[0] == '-')
            return false;
        for (size_t i = 0; i < n; i++)
            if (!is_word(s[i]) || (i && s[i] == '.' && s[i - 1] == '.'))
                return false;
        if (!slash)
            return true;
        s = slash + 1;
    }
}

/* A commit names one folder. */
bool pali_hub_is_commit(const char *s) {
    return *s && strlen(s) <= PALI_HUB_COMMIT_MAX && strspn(s, "0123456789abcdef") == strlen(s);
}

bool pali_hub_parse_id(const char *text, pali_hub_id *id) {
    memset(id, 0, sizeof *id);
    const char *at = strchr(text, '@'), *slash = strchr(text, '/');
    size_t n = at ? (size_t)(at - text) : strlen(text);
    if (n > PALI_HUB_PART_MAX || !slash || slash >= text + n ||
        !is_part(text, (size_t)(slash - text)) ||
        !is_part(slash + 1, (size_t)(text + n - slash - 1)))
        return false;
    if (at && !pali_hub_is_revision(at + 1))
        return false;
    snprintf(id->org, sizeof id->org, "%.*s", (int)(slash - text), text);
    snprintf(id->name, sizeof id->name, "%.*s", (int)(text + n - slash - 1), slash + 1);
    if (at)
        snprintf(id->revision, sizeof id->revision, "%s", at + 1);
    return true;
}

/* --- the cache ----------------------------------------------------------------------- */

bool pali_hub_read_ref(const char *model, const char *revision,
                       char commit[PALI_HUB_COMMIT_MAX + 1]) {
    char path[PATH_MAX_BYTES], *text;
    size_t n;
    if (!build(path, "%s/refs/%s", model, revision) || pali_file_read(path, 256, &text, &n, NULL))
        return false;
    text[strcspn(text, " \t\r\n")] = '\0';
    bool good = pali_hub_is_commit(text);
    if (good)
        snprintf(commit, PALI_HUB_COMMIT_MAX + 1, "%s", text);
    free(text);
    return good;
}

/* The snapshot that was changed last; false when there is none. */
static bool newest_snapshot(const char *model, char out[PATH_MAX_BYTES]) {
    char path[PATH_MAX_BYTES];
    if (!build(path, "%s/snapshots", model))
        return false;
    DIR *d = opendir(path);
    if (!d)
        return false;
    bool found = false;
    struct timespec best = {0};
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (!pali_hub_is_commit(e->d_name) || !build(path, "%s/snapshots/%s", model, e->d_name) ||
            stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
            continue;
        if (found && (st.st_mtim.tv_sec < best.tv_sec ||
                      (st.st_mtim.tv_sec == best.tv_sec && st.st_mtim.tv_nsec <= best.tv_nsec)))
            continue;
        best = st.st_mtim;
        found = build(out, "%s", path);
    }
    closedir(d);
    return found;
}

/* The folder of the snapshot that id means; false when the cache has none. */
static bool find_snapshot(const char *model, const pali_hub_id *id, char out[PATH_MAX_BYTES]) {
    char commit[PALI_HUB_COMMIT_MAX + 1];
    if (pali_hub_read_ref(model, *id->revision ? id->revision : "main", commit))
        return build(out, "%s/snapshots/%s", model, commit) && pali_file_is_folder(out);
    if (*id->revision)
        return pali_hub_is_commit(id->revision) &&
               build(out, "%s/snapshots/%s", model, id->revision) && pali_file_is_folder(out);
    return newest_snapshot(model, out);
}

/* --- public ------------------------------------------------------------------------------ */

static int answer(const char *folder, char *dir, size_t size, pali_error *err) {
    size_t n = strlen(folder);
    if (n >= size)
        return pali_fail(err, PALI_EARG, "use a shorter path", "%s: the path is too long",
                         pali_file_brief(folder));
    memcpy(dir, folder, n + 1);
    return 0;
}

/* What name is when it is on the disk itself; 1 when it is not. */
static int find_on_disk(const char *name, char *dir, size_t size, pali_error *err) {
    struct stat st;
    if (stat(name, &st) != 0)
        return 1;
    if (S_ISREG(st.st_mode) && pali_file_has_ending(name, ".npz"))
        return answer(name, dir, size, err);
    if (S_ISREG(st.st_mode) && pali_file_has_ending(name, ".gguf"))
        return pali_fail(err, PALI_EUNSUPPORTED,
                         "take the model's safetensors; with -q nf4 they need no more memory",
                         "%s: GGUF files are not read", pali_file_brief(name));
    if (!S_ISDIR(st.st_mode))
        return pali_fail(err, PALI_EARG, "name the folder that the file is in",
                         "%s: is a file; a model is a folder with config.json in it",
                         pali_file_brief(name));
    if (access(name, X_OK) != 0)
        return pali_fail(err, PALI_EIO, "check the permissions of the folder",
                         "%s: not allowed to look into this folder", pali_file_brief(name));
    if (!has(name, "config.json") && !has(name, "adapter_config.json") && !has_npz(name))
        return pali_fail(err, PALI_EFORMAT,
                         "a model is a folder with config.json, *.safetensors and tokenizer.model",
                         "%s: there is no config.json in this folder", pali_file_brief(name));
    return answer(name, dir, size, err);
}

static int find_in_cache(const pali_hub_env *env, const pali_hub_id *id, char *dir, size_t size,
                         pali_error *err) {
    char hint[sizeof err->hint];
    int n = snprintf(hint, sizeof hint, "download it: pali pull %s/%s%s%s", id->org, id->name,
                     *id->revision ? "@" : "", id->revision);
    if (n < 0 || (size_t)n >= sizeof hint) /* half a command helps nobody */
        snprintf(hint, sizeof hint, "download it with pali pull");

    char cache[PATH_MAX_BYTES], model[PATH_MAX_BYTES], snapshot[PATH_MAX_BYTES];
    int rc = pali_hub_cache(env, cache, sizeof cache, err);
    if (rc)
        return rc;
    if (!build(model, "%s/models--%s--%s", cache, id->org, id->name))
        return pali_fail(err, PALI_EARG, "use a shorter path", "%s: the path is too long",
                         pali_file_brief(cache));
    if (!pali_file_is_folder(model))
        return pali_fail(err, PALI_EIO, hint,
                         "%s/%s: neither a folder here nor in the Hugging Face cache %s", id->org,
                         id->name, pali_file_brief(cache));
    if (!find_snapshot(model, id, snapshot))
        return pali_fail(err, PALI_EIO, hint, "%s/%s: revision %.40s is not in the cache %s",
                         id->org, id->name, *id->revision ? id->revision : "main",
                         pali_file_brief(cache));
    const char *missing = NULL;
    if (has_npz(snapshot))
        ;
    else if (!has(snapshot, "config.json"))
        missing = "config.json";
    else if (!has(snapshot, "model.safetensors") && !has(snapshot, "model.safetensors.index.json"))
        missing = "model.safetensors";
    if (missing)
        return pali_fail(err, PALI_EFORMAT, hint,
                         "%s/%s: the download is not complete, %s is missing in %s", id->org,
                         id->name, missing, pali_file_brief(cache));
    return answer(snapshot, dir, size, err);
}

static int answer_folder(bool known, const char *folder, char *dir, size_t size, pali_error *err) {
    if (!known)
        return pali_fail(err, PALI_EIO, "set HF_HOME, or name the model's folder",
                         "cannot tell where the Hugging Face cache is");
    return answer(folder, dir, size, err);
}

int pali_hub_cache(const pali_hub_env *env, char *dir, size_t size, pali_error *err) {
    char folder[PATH_MAX_BYTES];
    return answer_folder(cache_folder(env, folder), folder, dir, size, err);
}

int pali_hub_home(const pali_hub_env *env, char *dir, size_t size, pali_error *err) {
    char folder[PATH_MAX_BYTES];
    return answer_folder(home_folder(env, "", folder), folder, dir, size, err);
}

int pali_hub_find(const pali_hub_env *env, const char *name, char *dir, size_t size,
                  pali_error *err) {
    static const char example[] =
        "name a folder, or a model like google/paligemma2-3b-mix-448 that was downloaded";
    if (!*name)
        return pali_fail(err, PALI_EARG, example, "the name of the model is empty");
    int rc = find_on_disk(name, dir, size, err);
    if (rc <= 0)
        return rc;
    pali_hub_id id;
    if (pali_hub_parse_id(name, &id))
        return find_in_cache(env, &id, dir, size, err);
    bool path = name[0] == '/' || name[0] == '.' || name[0] == '~';
    return pali_fail(err, path ? PALI_EIO : PALI_EARG, example,
                     path ? "%s: no such folder"
                          : "%s: neither a folder nor the id of a model (org/name)",
                     pali_file_brief(name));
}
