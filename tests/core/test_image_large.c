/* test_image_large.c - pictures that are made smaller while they are decoded.
 *
 * The limit is lowered, so that the small files of tests/data/image/ are large: what comes out
 * must be the averages of what comes out without a limit. libjpeg averages in its own way, by
 * leaving out the high frequencies. One picture is really large.                          */
#include "core/image_formats.h"
#include "core/image_sandbox.h"
#include "tests/test.h"

#include <stdio.h>

#include <jpeglib.h>

static void decode(const char *name, size_t max_pixels, pali_image *out) {
    char path[128];
    uint8_t *bytes;
    size_t n;
    pali_error err = {0};
    snprintf(path, sizeof path, TEST_DATA "image/%s", name);
    assert_ok(pali_image_read_file(path, &bytes, &n, &err), err);
    pali_image_input in = {bytes, n, name, max_pixels, NULL};
    assert_ok(pali_image_decode_input(&in, out, &err), err);
    free(bytes);
}

/* The average of the factor x factor pixels at (x, y), of those that are there. */
static int average(const pali_image *im, int x, int y, int factor, int c) {
    int sum = 0, n = 0;
    for (int v = y * factor; v < (y + 1) * factor && v < im->height; v++)
        for (int u = x * factor; u < (x + 1) * factor && u < im->width; u++, n++)
            sum += im->rgb[3 * (v * im->width + u) + c];
    return (sum + n / 2) / n;
}

/* Decodes with a limit that asks for `factor`; most: how far a value may be off. */
static void reduced(const char *name, int factor, int most, double mean) {
    pali_image all, small;
    decode(name, PALI_IMAGE_MAX_PIXELS, &all);
    int w = (all.width + factor - 1) / factor, h = (all.height + factor - 1) / factor, worst = 0;
    size_t pixels = (size_t)all.width * (size_t)all.height;
    decode(name, factor == 2 ? pixels : (pixels + 3) / 4, &small);
    assert_int_equal(small.width, w);
    assert_int_equal(small.height, h);
    assert_int_equal(pali_image_full_width(&small), all.width);
    assert_int_equal(pali_image_full_height(&small), all.height);
    assert_int_equal(all.full_width, 0);
    double sum = 0;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) {
                int d = abs(small.rgb[3 * (y * w + x) + c] - average(&all, x, y, factor, c));
                worst = d > worst ? d : worst;
                sum += d;
            }
    sum /= 3.0 * w * h;
    if (worst > most || sum > mean)
        fail_msg("%s by %d: off by at most %d, %.3f on average", name, factor, worst, sum);
    pali_image_close(&all);
    pali_image_close(&small);
}

static void large_pictures_are_averages(void **state) {
    (void)state;
    static const char *const rows[] = {"rgb8.png",  "rgba16.png",   "grey16.png",
                                       "grey1.png", "palette4.png", "exif6.png"};
    static const char *const whole[] = {"rgb8i.png",  "grey16i.png", "rgb24.bmp",
                                        "plain8.gif", "raw_255.ppm", "lossless.webp"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int factor = 2; factor <= 4; factor *= 2)
            reduced(rows[i], factor, 0, 0);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        reduced(whole[i], 2, 0, 0);
}

/* Seen, of 255: 6 and 0.54 on average, and 34 and 3.5 where chroma has half the resolution
 * already. A picture moved by one pixel is 7 to 23 off on average, one upside
 * down 48 and more. */
static void large_jpegs_come_from_their_coefficients(void **state) {
    (void)state;
    for (int factor = 2; factor <= 4; factor *= 2) {
        reduced("444.jpg", factor, 8, 0.7);
        reduced("grey.jpg", factor, 8, 0.7);
        reduced("cmyk.jpg", factor, 8, 0.7);
        reduced("420.jpg", factor, 40, 4);
        reduced("progressive_420.jpg", factor, 40, 4);
    }
}

/* 90 million grey pixels, dark in the left half. Caller frees. */
static uint8_t *large_jpeg(unsigned long *n) {
    enum {
        W = 10000,
        H = 9000
    };
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct c = {.err = jpeg_std_error(&errors)};
    static JSAMPLE pixels[W];
    JSAMPROW row = pixels;
    uint8_t *out = NULL;
    *n = 0;
    memset(pixels, 20, W / 2);
    memset(pixels + W / 2, 220, W / 2);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out, n);
    c.image_width = W;
    c.image_height = H;
    c.input_components = 1;
    c.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&c);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < H)
        jpeg_write_scanlines(&c, &row, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return out;
}

static void large_picture_goes_through_the_sandbox(void **state) {
    (void)state;
    unsigned long n;
    uint8_t *bytes = large_jpeg(&n);
    pali_image image;
    pali_error err = {0};
    assert_ok(pali_image_decode(bytes, n, "large.jpg", &image, &err), err);
    free(bytes);
    assert_int_equal(image.width, 5000);
    assert_int_equal(image.height, 4500);
    assert_int_equal(image.full_width, 10000);
    assert_int_equal(image.full_height, 9000);
    assert_int_equal(image.rgb[3 * (4400 * 5000 + 100)], 20);
    assert_int_equal(image.rgb[3 * (4400 * 5000 + 4900)], 220);
    pali_image_close(&image);
}

static int start(void **state) {
    (void)state;
    pali_image_sandbox_start(NULL);
    return 0;
}

static int stop(void **state) {
    (void)state;
    pali_image_sandbox_stop();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_pictures_are_averages),
        cmocka_unit_test(large_jpegs_come_from_their_coefficients),
        cmocka_unit_test_setup_teardown(large_picture_goes_through_the_sandbox, start, stop),
    };
    return cmocka_run_group_tests_name("image_large", tests, NULL, NULL);
}
