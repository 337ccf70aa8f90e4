/* Names of the files that answers leave behind: from hostile labels and paths, never outside of
 * their folder, never the same twice. What is in the files: tests/e2e/test_emit.c.            */
#include "app/pictures_out.h"

#include "tests/core/make_model.h"

static char top[64];

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

static void pictures_stems_are_plain_and_differ(void **state) {
    (void)state;
    app_pictures *p = app_pictures_open(&(app_pictures_wish){0});
    assert_non_null(p);
    static const char *const cases[][2] = {
        {"a/photo.jpg", "photo"},
        {"b/photo.png", "photo-2"},
        {"PHOTO.gif", "PHOTO-3"}, /* some file systems see no difference */
        {"photo-2.jpg", "photo-2-2"},
        {"-", "stdin"},
        {"archive.tar.gz", "archive.tar"},
        {".hidden", "_hidden"},
        {"dir/..", "_"},
        {"two words\n\x1b[1m.png", "two_words___1m"},
        {"caf\xC3\xA9.png", "caf\xC3\xA9"},
        {"dir/", "stdin-2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *stem = app_pictures_stem(p, cases[i][0]);
        assert_string_equal(stem, cases[i][1]);
        free(stem);
    }
    char path[400], *stem;
    for (size_t i = 0; i < sizeof path - 1; i += 2)
        memcpy(path + i, "\xC3\xA9", 2); /* longer than a name may be; cut at a character */
    path[398] = 0;
    stem = app_pictures_stem(p, path);
    assert_true(strlen(stem) <= 80 && strlen(stem) % 2 == 0);
    free(stem);
    app_pictures_close(p);
    app_pictures_close(NULL);
}

static void pictures_of_hostile_labels_stay_in_their_folder(void **state) {
    (void)state;
    char dir[96];
    snprintf(dir, sizeof dir, "%s/crops", top);
    app_pictures *p = app_pictures_open(&(app_pictures_wish){.crop_dir = dir});
    assert_non_null(p);
    pali_object objects[] = {
        {.box = {0, 0, 4, 4}, .label = "../../etc/passwd"},
        {.box = {1.5f, 1.5f, 1.6f, 1.6f}, .label = ""},
        {.box = {7, 7, 8, 8}, .label = "a b:c*?\"|"},
    };
    static const char *const names[] = {"x-1-_._.._etc_passwd.png", "x-2.png", "x-3-a_b_c____.png"};
    app_masks none = {0};
    app_marks marks = {0};
    pali_error err = {0};
    assert_ok(app_marks_set(&marks, &none, objects, 3, &err), err);
    uint8_t rgb[8 * 8 * 3] = {0};
    pali_image image = {.width = 8, .height = 8, .rgb = rgb};
    pali_mask placed[3] = {{0}};
    app_left left;
    assert_ok(app_pictures_write(p, "x", &image, &marks, placed, &left, &err), err);
    assert_int_equal(app_pictures_failed(p), 0);
    for (size_t i = 0; i < 3; i++) {
        char want[200];
        snprintf(want, sizeof want, "%s/%s", dir, names[i]);
        assert_string_equal(left.crops[i], want);
        assert_int_equal(access(want, R_OK), 0);
    }
    app_left_close(&left);
    app_marks_close(&marks);
    app_pictures_close(p);
}

/* Of a picture that was made smaller by 2, boxes are in its own pixels, and what is cut out is in
 * those that are there. */
static void pictures_of_a_smaller_picture_are_where_its_boxes_are(void **state) {
    (void)state;
    app_pictures *p = app_pictures_open(&(app_pictures_wish){.crop_dir = top});
    assert_non_null(p);
    pali_object o = {.box = {8, 0, 16, 4}};
    app_masks none = {0};
    app_marks marks = {0};
    pali_error err = {0};
    assert_ok(app_marks_set(&marks, &none, &o, 1, &err), err);
    uint8_t rgb[8 * 8 * 3] = {0};
    memset(rgb + 3 * 4, 200, 3 * 4); /* the right half of the first row */
    pali_image image = {8, 8, rgb, 16, 16}, crop;
    pali_mask placed[1] = {{0}};
    app_left left;
    assert_ok(app_pictures_write(p, "x", &image, &marks, placed, &left, &err), err);
    assert_ok(pali_image_open(left.crops[0], &crop, &err), err);
    assert_int_equal(crop.width, 4);
    assert_int_equal(crop.height, 2);
    assert_int_equal(crop.rgb[0], 200);
    assert_int_equal(crop.rgb[3 * 4], 0);
    ui_object *drawn = app_marks_draw(&marks, &image, 0);
    assert_non_null(drawn);
    assert_true(drawn[0].box[0] == 4 && drawn[0].box[2] == 8 && drawn[0].box[3] == 2);
    free(drawn);
    unlink(left.crops[0]);
    pali_image_close(&crop);
    app_left_close(&left);
    app_marks_close(&marks);
    app_pictures_close(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pictures_stems_are_plain_and_differ, setup, teardown),
        cmocka_unit_test_setup_teardown(pictures_of_hostile_labels_stay_in_their_folder, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(pictures_of_a_smaller_picture_are_where_its_boxes_are,
                                        setup, teardown),
    };
    return cmocka_run_group_tests_name("pictures", tests, NULL, NULL);
}
