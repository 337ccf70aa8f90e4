/* test_image_frames.c - frames of animated GIFs against Pillow's (tests/reference/frames.py). */
#include "core/image.h"
#include "core/image_sandbox.h"
#include "tests/test.h"

enum {
    W = 24,
    H = 18,
    N = 7,
    BYTES = W * H * 3
};

static void read_whole(const char *name, const char *end, uint8_t **bytes, size_t *n) {
    char path[128];
    pali_error err = {0};
    snprintf(path, sizeof path, TEST_DATA "frames/%s.%s", name, end);
    assert_ok(pali_image_read_file(path, bytes, n, &err), err);
}

/* Frames `want` of the GIF must be those of the golden, picked as image.h says. */
static void check(const char *name, size_t want) {
    uint8_t *gif, *rgb;
    size_t n, m, got;
    pali_error err = {0};
    pali_image out[40];
    read_whole(name, "gif", &gif, &n);
    read_whole(name, "rgb", &rgb, &m);
    assert_int_equal(m, N * BYTES);
    assert_ok(pali_image_decode_frames(gif, n, name, want, out, &got, &err), err);
    assert_int_equal(got, want < N ? want : N);
    for (size_t i = 0; i < got; i++) {
        size_t k = (2 * i + 1) * N / (2 * got);
        assert_int_equal(out[i].width, W);
        assert_int_equal(out[i].height, H);
        for (size_t b = 0; b < BYTES; b++)
            if (out[i].rgb[b] != rgb[k * BYTES + b])
                fail_msg("%s, frame %zu of %zu: pixel %zu, %zu is %d, not %d", name, k, want,
                         b / 3 % W, b / 3 / W, out[i].rgb[b], rgb[k * BYTES + b]);
        pali_image_close(&out[i]);
    }
    free(gif);
    free(rgb);
}

static void image_frames_are_pillows(void **state) {
    (void)state;
    static const char *const names[] = {"keep", "fill", "restore", "mixed"};
    for (size_t i = 0; i < 4; i++)
        for (size_t want = 1; want <= 8; want++)
            check(names[i], want);
    check("keep", 40);
}

static void image_frames_come_through_the_sandbox(void **state) {
    (void)state;
    pali_error err = {0};
    if (pali_image_sandbox_start(&err)) {
        print_message("%s\n", err.what);
        skip();
    }
    check("mixed", 3);
    check("restore", 20);
    image_frames_are_pillows(state);
    pali_image_sandbox_stop();
}

/* One picture is one frame, in any format. */
static void image_frames_of_a_still_is_one(void **state) {
    (void)state;
    static const char *const stills[] = {TEST_DATA "image/plain8.gif", "assets/demo/demo.png"};
    for (size_t i = 0; i < 2; i++) {
        uint8_t *bytes;
        size_t n, got;
        pali_error err = {0};
        pali_image one, out[5];
        assert_ok(pali_image_read_file(stills[i], &bytes, &n, &err), err);
        assert_ok(pali_image_decode(bytes, n, "still", &one, &err), err);
        assert_ok(pali_image_decode_frames(bytes, n, "still", 5, out, &got, &err), err);
        assert_int_equal(got, 1);
        assert_true(out[0].width == one.width && out[0].height == one.height);
        assert_memory_equal(out[0].rgb, one.rgb, (size_t)one.width * (size_t)one.height * 3);
        pali_image_close(&one);
        pali_image_close(&out[0]);
        free(bytes);
    }
}

/* Cut off anywhere: the frames that are whole, or a sentence; never a crash. */
static void image_frames_of_a_cut_file(void **state) {
    (void)state;
    uint8_t *gif;
    size_t n, whole = 0, last = 0;
    read_whole("mixed", "gif", &gif, &n);
    for (size_t cut = 0; cut <= n; cut++) {
        uint8_t *part = malloc(cut + 1); /* of its own, so that a read past it shows */
        assert_non_null(part);
        memcpy(part, gif, cut);
        part = realloc(part, cut ? cut : 1);
        pali_image out[N];
        size_t got;
        pali_error err = {0};
        int rc = pali_image_decode_frames(part, cut, "cut.gif", N, out, &got, &err);
        assert_true(rc ? got == 0 && err.what[0] : got > 0);
        if (!rc) {
            assert_true(got >= last);
            last = got;
            whole += got == N;
        }
        while (got)
            pali_image_close(&out[--got]);
        free(part);
    }
    assert_int_equal(last, N);
    assert_in_range(whole, 1, 3);
    free(gif);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_frames_are_pillows),
        cmocka_unit_test(image_frames_come_through_the_sandbox),
        cmocka_unit_test(image_frames_of_a_still_is_one),
        cmocka_unit_test(image_frames_of_a_cut_file),
    };
    return cmocka_run_group_tests_name("image_frames", tests, NULL, NULL);
}
