/* test_task.c - verbs -> prompts in the grammar of training. */
#include "app/task.h"

#include "tests/test.h"

static void expect_prompt(const char *verb, const char *text, const char *lang, const char *want) {
    char *got;
    pali_error err = {0};
    assert_ok(app_task_prompt(verb, text, lang, &got, &err), err);
    assert_string_equal(got, want);
    free(got);
}

static void task_prompts_are_those_of_training(void **state) {
    (void)state;
    expect_prompt("caption", NULL, NULL, "caption en");
    expect_prompt("caption", NULL, "de", "caption de");
    expect_prompt("describe", NULL, "fil", "describe fil");
    expect_prompt("ocr", NULL, NULL, "ocr");
    expect_prompt("ask", "what color is the car?", NULL, "what color is the car?");
    expect_prompt("ask", "was ist das?", "de", "answer de was ist das?");
    expect_prompt("detect", "cat ; dog", NULL, "detect cat ; dog");
    expect_prompt("segment", "cat", NULL, "segment cat");
}

static void task_tidies_lists(void **state) {
    (void)state;
    expect_prompt("detect", "cat;dog", NULL, "detect cat ; dog");
    expect_prompt("detect", " ;; red  car\t;\n;dog;", NULL, "detect red  car ; dog");
    expect_prompt("segment", "a;b;c;d;e;f;g", NULL, "segment a ; b ; c ; d ; e ; f ; g");
    expect_prompt("ask", "  a;b ? \n", NULL, "a;b ?"); /* no list */
}

static void task_wants_a_text(void **state) {
    (void)state;
    static const char *const empty[] = {"", " \n", ";", " ; ; "};
    char *got, *much = calloc(1, 20000);
    assert_non_null(much);
    for (size_t i = 0; i < 4; i++) {
        pali_error err = {0};
        assert_int_equal(app_task_prompt("detect", empty[i], NULL, &got, &err), PALI_EARG);
        assert_string_equal(err.what, "detect wants a text before the image");
        assert_null(got);
    }
    memset(much, ';', 19999);
    assert_int_equal(app_task_prompt("detect", much, NULL, &got, NULL), PALI_EARG);
    memset(much, 'x', APP_TASK_TEXT_MAX);
    for (int i = 1; i < APP_TASK_TEXT_MAX; i += 2)
        much[i] = ';';
    much[APP_TASK_TEXT_MAX] = '\0';
    pali_error err = {0};
    assert_ok(app_task_prompt("detect", much, NULL, &got, &err), err); /* the most room it takes */
    free(got);
    free(much);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(task_prompts_are_those_of_training),
        cmocka_unit_test(task_tidies_lists),
        cmocka_unit_test(task_wants_a_text),
    };
    return cmocka_run_group_tests_name("task", tests, NULL, NULL);
}
