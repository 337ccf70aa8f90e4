/* Boxes, masks and labels: what is drawn where, and that no coordinate can hurt. Pictures
 * are malloc'ed to the byte, so that the sanitizer sees any pixel outside. */
#include "tests/test.h"

#include "ui/overlay.h"

#include <math.h>

enum {
    GREY = 90
};

static uint8_t *grey(int w, int h) {
    uint8_t *rgb = malloc((size_t)w * (size_t)h * 3);
    assert_non_null(rgb);
    memset(rgb, GREY, (size_t)w * (size_t)h * 3);
    return rgb;
}

static bool is(const uint8_t *rgb, int w, int x, int y, const unsigned char c[3]) {
    return memcmp(rgb + (y * w + x) * 3, c, 3) == 0;
}

static bool untouched(const uint8_t *rgb, int w, int x, int y) {
    static const unsigned char c[3] = {GREY, GREY, GREY};
    return is(rgb, w, x, y, c);
}

static unsigned next_random(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static float wild(unsigned *seed, int size) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 16777216.0f, -0.0f, 0.49f};
    unsigned r = next_random(seed);
    if (r % 4 == 0)
        return odd[r / 4 % 8];
    return (float)(next_random(seed) % 4000) / 1000 * (float)size - (float)size;
}

static void overlay_draws_a_line_inside_its_box(void **state) {
    (void)state;
    uint8_t *rgb = grey(100, 80);
    ui_object o = {.box = {20, 10, 70, 60}, .colour = 1};
    assert_int_equal(
        ui_overlay_draw(rgb, 100, 80, &o, 1, &(ui_overlay_style){.line = 2, .text = -1}), 0);
    for (int x = 20; x < 70; x++) {
        assert_true(is(rgb, 100, x, 10, ui_object_rgb[1]) && is(rgb, 100, x, 11, ui_object_rgb[1]));
        assert_true(is(rgb, 100, x, 58, ui_object_rgb[1]) && is(rgb, 100, x, 59, ui_object_rgb[1]));
    }
    for (int y = 10; y < 60; y++)
        assert_true(is(rgb, 100, 20, y, ui_object_rgb[1]) && is(rgb, 100, 69, y, ui_object_rgb[1]));
    /* The dark edges, one pixel on either side; nothing further. */
    assert_in_range(rgb[(40 * 100 + 19) * 3], 0, GREY / 2);
    assert_in_range(rgb[(40 * 100 + 22) * 3], 0, GREY / 2);
    assert_true(untouched(rgb, 100, 18, 40) && untouched(rgb, 100, 23, 40));
    assert_true(untouched(rgb, 100, 45, 35) && untouched(rgb, 100, 71, 40));
    free(rgb);
}

static void overlay_plain_has_no_edges(void **state) {
    (void)state;
    uint8_t *rgb = grey(100, 80);
    ui_object o = {.box = {20, 10, 70, 60}, .colour = 1};
    ui_overlay_style s = {.line = 1, .text = -1, .plain = true};
    assert_int_equal(ui_overlay_draw(rgb, 100, 80, &o, 1, &s), 0);
    assert_true(untouched(rgb, 100, 19, 40) && untouched(rgb, 100, 21, 40));
    assert_true(is(rgb, 100, 20, 40, ui_object_rgb[1]));
    free(rgb);
}

static void overlay_shows_a_box_as_large_as_the_picture(void **state) {
    (void)state;
    uint8_t *rgb = grey(64, 48);
    ui_object o = {.box = {0, 0, 64, 48}};
    assert_int_equal(ui_overlay_draw(rgb, 64, 48, &o, 1, NULL), 0);
    for (int x = 0; x < 64; x++)
        assert_true(is(rgb, 64, x, 0, ui_object_rgb[0]) && is(rgb, 64, x, 47, ui_object_rgb[0]));
    for (int y = 0; y < 48; y++)
        assert_true(is(rgb, 64, 0, y, ui_object_rgb[0]) && is(rgb, 64, 63, y, ui_object_rgb[0]));
    free(rgb);
}

