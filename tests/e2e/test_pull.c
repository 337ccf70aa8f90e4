/* `pali pull` from outside: what it says, what it prints, how it ends. */
#include "tests/app/hub_server.h"
#include "tests/core/make_model.h"
#include "tests/e2e/spawn.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

enum {
    WEIGHTS = 3 << 20
};

static unsigned char weights[WEIGHTS];
static const server_file files[] = {
    {"config.json", (const unsigned char *)"{}", 2, false, 0},
    {"model.safetensors", weights, WEIGHTS, true, 0},
};
static char top[64], hash[65];
static hub_server hub;

static int setup(void **state) {
    (void)state;
    for (size_t i = 0; i < WEIGHTS; i++)
        weights[i] = (unsigned char)(i * 7);
    server_hash(&files[1], hash);
    model_folder(top);
    hub = (hub_server){.commit = COMMIT, .files = files, .nfiles = 2};
    server_start(&hub);
    setenv("HF_ENDPOINT", hub.endpoint, 1);
    setenv("HF_HUB_CACHE", top, 1);
    setenv("HF_TOKEN", "hf_secret", 1);
    unsetenv("HF_HUB_OFFLINE");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    server_stop(&hub);
    model_remove(top);
    unsetenv("HF_HUB_OFFLINE");
    return 0;
}

static void expect(spawned *s, int status, int stream, const char *words) {
    if (s->status != status || !strstr(s->text[stream], words))
        fail_msg("status %d, stdout \"%s\", stderr \"%s\"; expected %d and \"%s\"", s->status,
                 s->text[0], s->text[1], status, words);
}

static const char *blob(const char *tail) {
    static char path[256];
    snprintf(path, sizeof path, "%s/models--org--tiny/blobs/%s%s", top, hash, tail);
    return path;
}

static void pull_prints_the_folder(void **state) {
    (void)state;
    char folder[256];
    snprintf(folder, sizeof folder, "%s/models--org--tiny/snapshots/" COMMIT "\n", top);
    spawned s = RUN(NULL, "pull", "org/tiny");
    expect(&s, 0, 0, folder);
    assert_string_equal(s.text[0], folder);
    expect(&s, 0, 1, "org/tiny at 0123456789ab: 2 files, 3.1 MB\n");
    expect(&s, 0, 1, "model.safetensors: 3.1 MB, checksum right\n");
    assert_null(strchr(s.text[1], '\r')); /* nothing moves where nobody looks */
    assert_null(strstr(s.text[1], "hf_secret"));
    spawn_free(&s);
    s = RUN(NULL, "pull", "org/tiny@v1.0");
    expect(&s, 0, 1, "here already: 3.1 MB\n");
    spawn_free(&s);
    snprintf(folder, sizeof folder, "%s/models--org--tiny/refs/v1.0", top);
    assert_int_equal(access(folder, R_OK), 0);
    s = RUN(NULL, "pull", "org/tiny", "--revision", "v2");
    expect(&s, 0, 0, "snapshots");
    spawn_free(&s);
}

