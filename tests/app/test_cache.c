/* Models in a made-up Hugging Face cache: listed, and taken out of it. */
#include "app/cache.h"

#include "tests/core/make_model.h"

#include <fcntl.h>
#include <sys/file.h>

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char top[64], cache[128];
static pali_error err;
static char seen[4096]; /* a line for each model */
static uint64_t bytes;  /* of the last one */

static const char *in_cache(const char *path) {
    static char full[1024];
    snprintf(full, sizeof full, "%s/%s", cache, path);
    return full;
}

static bool there(const char *path) {
    struct stat st;
    return !lstat(in_cache(path), &st);
}

/* path is in the cache; its folders are made. */
static void put(const char *path, const char *text) {
    char full[1024];
    snprintf(full, sizeof full, "%s", in_cache(path));
    for (char *c = full + 1; *c; c++)
        if (*c == '/') {
            *c = '\0';
            mkdir(full, 0700);
            *c = '/';
        }
    FILE *f = fopen(full, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put_link(const char *to, const char *path) {
    put(path, "");
    assert_int_equal(unlink(in_cache(path)), 0);
    assert_int_equal(symlink(to, in_cache(path)), 0);
}

/* A model that can be opened, as commit. */
static void put_model(const char *folder, const char *commit, int generation) {
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.model"};
    char path[256], from[64], to[256];
    model_plan *p = model_tiny(generation);
    model_folder(from);
    model_write(p, from);
    model_put(from, names[2], "x", 1);
    free(p);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/blobs/%s%d", folder, names[i], generation);
        put(path, "");
        snprintf(to, sizeof to, "%s/%s", from, names[i]);
        assert_int_equal(rename(to, in_cache(path)), 0);
        snprintf(path, sizeof path, "%s/snapshots/%s/%s", folder, commit, names[i]);
        snprintf(to, sizeof to, "../../blobs/%s%d", names[i], generation);
        put_link(to, path);
    }
    model_remove(from);
}

static int setup(void **state) {
    (void)state;
    model_folder(top);
    snprintf(cache, sizeof cache, "%s/cache", top);
    memset(&err, 0, sizeof err);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

static void on_model(void *user, const cached_model *m) {
    (void)user;
    size_t n = strlen(seen);
    bytes = m->bytes;
    snprintf(seen + n, sizeof seen - n, "%s %.2s [%s] %s %s %d %d %s\n", m->id, m->commit, m->refs,
             m->complete ? "complete" : "incomplete", m->complete ? m->dtype : "-", m->generation,
             m->pixels, m->paligemma ? m->why : "other");
}

static const char *list(void) {
    seen[0] = '\0';
    memset(&err, 0, sizeof err);
    assert_ok(cache_list(cache, on_model, NULL, &err), err);
    return seen;
}

static void cache_lists_what_is_there(void **state) {
    (void)state;
    assert_string_equal(list(), ""); /* no cache yet */
    put_model("models--google--one", A, 1);
    put("models--google--one/refs/main", A);
    put("models--google--one/refs/refs/pr/1", A);
    put("models--google--one/refs/nonsense", "../../x");
    put_model("models--google--one", B, 2);
    put("models--google--part/snapshots/" A "/config.json", "{\"model_type\": \"paligemma\"}");
    put("models--google--part/blobs/x.incomplete", "12345678901234567890");
    put("models--other--bert/snapshots/" A "/config.json", "{\"model_type\": \"bert\"}");
    put("models--noorg/snapshots/" A "/config.json", "{}");
    put("models--a--b/snapshots/main/config.json", "{}");
    put("datasets--a--b/snapshots/" A "/x", "");
    list();
    assert_non_null(strstr(seen, "google/one aa [main, refs/pr/1] complete F32 1 "));
    assert_non_null(strstr(seen, "google/one bb [] complete F32 2 "));
    assert_non_null(strstr(seen, "google/part aa [] incomplete - 0 0 "));
    assert_non_null(strstr(seen, "other/bert aa [] incomplete - 0 0 other\n"));
    int lines = 0;
    for (const char *c = seen; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 4);
}

static void cache_counts_bytes_of_this_cache_only(void **state) {
    (void)state;
    put("models--google--part/snapshots/" A "/config.json",
        "{\"model_type\": \"paligemma\"}"); /* 27 */
    put("models--google--part/blobs/x.incomplete", "12345");
    put("models--google--part/blobs/whole", "1234567");
    put_link("../../blobs/whole", "models--google--part/snapshots/" A "/a.bin");
    put("secret", "a lot of bytes that are not of this model");
    put_link("../../../secret", "models--google--part/snapshots/" A "/b.bin");
    put_link("/etc/passwd", "models--google--part/snapshots/" A "/c.bin");
    put_link("../../blobs/../../../secret", "models--google--part/snapshots/" A "/d.bin");
    list();
    assert_int_equal(bytes, 27 + 5 + 7);
}

/* --- removing ----------------------------------------------------------------------- */

static pali_hub_id id_of(const char *text) {
    pali_hub_id id;
    assert_true(pali_hub_parse_id(text, &id));
    return id;
}

static cache_removal plan(const char *text) {
    pali_hub_id id = id_of(text);
    cache_removal r;
    assert_ok(cache_plan_removal(cache, &id, &r, &err), err);
    return r;
}

static void remove_model(const char *text) {
    pali_hub_id id = id_of(text);
    assert_ok(cache_remove(cache, &id, &err), err);
}

static void expect_failure(const char *text, const char *words) {
    pali_hub_id id = id_of(text);
    memset(&err, 0, sizeof err);
    assert_int_equal(cache_remove(cache, &id, &err), PALI_EIO);
    if (!strstr(err.what, words))
        fail_msg("got '%s', expected '%s'", err.what, words);
    assert_string_not_equal(err.hint, "");
}

static void cache_removes_a_model(void **state) {
    (void)state;
    put_model("models--google--one", A, 1);
    put_model("models--google--two", A, 1);
    put(".locks/models--google--one/x.lock", "");
    cache_removal r = plan("google/one");
    list();
    assert_int_equal(r.bytes, bytes);
    assert_int_equal(r.commits, 1);
    assert_int_equal(r.left, 0);
    remove_model("google/one");
    assert_false(there("models--google--one"));
    assert_false(there(".locks/models--google--one"));
    assert_true(there("models--google--two/blobs/model.safetensors1"));
    expect_failure("google/one", "is not in the cache");
}

static void cache_removes_one_commit_and_what_only_it_has(void **state) {
    (void)state;
    put_model("models--google--one", A, 1);
    put_model("models--google--one", B, 2);
    put("models--google--one/blobs/both", "12345");
    put_link("../../blobs/both", "models--google--one/snapshots/" A "/both.json");
    put_link("../../blobs/both", "models--google--one/snapshots/" B "/both.json");
    put_link("../../../blobs/deep", "models--google--one/snapshots/" B "/sub/deep.json");
    put("models--google--one/blobs/deep", "1");
    put("models--google--one/refs/main", A);
    put("models--google--one/refs/old", B);
    put("models--google--one/refs/refs/pr/1", B);
    cache_removal r = plan("google/one@old");
    struct stat st;
    uint64_t expected = 1 + 1; /* deep, and tokenizer.model */
    stat(in_cache("models--google--one/blobs/model.safetensors2"), &st);
    expected += (uint64_t)st.st_size;
    stat(in_cache("models--google--one/blobs/config.json2"), &st);
    expected += (uint64_t)st.st_size;
    assert_int_equal(r.bytes, expected);
    assert_int_equal(r.left, 1);
    remove_model("google/one@old");
    assert_false(there("models--google--one/snapshots/" B));
    assert_false(there("models--google--one/blobs/model.safetensors2"));
    assert_false(there("models--google--one/blobs/deep"));
    assert_false(there("models--google--one/refs/old"));
    assert_false(there("models--google--one/refs/refs/pr/1"));
    assert_true(there("models--google--one/blobs/both"));
    assert_true(there("models--google--one/refs/main"));
    list();
    assert_non_null(strstr(seen, "google/one aa [main] complete"));
    remove_model("google/one@" A); /* the last one takes the folder with it */
    assert_false(there("models--google--one"));
}

static void cache_removes_nothing_outside(void **state) {
    (void)state;
    put("outside/file", "x");
    put_model("models--google--one", A, 1);
    put_model("models--google--one", B, 2);
    put_link("../../../../outside", "models--google--one/snapshots/" A "/sub/folder");
    put_link("../../../outside/file", "models--google--one/snapshots/" A "/file");
    put_link("../../blobs/..", "models--google--one/snapshots/" A "/up");
    put_link("../../outside", "models--google--one/blobs/folder");
    put_link("outside", "models--google--link");
    remove_model("google/one@" A);
    assert_true(there("outside/file"));
    assert_true(there("models--google--one/blobs"));
    remove_model("google/one");
    assert_true(there("outside/file"));
    assert_false(there("models--google--one"));
    expect_failure("google/link", "is not a folder");
    assert_true(there("outside/file"));
}

static void cache_says_what_is_not_there(void **state) {
    (void)state;
    expect_failure("google/one", "is not in the cache");
    put_model("models--google--one", A, 1);
    expect_failure("google/one@v2", "revision v2 is not in the cache");
    expect_failure("google/one@" B, "is not in the cache");
    assert_true(there("models--google--one/blobs/model.safetensors1"));
}

static void cache_removes_nothing_that_is_being_downloaded(void **state) {
    (void)state;
    put_model("models--google--one", A, 1);
    put(".locks/models--google--one/x.lock", "");
    int fd = open(in_cache(".locks/models--google--one/x.lock"), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    expect_failure("google/one", "somebody is downloading");
    assert_true(there("models--google--one/blobs/model.safetensors1"));
    close(fd);
    remove_model("google/one");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(cache_lists_what_is_there),
        TEST(cache_counts_bytes_of_this_cache_only),
        TEST(cache_removes_a_model),
        TEST(cache_removes_one_commit_and_what_only_it_has),
        TEST(cache_removes_nothing_outside),
        TEST(cache_says_what_is_not_there),
        TEST(cache_removes_nothing_that_is_being_downloaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
