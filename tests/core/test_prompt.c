/* test_prompt.c - prefixes against transformers' format, history, room. */
#include "tests/test.h"

#include "core/prompt.h"

static pali_tokenizer *tok;

static int open_tokenizer(void **state) {
    (void)state;
    pali_error err = {0};
    return pali_tokenizer_open(TEST_DATA "tokenizer/added.model", &tok, &err);
}

static int close_tokenizer(void **state) {
    (void)state;
    pali_tokenizer_close(tok);
    return 0;
}

static const pali_turn_text talk[] = {{"What is it?", "a cat"},
                                      {"detect cat", "<loc0001><loc0002><loc0003><loc0004> cat"},
                                      {"Why?", "no"}};

/* Fails unless the ids are those of [bos] text [newline]. */
static void assert_ids(const int32_t *ids, size_t count, const char *text) {
    pali_error err = {0};
    int32_t *want;
    size_t n;
    assert_ok(pali_tokenizer_encode(tok, text, strlen(text), &want, &n, &err), err);
    assert_int_equal(count, n + 2);
    assert_int_equal(ids[0], pali_tokenizer_bos(tok));
    if (n)
        assert_memory_equal(ids + 1, want, n * sizeof *want);
    assert_int_equal(ids[count - 1], pali_tokenizer_newline(tok));
    free(want);
}

static void check(const pali_turn_text *turns, size_t nturns, int history, const char *prompt,
                  size_t room, const char *text, size_t turns_used) {
    pali_error err = {0};
    int32_t *ids;
    size_t count, used = 99;
    assert_ok(
        pali_prompt_build(tok, turns, nturns, history, prompt, room, &ids, &count, &used, &err),
        err);
    assert_true(count <= room);
    assert_ids(ids, count, text);
    assert_int_equal(used, turns_used);
    free(ids);
}

static void prompt_knows_task_words(void **state) {
    (void)state;
    const char *tasks[] = {
        "",          "caption en",  "caption",       "cap de",           "describe en",
        "ocr",       "answer en x", "question en x", "detect cat ; dog", "segment it",
        " detect a", "ocr\n",       "  \n"};
    const char *free_texts[] = {"Caption en", "captions", "What is it?",    "detecting cats",
                                "ocr.",       "OCR",      "please caption", "answer: yes"};
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (!pali_prompt_is_task(tasks[i]))
            fail_msg("\"%s\" is a task", tasks[i]);
    for (size_t i = 0; i < sizeof free_texts / sizeof *free_texts; i++)
        if (pali_prompt_is_task(free_texts[i]))
            fail_msg("\"%s\" is no task", free_texts[i]);
}

static void prompt_equals_transformers_for_one_turn(void **state) {
    (void)state;
    FILE *f = fopen(TEST_DATA "tokenizer/prompts.txt", "r");
    assert_non_null(f);
    char line[1024];
    int lines = 0;
    for (; fgets(line, sizeof line, f); lines++) {
        pali_error err = {0};
        char *want = strchr(line, '\t'), *out = line;
        assert_non_null(want);
        *want++ = 0;
        for (char *s = line; *s;) { /* undo \xNN */
            unsigned v;
            if (sscanf(s, "\\x%2x", &v) == 1) {
                *out++ = (char)v;
                s += 4;
            } else
                *out++ = *s++;
        }
        *out = 0;
        for (int history = -1; history < 3; history++) {
            int32_t *ids;
            size_t count, i = 0;
            assert_ok(
                pali_prompt_build(tok, NULL, 0, history, line, 4096, &ids, &count, NULL, &err),
                err);
            for (char *p = want, *end; *p && *p != '\n'; p = end, i++) {
                long id = strtol(p, &end, 10);
                assert_true(i < count);
                assert_int_equal(ids[i], id);
            }
            assert_int_equal(i, count);
            free(ids);
        }
    }
    fclose(f);
    assert_int_equal(lines, 20);
}

static void prompt_ends_in_one_newline_of_its_own(void **state) {
    (void)state;
    check(NULL, 0, PALI_HISTORY_AUTO, "What?\n\n\n", 100, "What?", 0);
    check(NULL, 0, PALI_HISTORY_AUTO, "caption en\r\n", 100, "caption en", 0);
    check(NULL, 0, PALI_HISTORY_AUTO, "\n", 100, "", 0);
    check(NULL, 0, PALI_HISTORY_AUTO, "one\ntwo\n", 100, "one\ntwo", 0);
    check(NULL, 0, PALI_HISTORY_AUTO, "\none", 100, "\none", 0);
}

#define TALK "What is it?\na cat\ndetect cat\n<loc0001><loc0002><loc0003><loc0004> cat\nWhy?\nno\n"

