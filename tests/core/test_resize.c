/* test_resize.c - the resize against Pillow's, byte for byte, and the normalisation.
 *
 * tests/data/image/resize.golden, made by tests/reference/image.py, holds for each
 * case the CRC-32 of Pillow's result; the sources are made here by the same formula
 * as there. No tolerance: one byte off by one fails.                             */
#include "core/image.h"
#include "tests/test.h"

static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    }
    return ~c;
}

/* Kind 0: noise; 1: black and white noise (drives sums beyond both ends of a byte);
 * 2: slopes that wrap. source() of image.py. */
static pali_image make_source(int w, int h, int kind) {
    pali_image image = {.width = w, .height = h, .rgb = malloc((size_t)w * (size_t)h * 3)};
    assert_non_null(image.rgb);
    uint32_t s = (uint32_t)w * 65537u + (uint32_t)h * 257u + (uint32_t)kind;
    for (size_t i = 0; i < (size_t)w * (size_t)h * 3; i++) {
        s = s * 1664525u + 1013904223u;
        size_t x = i / 3 % (size_t)w, y = i / 3 / (size_t)w, c = i % 3;
        uint32_t v = kind == 0 ? s >> 24 : kind == 1 ? (s >> 31) * 255 : x * 7 + y * 13 + c * 50;
        image.rgb[i] = (uint8_t)v;
    }
    return image;
}

static unsigned pixel(const pali_image *image, int x, int y) {
    const uint8_t *p = image->rgb + 3 * ((size_t)y * (size_t)image->width + (size_t)x);
    return (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
}

static void resize_equals_pillow(void **state) {
    (void)state;
    FILE *golden = fopen(TEST_DATA "image/resize.golden", "r");
    assert_non_null(golden);
    int w, h, kind, ow, oh, cases = 0, bad = 0;
    unsigned crc, first, middle;
    while (fscanf(golden, "%d %d %d %d %d %x %x %x", &w, &h, &kind, &ow, &oh, &crc, &first,
                  &middle) == 8) {
        pali_error err = {0};
        pali_image in = make_source(w, h, kind), out = {0};
        assert_ok(pali_image_resize(&in, ow, oh, &out, &err), err);
        assert_int_equal(out.width, ow);
        assert_int_equal(out.height, oh);
        uint32_t got = crc32_of(out.rgb, (size_t)ow * (size_t)oh * 3);
        if (got != crc) {
            print_error("%d x %d kind %d -> %d x %d: CRC %08x, Pillow %08x; first pixel %06x, "
                        "Pillow %06x; middle %06x, Pillow %06x\n",
                        w, h, kind, ow, oh, got, crc, pixel(&out, 0, 0), first,
                        pixel(&out, ow / 2, oh / 2), middle);
            bad++;
        }
        pali_image_close(&in);
        pali_image_close(&out);
        cases++;
    }
    fclose(golden);
    assert_true(cases >= 30);
    assert_int_equal(bad, 0);
}

static void resize_keeps_a_flat_picture_flat(void **state) {
    (void)state;
    for (int v = 0; v < 256; v += 51) {
        pali_error err = {0};
        pali_image in = make_source(333, 47, 0), out = {0};
        memset(in.rgb, v, 333 * 47 * 3);
        assert_ok(pali_image_resize(&in, 224, 224, &out, &err), err);
        for (size_t i = 0; i < 224 * 224 * 3; i++)
            assert_int_equal(out.rgb[i], v);
        pali_image_close(&in);
        pali_image_close(&out);
    }
}

static void resize_refuses_what_cannot_be(void **state) {
    (void)state;
    pali_image in = make_source(2, 3, 0), empty = {0}, out;
    pali_error err = {0};
    assert_int_equal(pali_image_resize(&in, 0, 5, &out, &err), PALI_EARG);
    assert_string_equal(err.what, "cannot resize a picture of 2 x 3 to 0 x 5");
    assert_null(out.rgb);
    err = (pali_error){0};
    assert_int_equal(pali_image_resize(&empty, 5, 5, &out, &err), PALI_EARG);
    assert_string_equal(err.what, "cannot resize a picture of 0 x 0 to 5 x 5");
    err = (pali_error){0};
    assert_int_equal(pali_image_resize(&in, 40000, 40000, &out, &err), PALI_ELIMIT);
    assert_string_equal(err.what, "resizing 2 x 3 pixels to 40000 x 40000 is more than pali does");
    err = (pali_error){0};
    assert_int_equal(pali_image_resize(&in, 70000, 1, &out, &err), PALI_ELIMIT);
    assert_null(out.rgb);
    pali_image_close(&in);
}

/* All 256 values, bit for bit: the golden is the two steps that transformers takes. */
static void normalize_equals_transformers(void **state) {
    (void)state;
    float golden[256], chw[3 * 256];
    FILE *f = fopen(TEST_DATA "image/normalize.golden", "rb");
    assert_non_null(f);
    assert_int_equal(fread(golden, sizeof *golden, 256, f), 256);
    fclose(f);
    uint8_t rgb[256 * 3];
    for (int i = 0; i < 256; i++) {
        rgb[3 * i] = (uint8_t)i;
        rgb[3 * i + 1] = (uint8_t)(255 - i);
        rgb[3 * i + 2] = (uint8_t)(i ^ 1);
    }
    pali_image image = {.width = 32, .height = 8, .rgb = rgb};
    pali_image_normalize(&image, chw);
    for (int i = 0; i < 256; i++) {
        assert_memory_equal(&chw[i], &golden[i], sizeof(float));
        assert_memory_equal(&chw[256 + i], &golden[255 - i], sizeof(float));
        assert_memory_equal(&chw[512 + i], &golden[i ^ 1], sizeof(float));
    }
    assert_true(golden[0] == -1.0f && golden[255] == 1.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_equals_pillow),
        cmocka_unit_test(resize_keeps_a_flat_picture_flat),
        cmocka_unit_test(resize_refuses_what_cannot_be),
        cmocka_unit_test(normalize_equals_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
