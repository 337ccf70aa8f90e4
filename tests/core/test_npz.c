/* Archives of arrays: what NumPy writes, and one clear sentence for each bad file. */
#include "core/npz.h"

#include "tests/core/make_model.h"

#include <zlib.h>

static char top[64], path[128];
static pali_error err;

static int setup(void **state) {
    (void)state;
    model_folder(top);
    snprintf(path, sizeof path, "%s/x.npz", top);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

static pali_npz *open_good(const char *name) {
    pali_npz *z;
    memset(&err, 0, sizeof err);
    assert_ok(pali_npz_open(name, &z, &err), err);
    return z;
}

static void expect_failure(int code, const char *words) {
    pali_npz *z = (void *)1;
    memset(&err, 0, sizeof err);
    int rc = pali_npz_open(path, &z, &err);
    if (rc != code || !strstr(err.what, words))
        fail_msg("got %d '%s', expected %d and '%s'", rc, err.what, code, words);
    assert_null(z);
    assert_int_equal(pali_npz_open(path, &z, NULL), code);
}

/* --- a writer of bad archives ---------------------------------------------------------- */

typedef struct {
    const char *name;
    const void *bytes;
    size_t n;
    /* Lies; 0: the truth. */
    uint32_t raw, packed, local;
    uint16_t method, flags;
    bool bad_crc;
} entry;

static unsigned char file[1 << 16];
static size_t used;

static void le(uint64_t v, int bytes) {
    for (; bytes--; v >>= 8)
        file[used++] = (unsigned char)v;
}

static void raw_bytes(const void *p, size_t n) {
    memcpy(file + used, p, n);
    used += n;
}

static void build(const entry *e, size_t n) {
    uint32_t local[8];
    used = 0;
    for (size_t i = 0; i < n; i++) {
        local[i] = (uint32_t)used;
        raw_bytes("PK\3\4", 4);
        used += 22;
        memset(file + used - 22, 0, 22);
        le(strlen(e[i].name), 2);
        le(0, 2);
        raw_bytes(e[i].name, strlen(e[i].name));
        raw_bytes(e[i].bytes, e[i].n);
    }
    size_t at = used;
    for (size_t i = 0; i < n; i++) {
        raw_bytes("PK\1\2", 4);
        le(0, 4);
        le(e[i].flags, 2);
        le(e[i].method, 2);
        le(0, 4);
        le(crc32(0, e[i].bytes, (uInt)e[i].n) + e[i].bad_crc, 4);
        le(e[i].packed ? e[i].packed : e[i].n, 4);
        le(e[i].raw ? e[i].raw : e[i].n, 4);
        le(strlen(e[i].name), 2);
        le(0, 12);
        le(e[i].local ? e[i].local : local[i], 4);
        raw_bytes(e[i].name, strlen(e[i].name));
    }
    size_t end = used;
    raw_bytes("PK\5\6", 4);
    le(0, 4);
    le(n, 2);
    le(n, 2);
    le(end - at, 4);
    le(at, 4);
    le(0, 2);
    model_put(top, "x.npz", file, used);
}

/* A .npy of this dictionary and n bytes of data into out; its size. */
static size_t npy(unsigned char *out, const char *dictionary, size_t n) {
    size_t len = strlen(dictionary);
    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = (unsigned char)len;
    out[9] = (unsigned char)(len >> 8);
    memcpy(out + 10, dictionary, len);
    for (size_t i = 0; i < n; i++)
        out[10 + len + i] = (unsigned char)i;
    return 10 + len + n;
}

static const char four[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";

static void expect_bad_header(const char *dictionary, size_t n, int code, const char *words) {
    unsigned char bytes[8192];
    entry e = {.name = "a.npy", .bytes = bytes};
    e.n = npy(bytes, dictionary, n);
    build(&e, 1);
    expect_failure(code, words);
}

/* --- what NumPy writes ------------------------------------------------------------------- */

static float value(size_t k) {
    return (float)k / 4 - 1;
}

/* Every value of the float array t, read and, when it lies there, in place. */
static void expect_values(const pali_npz *z, const char *name, size_t n) {
    const pali_tensor *t = pali_npz_find(z, name);
    assert_non_null(t);
    size_t size = pali_dtype_size(t->dtype);
    assert_int_equal(t->bytes, n * size);
    unsigned char *got = malloc(t->bytes + 1);
    assert_non_null(got);
    assert_ok(pali_npz_read(z, t, got, &err), err);
    if (t->data)
        assert_memory_equal(t->data, got, t->bytes);
    for (size_t k = 0; k < n; k++) {
        float want = value(k % 64), v = 0;
        if (t->dtype == PALI_F32) {
            memcpy(&v, got + 4 * k, 4);
        } else if (t->dtype == PALI_BF16) {
            memcpy((char *)&v + 2, got + 2 * k, 2);
        } else { /* of the few halves in the file: -1 -.75 -.5 -.25 0 */
            static const uint16_t half[5] = {0xBC00, 0xBA00, 0xB800, 0xB400, 0};
            assert_memory_equal(got + 2 * k, &half[k], 2);
            v = want;
        }
        if (v != want)
            fail_msg("%s[%zu] is %g, expected %g", name, k, (double)v, (double)want);
    }
    free(got);
}

static void expect_shape(const pali_tensor *t, int ndim, const int64_t *shape) {
    assert_int_equal(t->ndim, ndim);
    for (int i = 0; i < ndim; i++)
        assert_int_equal(t->shape[i], shape[i]);
}

static void expect_numpys(const char *name, bool deflated) {
    pali_npz *z = open_good(name);
    assert_int_equal(pali_npz_count(z), 11);
    assert_string_equal(pali_npz_peek(z, 0)->name, "params/img/kernel");
    assert_string_equal(pali_npz_peek(z, 10)->name, "noise");
    expect_values(z, "params/img/kernel", 24);
    expect_shape(pali_npz_find(z, "params/img/kernel"), 3, (int64_t[]){2, 3, 4});
    expect_values(z, "half", 5);
    assert_int_equal(pali_npz_find(z, "half")->dtype, PALI_F16);
    expect_values(z, "brain", 6);
    assert_int_equal(pali_npz_find(z, "brain")->dtype, PALI_BF16);
    assert_int_equal(pali_npz_find(z, "whole")->dtype, PALI_DTYPE_OTHER);
    int64_t whole[6];
    assert_int_equal(pali_npz_find(z, "whole")->bytes, sizeof whole);
    assert_ok(pali_npz_read(z, pali_npz_find(z, "whole"), whole, &err), err);
    assert_int_equal(whole[5], 15);
    expect_values(z, "scalar", 1);
    assert_int_equal(pali_npz_find(z, "scalar")->ndim, 0);
    assert_int_equal(pali_npz_find(z, "empty")->bytes, 0);
    expect_values(z, "six", 24);
    expect_shape(pali_npz_find(z, "six"), 6, (int64_t[]){1, 2, 1, 3, 2, 2});
    expect_values(z, "turned", 30); /* stored with its first dimension fastest */
    expect_shape(pali_npz_find(z, "turned"), 3, (int64_t[]){2, 3, 5});
    assert_null(pali_npz_find(z, "turned")->data);
    expect_values(z, "column", 4);
    assert_int_equal(pali_npz_find(z, "big_end")->dtype, PALI_DTYPE_OTHER);
    expect_values(z, "noise", 512);
    for (size_t i = 0; i < pali_npz_count(z); i++) {
        const pali_tensor *t = pali_npz_peek(z, i);
        assert_ptr_equal(pali_npz_find(z, t->name), t);
        if (deflated || strcmp(t->name, "turned") != 0)
            assert_int_equal(t->data == NULL, deflated);
    }
    assert_null(pali_npz_find(z, "params"));
    assert_null(pali_npz_find(z, ""));
    pali_npz_close(z);
}

static void npz_reads_stored_arrays_in_place(void **state) {
    (void)state;
    expect_numpys(TEST_DATA "npz/stored.npz", false);
}

static void npz_reads_deflated_arrays(void **state) {
    (void)state;
    expect_numpys(TEST_DATA "npz/deflated.npz", true);
}

static void npz_reads_zip64_and_passes_over_other_members(void **state) {
    (void)state;
    pali_npz *z = open_good(TEST_DATA "npz/zip64.npz");
    assert_int_equal(pali_npz_count(z), 3);
    expect_values(z, "half", 5);
    expect_values(z, "scalar", 1);
    expect_values(z, "turned", 30);
    pali_npz_close(z);
}

static void npz_reads_a_single_array(void **state) {
    (void)state;
    pali_npz *z = open_good(TEST_DATA "npz/one.npy");
    assert_int_equal(pali_npz_count(z), 1);
    expect_values(z, "", 9);
    expect_shape(pali_npz_peek(z, 0), 2, (int64_t[]){3, 3});
    pali_npz_close(z);
    pali_npz_close(NULL);
}

static void npz_opens_an_archive_without_arrays(void **state) {
    (void)state;
    build(NULL, 0);
    pali_npz *z = open_good(path);
    assert_int_equal(pali_npz_count(z), 0);
    assert_null(pali_npz_find(z, "a"));
    pali_npz_close(z);
}

/* --- bad files ------------------------------------------------------------------------------ */

static void npz_says_why_it_cannot_open(void **state) {
    (void)state;
    expect_failure(PALI_EIO, "no such file");
    model_put(top, "x.npz", "", 0);
    expect_failure(PALI_EFORMAT, "is empty");
    model_put(top, "x.npz", "GIF89a", 6);
    expect_failure(PALI_EFORMAT, "is not a zip archive");
    const char *pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n";
    model_put(top, "x.npz", pointer, strlen(pointer));
    expect_failure(PALI_EFORMAT, "git-lfs pointer");
}

/* Every prefix of a good file is refused, of both kinds. */
static void npz_refuses_every_truncation(void **state) {
    (void)state;
    static const char *const good[] = {TEST_DATA "npz/zip64.npz", TEST_DATA "npz/one.npy"};
    for (int i = 0; i < 2; i++) {
        FILE *f = fopen(good[i], "rb");
        assert_non_null(f);
        used = fread(file, 1, sizeof file, f);
        fclose(f);
        model_put(top, "x.npz", file, used);
        for (size_t n = used; n-- > 0;) {
            pali_npz *z;
            assert_int_equal(truncate(path, (off_t)n), 0);
            assert_int_equal(pali_npz_open(path, &z, NULL), PALI_EFORMAT);
        }
    }
}

/* Any one byte of a good file changed: refused, or read without harm and, where its bytes
 * are covered by a checksum, told. */
static void npz_survives_every_changed_byte(void **state) {
    (void)state;
    FILE *f = fopen(TEST_DATA "npz/deflated.npz", "rb");
    assert_non_null(f);
    used = fread(file, 1, sizeof file, f);
    fclose(f);
    for (size_t i = 0; i < used; i++)
        for (int k = 0; k < 3; k++) {
            unsigned char was = file[i];
            file[i] ^= (unsigned char[]){0x01, 0x80, 0xFF}[k];
            model_put(top, "x.npz", file, used);
            file[i] = was;
            pali_npz *z;
            if (pali_npz_open(path, &z, NULL))
                continue;
            for (size_t j = 0; j < pali_npz_count(z); j++) {
                const pali_tensor *t = pali_npz_peek(z, j);
                unsigned char *out = malloc(t->bytes + 1);
                assert_non_null(out);
                (void)pali_npz_read(z, t, out, NULL);
                free(out);
            }
            pali_npz_close(z);
        }
}

static void npz_refuses_overlaps_and_repeated_names(void **state) {
    (void)state;
    unsigned char bytes[256];
    entry two[2] = {{.name = "a.npy", .bytes = bytes}, {.name = "b.npy", .bytes = bytes}};
    two[0].n = two[1].n = npy(bytes, four, 4);
    build(two, 2);
    pali_npz_close(open_good(path));
    two[1].name = "a.npy";
    build(two, 2);
    expect_failure(PALI_EFORMAT, "two arrays named a");
    two[1].local = 0;
    two[0].local = (uint32_t)(30 + 5 + two[0].n); /* both are the second */
    build(two, 2);
    expect_failure(PALI_EFORMAT, "overlaps the next");
    two[1].name = "b.npy";
    build(two, 2);
    expect_failure(PALI_EFORMAT, "an entry of its directory"); /* the copy has another name */
    two[0].local = 0;
    two[0].packed = two[0].raw = (uint32_t)two[0].n + 8;
    build(two, 2);
    expect_failure(PALI_EFORMAT, "overlaps the next");
}

static void npz_refuses_sizes_that_lie(void **state) {
    (void)state;
    unsigned char bytes[256], out[4];
    entry e = {.name = "a.npy", .bytes = bytes};
    e.n = npy(bytes, four, 4);
    e.raw = (uint32_t)e.n + 1;
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "member a.npy cannot have");
    e.raw = 0;
    e.packed = 1 << 20;
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "an entry of its directory");
    e.packed = 0;
    e.local = 7;
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "an entry of its directory");
    e.local = 0;
    e.flags = 1;
    build(&e, 1);
    expect_failure(PALI_EUNSUPPORTED, "member a is encrypted");
    e.flags = 0;
    e.method = 12;
    build(&e, 1);
    expect_failure(PALI_EUNSUPPORTED, "compressed in a way");
    e.method = 0;
    e.bad_crc = true;
    build(&e, 1);
    pali_npz *z = open_good(path);
    assert_int_equal(pali_npz_read(z, pali_npz_peek(z, 0), out, &err), PALI_EFORMAT);
    assert_non_null(strstr(err.what, "array a is damaged"));
    pali_npz_close(z);
}

