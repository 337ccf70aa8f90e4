/* test_chat_save.c - answers with boxes as people read them. */
#include "app/chat_state.h"
#include "tests/test.h"

#include <locale.h>

/* The readable form of an answer about a picture of 1024x1024. */
static void expect(const char *raw, const char *want) {
    pali_object *objects;
    size_t n;
    pali_error err = {0};
    assert_ok(pali_locate(raw, strlen(raw), 1024, 1024, &objects, &n, &err), err);
    char *got = chat_pretty(objects, n, raw, true);
    if (!want)
        assert_null(got);
    else
        assert_string_equal(got, want);
    free(got);
    free(objects);
}

#define BOX "<loc0001><loc0002><loc0003><loc0004>" /* y0 x0 y1 x1 */

static void chat_save_makes_boxes_readable(void **state) {
    (void)state;
    expect("no boxes here", NULL);
    expect(BOX " cat", "\1 cat at 2,1\u20134,3");
    expect(BOX " cat ; " BOX " dog", "\1 cat at 2,1\u20134,3\n\2 dog at 2,1\u20134,3");
    expect(BOX, "\1 object at 2,1\u20134,3");
}

/* Text around boxes is shown, also the part that has not become a box yet. */
static void chat_save_keeps_the_text_around_boxes(void **state) {
    (void)state;
    expect("I see " BOX " cat", "I see\n\1 cat at 2,1\u20134,3");
    expect(BOX " cat ; <loc0001><lo", "\1 cat at 2,1\u20134,3\n<loc0001><lo");
}

/* Nothing that the model says counts as one of our coloured marks. */
static void chat_save_neutralises_marks(void **state) {
    (void)state;
    expect("\001\033[31m " BOX " c\002t", "^A^[[31m\n\1 c t at 2,1\u20134,3");
}

int main(void) {
    setlocale(LC_ALL, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_save_makes_boxes_readable),
        cmocka_unit_test(chat_save_keeps_the_text_around_boxes),
        cmocka_unit_test(chat_save_neutralises_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
