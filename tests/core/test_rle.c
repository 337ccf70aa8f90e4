/* COCO's run lengths against pycocotools: tests/reference/coco_rle.py. */
#include "core/rle.h"

#include "tests/test.h"

static uint8_t pixel(int x, int y, int w, int h, int kind) {
    int64_t dx = 2 * x + 1 - w, dy = 2 * y + 1 - h, ww = (int64_t)w * w, hh = (int64_t)h * h;
    uint32_t mixed = (uint32_t)x * 2654435761u + (uint32_t)y * 40503;
    switch (kind) {
    case 0:
        return 127;
    case 1:
        return 128;
    case 2:
        return (x + y) % 2 ? 255 : 0;
    case 3:
        return dx * dx * hh + dy * dy * ww <= ww * hh ? 200 : 100;
    default:
        return (mixed >> 7 & 3) == 0 ? 255 : 0;
    }
}

static void rle_is_pycocotools(void **state) {
    (void)state;
    FILE *f = fopen(TEST_DATA "mask/rle.txt", "r");
    assert_non_null(f);
    int width, height, kind, lines = 0;
    pali_mask m;
    unsigned long long want;
    char counts[2000];
    while (fscanf(f, "%d %d %d %d %d %d %d %llu %1999s", &width, &height, &m.x, &m.y, &m.width,
                  &m.height, &kind, &want, counts) == 9) {
        m.soft = malloc((size_t)m.width * (size_t)m.height);
        assert_non_null(m.soft);
        for (int y = 0; y < m.height; y++)
            for (int x = 0; x < m.width; x++)
                m.soft[(size_t)y * (size_t)m.width + (size_t)x] =
                    pixel(x, y, m.width, m.height, kind);
        uint64_t area;
        char *got = pali_rle(&m, width, height, 1, &area);
        assert_non_null(got);
        assert_string_equal(got, counts);
        assert_int_equal(area, want);
        free(got);
        free(m.soft);
        lines++;
    }
    fclose(f);
    assert_true(lines >= 25);
}

/* A mask of a picture made smaller by 2 is that mask with its pixels twice as wide and high. */
static void rle_of_a_smaller_picture_covers_the_whole(void **state) {
    (void)state;
    uint8_t small[3 * 2] = {0, 255, 255, 255, 0, 255}, large[5 * 4];
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 5; x++)
            large[y * 5 + x] = small[y / 2 * 3 + x / 2];
    const pali_mask m = {1, 2, 3, 2, small}, same = {2, 4, 5, 4, large};
    uint64_t area, want; /* pictures of 4 x 5 and 7 x 9: the last column is half a pixel */
    char *got = pali_rle(&m, 7, 9, 2, &area), *plain = pali_rle(&same, 7, 9, 1, &want);
    assert_non_null(got);
    assert_non_null(plain);
    assert_string_equal(got, plain);
    assert_int_equal(area, want);
    free(got);
    free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rle_is_pycocotools),
                                       cmocka_unit_test(rle_of_a_smaller_picture_covers_the_whole)};
    return cmocka_run_group_tests_name("rle", tests, NULL, NULL);
}
