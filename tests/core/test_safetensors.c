/* The container format: what a good file gives, and one clear sentence for each bad one. */
#include "core/safetensors.h"

#include "tests/core/make_model.h"

static char top[64], path[128];
static pali_error err;

static int setup(void **state) {
    (void)state;
    model_folder(top);
    snprintf(path, sizeof path, "%s/x.safetensors", top);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

/* Writes length (as the file states it), header and ndata bytes 0, 1, 2, ... */
static void put(uint64_t length, const char *header, size_t ndata) {
    size_t n = strlen(header);
    unsigned char *file = malloc(8 + n + ndata);
    assert_non_null(file);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < ndata; i++)
        file[8 + n + i] = (unsigned char)i;
    model_put(top, "x.safetensors", file, 8 + n + ndata);
    free(file);
}

static void put_header(const char *header, size_t ndata) {
    put(strlen(header), header, ndata);
}

static void expect_failure(int code, const char *words) {
    pali_safetensors *st = (void *)1;
    memset(&err, 0, sizeof err);
    int rc = pali_safetensors_open(path, &st, &err);
    if (rc != code || !strstr(err.what, words))
        fail_msg("got %d '%s', expected %d and '%s'", rc, err.what, code, words);
    assert_null(st);
    assert_int_equal(pali_safetensors_open(path, &st, NULL), code); /* err may be NULL */
}

/* put_header of one or more entries, then expect_failure. */
static void expect_bad(const char *header, size_t ndata, int code, const char *words) {
    put_header(header, ndata);
    expect_failure(code, words);
}

static pali_safetensors *open_good(void) {
    pali_safetensors *st;
    memset(&err, 0, sizeof err);
    assert_ok(pali_safetensors_open(path, &st, &err), err);
    return st;
}

/* --- good files ------------------------------------------------------------------- */

static void safetensors_gives_tensors_by_name_and_place(void **state) {
    (void)state;
    put_header("{\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[6,30]},"
               "\"__metadata__\":{\"format\":\"pt\",\"x\":1},"
               "\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,6],\"extra\":null},"
               "\"h\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[30,32]}}   \n",
               32);
    pali_safetensors *st = open_good();
    assert_int_equal(pali_safetensors_count(st), 3);
    assert_string_equal(pali_safetensors_peek(st, 0)->name, "a");
    assert_string_equal(pali_safetensors_peek(st, 1)->name, "b");
    assert_string_equal(pali_safetensors_peek(st, 2)->name, "h");
    const pali_tensor *b = pali_safetensors_find(st, "b");
    assert_ptr_equal(b, pali_safetensors_peek(st, 1));
    assert_int_equal(b->dtype, PALI_F32);
    assert_int_equal(b->ndim, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->bytes, 24);
    assert_int_equal(((const unsigned char *)b->data)[0], 6);
    assert_int_equal(((const unsigned char *)b->data)[23], 29);
    assert_int_equal(pali_safetensors_find(st, "h")->ndim, 0);
    assert_int_equal(pali_safetensors_find(st, "a")->dtype, PALI_BF16);
    assert_null(pali_safetensors_find(st, "__metadata__"));
    assert_null(pali_safetensors_find(st, "c"));
    assert_null(pali_safetensors_find(st, ""));
    pali_safetensors_close(st);
    pali_safetensors_close(NULL);
}

static void safetensors_opens_a_file_without_tensors(void **state) {
    (void)state;
    put_header("{}", 0);
    pali_safetensors *st = open_good();
    assert_int_equal(pali_safetensors_count(st), 0);
    assert_null(pali_safetensors_find(st, "a"));
    pali_safetensors_close(st);
}

static void safetensors_accepts_empty_tensors(void **state) {
    (void)state;
    put_header("{\"z\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[4,4]},"
               "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
               "\"y\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
               4);
    pali_safetensors *st = open_good();
    assert_int_equal(pali_safetensors_count(st), 3);
    assert_int_equal(pali_safetensors_find(st, "z")->bytes, 0);
    pali_safetensors_close(st);
}

static void safetensors_tolerates_other_dtypes(void **state) {
    (void)state;
    put_header("{\"i\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]},"
               "\"f\":{\"dtype\":\"F4_OF_THE_FUTURE\",\"shape\":[3,7],\"data_offsets\":[16,27]}}",
               27);
    pali_safetensors *st = open_good();
    assert_int_equal(pali_safetensors_find(st, "i")->dtype, PALI_DTYPE_OTHER);
    assert_int_equal(pali_safetensors_find(st, "f")->dtype, PALI_DTYPE_OTHER);
    assert_int_equal(pali_safetensors_find(st, "f")->bytes, 11);
    pali_safetensors_close(st);
    expect_bad("{\"i\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,15]}}", 15,
               PALI_EFORMAT, "has 15 bytes, but its shape needs 16");
    assert_int_equal(pali_dtype_size(PALI_F32), 4);
    assert_int_equal(pali_dtype_size(PALI_BF16), 2);
    assert_int_equal(pali_dtype_size(PALI_F16), 2);
    assert_int_equal(pali_dtype_size(PALI_DTYPE_OTHER), 0);
    assert_string_equal(pali_dtype_name(PALI_F32), "F32");
    assert_string_equal(pali_dtype_name(PALI_BF16), "BF16");
    assert_string_equal(pali_dtype_name(PALI_F16), "F16");
    assert_string_equal(pali_dtype_name(PALI_DTYPE_OTHER), "other");
}