/* A megabyte of zeros in a kilobyte: what the directory and the header do not promise does not
 * come out, and what deflate could never hold is refused before it is asked for. */
static void npz_holds_bombs_to_their_word(void **state) {
    (void)state;
    static unsigned char plain[1 << 20], packed[4096];
    size_t n = npy(plain, four, 4);
    memset(plain + n, 0, sizeof plain - n);
    z_stream d = {.next_in = plain, .avail_in = sizeof plain};
    assert_int_equal(deflateInit2(&d, 9, Z_DEFLATED, -15, 9, 0), Z_OK);
    d.next_out = packed;
    d.avail_out = sizeof packed;
    assert_int_equal(deflate(&d, Z_FINISH), Z_STREAM_END);
    entry e = {"a.npy", packed, d.total_out, .raw = (uint32_t)n, .method = Z_DEFLATED};
    deflateEnd(&d);
    build(&e, 1);
    pali_npz *z = open_good(path);
    unsigned char out[4];
    assert_int_equal(pali_npz_read(z, pali_npz_peek(z, 0), out, &err), PALI_EFORMAT);
    pali_npz_close(z);
    e.raw = sizeof plain;
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "array a has 1048509 bytes, but its shape needs 4");
    e.raw = 0xF0000000;
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "cannot have 4026531840 bytes");
    e.raw = 20; /* less than its own header */
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "but its shape needs 4");
}

