/* test_picture_list.c - names, folders and lists of pictures. */
#include "app/picture_list.h"

#include "tests/test.h"

#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/pali-list-XXXXXX";

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) && !chdir(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void put(const char *name, const void *bytes, size_t n) {
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

#define PUT(name, text) put(name, text, sizeof(text) - 1)

/* What the list of names and `from` gives, one a line; total is checked when the list knows it. */
static void expect_list(const char *const *names, const char *from, const char *want) {
    picture_list *l;
    pali_error err = {0};
    size_t n = 0, count = 0;
    while (names[n])
        n++;
    assert_ok(picture_list_open(names, n, from, &l, &err), err);
    size_t total = picture_list_total(l);
    char got[1024] = "";
    const char *path;
    int rc;
    while ((rc = picture_list_next(l, &path, &err)) > 0) {
        assert_true(strlen(got) + strlen(path) + 2 < sizeof got);
        strcat(strcat(got, path), "\n");
        count++;
    }
    assert_ok(rc, err);
    assert_int_equal(picture_list_next(l, &path, &err), 0);
    assert_string_equal(got, want);
    assert_true(total == count || (total == 0 && from));
    picture_list_close(l);
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void picture_list_keeps_the_order_of_names(void **state) {
    (void)state;
    expect_list(NAMES("b", "a", "-", "b"), NULL, "b\na\n-\nb\n");
}

static void picture_list_opens_a_folder(void **state) {
    (void)state;
    mkdir("dir", 0700);
    mkdir("dir/deeper.png", 0700);
    static const char png[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    put("dir/b.png", png, sizeof png - 1);
    put("dir/B.png", png, sizeof png - 1);
    put("dir/a", png, sizeof png - 1); /* the name does not matter */
    put("dir/.hidden.png", png, sizeof png - 1);
    PUT("dir/notes.png", "no picture, whatever it is called");
    expect_list(NAMES("x", "dir", "dir/"), NULL,
                "x\ndir/B.png\ndir/a\ndir/b.png\ndir/B.png\ndir/a\ndir/b.png\n");
}

static void picture_list_refuses_a_folder_without_pictures(void **state) {
    (void)state;
    mkdir("empty", 0700);
    picture_list *l;
    pali_error err = {0};
    assert_int_equal(picture_list_open(NAMES("empty"), 1, NULL, &l, &err), PALI_EFORMAT);
    assert_null(l);
    assert_string_equal(err.what, "empty: no picture in this folder");
}

static void picture_list_reads_lines(void **state) {
    (void)state;
    PUT("list", "one\n\n two \r\nthree");
    expect_list(NAMES("zero"), "list", "zero\none\n two \nthree\n");
    PUT("list", "one\nlast\n");
    expect_list(NAMES(NULL), "list", "one\nlast\n");
    PUT("list", "");
    expect_list(NAMES(NULL), "list", "");
}

static void picture_list_reads_zero_bytes(void **state) {
    (void)state;
    PUT("list", "a\nb\0c\0\0d");
    expect_list(NAMES(NULL), "list", "a\nb\nc\nd\n");
}

static void picture_list_refuses_what_is_no_list(void **state) {
    (void)state;
    picture_list *l;
    pali_error err = {0};
    assert_int_equal(picture_list_open(NULL, 0, "no-list", &l, &err), PALI_EIO);
    assert_non_null(strstr(err.what, "no-list"));
    char *bytes = malloc(20000);
    assert_non_null(bytes);
    memset(bytes, 'x', 20000);
    bytes[2] = '\n';
    put("list", bytes, 20000);
    err = (pali_error){0};
    assert_int_equal(picture_list_open(NULL, 0, "list", &l, &err), PALI_EFORMAT);
    assert_string_equal(err.what, "list: entry 2 is longer than any file name");
    /* The longest name there can be is one, also when it crosses what is read at once. */
    for (int i = PATH_MAX - 1; i < 20000; i += PATH_MAX)
        bytes[i] = '\n';
    bytes[2] = 'x';
    put("list", bytes, 20000 - 20000 % PATH_MAX);
    err = (pali_error){0};
    assert_ok(picture_list_open(NULL, 0, "list", &l, &err), err);
    assert_int_equal(picture_list_total(l), 20000 / PATH_MAX);
    picture_list_close(l);
    free(bytes);
}

static void *write_slowly(void *user) {
    const int *fd = user;
    for (const char *c = "ab\ncd\n"; *c; c++) {
        assert_int_equal(write(*fd, c, 1), 1);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return NULL;
}

/* From a pipe, which may be slow; then stopped while it waits. */
static void picture_list_streams_and_stops(void **state) {
    (void)state;
    int p[2], old = dup(0);
    assert_int_equal(pipe(p), 0);
    dup2(p[0], 0);
    picture_list *l;
    pali_error err = {0};
    const char *path;
    assert_ok(picture_list_open(NULL, 0, "-", &l, &err), err);
    assert_int_equal(picture_list_total(l), 0);
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, write_slowly, &p[1]), 0);
    assert_int_equal(picture_list_next(l, &path, &err), 1);
    assert_string_equal(path, "ab");
    assert_int_equal(picture_list_next(l, &path, &err), 1);
    assert_string_equal(path, "cd");
    pthread_join(writer, NULL);
    picture_list_stop(l); /* nothing comes any more, and the pipe stays open */
    assert_int_equal(picture_list_next(l, &path, &err), PALI_ECANCEL);
    assert_int_equal(picture_list_next(l, &path, &err), PALI_ECANCEL);
    assert_int_equal(err.code, 0);
    picture_list_close(l);
    dup2(old, 0);
    close(old);
    close(p[0]);
    close(p[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(picture_list_keeps_the_order_of_names),
        cmocka_unit_test(picture_list_opens_a_folder),
        cmocka_unit_test(picture_list_refuses_a_folder_without_pictures),
        cmocka_unit_test(picture_list_reads_lines),
        cmocka_unit_test(picture_list_reads_zero_bytes),
        cmocka_unit_test(picture_list_refuses_what_is_no_list),
        cmocka_unit_test(picture_list_streams_and_stops),
    };
    return cmocka_run_group_tests_name("picture_list", tests, setup, teardown);
}