static void safetensors_finds_each_of_many(void **state) {
    (void)state;
    enum {
        N = 3000
    };
    char *header = malloc(N * 100), name[32];
    assert_non_null(header);
    size_t at = 0;
    for (int i = 0; i < N; i++)
        at += (size_t)sprintf(
            header + at, "%c\"t%d\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
            i ? ',' : '{', i * 7919 % N, 2 * i, 2 * i + 2);
    sprintf(header + at, "}");
    put_header(header, 2 * N);
    free(header);
    pali_safetensors *st = open_good();
    assert_int_equal(pali_safetensors_count(st), N);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "t%d", i * 7919 % N);
        assert_ptr_equal(pali_safetensors_find(st, name), pali_safetensors_peek(st, (size_t)i));
    }
    pali_safetensors_close(st);
}

/* A 5 GB file whose data is a hole on the disk: opening must not depend on its size. */
static void safetensors_opens_large_files_by_their_header(void **state) {
    (void)state;
    const char *header = "{\"w\":{\"dtype\":\"BF16\",\"shape\":[50000,50000],"
                         "\"data_offsets\":[0,5000000000]}}";
    put_header(header, 0);
    if (truncate(path, (off_t)(8 + strlen(header) + 5000000000u)) != 0)
        skip(); /* a file system without holes or room */
    pali_safetensors *st = open_good();
    assert_int_equal(pali_safetensors_find(st, "w")->bytes, 5000000000u);
    pali_safetensors_close(st);
}

/* --- not a file of this kind ------------------------------------------------------- */

static void safetensors_says_why_it_cannot_open(void **state) {
    (void)state;
    expect_failure(PALI_EIO, "no such file");
    assert_int_equal(mkdir(path, 0700), 0);
    expect_failure(PALI_EIO, "is a folder");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_failure(PALI_EIO, "not a regular file"); /* and does not wait for a writer */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("x.safetensors", path), 0);
    expect_failure(PALI_EIO, "cannot open it");
    assert_int_equal(unlink(path), 0);
    put_header("{}", 0);
    chmod(path, 0);
    if (access(path, R_OK) != 0) /* root may read everything */
        expect_failure(PALI_EIO, "not allowed");
}

static void safetensors_recognises_failed_downloads(void **state) {
    (void)state;
    const char *pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n";
    model_put(top, "x.safetensors", pointer, strlen(pointer));
    expect_failure(PALI_EFORMAT, "git-lfs pointer");
    assert_non_null(strstr(err.hint, "git lfs pull"));
    const char *page = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
    model_put(top, "x.safetensors", page, strlen(page));
    expect_failure(PALI_EFORMAT, "web page");
    assert_non_null(strstr(err.hint, "licence"));
    const char *zip = "PK\003\004 a PyTorch checkpoint is a zip file";
    model_put(top, "x.safetensors", zip, strlen(zip));
    expect_failure(PALI_EFORMAT, "not a safetensors file");
}

static void safetensors_says_when_it_was_cut_short(void **state) {
    (void)state;
    const char *one = "{\"w\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}";
    model_put(top, "x.safetensors", "", 0);
    expect_failure(PALI_EFORMAT, "is empty");
    model_put(top, "x.safetensors", "1234567", 7);
    expect_failure(PALI_EFORMAT, "only 7 bytes");
    put(1000, one, 16);
    expect_failure(PALI_EFORMAT, "ends inside its header, after 71 of 1000 bytes");
    assert_non_null(strstr(err.hint, "cut short"));
    put_header(one, 15);
    expect_failure(PALI_EFORMAT, "tensor w ends at byte 16 of the data, which has 15");
    assert_non_null(strstr(err.hint, "cut short"));
    put_header(one, 17);
    expect_failure(PALI_EFORMAT, "1 bytes after its last tensor");
}

/* Every prefix of a good file is refused. */
static void safetensors_refuses_every_truncation(void **state) {
    (void)state;
    const char *two = "{\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                      "\"w\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[8,16]}}";
    put_header(two, 16);
    for (long n = (long)(8 + strlen(two) + 16) - 1; n >= 0; n--) {
        pali_safetensors *st;
        assert_int_equal(truncate(path, n), 0);
        assert_int_equal(pali_safetensors_open(path, &st, NULL), PALI_EFORMAT);
    }
}

/* --- hostile headers ----------------------------------------------------------------- */

static void safetensors_limits_the_header(void **state) {
    (void)state;
    put(UINT64_MAX, "{}", 0);
    expect_failure(PALI_EFORMAT, "not a safetensors file");
    put((uint64_t)1 << 63, "{}", 0);
    expect_failure(PALI_EFORMAT, "not a safetensors file");
    put((2 << 20) + 1, "{}", 0);
    expect_failure(PALI_EFORMAT, "not a safetensors file");
    put(0, "{}", 0);
    expect_failure(PALI_EFORMAT, "is empty");

    size_t deep = 100000;
    char *header = malloc(deep + 1);
    assert_non_null(header);
    memset(header, '[', deep);
    header[deep] = '\0';
    put_header(header, 0);
    free(header);
    expect_failure(PALI_EFORMAT, "not valid JSON");
}

