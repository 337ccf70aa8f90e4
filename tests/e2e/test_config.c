/* The config file and `pali config` from outside. */
#include "tests/core/make_model.h"
#include "tests/e2e/spawn.h"

static char top[64], file[128];

static int setup(void **state) {
    (void)state;
    model_folder(top);
    snprintf(file, sizeof file, "%s/pali", top);
    mkdir(file, 0700);
    snprintf(file, sizeof file, "%s/pali/config", top);
    setenv("XDG_CONFIG_HOME", top, 1);
    unsetenv("PALI_CONFIG");
    unsetenv("PALI_MODEL");
    unsetenv("PALI_MASK_WEIGHTS");
    unsetenv("NO_COLOR");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

static void put(const char *text) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void expect(spawned *s, int status, int stream, const char *words) {
    if (s->status != status || !strstr(s->text[stream], words))
        fail_msg("status %d, stdout \"%s\", stderr \"%s\"; expected %d and \"%s\"", s->status,
                 s->text[0], s->text[1], status, words);
}

static void config_shows_the_defaults(void **state) {
    (void)state;
    char head[160];
    spawned s = RUN(NULL, "config");
    snprintf(head, sizeof head, "# %s (not there)\n", file);
    expect(&s, 0, 0, head);
    expect(&s, 0, 0, "\n# backend: auto\n");
    expect(&s, 0, 0, "\n# max-tokens: 256\n");
    for (const char *line = s.text[0]; *line; line += strcspn(line, "\n") + 1)
        assert_int_equal(*line, '#');
    spawn_free(&s);
}

static void config_shows_where_settings_come_from(void **state) {
    (void)state;
    put("# mine\nmax-tokens = 20\nmodel = \"a # b\"\n");
    setenv("NO_COLOR", "1", 1);
    spawned s = RUN(NULL, "config", "-t", "0.5");
    expect(&s, 0, 0, "\nmax-tokens = 20                           # line 2\n");
    expect(&s, 0, 0, "\nmodel = \"a # b\"                           # line 3\n");
    expect(&s, 0, 0, "\ntemperature = 0.5                         # --temperature\n");
    expect(&s, 0, 0, "\ntheme = none                              # NO_COLOR\n");
    expect(&s, 0, 0, "\n# backend: auto\n");
    /* What it prints is a config file. */
    put(s.text[0]);
    spawn_free(&s);
    s = RUN(NULL, "config");
    expect(&s, 0, 0, "\ntemperature = 0.5 ");
    expect(&s, 0, 0, "\nmodel = \"a # b\" ");
    spawn_free(&s);
    unsetenv("NO_COLOR");
}

static void config_is_used(void **state) {
    (void)state;
    put("max-tokens = 1\nno-save = yes\n");
    spawned s = RUN(NULL, "--demo", "-p", "caption en", "--json");
    expect(&s, 0, 0, "\"stop\":\"length\"");
    spawn_free(&s);
    s = RUN(NULL, "--demo", "-p", "caption en", "--json", "-n", "50");
    expect(&s, 0, 0, "\"stop\":\"eos\"");
    spawn_free(&s);
}

static void config_mistakes_are_told_with_their_lines(void **state) {
    (void)state;
    char first[192], second[192];
    put("themee = dark\n\nthreads = -1\n");
    snprintf(first, sizeof first, "%s:1: there is no key themee; is it theme?\n", file);
    snprintf(second, sizeof second, "%s:3: threads wants a number", file);
    spawned s = RUN(NULL, "--demo", "-p", "caption en");
    expect(&s, 2, 1, first);
    expect(&s, 2, 1, second);
    expect(&s, 2, 1, "pali: the config file has mistakes\n      `pali config` shows");
    assert_string_equal(s.text[0], "");
    spawn_free(&s);
    s = RUN(NULL, "config");
    expect(&s, 2, 1, first);
    expect(&s, 2, 0, "# threads: 0\n");
    spawn_free(&s);
    s = RUN(NULL, "--help");
    expect(&s, 0, 0, "usage: pali");
    spawn_free(&s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(config_shows_the_defaults),
        TEST(config_shows_where_settings_come_from),
        TEST(config_is_used),
        TEST(config_mistakes_are_told_with_their_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