static void overlay_leaves_out_what_is_out_of_sight(void **state) {
    (void)state;
    static const float boxes[][4] = {{-50, -50, 200, 200}, /* its lines run around the picture */
                                     {200, 10, 300, 40},   {10, -90, 40, -20}, {NAN, 0, 10, 10},
                                     {0, 0, 10, NAN},      {40, 10, 20, 30} /* reversed */};
    for (size_t i = 0; i < sizeof boxes / sizeof boxes[0]; i++) {
        uint8_t *rgb = grey(100, 80);
        ui_object o = {.label = i ? "gone" : ""};
        memcpy(o.box, boxes[i], sizeof o.box);
        assert_int_equal(ui_overlay_draw(rgb, 100, 80, &o, 1, NULL), 0);
        for (int y = 0; y < 80; y++)
            for (int x = 0; x < 100; x++)
                assert_true(untouched(rgb, 100, x, y));
        free(rgb);
    }
}

static void overlay_tints_a_mask_and_draws_its_contour(void **state) {
    (void)state;
    uint8_t mask[16 * 16] = {0}; /* a square in the middle */
    for (int y = 4; y < 12; y++)
        memset(mask + y * 16 + 4, 255, 8);
    uint8_t *rgb = grey(100, 100);
    ui_object o = {.box = {10, 10, 90, 90}, .mask = mask, .mask_w = 16, .mask_h = 16, .colour = 2};
    ui_overlay_style s = {.line = 1, .text = -1};
    assert_int_equal(ui_overlay_draw(rgb, 100, 100, &o, 1, &s), 0);
    /* The mask's rows 4..12 of 16 lie on pixels 30..70. */
    const uint8_t *mid = rgb + (50 * 100 + 50) * 3;
    for (int k = 0; k < 3; k++) { /* between the picture and the colour, nearer to the picture */
        int want = GREY + (ui_object_rgb[2][k] - GREY) * 105 / 256;
        assert_in_range(mid[k], want - 2, want + 2);
    }
    assert_true(is(rgb, 100, 30, 50, ui_object_rgb[2]));
    assert_true(is(rgb, 100, 69, 50, ui_object_rgb[2]));
    assert_true(is(rgb, 100, 50, 30, ui_object_rgb[2]));
    assert_true(untouched(rgb, 100, 20, 50) && untouched(rgb, 100, 50, 80));
    free(rgb);
}

static void overlay_cuts_a_mask_without_a_contour_at_the_cut(void **state) {
    (void)state;
    uint8_t mask[4] = {255, 255, 255, 255};
    uint8_t *rgb = grey(60, 60);
    ui_object o = {.box = {-100, -100, 160, 160}, .mask = mask, .mask_w = 2, .mask_h = 2};
    assert_int_equal(ui_overlay_draw(rgb, 60, 60, &o, 1, NULL), 0);
    for (int i = 1; i < 60 * 60; i++)
        assert_memory_equal(rgb, rgb + i * 3, 3);
    assert_false(untouched(rgb, 60, 0, 0) || is(rgb, 60, 0, 0, ui_object_rgb[0]));
    free(rgb);
}

static void overlay_writes_the_label_above_the_box(void **state) {
    (void)state;
    uint8_t *rgb = grey(200, 100);
    ui_object o = {.box = {20, 30, 120, 90}, .label = "cat", .colour = 3};
    ui_overlay_style s = {.line = 1, .text = 1};
    assert_int_equal(ui_overlay_draw(rgb, 200, 100, &o, 1, &s), 0);
    int ink = 0, plate = 0;
    for (int y = 19; y < 30; y++) /* 11 high; 3 letters of 6 and a margin of 1 wide */
        for (int x = 20; x < 39; x++) {
            ink += is(rgb, 200, x, y, (const unsigned char[3]){0, 0, 0});
            plate += is(rgb, 200, x, y, ui_object_rgb[3]);
        }
    assert_int_equal(ink + plate, 11 * 19);
    /* The dots of c, a and t as they are in the font. */
    assert_int_equal(ink, (3 + 1 + 1 + 2 + 3) + (3 + 1 + 4 + 2 + 4) + (1 + 1 + 3 + 1 + 1 + 2 + 2));
    assert_true(untouched(rgb, 200, 60, 24));
    free(rgb);
}