static void npz_refuses_bad_headers(void **state) {
    (void)state;
    static const char *const senseless[] = {
        "",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        "{'descr': '<f4444444444444444444444', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}",
        "{'descr: '<f4', 'fortran_order': False, 'shape': (1,)}",
    };
    for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++)
        expect_bad_header(senseless[i], 4, PALI_EFORMAT, "the header of array a makes no sense");
    expect_bad_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, "
                      "4294967296, 4294967296)}",
                      4, PALI_EFORMAT, "impossible shape");
    expect_bad_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 4, PALI_EFORMAT,
                      "array a has 4 bytes, but its shape needs 8");
    expect_bad_header("{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}", 4, PALI_EFORMAT,
                      "array a has 4 bytes, but its shape needs 16");
    expect_bad_header("{'descr': '|O', 'fortran_order': True, 'shape': (2, 2)}", 4,
                      PALI_EUNSUPPORTED, "objects in Fortran order");
    unsigned char bytes[256];
    entry e = {.name = "a.npy", .bytes = bytes};
    e.n = npy(bytes, four, 4);
    bytes[6] = 9;
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "member a is not a NumPy array");
    bytes[6] = 2; /* longer lengths: the text is part of it */
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "member a is not a NumPy array");
    e.n = 5;
    build(&e, 1);
    expect_failure(PALI_EFORMAT, "member a is not a NumPy array");
}