static void prompt_carries_earlier_turns_before_free_text(void **state) {
    (void)state;
    check(talk, 3, PALI_HISTORY_AUTO, "And then?", 1000, TALK "And then?", 3);
    check(talk, 3, PALI_HISTORY_NONE, "And then?", 1000, "And then?", 0);
    check(talk, 3, PALI_HISTORY_AUTO, "caption en", 1000, "caption en", 0);
    check(talk, 3, PALI_HISTORY_AUTO, "", 1000, "", 0);
    check(talk, 3, 1, "And then?", 1000, "Why?\nno\nAnd then?", 1);
    check(talk, 3, 1, "caption en", 1000, "Why?\nno\ncaption en", 1);
    check(talk, 3, 50, "And then?", 1000, TALK "And then?", 3);
    check(talk, 3, 50, "\n", 1000, "", 0);
}

static void prompt_makes_lines_of_turns(void **state) {
    (void)state;
    const pali_turn_text turns[] = {{"\nWhat\r\nis it?\n", "a\n\ncat\n"},
                                    {"unanswered?", "\n"},
                                    {"", "on the beach"},
                                    {" Why ", " so "}};
    check(turns, 4, PALI_HISTORY_AUTO, "And\nthen?\n", 1000,
          "What is it?\na cat\non the beach\n Why \n so \nAnd then?", 3);
    /* Nothing goes before it: as typed. */
    check(turns + 1, 1, PALI_HISTORY_AUTO, "And\nthen?\n", 1000, "And\nthen?", 0);
}

static void prompt_drops_the_oldest_turns_when_room_ends(void **state) {
    (void)state;
    pali_error err = {0};
    int32_t *ids;
    const char *texts[] = {
        "And then?", "Why?\nno\nAnd then?",
        "detect cat\n<loc0001><loc0002><loc0003><loc0004> cat\nWhy?\nno\nAnd then?",
        TALK "And then?"};
    size_t need[5], n;
    for (int i = 0; i < 4; i++) {
        assert_ok(pali_tokenizer_encode(tok, texts[i], strlen(texts[i]), &ids, &n, &err), err);
        free(ids);
        need[i] = n + 2;
    }
    need[4] = need[3] + 10;
    for (size_t i = 0; i < 4; i++)
        for (size_t room = need[i]; room < need[i + 1]; room++)
            check(talk, 3, PALI_HISTORY_AUTO, "And then?", room, texts[i], i);
    for (size_t room = 0; room < need[0]; room++) {
        size_t used = 99;
        err = (pali_error){0};
        assert_int_equal(pali_prompt_build(tok, talk, 3, PALI_HISTORY_AUTO, "And then?", room, &ids,
                                           &n, &used, &err),
                         PALI_ELIMIT);
        assert_null(ids);
        assert_int_equal(used, 0);
    }
    char want[100];
    snprintf(want, sizeof want, "the question is %zu tokens long, but only %zu fit", need[0] - 2,
             need[0] - 3);
    assert_string_equal(err.what, want);
}

static void prompt_takes_a_long_history_in_one_pass(void **state) {
    (void)state;
    size_t n = 20000;
    pali_turn_text *turns = malloc(n * sizeof *turns);
    assert_non_null(turns);
    for (size_t i = 0; i < n; i++)
        turns[i] = talk[i % 3];
    pali_error err = {0};
    int32_t *ids;
    size_t count, used;
    assert_ok(pali_prompt_build(tok, turns, n, PALI_HISTORY_AUTO, "Go on", 8192, &ids, &count,
                                &used, &err),
              err);
    assert_in_range(count, 8192 - 60, 8192); /* a turn is shorter than 60 */
    assert_true(used > 100 && used < 2000);
    free(ids);
    /* A turn too long to encode at all does not stand in the way of newer ones. */
    char *huge = malloc((20u << 20) + 1);
    assert_non_null(huge);
    memset(huge, 'a', 20u << 20);
    huge[20u << 20] = 0;
    turns[n - 2].answer = huge;
    assert_ok(pali_prompt_build(tok, turns, n, PALI_HISTORY_AUTO, "Go on", 8192, &ids, &count,
                                &used, &err),
              err);
    assert_int_equal(used, 1);
    free(ids);
    assert_int_equal(
        pali_prompt_build(tok, turns, n, PALI_HISTORY_AUTO, huge, 8192, &ids, &count, &used, &err),
        PALI_ELIMIT);
    free(huge);
    free(turns);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompt_knows_task_words),
        cmocka_unit_test(prompt_equals_transformers_for_one_turn),
        cmocka_unit_test(prompt_ends_in_one_newline_of_its_own),
        cmocka_unit_test(prompt_carries_earlier_turns_before_free_text),
        cmocka_unit_test(prompt_makes_lines_of_turns),
        cmocka_unit_test(prompt_drops_the_oldest_turns_when_room_ends),
        cmocka_unit_test(prompt_takes_a_long_history_in_one_pass),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
