/* Embeddings on disk, with the tiny model: what comes back is what encoding gives, to the bit,
 * and whatever else lies in the folder costs an encoding and nothing more.                  */
#include "core/cpu/kernels.h"
#include "core/engine.h"
#include "core/file.h"
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    HEADER = 64,
    V_MOST = 2000
};

static char top[] = "/tmp/pali-keep-XXXXXX", folder[64];
static pali_error err;
static pali_engine *engine;
static int encodes;
static char remarks[2000];

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static int each_up(void **state) {
    (void)state;
    strcpy(top, "/tmp/pali-keep-XXXXXX");
    err = (pali_error){0};
    if (!mkdtemp(top))
        return -1;
    snprintf(folder, sizeof folder, "%s/a/embeddings", top);
    return 0;
}

static int each_down(void **state) {
    (void)state;
    pali_engine_close(engine);
    engine = NULL;
    return nftw(top, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void on_progress(void *user, pali_stage stage, int done, int total) {
    (void)user, (void)total;
    encodes += stage == PALI_STAGE_ENCODE && done == 0;
}

static void on_remark(void *user, const char *line) {
    (void)user;
    snprintf(remarks + strlen(remarks), sizeof remarks - strlen(remarks), "%s\n", line);
}

/* A process of pali: counts start at 0. */
static void start(const char *model, pali_engine_options o) {
    pali_engine_close(engine);
    encodes = 0;
    *remarks = '\0';
    o.model_dir = model;
    o.backend = "cpu";
    o.threads = o.threads ? o.threads : 2;
    o.remark = on_remark;
    assert_ok(pali_engine_open(&o, NULL, &engine, &err), err);
}

static const char tiny[] = TEST_DATA "hf/pg1-bf16";
#define START(...) start(tiny, (pali_engine_options){__VA_ARGS__})

static pali_image picture(int kind) {
    pali_image p = {.width = 24, .height = 20, .rgb = malloc(24 * 20 * 3)};
    assert_non_null(p.rgb);
    for (int i = 0; i < 24 * 20 * 3; i++)
        p.rgb[i] = (uint8_t)(i * (kind + 1) + i / 7 * kind);
    return p;
}

typedef struct {
    float logits[V_MOST];
} answer;

static void keep_logits(void *user, const pali_traced *t) {
    if (!strcmp(t->name, "logits"))
        memcpy(((answer *)user)->logits, t->data, t->shape[0] * sizeof(float));
}

/* The logits of one question about a picture. */
static answer ask(int kind) {
    answer a = {0};
    pali_dialog *d;
    pali_image p = picture(kind);
    pali_run run = {.progress = on_progress};
    pali_ask how = {
        .sampling = {.top_p = 1}, .max_tokens = 1, .on_tensor = keep_logits, .user = &a};
    pali_result r;
    assert_ok(pali_dialog_open(engine, &d, &err), err);
    assert_ok(pali_dialog_set_image(d, &p, true, &err), err);
    assert_ok(pali_dialog_ask(d, "ocr", &how, &run, &r, &err), err);
    pali_result_close(&r);
    pali_dialog_close(d);
    pali_image_close(&p);
    return a;
}

/* Names in the folder, and the first of them. */
static int files(char first[400]) {
    DIR *d = opendir(folder);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (*e->d_name != '.' || strlen(e->d_name) > 2) {
            if (!n++ && first)
                snprintf(first, 400, "%s/%s", folder, e->d_name);
        }
    closedir(d);
    return n;
}

static unsigned char *read_file(const char *path, size_t *n) {
    char *bytes;
    assert_ok(pali_file_read(path, 1 << 24, &bytes, n, &err), err);
    return (unsigned char *)bytes;
}

static void write_file(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* --- tests ------------------------------------------------------------------------------ */

static void keep_gives_the_same_answer(void **state) {
    (void)state;
    START(.threads = 1);
    answer plain = ask(1);
    assert_string_equal(remarks, "");
    START(.image_folder = folder);
    answer first = ask(1);
    assert_int_equal(encodes, 1);
    assert_non_null(strstr(remarks, "are kept for the next time"));
    assert_memory_equal(&plain, &first, sizeof plain);

    struct stat st;
    char path[400];
    assert_int_equal(files(path), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);

    START(.image_folder = folder, .threads = 3, .quant = PALI_QUANT_NONE);
    answer second = ask(1);
    assert_int_equal(encodes, 0);
    assert_non_null(strstr(remarks, "not encoded again"));
    assert_memory_equal(&plain, &second, sizeof plain);
    answer other = ask(2);
    assert_int_equal(encodes, 1);
    assert_memory_not_equal(&plain, &other, sizeof plain);
    assert_int_equal(files(NULL), 2);
    START(.image_folder = folder, .quant = PALI_QUANT_INT8); /* the encoder is not quantised */
    ask(1);
    assert_int_equal(encodes, 0);
}

/* A stopped encoding leaves nothing. */
static void keep_takes_whole_ones_only(void **state) {
    (void)state;
    START(.image_folder = folder);
    atomic_int cancel = 1;
    pali_run run = {.cancel = &cancel};
    pali_dialog *d;
    pali_image p = picture(1);
    assert_ok(pali_dialog_open(engine, &d, &err), err);
    assert_ok(pali_dialog_set_image(d, &p, true, &err), err);
    assert_int_equal(pali_dialog_encode(d, &run, NULL), PALI_ECANCEL);
    assert_int_equal(files(NULL), 0);
    pali_dialog_close(d);
    pali_image_close(&p);
}

/* Asks once with what lies at path: it is encoded, the answer is the same, and the file is good
 * afterwards. */
static void expect_encoded(const answer *want, const char *remark) {
    START(.image_folder = folder);
    answer a = ask(1);
    assert_int_equal(encodes, 1);
    assert_memory_equal(want, &a, sizeof a);
    if (!strstr(remarks, remark))
        fail_msg("no \"%s\" in \"%s\"", remark, remarks);
}

static void keep_encodes_again_what_is_damaged(void **state) {
    (void)state;
    char path[400], aside[420];
    START(.image_folder = folder);
    answer want = ask(1);
    assert_int_equal(files(path), 1);
    size_t n;
    unsigned char *good = read_file(path, &n), *bad = malloc(n + 1);
    assert_non_null(bad);
    assert_true(n > HEADER + 64);
    const size_t cuts[] = {0, 1, HEADER - 1, HEADER, HEADER + 3, n / 2, n - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        write_file(path, good, cuts[i]);
        expect_encoded(&want, "is damaged");
    }
    memcpy(bad, good, n);
    bad[n] = 0;
    write_file(path, bad, n + 1);
    expect_encoded(&want, "is damaged");
    const size_t flips[] = {0, 7, 8, 12, 16, 20, 31, 32, HEADER - 1, HEADER, n / 2 + 1, n - 1};
    for (size_t i = 0; i < sizeof flips / sizeof *flips; i++) {
        memcpy(bad, good, n);
        bad[flips[i]] ^= 1;
        write_file(path, bad, n);
        expect_encoded(&want, "is damaged");
    }
    /* What is no number, under a checksum that fits. */
    const float never[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        memcpy(bad, good, n);
        memcpy(bad + HEADER + 4 * 5, &never[i], 4);
        uint32_t crc = (uint32_t)crc32_z(0, bad + HEADER, n - HEADER);
        memcpy(bad + 16, &crc, 4);
        write_file(path, bad, n);
        expect_encoded(&want, "is damaged");
    }
    /* A link, even to a good one; a pipe that nobody writes to. */
    snprintf(aside, sizeof aside, "%s.aside", path);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(aside, path), 0);
    expect_encoded(&want, "cannot open it");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_encoded(&want, "is damaged");
    size_t m;
    unsigned char *again = read_file(path, &m);
    assert_int_equal(m, n);
    assert_memory_equal(good, again, n);
    /* What cannot be replaced is said, and is no failure. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_encoded(&want, "were not kept");
    assert_int_equal(files(NULL), 2); /* no unfinished one */
    free(good), free(bad), free(again);
}

static void copy_model(const char *to) {
    char command[300];
    snprintf(command, sizeof command, "cp -r %s %s", tiny, to);
    assert_int_equal(system(command), 0);
}

/* The file of another picture or model under this one's name. */
static void keep_does_not_take_foreign_files(void **state) {
    (void)state;
    char path[400], other[400];
    START(.image_folder = folder);
    answer want = ask(1);
    assert_int_equal(files(path), 1);
    assert_int_equal(unlink(path), 0);
    ask(2);
    assert_int_equal(files(other), 1);
    assert_string_not_equal(path, other);
    assert_int_equal(rename(other, path), 0);
    expect_encoded(&want, "is damaged");
}

/* Another model, the same model changed in place, another way to compute: another name. */
static void keep_is_of_one_model_and_one_way(void **state) {
    (void)state;
    char model[100], weights[140];
    START(.image_folder = folder);
    ask(1);
    snprintf(model, sizeof model, "%s/model", top);
    snprintf(weights, sizeof weights, "%s/model.safetensors", model);
    copy_model(model);
    for (int i = 0; i < 3; i++) {
        if (i == 1) { /* as rewritten by a tool that keeps the time */
            struct stat st;
            assert_int_equal(stat(weights, &st), 0);
            struct timespec t[] = {st.st_atim, {st.st_mtim.tv_sec - 1, st.st_mtim.tv_nsec}};
            assert_int_equal(utimensat(AT_FDCWD, weights, t, 0), 0);
        }
        start(model, (pali_engine_options){.image_folder = folder});
        ask(1);
        assert_int_equal(encodes, i < 2);
    }
    START(.image_folder = folder, .math = PALI_MATH_BF16);
    bool pairs = pali_kernels_pick()->tile_pairs;
    ask(1);
    assert_int_equal(encodes, pairs);
}

/* The oldest go; a use makes young; what is not ours stays. */
static void keep_removes_the_oldest(void **state) {
    (void)state;
    enum {
        N = 5
    };
    START(.quant = PALI_QUANT_NONE);
    const pali_config *c = &engine->weights->config;
    size_t n = (size_t)c->vision.P * (size_t)c->text.D, each = HEADER + n * sizeof(float);
    float *rows = calloc(n, sizeof *rows);
    int S = c->vision.S;
    pali_image squares[N];
    pali_keep *k;
    assert_non_null(rows);
    assert_ok(
        pali_keep_open(folder, 3 * each, engine->weights, engine->backend, engine->model, &k, &err),
        err);
    for (int i = 0; i < N; i++) {
        squares[i] =
            (pali_image){.width = S, .height = S, .rgb = malloc((size_t)S * (size_t)S * 3)};
        assert_non_null(squares[i].rgb);
        memset(squares[i].rgb, i, (size_t)S * (size_t)S * 3);
    }
    char foreign[100], old[100], young[100], path[400];
    snprintf(foreign, sizeof foreign, "%s/notes.txt", folder);
    snprintf(old, sizeof old, "%s/.new-old", folder);
    snprintf(young, sizeof young, "%s/.new-young", folder);
    write_file(foreign, "mine", 4);
    write_file(old, "", 0);
    write_file(young, "", 0);
    struct timespec long_ago[] = {{1000, 0}, {1000, 0}};
    assert_int_equal(utimensat(AT_FDCWD, foreign, long_ago, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, old, long_ago, 0), 0);
    for (int i = 0; i < 3; i++) {
        rows[0] = (float)i;
        assert_ok(pali_keep_put(k, &squares[i], rows, &err), err);
        /* Ages that no clock has to tell apart: the first is the oldest. */
        DIR *d = opendir(folder);
        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));) {
            struct stat st;
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            if (strstr(path, ".emb") && !stat(path, &st) && st.st_mtim.tv_sec > 100000) {
                struct timespec t[] = {{2000 + i, 0}, {2000 + i, 0}};
                assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
            }
        }
        closedir(d);
    }
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(pali_keep_find(k, &squares[0], rows, &err), 1); /* used: the youngest now */
    assert_true(rows[0] == 0);
    assert_ok(pali_keep_put(k, &squares[3], rows, &err), err);
    static const int left[N] = {1, 0, 1, 1, 0};
    for (int i = 0; i < N; i++)
        assert_int_equal(pali_keep_find(k, &squares[i], rows, &err), left[i]);
    assert_int_equal(access(foreign, F_OK), 0);
    assert_int_equal(access(young, F_OK), 0);
    rows[3] = NAN; /* of a damaged model */
    assert_ok(pali_keep_put(k, &squares[4], rows, &err), err);
    assert_int_equal(pali_keep_find(k, &squares[4], rows, &err), 0);
    pali_keep_close(k);

    /* Larger than all there may be: written, and gone. */
    rows[3] = 0;
    assert_ok(pali_keep_open(folder, 10, engine->weights, engine->backend, engine->model, &k, &err),
              err);
    assert_ok(pali_keep_put(k, &squares[4], rows, &err), err);
    assert_int_equal(files(NULL), 2);
    pali_keep_close(k);
    for (int i = 0; i < N; i++)
        pali_image_close(&squares[i]);
    free(rows);
}