static void safetensors_refuses_bad_json(void **state) {
    (void)state;
    expect_bad("[1,2]", 0, PALI_EFORMAT, "expected a JSON object");
    expect_bad("{\"w\":", 0, PALI_EFORMAT, "not valid JSON");
    expect_bad("{} {}", 0, PALI_EFORMAT, "not valid JSON");
    expect_bad("{\"\xff\":1}", 0, PALI_EFORMAT, "not valid JSON");
    expect_bad("{\"a\\u0000b\":1}", 0, PALI_EFORMAT, "not valid JSON");
    expect_bad("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
               "\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
               2, PALI_EFORMAT, "duplicate");
}

static void safetensors_refuses_bad_entries(void **state) {
    (void)state;
    static const char *const lacking[] = {
        "{\"w\":1}",
        "{\"w\":{}}",
        "{\"w\":{\"shape\":[4],\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"U8\",\"shape\":[4]}}",
        "{\"w\":{\"dtype\":8,\"shape\":[4],\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":null}}",
    };
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++)
        expect_bad(lacking[i], 4, PALI_EFORMAT, "tensor w lacks");

    static const char *const shapes[] = {
        "[-1]",
        "[4.0]",
        "[\"4\"]",
        "[null]",
        "[[4]]",
        "[9223372036854775807,4]",
        "[4294967296,4294967296]",
        "[4611686018427387904,8,0]",
    };
    char header[256];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        snprintf(header, sizeof header,
                 "{\"w\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,4]}}", shapes[i]);
        expect_bad(header, 4, PALI_EFORMAT, "impossible shape");
    }
    expect_bad("{\"w\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],"
               "\"data_offsets\":[0,4]}}",
               4, PALI_EFORMAT, "not valid JSON");
    expect_bad("{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
               4, PALI_ELIMIT, "9 dimensions");

    static const char *const ranges[] = {"[]",     "[0]",     "[0,4,8]",       "[4,0]",
                                         "[-4,0]", "[0,4.0]", "[\"0\",\"4\"]", "[null,4]"};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        snprintf(header, sizeof header,
                 "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":%s}}", ranges[i]);
        expect_bad(header, 4, PALI_EFORMAT, "impossible data_offsets");
    }
    expect_bad("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],"
               "\"data_offsets\":[9223372036854775803,9223372036854775807]}}",
               4, PALI_EFORMAT, "ends at byte 9223372036854775807");
    expect_bad("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, PALI_EFORMAT,
               "has 4 bytes, but its shape needs 8");
}

static void safetensors_demands_that_tensors_tile_the_data(void **state) {
    (void)state;
    static const char two[] = "{\"v\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%d,%d]},"
                              "\"w\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%d,%d]}}";
    static const struct {
        int v0, v1, w0, w1;
        const char *words;
    } cases[] = {
        {0, 4, 4, 8, NULL},
        {4, 8, 0, 4, NULL},
        {0, 5, 4, 8, "tensor w overlaps"},
        {0, 8, 0, 8, "tensor w overlaps"},
        {0, 8, 2, 4, "tensor w overlaps"},
        {0, 3, 4, 8, "tensor w leaves a hole"},
        {1, 4, 4, 8, "tensor v leaves a hole"},
        {0, 4, 4, 7, "1 bytes after its last tensor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[256];
        snprintf(header, sizeof header, two, cases[i].v1 - cases[i].v0, cases[i].v0, cases[i].v1,
                 cases[i].w1 - cases[i].w0, cases[i].w0, cases[i].w1);
        put_header(header, 8);
        if (cases[i].words)
            expect_failure(PALI_EFORMAT, cases[i].words);
        else
            pali_safetensors_close(open_good());
    }
}

static void safetensors_keeps_sentences_whole(void **state) {
    (void)state;
    char header[2048], name[1500];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(header, sizeof header, "{\"%s\":{}}", name);
    expect_bad(header, 0, PALI_EFORMAT, "lacks its dtype, shape or data_offsets");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(safetensors_gives_tensors_by_name_and_place),
        T(safetensors_opens_a_file_without_tensors),
        T(safetensors_accepts_empty_tensors),
        T(safetensors_tolerates_other_dtypes),
        T(safetensors_finds_each_of_many),
        T(safetensors_opens_large_files_by_their_header),
        T(safetensors_says_why_it_cannot_open),
        T(safetensors_recognises_failed_downloads),
        T(safetensors_says_when_it_was_cut_short),
        T(safetensors_refuses_every_truncation),
        T(safetensors_limits_the_header),
        T(safetensors_refuses_bad_json),
        T(safetensors_refuses_bad_entries),
        T(safetensors_demands_that_tensors_tile_the_data),
        T(safetensors_keeps_sentences_whole),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