static void npz_accepts_other_ways_of_writing_a_header(void **state) {
    (void)state;
    static const char *const fine[] = {
        "{\"shape\":(1,),\"descr\":\"<f4\",\"fortran_order\":False}",
        "{ 'descr' : '<f4' , 'fortran_order' : True , 'shape' : ( 1L , ) , }   \n",
        "{'descr': '=f4', 'fortran_order': False, 'shape': (1, 1)}",
    };
    unsigned char bytes[256];
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        entry e = {.name = "a.npy", .bytes = bytes};
        e.n = npy(bytes, fine[i], 4);
        build(&e, 1);
        pali_npz *z = open_good(path);
        const pali_tensor *t = pali_npz_find(z, "a");
        assert_int_equal(t->dtype, PALI_F32);
        assert_memory_equal(t->data, "\0\1\2\3", 4);
        pali_npz_close(z);
    }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(npz_reads_stored_arrays_in_place),
        T(npz_reads_deflated_arrays),
        T(npz_reads_zip64_and_passes_over_other_members),
        T(npz_reads_a_single_array),
        T(npz_opens_an_archive_without_arrays),
        T(npz_says_why_it_cannot_open),
        T(npz_refuses_every_truncation),
        T(npz_survives_every_changed_byte),
        T(npz_refuses_overlaps_and_repeated_names),
        T(npz_refuses_sizes_that_lie),
        T(npz_holds_bombs_to_their_word),
        T(npz_refuses_bad_headers),
        T(npz_accepts_other_ways_of_writing_a_header),
    };
    return cmocka_run_group_tests_name("npz", tests, NULL, NULL);
}