static void overlay_takes_any_label(void **state) {
    (void)state;
    static const char *labels[] = {"",     "\xc3\xa9t\xc3\xa9", "\xe7\x8c\xab", "\xff\xfe",
                                   "\xc3", "a\x01\x7f",         "\x80\x80\x80", NULL};
    char longest[5000];
    memset(longest, 'W', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    for (int i = 0; i < 9; i++)
        for (int size = 1; size < 60; size += 7) {
            uint8_t *rgb = grey(size, size);
            ui_object o = {.box = {0, 0, (float)size, (float)size},
                           .label = i < 8 ? labels[i] : longest};
            assert_int_equal(ui_overlay_draw(rgb, size, size, &o, 1, NULL), 0);
            free(rgb);
        }
}

static void overlay_letters_differ(void **state) {
    (void)state;
    static uint8_t seen[96][7 * 11 * 3];
    for (int c = 0; c < 96; c++) {
        char label[3] = {(char)(' ' + c), 0, 0};
        if (c == 95)
            memcpy(label, "\xc2\xa9", 2); /* any that is not in the font: a box */
        uint8_t *rgb = grey(40, 40);
        ui_object o = {.box = {10, 20, 30, 30}, .label = label};
        ui_overlay_style s = {.line = 1, .text = 1};
        assert_int_equal(ui_overlay_draw(rgb, 40, 40, &o, 1, &s), 0);
        for (int y = 0; y < 11; y++)
            memcpy(seen[c] + y * 7 * 3, rgb + ((9 + y) * 40 + 10) * 3, 7 * 3);
        for (int k = 0; k < c; k++)
            if (memcmp(seen[k], seen[c], sizeof seen[c]) == 0)
                fail_msg("%c and %c look the same", ' ' + k, ' ' + c);
        free(rgb);
    }
}

static void overlay_writes_accented_letters_without_accents(void **state) {
    (void)state;
    static const char *const labels[2] = {"\xc3\xa9\xc3\xbc\xc3\x91", "euN"};
    uint8_t *rgb[2];
    for (int i = 0; i < 2; i++) {
        rgb[i] = grey(60, 60);
        ui_object o = {.box = {10, 20, 50, 50}, .label = labels[i]};
        assert_int_equal(ui_overlay_draw(rgb[i], 60, 60, &o, 1, NULL), 0);
    }
    assert_memory_equal(rgb[0], rgb[1], 60 * 60 * 3);
    free(rgb[0]);
    free(rgb[1]);
}

static bool apart(const ui_plate *a, const ui_plate *b) {
    return a->x + a->w <= b->x || b->x + b->w <= a->x || a->y + a->h <= b->y || b->y + b->h <= a->y;
}

static void overlay_places_labels_apart(void **state) {
    (void)state;
    /* Six things on the same spot, and one at the top where there is no above. */
    ui_object o[7];
    ui_plate p[7];
    for (int i = 0; i < 7; i++) {
        o[i] = (ui_object){.box = {50, 40, 90, 80}};
        p[i] = (ui_plate){0, 0, 60, 12};
    }
    o[6] = (ui_object){.box = {100, 0, 180, 90}};
    ui_overlay_place(o, 7, 200, 120, p);
    assert_int_equal(p[0].x, 50);
    assert_int_equal(p[0].y, 28);
    assert_int_equal(p[6].y, 0);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(p[i].w, 60);
        for (int k = 0; k < i; k++)
            assert_true(apart(&p[i], &p[k]));
    }
}

static void overlay_places_labels_inside_the_picture(void **state) {
    (void)state;
    unsigned seed = 7;
    for (int round = 0; round < 3000; round++) {
        int w = 1 + (int)(next_random(&seed) % 50), h = 1 + (int)(next_random(&seed) % 50);
        ui_object o[12] = {0};
        ui_plate p[12];
        int wish[12];
        for (int i = 0; i < 12; i++) {
            for (int k = 0; k < 4; k++)
                o[i].box[k] = wild(&seed, w);
            wish[i] = (int)(next_random(&seed) % 60);
            p[i] = (ui_plate){-5, 99, wish[i], (int)(next_random(&seed) % 12)};
        }
        ui_overlay_place(o, 12, w, h, p);
        for (int i = 0; i < 12; i++) {
            assert_true(p[i].w >= 0 && p[i].w <= wish[i]);
            assert_true(p[i].x >= 0 && p[i].x + p[i].w <= w);
            assert_true(p[i].y >= 0 && p[i].y + p[i].h <= h);
        }
    }
}

