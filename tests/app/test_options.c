/* test_options.c - the command line: verbs, words, pictures, which options go with what. */
#include "app/options.h"

#include "tests/test.h"

static app_options o;
static pali_error err;

/* Parses "pali" and the given words; the result in o and err. */
static int parse(const char *const *words) {
    char *argv[32] = {(char *)(uintptr_t) "pali"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    app_options_close(&o);
    err = (pali_error){0};
    return app_options_parse(argc, argv, &o, &err);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static int setup(void **state) {
    (void)state;
    return unsetenv("PALI_MODEL");
}

static int teardown(void **state) {
    (void)state;
    app_options_close(&o);
    return 0;
}

static void options_take_the_first_word_for_a_verb(void **state) {
    (void)state;
    assert_ok(PARSE("chats"), err);
    assert_non_null(o.verb);
    assert_string_equal(o.verb->name, "chats");
    assert_int_equal(o.nwords, 0);
    assert_ok(PARSE("-v", "chats"), err);
    assert_non_null(o.verb);
    /* Nothing but the whole name, and not behind "--". */
    static const char *const pictures[] = {"./chats", "chat", "chats.png", "CHATS"};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        assert_ok(PARSE("--demo", pictures[i]), err);
        assert_null(o.verb);
        assert_int_equal(o.nimages, 1);
        assert_string_equal(o.images[0], pictures[i]);
    }
    assert_ok(PARSE("--demo", "--", "chats"), err);
    assert_null(o.verb);
    assert_string_equal(o.images[0], "chats");
    /* Nor is a second word one. */
    assert_ok(PARSE("--demo", "a.png", "chats"), err);
    assert_null(o.verb);
    assert_int_equal(o.nimages, 2);
}

static void options_belong_to_verbs(void **state) {
    (void)state;
    assert_int_equal(PARSE("chats", "--json"), PALI_EARG);
    assert_string_equal(err.what, "chats takes no --json");
    assert_int_equal(PARSE("-p", "x", "chats"), PALI_EARG);
    assert_string_equal(err.what, "chats takes no --prompt");
    assert_int_equal(PARSE("chats", "more"), PALI_EARG);
    assert_string_equal(err.what, "chats: \"more\" is one word too many");
}

static void options_help_of_a_verb_has_its_options_only(void **state) {
    (void)state;
    assert_ok(PARSE("chats", "--help", "--nonsense"), err);
    assert_true(o.help);
    char *text = app_options_help(o.verb);
    assert_non_null(text);
    assert_int_equal(strncmp(text, "usage: pali chats [options]\n", 28), 0);
    assert_non_null(strstr(text, "--verbose"));
    assert_null(strstr(text, "--model"));
    assert_null(strstr(text, "Asking"));
    free(text);
}

/* An option says in the help of a verb what it does there. */
static void options_help_is_true_for_the_verb(void **state) {
    (void)state;
    static const struct {
        const char *verb, *told, *untrue;
    } cases[] = {
        {"caption", "without IMAGE its own picture", "without -p"},
        {"caption", "one JSON object a picture", "a turn"},
        {"ask", "put \"answer CODE\" in front", "(en)"},
        {"rank", "the prompt that the texts are answers to", "turns of one chat"},
        {"rank", "or one for the text", "a turn"},
        {"doctor", "the bundled miniature model\n", "IMAGE"},
        {"doctor", "--json             one JSON object\n", "timings on"},
        {"models", "one JSON object a model", "a turn"},
        {"convert", "none, int8 or nf4\n", "auto"},
        {"bench", "auto is all of\n", "free\n"},
        {"config", "--lang CODE", "--prompt"},
        {NULL, "and then without -p a few prompts", "only this precision"},
        {NULL, "one JSON object a turn or picture", "one JSON object\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = app_options_help(cases[i].verb ? app_verb_find(cases[i].verb) : NULL);
        assert_non_null(text);
        if (!strstr(text, cases[i].told) || strstr(text, cases[i].untrue))
            fail_msg("case %zu: %s", i, text);
        free(text);
    }
    /* `pali config --help` tells of the settings, all of them and nothing else. */
    setenv("HOME", "/home/me", 1);
    setenv("PALI_CONFIG", "", 1);
    assert_ok(PARSE("config"), err);
    char *text = app_options_help(o.verb);
    assert_non_null(text);
    size_t told = 0;
    for (const char *p = text; (p = strstr(p, " --")); p++)
        told++;
    assert_int_equal(told, o.neffective + 3); /* --verbose, --version, --help */
    for (size_t i = 0; i < o.neffective; i++) {
        char name[64];
        snprintf(name, sizeof name, " --%s", o.effective[i].name);
        assert_non_null(strstr(text, name));
    }
    free(text);
}

/* Every row of the table can be reached and says what it is. */
static void options_verbs_are_well_formed(void **state) {
    (void)state;
    const app_verb *v;
    char *all = app_options_help(NULL);
    assert_non_null(all);
    for (size_t i = 0; (v = app_verb_at(i)); i++) {
        assert_ptr_equal(app_verb_find(v->name), v);
        assert_non_null(strstr(all, v->help));
        assert_non_null(v->run);
        assert_true(v->max_words == APP_ANY_NUMBER || v->max_words >= v->min_words);
        assert_true(v->texts >= 0 && (!v->has_images || v->min_words >= v->texts));
        assert_true(!v->about || (*v->about && v->about[strlen(v->about) - 1] == '\n'));
        assert_true(!v->needs_model || v->takes & APP_TAKES_MODEL);
        char *text = app_options_help(v);
        assert_non_null(text);
        for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
            assert_true(strcspn(line, "\n") <= 88);
        free(text);
    }
    free(all);
}

static void options_find_the_folder_of_pictures(void **state) {
    (void)state;
    setenv("HOME", "/home/me", 1);
    unsetenv("XDG_CACHE_HOME");
    assert_ok(PARSE("--demo"), err);
    assert_null(o.image_folder);
    assert_ok(PARSE("--demo", "--cache-images"), err);
    assert_string_equal(o.image_folder, "/home/me/.cache/pali/embeddings");
    setenv("XDG_CACHE_HOME", "relative", 1);
    assert_ok(PARSE("rank", "--demo", "--cache-images", "a", "b.png"), err);
    assert_string_equal(o.image_folder, "/home/me/.cache/pali/embeddings");
    setenv("XDG_CACHE_HOME", "/c", 1);
    assert_ok(PARSE("ocr", "--demo", "--cache-images", "b.png"), err);
    assert_string_equal(o.image_folder, "/c/pali/embeddings");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    assert_ok(PARSE("--demo"), err);
    assert_int_equal(PARSE("--demo", "--cache-images"), PALI_EARG);
    assert_string_equal(err.what, "there is no folder for --cache-images");
    assert_int_equal(PARSE("bench", "--cache-images"), PALI_EARG);
}

static void options_take_the_id_of_a_chat_as_a_word(void **state) {
    (void)state;
    assert_ok(PARSE("--resume"), err); /* the model is that of the chat */
    assert_true(o.resume && !o.resume_id && !o.model);
    assert_ok(PARSE("--resume=20261130-081500-4711"), err);
    assert_string_equal(o.resume_id, "20261130-081500-4711");
    assert_ok(PARSE("--resume", "20261130-081500-4711", "a.png"), err);
    assert_string_equal(o.resume_id, "20261130-081500-4711");
    assert_int_equal(o.nimages, 1);
    static const char *const pictures[] = {"20261130-081500.jpg", "20261130-081500-", "2026",
                                           "20261130-081500-1.png", "20261130_081500-1"};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        assert_ok(PARSE("--resume", pictures[i]), err);
        assert_null(o.resume_id);
        assert_string_equal(o.images[0], pictures[i]);
    }
    assert_ok(PARSE("--demo", "20261130-081500-1", "--resume"), err);
    assert_string_equal(o.images[0], "20261130-081500-1");
    assert_int_equal(PARSE("a.png"), PALI_EARG);
    assert_string_equal(err.what, "no model given");
    assert_int_equal(PARSE("ocr", "a.png", "-o", "x", "--resume"), PALI_EARG);
    assert_string_equal(err.what, "no model given");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_take_the_first_word_for_a_verb),
        cmocka_unit_test(options_belong_to_verbs),
        cmocka_unit_test(options_help_of_a_verb_has_its_options_only),
        cmocka_unit_test(options_help_is_true_for_the_verb),
        cmocka_unit_test(options_verbs_are_well_formed),
        cmocka_unit_test(options_take_the_id_of_a_chat_as_a_word),
        cmocka_unit_test(options_find_the_folder_of_pictures),
    };
    return cmocka_run_group_tests_name("options", tests, setup, teardown);
}
