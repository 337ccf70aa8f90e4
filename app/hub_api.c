/* hub_api.c - see hub_api.h. */
#include "app/hub_api.h"

#include "core/json.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t small_max = 64u << 20, weights_max = (uint64_t)1 << 40;

/* --- names -------------------------------------------------------------------------- */

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), t = strlen(tail);
    return n >= t && !strcmp(s + n - t, tail);
}

/* Whether a name stays below the folder it is put in. */
static bool is_inside(const char *name) {
    if (!*name || *name == '/')
        return false;
    for (const char *part = name; part; part = strchr(part, '/')) {
        part += part != name;
        size_t n = strcspn(part, "/");
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return false;
    }
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == '\\' || *c == 127)
            return false;
    return true;
}

/* One plain word: no slash, nothing that a URL would have to quote. */
static bool is_plain(const char *name) {
    return *name != '.' && *name != '-' && strlen(name) <= HUB_NAME_MAX &&
           name[strspn(
               name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] == '\0';
}

/* model.safetensors, or model-00001-of-00003.safetensors: other names are other formats of
 * the same weights. */
static bool is_weights(const char *name) {
    if (!strcmp(name, "model.safetensors") || !strcmp(name, "adapter_model.safetensors"))
        return true;
    return !strncmp(name, "model-", 6) && strstr(name, "-of-") && ends(name, ".safetensors");
}

static bool is_npz(const char *name) {
    return ends(name, ".npz");
}

bool hub_file_is_wanted(const char *name) {
    static const char *const small[] = {
        "config.json",
        "adapter_config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.model",
        "paligemma_tokenizer.model",
        "model.safetensors.index.json",
    };
    if (!is_plain(name))
        return false;
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (!strcmp(name, small[i]))
            return true;
    return is_weights(name) || is_npz(name);
}

bool hub_hash_is_sha256(const char *hash) {
    return strlen(hash) == 64;
}

static bool is_hash(const char *s, size_t digits) {
    return s && strlen(s) == digits && strspn(s, "0123456789abcdef") == digits;
}

/* --- the answer --------------------------------------------------------------------- */

static int malformed(const char *id, const char *what, pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, "is HF_ENDPOINT that of a Hugging Face hub?",
                     "%s: the hub's list of files makes no sense: %s", id, what);
}

static int read_file(const json_t *v, const char *name, const char *id, hub_file *out,
                     pali_error *err) {
    const json_t *lfs = json_object_get(v, "lfs");
    bool large = json_is_object(lfs);
    const char *hash = large ? json_string_value(json_object_get(lfs, "sha256"))
                             : json_string_value(json_object_get(v, "blobId"));
    if (large && !hash)
        hash = json_string_value(json_object_get(lfs, "oid"));
    const json_t *size = json_object_get(large ? lfs : v, "size");
    if (!is_hash(hash, large ? 64 : 40))
        return malformed(id, "a file without a checksum", err);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return malformed(id, "a file without a size", err);
    bool weights = is_weights(name) || is_npz(name);
    out->size = (uint64_t)json_integer_value(size);
    if (out->size > (weights ? weights_max : small_max))
        return pali_fail(err, PALI_ELIMIT, "is it the right model?",
                         "%s: %s has %llu bytes, at most %llu are taken", id, name,
                         (unsigned long long)out->size,
                         (unsigned long long)(weights ? weights_max : small_max));
    memcpy(out->name, name, strlen(name) + 1);
    memcpy(out->hash, hash, strlen(hash) + 1);
    return 0;
}

static int by_size(const void *a, const void *b) {
    const hub_file *x = a, *y = b;
    return x->size != y->size ? (x->size > y->size) - (x->size < y->size)
                              : strcmp(x->name, y->name);
}

/* The weights come once: npz only where there are no safetensors. */
static int settle(hub_listing *l, const char *id, pali_error *err) {
    bool safetensors = false, npz = false, config = false;
    for (size_t i = 0; i < l->nfiles; i++) {
        safetensors |= is_weights(l->files[i].name);
        npz |= is_npz(l->files[i].name);
        config |= ends(l->files[i].name, "config.json");
    }
    if (!npz && !(safetensors && config))
        return pali_fail(err, PALI_EUNSUPPORTED,
                         "pali reads config.json with *.safetensors, and JAX's *.npz",
                         "%s: there is no model in it that pali reads", id);
    size_t kept = 0;
    for (size_t i = 0; i < l->nfiles; i++)
        if (!safetensors || !is_npz(l->files[i].name))
            l->files[kept++] = l->files[i];
    l->nfiles = kept;
    qsort(l->files, kept, sizeof *l->files, by_size);
    for (size_t i = 0; i < kept; i++) {
        l->bytes += l->files[i].size; /* at most 256 times 2^40 */
        for (size_t j = i + 1; j < kept; j++)
            if (!strcmp(l->files[i].name, l->files[j].name))
                return malformed(id, "a file is in it twice", err);
    }
    return 0;
}

static int read_listing(const json_t *root, const char *id, hub_listing *out, pali_error *err) {
    const char *commit = json_string_value(json_object_get(root, "sha"));
    const json_t *files = json_object_get(root, "siblings"), *v;
    if (!commit || strlen(commit) < 40 || !pali_hub_is_commit(commit))
        return malformed(id, "it names no commit", err);
    if (!json_is_array(files))
        return malformed(id, "there are no files", err);
    memcpy(out->commit, commit, strlen(commit) + 1);
    out->files = calloc(HUB_FILES_MAX, sizeof *out->files);
    if (!out->files)
        return pali_fail_nomem(err, "listing the files of a model");
    size_t i;
    json_array_foreach(files, i, v) {
        const char *name = json_string_value(json_object_get(v, "rfilename"));
        if (!name || !is_inside(name))
            return pali_fail(err, PALI_EFORMAT, "do not trust this model",
                             "%s: a file in it has a name that no honest file has: \"%.80s\"", id,
                             name ? name : "");
        if (!hub_file_is_wanted(name))
            continue;
        if (out->nfiles == HUB_FILES_MAX)
            return pali_fail(err, PALI_ELIMIT, "is it the right model?",
                             "%s: has more than %d files of weights", id, HUB_FILES_MAX);
        int rc = read_file(v, name, id, &out->files[out->nfiles], err);
        if (rc)
            return rc;
        out->nfiles++;
    }
    return settle(out, id, err);
}

int hub_listing_parse(const char *json, size_t n, const char *id, hub_listing *out,
                      pali_error *err) {
    *out = (hub_listing){0};
    json_t *root;
    int rc = pali_json_parse(json, n, "the hub's answer", &root, err);
    if (rc)
        return rc;
    rc = read_listing(root, id, out, err);
    json_decref(root);
    return rc;
}

void hub_listing_close(hub_listing *l) {
    free(l->files);
    *l = (hub_listing){0};
}
