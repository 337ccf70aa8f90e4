/* test_image_memory.c - pictures when memory runs out.
 *
 * Every single allocation of decoding and resizing a file is made to fail in turn (the
 * linker wraps the allocator, see Makefile). Each time the answer must be PALI_ENOMEM
 * with nothing left in the result; the leak check of the sanitizer build sees the rest. */
#include "core/image.h"
#include "tests/test.h"

static long countdown = -1; /* the allocation that fails when it reaches 0; -1: none does */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static int fails(void) {
    if (countdown > 0)
        countdown--;
    else if (countdown == 0) {
        countdown = -1;
        return 1;
    }
    return 0;
}
void *__wrap_malloc(size_t n) {
    return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n) {
    return fails() ? NULL : __real_realloc(p, n);
}

static void image_survives_each_failing_allocation(void **state) {
    (void)state;
    static const char *const names[] = {
        "rgb8i.png",     "pieces.png",          "palette4.png",      "exif6.png",
        "profile6z.png", "xmp6z.png",           "420.jpg",           "exif6.jpg",
        "grey.jpg",      "progressive_420.jpg", "cmyk_unmarked.jpg", "rgb24.bmp",
        "rle8.bmp",      "interlaced.gif",      "raw_1000.ppm",      "dense.pbm"};
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        char path[128];
        snprintf(path, sizeof path, TEST_DATA "image/%s", names[f]);
        for (long k = 0;; k++) {
            assert_true(k < 100);
            pali_error err = {0};
            pali_image image = {0}, small = {0};
            countdown = k;
            int rc = pali_image_open(path, &image, &err);
            if (!rc)
                rc = pali_image_resize(&image, 14, 14, &small, &err);
            int failed = countdown < 0;
            countdown = -1;
            if (rc != (failed ? PALI_ENOMEM : 0))
                fail_msg("%s, allocation %ld: %d %s", names[f], k, rc, err.what);
            if (rc) {
                assert_null(small.rgb);
                assert_true(strstr(err.what, "out of memory while "));
            }
            pali_image_close(&image);
            pali_image_close(&small);
            if (!failed)
                break;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
