/* convert.c - see convert.h.
 *
 * DST gets config.json (of an .npz: made from its arrays), one model.safetensors, and the small
 * files that lie beside SRC. It must not hold a model yet. The weights come last: until they
 * are there the folder is no model, and a second try may go on.                           */
#include "app/convert.h"

#include "app/human.h"
#include "app/output.h"
#include "app/process.h"
#include "core/file.h"
#include "core/json.h"
#include "core/save.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SMALL_MAX = 64 << 20
};

static int join(char path[PATH_MAX], const char *folder, const char *name, pali_error *err) {
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX
               ? 0
               : pali_fail(err, PALI_EIO, "use a shorter path", "%s: the path is too long",
                           pali_file_brief(folder));
}

static int put_file(const char *folder, const char *name, const char *bytes, size_t n,
                    pali_error *err) {
    char path[PATH_MAX];
    int rc = join(path, folder, name, err);
    if (rc)
        return rc;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    bool good = fd >= 0 && write(fd, bytes, n) == (ssize_t)n;
    if ((fd >= 0 && close(fd)) || !good)
        rc = pali_fail(err, PALI_EIO, "check the disk and the folder", "%s: cannot write it: %s",
                       pali_file_brief(path), strerror(errno));
    return rc;
}

/* Copies from/name to to/as; *there: whether there is one. */
static int copy(const char *from, const char *name, const char *to, const char *as, bool *there,
                pali_error *err) {
    char path[PATH_MAX], *bytes;
    size_t n;
    int rc = join(path, from, name, err);
    *there = !rc && pali_file_exists(path);
    if (!*there)
        return rc;
    rc = pali_file_read(path, SMALL_MAX, &bytes, &n, err);
    if (!rc)
        rc = put_file(to, as, bytes, n, err);
    free(bytes);
    return rc;
}

/* config.json, true to the weights: an embedding of JAX's has fewer rows than a file beside it says. */
static int put_config(const pali_weights *w, const char *from, const char *to, pali_error *err) {
    char path[PATH_MAX], *read = NULL;
    const char *text = pali_weights_config_json(w);
    json_t *root = NULL;
    size_t n = text ? strlen(text) : 0;
    int rc = join(path, from, "config.json", err);
    if (!rc && !text) {
        rc = pali_file_read(path, SMALL_MAX, &read, &n, err);
        text = read;
    }
    if (!rc)
        rc = pali_json_parse(text, n, path, &root, err);
    free(read);
    if (rc)
        return rc;
    json_t *decoder = json_object_get(root, "text_config");
    if (json_object_get(decoder, "vocab_size"))
        json_object_set_new(decoder, "vocab_size", json_integer(w->config.text.V));
    char *out = json_dumps(root, JSON_INDENT(2));
    rc = out ? put_file(to, "config.json", out, strlen(out), err)
             : pali_fail_nomem(err, "writing config.json");
    free(out);
    json_decref(root);
    return rc;
}

static int put_small_files(const pali_weights *w, const char *from, const char *to,
                           pali_error *err) {
    static const char *const others[] = {"generation_config.json",
                                         "preprocessor_config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "added_tokens.json",
                                         "vae-oid.npz",
                                         "mask.npz"};
    bool there = false;
    int rc = put_config(w, from, to, err);
    for (size_t i = 0; i < sizeof others / sizeof *others && !rc; i++)
        rc = copy(from, others[i], to, others[i], &there, err);
    if (!rc)
        rc = copy(from, "tokenizer.model", to, "tokenizer.model", &there, err);
    if (!rc && !there)
        rc = copy(from, "paligemma_tokenizer.model", to, "tokenizer.model", &there, err);
    if (!rc && !there)
        app_err_note("there is no tokenizer.model in %s: put one into %s", from, to);
    return rc;
}

static int make_folder(const char *path, pali_error *err) {
    char file[PATH_MAX];
    if (mkdir(path, 0777) && errno != EEXIST)
        return pali_fail(err, PALI_EIO, "check the folder above it",
                         "%s: cannot make this folder: %s", pali_file_brief(path), strerror(errno));
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    for (int i = 0; i < 2; i++) {
        int rc = join(file, path, names[i], err);
        if (rc)
            return rc;
        if (pali_file_exists(file))
            return pali_fail(err, PALI_EIO, "name a new folder",
                             "%s: there is a model in it already", pali_file_brief(path));
    }
    return 0;
}

/* The folder of a model, which may be a file in it. */
static void folder_of(char path[PATH_MAX]) {
    char *slash = strrchr(path, '/');
    if (!pali_file_exists(path))
        return;
    if (slash)
        *slash = '\0';
    else
        strcpy(path, ".");
}

static void on_progress(void *user, pali_stage stage, int done, int total) {
    (void)stage;
    char line[64];
    snprintf(line, sizeof line, "%s %3d%%", (const char *)user, (int)(100.0 * done / total));
    if (isatty(STDERR_FILENO))
        app_err_status(line);
}

static uint64_t file_bytes(const char *path) {
    struct stat st;
    return stat(path, &st) ? 0 : (uint64_t)st.st_size;
}

int app_convert_run(const app_options *o, pali_error *err) {
    const char *to = o->words[1];
    char from[PATH_MAX], path[PATH_MAX], size[HUMAN_BYTES];
    pali_weights *w = NULL;
    pali_run turning = {app_process_stop_flag(), on_progress, (void *)(uintptr_t) "reading"};
    pali_run writing = {app_process_stop_flag(), on_progress, (void *)(uintptr_t) "writing"};
    pali_quant quant = o->quant == PALI_QUANT_AUTO ? PALI_QUANT_NONE : o->quant;
    app_process_catch_signals();
    if (o->quant_all && quant == PALI_QUANT_NONE)
        app_err_note("nothing is quantised: --quantize-modules goes with -q int8 or -q nf4");
    int rc = pali_hub_find(&o->hub, o->words[0], from, sizeof from, err);
    if (!rc)
        rc = pali_weights_open(from, &w, err);
    if (!rc)
        rc = make_folder(to, err);
    if (!rc)
        rc = pali_weights_prepare(w, o->threads, &turning, err);
    folder_of(from);
    if (!rc)
        rc = put_small_files(w, from, to, err);
    if (!rc)
        rc = join(path, to, "model.safetensors", err);
    if (!rc)
        rc = pali_save(w, quant, o->quant_all, path, &writing, err);
    app_err_progress_clear();
    if (!rc)
        app_err_note("%s: %s of weights", to, human_bytes(file_bytes(path), size));
    pali_weights_close(w);
    return rc;
}