static void overlay_survives_any_coordinates(void **state) {
    (void)state;
    unsigned seed = 1;
    uint8_t mask[7 * 5];
    for (size_t i = 0; i < sizeof mask; i++)
        mask[i] = (uint8_t)next_random(&seed);
    for (int round = 0; round < 1500; round++) {
        static const int sizes[] = {1, 2, 3, 7, 33, 90};
        int w = sizes[next_random(&seed) % 6], h = sizes[next_random(&seed) % 6];
        uint8_t *rgb = grey(w, h);
        ui_object o[3];
        for (int i = 0; i < 3; i++) {
            o[i] = (ui_object){.label = i ? "thing" : "x", .colour = (int)next_random(&seed) - 99};
            for (int k = 0; k < 4; k++)
                o[i].box[k] = wild(&seed, w > h ? w : h);
            if (next_random(&seed) % 2)
                o[i].mask = mask, o[i].mask_w = 7, o[i].mask_h = 5;
        }
        ui_overlay_style s = {.line = (int)(next_random(&seed) % 12) - 1,
                              .text = (int)(next_random(&seed) % 6) - 1,
                              .plain = next_random(&seed) % 2};
        assert_int_equal(ui_overlay_draw(rgb, w, h, o, 3, round % 3 ? &s : NULL), 0);
        free(rgb);
    }
}

static void overlay_lines_grow_with_the_picture(void **state) {
    (void)state;
    for (int k = 1; k <= 4; k *= 2) {
        int w = 640 * k, h = 480 * k, line = 0;
        uint8_t *rgb = grey(w, h);
        ui_object o = {.box = {(float)w / 4, (float)h / 4, (float)w / 2, (float)h / 2}};
        assert_int_equal(ui_overlay_draw(rgb, w, h, &o, 1, NULL), 0);
        while (is(rgb, w, w / 4 + line, h * 3 / 8, ui_object_rgb[0]))
            line++;
        assert_int_equal(line, (int)lrint(1.732 * k));
        free(rgb);
    }
}

static void overlay_colours_stay_apart_in_every_palette(void **state) {
    (void)state;
    for (int i = 0; i < UI_OBJECT_COLOURS; i++)
        for (int k = 0; k < i; k++) {
            assert_int_not_equal(ui_object_palette(i, 256), ui_object_palette(k, 256));
            assert_int_not_equal(ui_object_palette(i, 16), ui_object_palette(k, 16));
        }
    for (int i = -9; i < 20; i++) {
        assert_in_range(ui_object_palette(i, 256), 16, 231);
        assert_in_range(ui_object_palette(i, 16), 1, 15);
        assert_in_range(ui_object_palette(i, 8), 1, 7);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlay_draws_a_line_inside_its_box),
        cmocka_unit_test(overlay_plain_has_no_edges),
        cmocka_unit_test(overlay_shows_a_box_as_large_as_the_picture),
        cmocka_unit_test(overlay_leaves_out_what_is_out_of_sight),
        cmocka_unit_test(overlay_tints_a_mask_and_draws_its_contour),
        cmocka_unit_test(overlay_cuts_a_mask_without_a_contour_at_the_cut),
        cmocka_unit_test(overlay_writes_the_label_above_the_box),
        cmocka_unit_test(overlay_takes_any_label),
        cmocka_unit_test(overlay_letters_differ),
        cmocka_unit_test(overlay_writes_accented_letters_without_accents),
        cmocka_unit_test(overlay_places_labels_apart),
        cmocka_unit_test(overlay_places_labels_inside_the_picture),
        cmocka_unit_test(overlay_survives_any_coordinates),
        cmocka_unit_test(overlay_lines_grow_with_the_picture),
        cmocka_unit_test(overlay_colours_stay_apart_in_every_palette),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
