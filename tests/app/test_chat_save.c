/* test_chat_save.c - answers with boxes as people read them. */
#include "app/chat_state.h"
#include "tests/test.h"

#include <locale.h>
#include <unistd.h>

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

/* --- files ------------------------------------------------------------------------------- */

static char *read_file(const char *path) {
    char *s = calloc(1, 4096);
    FILE *f = fopen(path, "r");
    assert_non_null(s);
    if (!f)
        fail_msg("%s is not there", path);
    assert_true(fread(s, 1, 4095, f) > 0);
    fclose(f);
    return s;
}

static void chat_save_writes_files(void **state) {
    (void)state;
    char dir[] = "/tmp/pali-save-XXXXXX", path[64], twice[64];
    assert_non_null(mkdtemp(dir));
    chat_turn turns[] = {{"what\n\033[2J", "a\033]0;t\007\nb\tc", "cancel", 0, 0}};
    chat c = {.turns = turns, .nturns = 1, .image_path = "a.png", .model_dir = "m"};
    pali_error err = {0};

    snprintf(path, sizeof path, "%s/x.md", dir);
    assert_ok(chat_save(&c, path, &err), err);
    char *s = read_file(path);
    assert_string_equal(s, "# a.png\n\n**what^J^[[2J**\n\na^[]0;t^G\nb\tc\n\n*(cancel)*\n");
    free(s);
    unlink(path);

    snprintf(path, sizeof path, "%s/x.json", dir);
    for (int i = 0; i < 2; i++) /* replaces what is there */
        assert_ok(chat_save(&c, path, &err), err);
    saved_chat back;
    assert_ok(chatfile_read_path(path, &back, &err), err);
    assert_int_equal(back.nturns, 1);
    assert_string_equal(back.turns[0].answer, turns[0].answer);
    saved_chat_close(&back);
    unlink(path);

    snprintf(path, sizeof path, "%s/x.txt", dir);
    assert_int_equal(chat_save(&c, path, &err), PALI_EARG);
    snprintf(twice, sizeof twice, "%s/no/x.json", dir);
    assert_int_equal(chat_save(&c, twice, NULL), PALI_EIO);
    assert_int_equal(rmdir(dir), 0); /* nothing is left behind */
}

int main(void) {
    setlocale(LC_ALL, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_save_makes_boxes_readable),
        cmocka_unit_test(chat_save_keeps_the_text_around_boxes),
        cmocka_unit_test(chat_save_neutralises_marks),
        cmocka_unit_test(chat_save_writes_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