/* A full disk leaves nothing half done. */
static void keep_survives_a_full_disk(void **state) {
    (void)state;
    START(.image_folder = folder);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    answer a = ask(1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_non_null(strstr(remarks, "were not kept"));
    assert_int_equal(files(NULL), 0);
    expect_encoded(&a, "are kept for the next time");
}

static void keep_wants_a_folder_of_its_own(void **state) {
    (void)state;
    char path[100];
    pali_engine_info info;
    /* Open to others: closed. */
    snprintf(path, sizeof path, "%s/open", top);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(chmod(path, 0777), 0);
    START(.image_folder = path);
    pali_engine_describe(engine, &info);
    assert_null(info.note);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    /* No folder, a link to one, somebody else's: the model runs, and a note says what is not. */
    char file[100], link[100], theirs[100];
    snprintf(file, sizeof file, "%s/file", top);
    write_file(file, "", 0);
    snprintf(link, sizeof link, "%s/link", top);
    assert_int_equal(symlink(path, link), 0);
    snprintf(theirs, sizeof theirs, "%s/theirs", top);
    assert_int_equal(mkdir(theirs, 0700), 0);
    /* Only root can give it away, and not in a namespace without that user. */
    const char *bad[] = {file, link, chown(theirs, 12345, 12345) ? file : theirs};
    for (int i = 0; i < 3; i++) {
        START(.image_folder = bad[i]);
        pali_engine_describe(engine, &info);
        assert_non_null(info.note);
        assert_non_null(strstr(info.note, "pictures are not kept"));
        assert_non_null(strstr(info.note, "is not a folder of yours"));
        ask(1);
        assert_int_equal(encodes, 1);
        assert_string_equal(remarks, "");
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, each_up, each_down)
    const struct CMUnitTest tests[] = {
        TEST(keep_gives_the_same_answer),         TEST(keep_takes_whole_ones_only),
        TEST(keep_encodes_again_what_is_damaged), TEST(keep_does_not_take_foreign_files),
        TEST(keep_is_of_one_model_and_one_way),   TEST(keep_removes_the_oldest),
        TEST(keep_survives_a_full_disk),          TEST(keep_wants_a_folder_of_its_own),
    };
    return cmocka_run_group_tests_name("keep", tests, NULL, NULL);
}
