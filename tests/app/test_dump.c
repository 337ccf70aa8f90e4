/* test_dump.c - .npy files byte by byte, steps that arrive one at a time, and folders
 * and disks that refuse.                                                          */
#include "app/dump.h"
#include "tests/core/make_model.h"

static char dir[64];

static int setup(void **state) {
    (void)state;
    model_folder(dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(dir);
    return 0;
}

static size_t read_file(const char *name, char *buf, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(buf, 1, size, f);
    fclose(f);
    return n;
}

static void expect_npy(const char *name, const char *header, const void *data, size_t bytes) {
    char file[1024];
    assert_int_equal(read_file(name, file, sizeof file), 128 + bytes);
    assert_memory_equal(file, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(file + 10, header, strlen(header));
    for (size_t i = 10 + strlen(header); i < 127; i++)
        assert_int_equal(file[i], ' ');
    assert_int_equal(file[127], '\n');
    assert_memory_equal(file + 128, data, bytes);
}

static void dump_writes_what_numpy_reads(void **state) {
    (void)state;
    float f[12] = {1.5f, -2, 3};
    int32_t ids[5] = {2, 3, 5, 7, 108};
    pali_error err = {0};
    app_dump d;
    assert_ok(app_dump_prepare(dir, &err), err);
    assert_ok(app_dump_open(&d, dir, 0, &err), err);
    assert_int_equal(app_dump_tensor(&d, &(pali_traced){"pixel_values", false, 3, {3, 2, 2}, f}),
                     0);
    assert_int_equal(app_dump_tensor(&d, &(pali_traced){"prefix_ids", true, 1, {5}, ids}), 0);
    assert_int_equal(app_dump_tensor(&d, &(pali_traced){"output_ids", true, 1, {0}, ids}), 0);
    for (size_t step = 0; step < 3; step++)
        assert_int_equal(app_dump_tensor(&d, &(pali_traced){"logits", false, 1, {4}, f + step}), 0);
    assert_ok(app_dump_close(&d, &err), err);
    expect_npy("pixel_values.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,2,2,), }",
               f, sizeof f);
    expect_npy("prefix_ids.npy", "{'descr': '<i4', 'fortran_order': False, 'shape': (5,), }", ids,
               sizeof ids);
    expect_npy("output_ids.npy", "{'descr': '<i4', 'fortran_order': False, 'shape': (0,), }", "",
               0);
    float steps[12] = {1.5f, -2, 3, 0, -2, 3, 0, 0, 3};
    expect_npy("logits.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,4,), }", steps,
               sizeof steps);
}

static void dump_leaves_nothing_of_an_earlier_turn(void **state) {
    (void)state;
    pali_error err = {0};
    app_dump d;
    model_put(dir, "logits.npy", "old", 3);
    model_put(dir, "other.npy", "kept", 4);
    assert_ok(app_dump_open(&d, dir, 0, &err), err);
    assert_ok(app_dump_close(&d, &err), err);
    char buf[8], path[128];
    assert_int_equal(read_file("other.npy", buf, sizeof buf), 4);
    snprintf(path, sizeof path, "%s/logits.npy", dir);
    assert_int_equal(access(path, F_OK), -1);
}

static void dump_makes_a_folder_a_turn(void **state) {
    (void)state;
    pali_error err = {0};
    app_dump d;
    float f[2] = {0};
    assert_ok(app_dump_open(&d, dir, 12, &err), err);
    assert_int_equal(app_dump_tensor(&d, &(pali_traced){"logits", false, 1, {2}, f}), 0);
    assert_ok(app_dump_close(&d, &err), err);
    expect_npy("turn-12/logits.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,2,), }",
               f, sizeof f);
}

static void dump_tells_what_is_in_the_way(void **state) {
    (void)state;
    pali_error err = {0};
    char path[128];
    model_put(dir, "file", "x", 1);
    snprintf(path, sizeof path, "%s/file", dir);
    assert_int_equal(app_dump_prepare(path, &err), PALI_EIO);
    assert_non_null(strstr(err.what, "/file: cannot write tensors there: Not a directory"));
    err = (pali_error){0};
    snprintf(path, sizeof path, "%s/no/such", dir);
    assert_int_equal(app_dump_prepare(path, &err), PALI_EIO);
    assert_non_null(strstr(err.what, "cannot make this folder: No such file or directory"));
    assert_string_not_equal(err.hint, "");
}

/* The first failure is told, the rest of the turn goes on without files. */
static void dump_tells_of_a_full_disk(void **state) {
    (void)state;
    pali_error err = {0};
    app_dump d;
    char path[128];
    float f[4096] = {0};
    assert_ok(app_dump_open(&d, dir, 0, &err), err);
    snprintf(path, sizeof path, "%s/logits.npy", dir);
    assert_int_equal(symlink("/dev/full", path), 0);
    int failed = 0;
    for (int step = 0; step < 4; step++)
        failed |= app_dump_tensor(&d, &(pali_traced){"logits", false, 1, {4096}, f});
    assert_true(failed < 0);
    assert_int_equal(app_dump_close(&d, &err), PALI_EIO);
    assert_non_null(strstr(err.what, "/logits.npy: cannot write this file: No space left"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(dump_writes_what_numpy_reads), TEST(dump_leaves_nothing_of_an_earlier_turn),
        TEST(dump_makes_a_folder_a_turn),   TEST(dump_tells_what_is_in_the_way),
        TEST(dump_tells_of_a_full_disk),
    };
    return cmocka_run_group_tests_name("dump", tests, NULL, NULL);
}