static void pull_tells_wrong_usage(void **state) {
    (void)state;
    static const char *const cases[][4] = {
        {"pull"},
        {"pull", "tiny"},
        {"pull", "org/../x"},
        {"pull", "org/tiny@a..b"},
        {"pull", "org/tiny@a", "--revision", "b"},
        {"pull", "org/tiny", "--revision", "../b"},
        {"pull", "a/b", "c/d"},
        {"pull", "a/b", "--yes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *args[5] = {0};
        memcpy(args, cases[i], sizeof cases[i]);
        spawned s = spawn_run(NULL, args);
        expect(&s, 2, 1, "try pali pull --help");
        spawn_free(&s);
    }
    assert_int_equal(hub.requests, 0);
}

static void pull_tells_what_failed(void **state) {
    (void)state;
    hub.rules[0] = (server_rule){"/api/", 1, 404, NULL, NULL};
    spawned s = RUN(NULL, "pull", "org/tiny");
    expect(&s, 1, 1, "pali: org/tiny: there is no such model on ");
    spawn_free(&s);
    setenv("HF_HUB_OFFLINE", "1", 1);
    s = RUN(NULL, "pull", "org/tiny");
    expect(&s, 1, 1, "HF_HUB_OFFLINE is set");
    spawn_free(&s);
    setenv("HF_HUB_OFFLINE", "0", 1);
    setenv("HF_ENDPOINT", "nonsense:", 1);
    s = RUN(NULL, "pull", "org/tiny");
    expect(&s, 1, 1, "HF_ENDPOINT is \"nonsense:\"");
    spawn_free(&s);
}

static void pull_keeps_what_has_come_at_an_interrupt(void **state) {
    (void)state;
    hub.stalls = 1000; /* more does not come, however late we are */
    hub.break_after = 400000;
    spawned s = START(-1, -1, "pull", "org/tiny");
    struct stat st;
    double limit = spawn_clock() + SPAWN_LIMIT_S;
    while (stat(blob(".incomplete"), &st) || st.st_size < 200000) {
        assert_true(spawn_clock() < limit);
        usleep(2000);
    }
    kill(s.pid, SIGINT);
    spawn_finish(&s);
    expect(&s, 130, 1, "the same command goes on\n");
    assert_string_equal(s.text[0], "");
    spawn_free(&s);
    assert_int_equal(stat(blob(".incomplete"), &st), 0);
    assert_true(st.st_size >= 200000 && st.st_size < WEIGHTS);
    hub.stalls = 0;
    s = RUN(NULL, "pull", "org/tiny");
    expect(&s, 0, 1, "checksum right");
    spawn_free(&s);
    assert_int_equal(access(blob(".incomplete"), F_OK), -1);
    assert_int_equal(stat(blob(""), &st), 0);
    assert_int_equal(st.st_size, WEIGHTS);
}

static void models_that_were_pulled_are_listed_and_removed(void **state) {
    (void)state;
    spawned s = RUN(NULL, "models");
    expect(&s, 0, 1, "no PaliGemma in ");
    spawn_free(&s);
    s = RUN(NULL, "pull", "org/tiny");
    expect(&s, 0, 1, "checksum right");
    spawn_free(&s);
    s = RUN(NULL, "models"); /* {} is not the config of a PaliGemma */
    assert_string_equal(s.text[0], "");
    spawn_free(&s);
    s = RUN(NULL, "models", "-v");
    expect(&s, 0, 1, "1 other models");
    spawn_free(&s);
    s = RUN(NULL, "rm", "org/tiny");
    expect(&s, 2, 1, "nobody is there to ask");
    spawn_free(&s);
    s = RUN(NULL, "rm", "org/tiny@v9", "--yes");
    expect(&s, 1, 1, "revision v9 is not in the cache");
    spawn_free(&s);
    s = RUN(NULL, "rm", "org/tiny", "--yes");
    expect(&s, 0, 1, "removed org/tiny, 3.1 MB");
    spawn_free(&s);
    s = RUN(NULL, "rm", "org/tiny", "--yes");
    expect(&s, 1, 1, "is not in the cache");
    spawn_free(&s);
}

/* The bundled model, laid out as a download would be. */
static void models_are_described(void **state) {
    (void)state;
    char command[1024];
    snprintf(command, sizeof command,
             "m=%s/models--google--tiny && mkdir -p $m/refs $m/snapshots/" COMMIT " && "
             "cp assets/demo/config.json assets/demo/model.safetensors assets/demo/tokenizer.model "
             "$m/snapshots/" COMMIT " && printf " COMMIT " >$m/refs/main && "
             "mkdir -p %s/models--google--part/snapshots/" COMMIT " && "
             "cp assets/demo/config.json %s/models--google--part/snapshots/" COMMIT,
             top, top, top);
    assert_int_equal(system(command), 0);
    spawned s = RUN(NULL, "models");
    expect(&s, 0, 0, " px  complete\n");
    expect(&s, 0, 0, "google/tiny  main ");
    expect(&s, 0, 0, "google/part  0123456789ab ");
    expect(&s, 0, 0, "incomplete: ");
    spawn_free(&s);
    s = RUN(NULL, "models", "--json");
    expect(&s, 0, 0, "\"revisions\":[\"main\"]");
    expect(&s, 0, 0, "\"complete\":true");
    expect(&s, 0, 0, "\"complete\":false");
    spawn_free(&s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(pull_prints_the_folder),
        TEST(pull_tells_wrong_usage),
        TEST(pull_tells_what_failed),
        TEST(pull_keeps_what_has_come_at_an_interrupt),
        TEST(models_that_were_pulled_are_listed_and_removed),
        TEST(models_are_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
