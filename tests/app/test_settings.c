/* The lines of the config file, and what options make of them. */
#include "app/options.h"
#include "app/settings.h"

#include "tests/core/make_model.h"

static pali_error err;
static app_settings s;
static app_options o;
static char top[64];

static int setup(void **state) {
    (void)state;
    model_folder(top);
    unsetenv("PALI_MODEL");
    unsetenv("NO_COLOR");
    unsetenv("PALI_CONFIG");
    setenv("XDG_CONFIG_HOME", top, 1);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    app_settings_close(&s);
    app_options_close(&o);
    model_remove(top);
    return 0;
}

static void parse(const char *text) {
    app_settings_close(&s);
    memset(&err, 0, sizeof err);
    assert_ok(app_settings_parse("config", text, strlen(text), &s, &err), err);
}

/* "key=value@line;" for each, then the problems. */
static void expect(const char *text, const char *items, const char *problems) {
    char seen[1024] = "";
    parse(text);
    for (size_t i = 0; i < s.n; i++)
        snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s=%s@%d;", s.items[i].key,
                 s.items[i].value, s.items[i].line);
    assert_string_equal(seen, items);
    assert_string_equal(s.problems ? s.problems : "", problems);
}

/* --- lines -------------------------------------------------------------------------- */

static void settings_are_lines(void **state) {
    (void)state;
    expect("", "", "");
    expect("a = 1\nb=2\n\n  c   =   3  \n", "a=1@1;b=2@2;c=3@4;", "");
    expect("a = 1", "a=1@1;", "");
    expect("a = 1\r\nb = two words \r\n", "a=1@1;b=two words@2;", "");
    expect("\xef\xbb\xbf"
           "a = 1\n",
           "a=1@1;", "");
    expect("a =\nb = \"\"\n", "a=@1;b=@2;", "");
    expect("a = \xc3\xa4\n", "a=\xc3\xa4@1;", "");
}

static void settings_have_comments_and_quotes(void **state) {
    (void)state;
    expect("# a\n  # b\na = 1 # c\nb = x#y\nc = \"x # y\" # d\nd = # e\n",
           "a=1@3;b=x#y@4;c=x # y@5;d=@6;", "");
    expect("a = \"  x  \"\nb = say \"x\"\n", "a=  x  @1;b=say \"x\"@2;", "");
}

static void settings_tell_all_that_is_wrong(void **state) {
    (void)state;
    expect("a\n= 1\na b = 1\nb = \"x\nc = \"x\" y\nd = 1\nd = 2\ne = \033[2J\nf = 6\n",
           "d=1@6;f=6@9;",
           "config:1: expected key = value, not \"a\"\n"
           "config:2: expected key = value, not \"= 1\"\n"
           "config:3: expected key = value, not \"a b = 1\"\n"
           "config:4: the quotes of b do not match\n"
           "config:5: the quotes of c do not match\n"
           "config:7: d was set in line 6 already\n"
           "config:8: there is a control character in it\n");
    app_settings_close(&s);
    assert_ok(app_settings_parse("config", "a = 1\0b = 2\nc = 3\n", 18, &s, &err), err);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.problems, "config:1: there is a control character in it\n");
}

static void settings_are_limited(void **state) {
    (void)state;
    char *text = calloc(1, APP_SETTINGS_MAX_BYTES + 2);
    size_t n = 0;
    for (int i = 0; i < APP_SETTINGS_MAX + 1; i++)
        n += (size_t)sprintf(text + n, "k%d = 1\n", i);
    parse(text);
    assert_int_equal(s.n, APP_SETTINGS_MAX);
    assert_string_equal(s.problems, "config:257: more than 256 settings\n");
    char path[128];
    memset(text, '#', APP_SETTINGS_MAX_BYTES + 1);
    model_put(top, "long", text, APP_SETTINGS_MAX_BYTES + 1);
    free(text);
    snprintf(path, sizeof path, "%s/long", top);
    app_settings_close(&s);
    assert_int_equal(app_settings_read(path, false, &s, &err), PALI_ELIMIT);
}

static void settings_may_be_missing(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/none", top);
    assert_ok(app_settings_read(path, false, &s, &err), err);
    assert_int_equal(s.n, 0);
    assert_null(s.text);
    app_settings_close(&s);
    assert_ok(app_settings_read(NULL, false, &s, &err), err);
    assert_int_equal(app_settings_read(path, true, &s, &err), PALI_EIO);
    memset(&err, 0, sizeof err);
    assert_int_equal(app_settings_read(top, false, &s, &err), PALI_EIO);
    assert_non_null(strstr(err.what, "is a folder"));
}

