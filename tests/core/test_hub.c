/* Folders and ids of models, against a made-up Hugging Face cache. */
#include "core/hub.h"

#include "tests/core/make_model.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define COMMIT_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define COMMIT_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char top[64];     /* the temporary folder of one test */
static char found[1024]; /* what pali_hub_find wrote */
static pali_error err;

static int setup(void **state) {
    (void)state;
    model_folder(top);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

static char *under(const char *path) {
    static char full[1024];
    snprintf(full, sizeof full, "%s/%s", top, path);
    return full;
}

/* Makes every folder of top/path up to the last slash. */
static void make_folders(const char *path) {
    char *full = under(path);
    for (char *c = full + strlen(top) + 1; *c; c++)
        if (*c == '/') {
            *c = '\0';
            mkdir(full, 0700);
            *c = '/';
        }
}

static void put(const char *path, const char *text) {
    make_folders(path);
    model_put(top, path, text, strlen(text));
}

/* HF_HUB_CACHE=top/cache. */
static pali_hub_env cache_env(void) {
    static char cache[128];
    snprintf(cache, sizeof cache, "%s/cache", top);
    return (pali_hub_env){.hf_hub_cache = cache};
}

/* A snapshot as the hub's tools lay it out: links into blobs. weights may be NULL. */
static void put_snapshot(const char *cache, const char *commit, const char *weights) {
    char base[256], path[512];
    snprintf(base, sizeof base, "%s/models--google--paligemma-tiny", cache);
    snprintf(path, sizeof path, "%s/blobs/%s-config", base, commit);
    put(path, "{}");
    snprintf(path, sizeof path, "%s/snapshots/%s/config.json", base, commit);
    make_folders(path);
    char target[128];
    snprintf(target, sizeof target, "../../blobs/%s-config", commit);
    assert_int_equal(symlink(target, under(path)), 0);
    if (!weights)
        return;
    snprintf(path, sizeof path, "%s/blobs/%s-weights", base, commit);
    put(path, "x");
    snprintf(path, sizeof path, "%s/snapshots/%s/%s", base, commit, weights);
    snprintf(target, sizeof target, "../../blobs/%s-weights", commit);
    assert_int_equal(symlink(target, under(path)), 0);
}

static void put_ref(const char *cache, const char *ref, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/models--google--paligemma-tiny/refs/%s", cache, ref);
    put(path, text);
}

static int look(const pali_hub_env *env, const char *name) {
    memset(&err, 0, sizeof err);
    found[0] = '\0';
    return pali_hub_find(env, name, found, sizeof found, &err);
}

static void expect_snapshot(const pali_hub_env *env, const char *name, const char *cache,
                            const char *commit) {
    char expected[512];
    assert_ok(look(env, name), err);
    snprintf(expected, sizeof expected, "%s/%s/models--google--paligemma-tiny/snapshots/%s", top,
             cache, commit);
    assert_string_equal(found, expected);
}

static void expect_failure(const pali_hub_env *env, const char *name, int code, const char *words) {
    int rc = look(env, name);
    if (rc != code || !strstr(err.what, words))
        fail_msg("'%s': got %d '%s', expected %d and '%s'", name, rc, err.what, code, words);
    assert_int_equal(err.code, code);
    assert_string_not_equal(err.hint, "");
}

/* --- folders ------------------------------------------------------------------------ */

static void hub_takes_a_folder_as_it_is(void **state) {
    (void)state;
    pali_hub_env env = {0};
    put("model/config.json", "{}");
    assert_ok(look(&env, under("model")), err);
    assert_string_equal(found, under("model"));
    put("adapter/adapter_config.json", "{}"); /* pali_weights_open explains it */
    assert_ok(look(&env, under("adapter")), err);
}

static void hub_takes_a_model_of_jax(void **state) {
    (void)state;
    pali_hub_env env = cache_env();
    put("model/weights.npz", "x");
    assert_ok(look(&env, under("model")), err);
    assert_ok(look(&env, under("model/weights.npz")), err);
    assert_string_equal(found, under("model/weights.npz"));
    put_ref("cache", "main", COMMIT_A);
    put("cache/models--google--paligemma-tiny/snapshots/" COMMIT_A "/weights.npz", "x");
    assert_ok(look(&env, "google/paligemma-tiny"), err);
    put("mask/vae-oid.npz", "x");
    expect_failure(&env, under("mask"), PALI_EFORMAT, "there is no config.json");
}

static void hub_says_what_is_wrong_with_a_folder(void **state) {
    (void)state;
    pali_hub_env env = {0};
    put("empty/readme", "");
    put("model/config.json", "{}");
    expect_failure(&env, under("empty"), PALI_EFORMAT, "there is no config.json");
    expect_failure(&env, under("model/config.json"), PALI_EARG, "is a file");
    put("model/text.gguf", "GGUF");
    expect_failure(&env, under("model/text.gguf"), PALI_EUNSUPPORTED, "GGUF files are not read");
    expect_failure(&env, under("nowhere"), PALI_EIO, "no such folder");
    expect_failure(&env, "./nowhere", PALI_EIO, "no such folder");
    expect_failure(&env, "", PALI_EARG, "empty");
    if (geteuid()) { /* root may look into any folder */
        put("shut/config.json", "{}");
        assert_int_equal(chmod(under("shut"), 0), 0);
        expect_failure(&env, under("shut"), PALI_EIO, "not allowed to look into this folder");
        assert_int_equal(chmod(under("shut"), 0700), 0);
    }
}

static void hub_says_when_the_buffer_is_short(void **state) {
    (void)state;
    pali_hub_env env = {0};
    char small[8];
    put("model/config.json", "{}");
    memset(&err, 0, sizeof err);
    assert_int_equal(pali_hub_find(&env, under("model"), small, sizeof small, &err), PALI_EARG);
}

/* --- ids ---------------------------------------------------------------------------------- */

static void hub_finds_the_cache_in_order(void **state) {
    (void)state;
    static const char *const caches[] = {"one", "two/hub", "three/huggingface/hub",
                                         "four/.cache/huggingface/hub"};
    for (int i = 0; i < 4; i++) {
        put_snapshot(caches[i], COMMIT_A, "model.safetensors");
        put_ref(caches[i], "main", COMMIT_A);
    }
    char one[128], two[128], three[128], four[128];
    snprintf(one, sizeof one, "%s/one", top);
    snprintf(two, sizeof two, "%s/two", top);
    snprintf(three, sizeof three, "%s/three", top);
    snprintf(four, sizeof four, "%s/four", top);
    pali_hub_env env = {one, two, three, four};
    expect_snapshot(&env, "google/paligemma-tiny", caches[0], COMMIT_A);
    env.hf_hub_cache = "";
    expect_snapshot(&env, "google/paligemma-tiny", caches[1], COMMIT_A);
    env.hf_home = NULL;
    expect_snapshot(&env, "google/paligemma-tiny", caches[2], COMMIT_A);
    env.xdg_cache = NULL;
    expect_snapshot(&env, "google/paligemma-tiny", caches[3], COMMIT_A);
    env.hf_home = "~/.cache/huggingface";
    expect_snapshot(&env, "google/paligemma-tiny", caches[3], COMMIT_A);
    env.home = NULL;
    expect_failure(&env, "google/paligemma-tiny", PALI_EIO, "cannot tell where");
}

static void hub_follows_revisions(void **state) {
    (void)state;
    pali_hub_env env = cache_env();
    put_snapshot("cache", COMMIT_A, "model.safetensors");
    put_snapshot("cache", COMMIT_B, "model.safetensors.index.json");
    put_ref("cache", "main", COMMIT_A "\n");
    put_ref("cache", "bfloat16", COMMIT_B);
    put_ref("cache", "refs/pr/7", COMMIT_B);
    expect_snapshot(&env, "google/paligemma-tiny", "cache", COMMIT_A);
    expect_snapshot(&env, "google/paligemma-tiny@main", "cache", COMMIT_A);
    expect_snapshot(&env, "google/paligemma-tiny@bfloat16", "cache", COMMIT_B);
    expect_snapshot(&env, "google/paligemma-tiny@refs/pr/7", "cache", COMMIT_B);
    expect_snapshot(&env, "google/paligemma-tiny@" COMMIT_B, "cache", COMMIT_B);
    expect_failure(&env, "google/paligemma-tiny@float16", PALI_EIO, "revision float16 is not in");
    assert_non_null(strstr(err.hint, "pali pull google/paligemma-tiny@float16"));
}

static void hub_takes_the_newest_snapshot_without_refs(void **state) {
    (void)state;
    pali_hub_env env = cache_env();
    put_snapshot("cache", COMMIT_A, "model.safetensors");
    expect_snapshot(&env, "google/paligemma-tiny", "cache", COMMIT_A);
    put_snapshot("cache", COMMIT_B, "model.safetensors");
    struct timeval old[2] = {{1000, 0}, {1000, 0}};
    assert_int_equal(utimes(under("cache/models--google--paligemma-tiny/snapshots/" COMMIT_B), old),
                     0);
    expect_snapshot(&env, "google/paligemma-tiny", "cache", COMMIT_A);
    struct timeval young[2] = {{4000000000, 0}, {4000000000, 0}};
    assert_int_equal(
        utimes(under("cache/models--google--paligemma-tiny/snapshots/" COMMIT_B), young), 0);
    expect_snapshot(&env, "google/paligemma-tiny", "cache", COMMIT_B);
}

static void hub_tells_what_to_download(void **state) {
    (void)state;
    pali_hub_env env = cache_env();
    expect_failure(&env, "google/paligemma-tiny", PALI_EIO, "neither a folder here nor in");
    assert_non_null(strstr(err.what, top));
    assert_string_equal(err.hint, "download it: pali pull google/paligemma-tiny");
}

static void hub_refuses_an_incomplete_download(void **state) {
    (void)state;
    pali_hub_env env = cache_env();
    put_snapshot("cache", COMMIT_A, NULL);
    put_ref("cache", "main", COMMIT_A);
    expect_failure(&env, "google/paligemma-tiny", PALI_EFORMAT, "model.safetensors is missing");
    /* A link to a blob that is still being downloaded is as good as nothing. */
    assert_int_equal(
        symlink("../../blobs/gone", under("cache/models--google--paligemma-tiny/snapshots/" COMMIT_A
                                          "/model.safetensors")),
        0);
    expect_failure(&env, "google/paligemma-tiny", PALI_EFORMAT, "model.safetensors is missing");
    unlink(under("cache/models--google--paligemma-tiny/snapshots/" COMMIT_A "/config.json"));
    expect_failure(&env, "google/paligemma-tiny", PALI_EFORMAT, "config.json is missing");
}

static void hub_refuses_names_that_leave_the_cache(void **state) {
    (void)state;
    pali_hub_env env = cache_env();
    put_snapshot("cache", COMMIT_A, "model.safetensors");
    put("cache/models--google--paligemma-tiny/refs/evil", "../../../../../../etc");
    put("cache/models--google--paligemma-tiny/refs/blank", "");
    static const char *const names[] = {
        "google/..",     "google/../etc",   "a/b/c",       "google",        "google/",
        "google/a b",    "google/a\nb",     "google/-x",   "-google/x",     "google/.x",
        "google/a--b",   "google/a..b",     "google/x@",   "google/x@..",   "google/x@a/../b",
        "google/x@/etc", "google/x@a//b",   "google/x@-b", "google/x@a\tb", "google/x@refs/.x",
        "go@ogle/x",     "google/\xc3\xa9", "google/x:y",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int rc = look(&env, names[i]);
        if (rc != PALI_EARG && rc != PALI_EIO)
            fail_msg("'%s' gave %d '%s'", names[i], rc, err.what);
        assert_null(strstr(err.what, "the cache")); /* not even looked up */
    }
    char longest[400];
    memset(longest, 'a', sizeof longest);
    longest[50] = '/';
    longest[sizeof longest - 1] = '\0';
    expect_failure(&env, longest, PALI_EARG, "neither a folder nor the id");
    expect_failure(&env, "google/paligemma-tiny@evil", PALI_EIO, "not in the cache");
    expect_failure(&env, "google/paligemma-tiny@blank", PALI_EIO, "not in the cache");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hub_takes_a_folder_as_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_takes_a_model_of_jax, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_says_what_is_wrong_with_a_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_says_when_the_buffer_is_short, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_finds_the_cache_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_follows_revisions, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_takes_the_newest_snapshot_without_refs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(hub_tells_what_to_download, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_refuses_an_incomplete_download, setup, teardown),
        cmocka_unit_test_setup_teardown(hub_refuses_names_that_leave_the_cache, setup, teardown),
    };
    return cmocka_run_group_tests_name("hub", tests, NULL, NULL);
}