static void settings_have_a_place(void **state) {
    (void)state;
    static const struct {
        const char *named, *xdg, *home, *path;
    } cases[] = {
        {NULL, "/x", "/h", "/x/pali/config"},
        {NULL, "", "/h", "/h/.config/pali/config"},
        {NULL, "relative", "/h", "/h/.config/pali/config"},
        {NULL, NULL, "/h", "/h/.config/pali/config"},
        {NULL, NULL, NULL, NULL},
        {"here", "/x", "/h", "here"},
        {"", "/x", "/h", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path;
        assert_ok(app_settings_path(cases[i].named, cases[i].xdg, cases[i].home, &path, &err), err);
        if (cases[i].path)
            assert_string_equal(path, cases[i].path);
        else
            assert_null(path);
        free(path);
    }
}

/* --- as options ------------------------------------------------------------------------- */

static int options(const char *file, const char *const *words) {
    char *argv[32] = {(char *)(uintptr_t) "pali"}, folder[128];
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    snprintf(folder, sizeof folder, "%s/pali", top);
    mkdir(folder, 0700);
    model_put(folder, "config", file, strlen(file));
    app_options_close(&o);
    memset(&err, 0, sizeof err);
    return app_options_parse(argc, argv, &o, &err);
}

#define OPTIONS(file, ...) options((file), (const char *const[]){__VA_ARGS__, NULL})

static const app_effective *effective(const char *name) {
    for (size_t i = 0; i < o.neffective; i++)
        if (!strcmp(o.effective[i].name, name))
            return &o.effective[i];
    fail_msg("no setting %s", name);
    return NULL;
}

static void expect_from(const char *name, app_from from, const char *value) {
    const app_effective *e = effective(name);
    assert_int_equal(e->from, from);
    if (value)
        assert_string_equal(e->value, value);
}

/* A question goes as it was typed, whatever language captions are to be in. */
static void options_of_the_file_leave_questions_alone(void **state) {
    (void)state;
    assert_ok(OPTIONS("lang = de\n", "caption", "-m", "x", "a.png"), err);
    assert_string_equal(o.lang, "de");
    assert_ok(OPTIONS("lang = de\n", "ask", "-m", "x", "what?", "a.png"), err);
    assert_null(o.lang);
    assert_ok(OPTIONS("lang = de\n", "ask", "-m", "x", "--lang", "fr", "what?", "a.png"), err);
    assert_string_equal(o.lang, "fr");
}

static void options_come_from_the_file(void **state) {
    (void)state;
    assert_ok(OPTIONS("model = some/model\nbackend = cpu\nthreads = 3\nhistory = none\n"
                      "max-tokens = 17\ntemperature = 0.5\ntop-k = 4\ntop-p = 0.25\nseed = 9\n"
                      "graphics = ascii\ntheme = light\nno-save = yes\n",
                      "x.png"),
              err);
    assert_string_equal(o.model, "some/model");
    assert_string_equal(o.backend, "cpu");
    assert_int_equal(o.threads, 3);
    assert_int_equal(o.history, PALI_HISTORY_NONE);
    assert_int_equal(o.max_tokens, 17);
    assert_true(o.sampling.temperature == 0.5f && o.sampling.top_p == 0.25f);
    assert_int_equal(o.sampling.top_k, 4);
    assert_int_equal(o.sampling.seed, 9);
    assert_string_equal(o.theme, "light");
    assert_true(o.no_save);
    expect_from("seed", APP_FROM_FILE, "9");
    assert_int_equal(effective("seed")->line, 9);
    assert_ok(OPTIONS("no-save = no\n", "--demo"), err);
    assert_false(o.no_save);
}

/* option > environment > file > default */
static void options_have_an_order(void **state) {
    (void)state;
    assert_ok(OPTIONS("", "config"), err);
    expect_from("model", APP_FROM_DEFAULT, NULL);
    expect_from("max-tokens", APP_FROM_DEFAULT, NULL);
    assert_string_equal(effective("max-tokens")->initially, "256");
    assert_null(o.model);
    assert_ok(OPTIONS("model = file\nmax-tokens = 9\n", "config"), err);
    expect_from("model", APP_FROM_FILE, "file");
    setenv("PALI_MODEL", "env", 1);
    assert_ok(OPTIONS("model = file\n", "config"), err);
    expect_from("model", APP_FROM_ENVIRONMENT, "env");
    assert_string_equal(effective("model")->variable, "PALI_MODEL");
    assert_string_equal(o.model, "env");
    assert_ok(OPTIONS("model = file\nmax-tokens = 9\n", "config", "-m", "option", "-n", "10"), err);
    expect_from("model", APP_FROM_OPTION, "option");
    assert_string_equal(o.model, "option");
    assert_int_equal(o.max_tokens, 10);
    setenv("PALI_MODEL", "", 1);
    assert_ok(OPTIONS("model = file\n", "config"), err);
    assert_string_equal(o.model, "file");
}

static void options_let_the_file_choose_colours(void **state) {
    (void)state;
    setenv("NO_COLOR", "1", 1);
    assert_ok(OPTIONS("", "--demo"), err);
    assert_string_equal(o.theme, "none");
    expect_from("theme", APP_FROM_ENVIRONMENT, "none");
    assert_ok(OPTIONS("theme = dark\n", "--demo"), err);
    assert_string_equal(o.theme, "dark");
}

static void options_leave_the_files_model_for_the_demo(void **state) {
    (void)state;
    assert_ok(OPTIONS("model = some/model\n", "--demo"), err);
    assert_null(o.model);
    assert_int_equal(OPTIONS("model = some/model\n", "--demo", "-m", "x"), PALI_EARG);
}

static void options_tell_the_mistakes_of_the_file(void **state) {
    (void)state;
    static const char file[] = "themes = dark\nthreads = many\n# fine\nno-save = perhaps\n"
                               "prompt = x\nmodel =\nzzzzzzzz = 1\njson = yes\ntop-p = 2\n";
    char expected[2048];
    snprintf(expected, sizeof expected,
             "%s/pali/config:1: there is no key themes; is it theme?\n"
             "%s/pali/config:2: threads wants a number from 0 to 1024, not \"many\"\n"
             "%s/pali/config:4: no-save wants yes or no, not \"perhaps\"\n"
             "%s/pali/config:5: there is no key prompt\n"
             "%s/pali/config:6: the value of --model is empty\n"
             "%s/pali/config:7: there is no key zzzzzzzz\n"
             "%s/pali/config:8: there is no key json\n"
             "%s/pali/config:9: top-p wants a number above 0, at most 1, not \"2\"\n",
             top, top, top, top, top, top, top, top);
    assert_int_equal(OPTIONS(file, "--demo"), PALI_EARG);
    assert_string_equal(err.what, "the config file has mistakes");
    assert_string_equal(o.settings.problems, expected);
    assert_int_equal(OPTIONS(file, "--demo", "--threads", "2"), PALI_EARG); /* given or not */
    assert_ok(OPTIONS(file, "config"), err);                                /* it shows them */
    assert_string_equal(o.settings.problems, expected);
    assert_ok(OPTIONS(file, "--help"), err);
}

static void options_move_function_keys(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned char keys[APP_KEYS]; /* help picture boxes tokens copy zoom; 0: refused */
    } cases[] = {
        {"copy=F2,picture=F5", {1, 5, 3, 4, 2, 6}},
        {"copy=F1", {5, 2, 3, 4, 1, 6}}, /* help gets the key that became free */
        {"zoom=f1,help=F6", {6, 2, 3, 4, 5, 1}},
        {"copy=F1,zoom=F2", {5, 6, 3, 4, 1, 2}},
        {"help=F1,picture=F2,boxes=F3,tokens=F4,copy=F5,zoom=F6", {1, 2, 3, 4, 5, 6}},
        {"copy=F7", {0}},
        {"copy=F0", {0}},
        {"copy=F22", {0}},
        {"copy=2", {0}},
        {"copy", {0}},
        {"", {0}},
        {"copy=F2,", {0}},
        {"copy=F2,copy=F3", {0}},
        {"copy=F2,zoom=F2", {0}},
        {"co=F2", {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char file[128];
        snprintf(file, sizeof file, "keys = \"%s\"\n", cases[i].text);
        int rc = OPTIONS(file, "--demo");
        assert_int_equal(rc, cases[i].keys[0] ? 0 : PALI_EARG);
        if (!rc)
            assert_memory_equal(o.keys.f, cases[i].keys, APP_KEYS);
    }
    assert_int_equal(app_keymap_action(&o.keys, 7), -1);
}

static void options_of_another_file(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/other", top);
    model_put(top, "other", "seed = 5\n", 9);
    setenv("PALI_CONFIG", path, 1);
    assert_ok(OPTIONS("seed = 4\n", "--demo"), err);
    assert_int_equal(o.sampling.seed, 5);
    setenv("PALI_CONFIG", "", 1);
    assert_ok(OPTIONS("seed = 4\n", "--demo"), err);
    assert_int_equal(o.sampling.seed, 0);
    setenv("PALI_CONFIG", "/nowhere/config", 1);
    assert_int_equal(OPTIONS("", "--demo"), PALI_EIO);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(settings_are_lines),
        TEST(settings_have_comments_and_quotes),
        TEST(settings_tell_all_that_is_wrong),
        TEST(settings_are_limited),
        TEST(settings_may_be_missing),
        TEST(settings_have_a_place),
        TEST(options_of_the_file_leave_questions_alone),
        TEST(options_come_from_the_file),
        TEST(options_have_an_order),
        TEST(options_let_the_file_choose_colours),
        TEST(options_leave_the_files_model_for_the_demo),
        TEST(options_tell_the_mistakes_of_the_file),
        TEST(options_move_function_keys),
        TEST(options_of_another_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
