/* test_chatfile.c - chats on disk: what is kept comes back, whatever happened to the file. */
#include "app/chatfile.h"
#include "tests/test.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>

static char home[64], state_dir[128];
static pali_error err;

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    chmod(path, 0700);
    return remove(path);
}

static int each_up(void **state) {
    (void)state;
    err = (pali_error){0};
    strcpy(home, "/tmp/pali-chatfile-XXXXXX");
    if (!mkdtemp(home))
        return -1;
    return chatfile_state_dir(NULL, home, state_dir, sizeof state_dir, &err);
}

static int each_down(void **state) {
    (void)state;
    return nftw(home, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *path_of(const char *id) {
    static char path[256];
    snprintf(path, sizeof path, "%s/chats/%s.jsonl", state_dir, id);
    return path;
}

static void put_file(const char *path, const char *s, size_t n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(s, 1, n, f), n);
    fclose(f);
}

static void append_file(const char *path, const char *s) {
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    fputs(s, f);
    fclose(f);
}

static int turn(chatfile *f, const char *question, const char *answer, const char *stop) {
    chat_turn t = {(char *)question, (char *)answer, (char *)stop, 640, 480};
    return chatfile_turn(f, &t, &err);
}

/* A chat of two turns; its id. */
static void make_chat(char id[64]) {
    chatfile *f;
    assert_ok(chatfile_open(state_dir, "models/tiny", &f, &err), err);
    snprintf(id, 64, "%s", chatfile_id(f));
    assert_int_not_equal(access(path_of(id), F_OK), 0); /* nothing before the first turn */
    assert_ok(chatfile_image(f, "/nowhere/a.png", &err), err);
    assert_ok(turn(f, "what \"is\" this\n?", "caf\u00e9 \033[31m\\ <loc0001>", "eos"), err);
    assert_ok(turn(f, "", "", "cancel"), err);
    chatfile_close(f);
}

static void chatfile_keeps_turns(void **state) {
    (void)state;
    char id[64];
    make_chat(id);
    struct stat st;
    assert_int_equal(stat(path_of(id), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    char dir[160];
    snprintf(dir, sizeof dir, "%s/chats", state_dir);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int newest = 0; newest < 2; newest++) {
        saved_chat c;
        assert_ok(chatfile_read(state_dir, newest ? NULL : id, &c, &err), err);
        assert_string_equal(c.id, id);
        assert_string_equal(c.model, "models/tiny");
        assert_string_equal(c.image, "/nowhere/a.png");
        assert_int_equal(c.nturns, 2);
        assert_string_equal(c.turns[0].question, "what \"is\" this\n?");
        assert_string_equal(c.turns[0].answer, "caf\u00e9 \033[31m\\ <loc0001>");
        assert_string_equal(c.turns[0].stop, "eos");
        assert_int_equal(c.turns[0].width, 640);
        assert_int_equal(c.turns[0].height, 480);
        assert_string_equal(c.turns[1].question, "");
        assert_string_equal(c.turns[1].stop, "cancel");
        saved_chat_close(&c);
    }
}

static void chatfile_goes_on(void **state) {
    (void)state;
    char id[64];
    make_chat(id);
    chatfile *f;
    assert_ok(chatfile_resume(state_dir, id, "models/tiny", &f, &err), err);
    assert_string_equal(chatfile_id(f), id);
    assert_ok(chatfile_drop(f, 1, &err), err);
    assert_ok(chatfile_image(f, "/nowhere/b.png", &err), err);
    struct stat before, after;
    assert_int_equal(stat(path_of(id), &before), 0);
    assert_ok(chatfile_model(f, "models/tiny", &err), err); /* the one it had */
    assert_int_equal(stat(path_of(id), &after), 0);
    assert_int_equal(after.st_size, before.st_size);
    assert_ok(chatfile_model(f, "models/other", &err), err);
    assert_ok(turn(f, "third", "3", "length"), err);
    chatfile_close(f);
    saved_chat c;
    assert_ok(chatfile_read(state_dir, id, &c, &err), err);
    assert_string_equal(c.model, "models/other");
    assert_int_equal(c.nturns, 2);
    assert_string_equal(c.turns[1].question, "third");
    assert_string_equal(c.image, "/nowhere/b.png");
    saved_chat_close(&c);
    assert_ok(chatfile_resume(state_dir, id, "models/tiny", &f, &err), err);
    assert_ok(chatfile_drop(f, 1000, &err), err); /* all of them */
    chatfile_close(f);
    assert_ok(chatfile_read(state_dir, id, &c, &err), err);
    assert_int_equal(c.nturns, 0);
    saved_chat_close(&c);
    /* Another model before the first turn is the one of the first line. */
    unlink(path_of(id)); /* ids of one second are one */
    assert_ok(chatfile_open(state_dir, "models/tiny", &f, &err), err);
    assert_ok(chatfile_model(f, "models/other", &err), err);
    assert_ok(turn(f, "q", "a", "eos"), err);
    assert_ok(chatfile_read(state_dir, chatfile_id(f), &c, &err), err);
    assert_string_equal(c.model, "models/other");
    assert_int_equal(c.nturns, 1);
    saved_chat_close(&c);
    unlink(path_of(chatfile_id(f)));
    chatfile_close(f);
    /* Nothing kept yet: nothing to drop, no file. */
    assert_ok(chatfile_open(state_dir, NULL, &f, &err), err);
    assert_ok(chatfile_drop(f, 2, &err), err);
    chatfile_close(f);
}

static void chatfile_keeps_whole_paths(void **state) {
    (void)state;
    char cwd[512], want[640];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(want, sizeof want, "%s/tests/test.h", cwd);
    chatfile *f;
    assert_ok(chatfile_open(state_dir, NULL, &f, &err), err);
    assert_ok(chatfile_image(f, "tests/../tests/test.h", &err), err);
    assert_ok(turn(f, "q", "a", "eos"), err);
    saved_chat c;
    assert_ok(chatfile_read(state_dir, NULL, &c, &err), err);
    assert_string_equal(c.image, want);
    assert_null(c.model);
    saved_chat_close(&c);
    /* One that is no UTF-8 cannot be kept, and the one before it is not meant. */
    assert_ok(chatfile_image(f, "/nowhere/\xff.png", &err), err);
    chatfile_close(f);
    assert_ok(chatfile_read(state_dir, NULL, &c, &err), err);
    assert_null(c.image);
    saved_chat_close(&c);
}

/* Bytes that are no text cost those bytes, not the turn. */
static void chatfile_keeps_turns_of_broken_text(void **state) {
    (void)state;
    chatfile *f;
    assert_ok(chatfile_open(state_dir, NULL, &f, &err), err);
    assert_ok(turn(f, "a\xff", "b\xc3", NULL), err);
    chatfile_close(f);
    saved_chat c;
    assert_ok(chatfile_read(state_dir, NULL, &c, &err), err);
    assert_int_equal(c.nturns, 1);
    assert_string_equal(c.turns[0].question, "a\ufffd");
    assert_string_equal(c.turns[0].answer, "b\ufffd");
    assert_null(c.turns[0].stop);
    saved_chat_close(&c);
}

/* --- damage ------------------------------------------------------------------------------ */

/* Cut at every byte, as a crash may: whole turns before the cut are there, and the chat can
 * be gone on with, losing nothing more. */
static void chatfile_survives_any_cut(void **state) {
    (void)state;
    char id[64], whole[1024];
    make_chat(id);
    FILE *f = fopen(path_of(id), "r");
    size_t n = fread(whole, 1, sizeof whole, f);
    fclose(f);
    size_t ends[3], nends = 0; /* of the first line and the two turns */
    for (size_t i = 0; i < n; i++)
        if (whole[i] == '\n')
            ends[nends++] = i;
    assert_int_equal(nends, 3);
    for (size_t cut = 0; cut <= n; cut++) {
        put_file(path_of(id), whole, cut);
        size_t turns = (cut >= ends[1]) + (cut >= ends[2]);
        saved_chat c;
        err = (pali_error){0};
        int rc = chatfile_read(state_dir, id, &c, &err);
        if (cut < ends[0]) {
            assert_int_equal(rc, PALI_EFORMAT);
        } else {
            assert_ok(rc, err);
            assert_int_equal(c.nturns, turns);
            saved_chat_close(&c);
        }
        chatfile *k;
        err = (pali_error){0};
        assert_ok(chatfile_resume(state_dir, id, "models/tiny", &k, &err), err);
        assert_ok(turn(k, "new", "one", "eos"), err);
        chatfile_close(k);
        assert_ok(chatfile_read(state_dir, id, &c, &err), err);
        assert_int_equal(c.nturns, turns + 1);
        assert_string_equal(c.turns[turns].question, "new");
        saved_chat_close(&c);
    }
}

static void chatfile_passes_over_corrupt_lines(void **state) {
    (void)state;
    char id[64];
    make_chat(id);
    static const char *const bad[] = {
        "garbage\n",
        "\n",
        "[1,2]\n",
        "\"q\"\n",
        "{\"q\": 1, \"a\": \"x\"}\n",
        "{\"q\": \"no answer\"}\n",
        "{\"drop\": -5}\n",
        "{\"drop\": \"1\"}\n",
        "{\"drop\": 1e3}\n",
        "{\"drop\": 99999999999999999999999}\n",
        "{\"q\": \"\xff\", \"a\": \"x\"}\n",
        "{\"q\": \"\\ud800\", \"a\": \"x\"}\n",
        "{\"q\": \"a\\u0000b\", \"a\": \"x\"}\n",
        "{\"q\": \"x\", \"a\": \"x\"\n",
    };
    /* Sizes that are none cost the size, not the turn. */
    static const char *const sizes[] = {"[0, 5]", "[-1, 5]", "[1e3, 2]", "[5000000000, 1]", "7",
                                        "[3]",    "[]",      "null",     "{\"w\": 1}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        append_file(path_of(id), bad[i]);
    char deep[20001];
    memset(deep, '[', 20000);
    deep[20000] = 0;
    append_file(path_of(id), deep);
    append_file(path_of(id), "\n{\"q\": \"last\", \"a\": \"x\", \"stop\": 5, \"more\": {}}\n");
    saved_chat c;
    assert_ok(chatfile_read(state_dir, id, &c, &err), err);
    assert_int_equal(c.nturns, 3);
    assert_string_equal(c.turns[2].question, "last");
    assert_null(c.turns[2].stop);
    saved_chat_close(&c);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char line[128];
        snprintf(line, sizeof line, "{\"q\": \"q\", \"a\": \"a\", \"size\": %s}\n", sizes[i]);
        append_file(path_of(id), line);
        assert_ok(chatfile_read(state_dir, id, &c, &err), err);
        assert_int_equal(c.nturns, 4 + i);
        assert_int_equal(c.turns[3 + i].width, 0);
        assert_int_equal(c.turns[3 + i].height, 0);
        saved_chat_close(&c);
    }
    /* Zeroes, as a power cut leaves them, in place of the first line. */
    char zeroes[100] = {0};
    put_file(path_of(id), zeroes, sizeof zeroes);
    append_file(path_of(id), "\n{\"q\": \"a\", \"a\": \"b\"}\n");
    assert_ok(chatfile_read(state_dir, id, &c, &err), err);
    assert_int_equal(c.nturns, 1);
    saved_chat_close(&c);
}

static void chatfile_refuses_what_is_no_chat(void **state) {
    (void)state;
    saved_chat c;
    char path[160];
    snprintf(path, sizeof path, "%s/x", home);
    assert_int_equal(chatfile_read_path(path, &c, &err), PALI_EIO);
    assert_non_null(strstr(err.what, path));
    put_file(path, "{\"a\": 1}\n", 9);
    err = (pali_error){0};
    assert_int_equal(chatfile_read_path(path, &c, &err), PALI_EFORMAT);
    assert_int_equal(chatfile_read_path(home, &c, NULL), PALI_EFORMAT); /* a folder */
    assert_int_equal(chatfile_read_path("/dev/zero", &c, NULL), PALI_EFORMAT);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_int_equal(chatfile_read_path(path, &c, NULL), PALI_EFORMAT);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0); /* a terabyte of nothing */
    close(fd);
    assert_int_equal(chatfile_read_path(path, &c, NULL), PALI_EFORMAT);
}

static void chatfile_reads_a_large_chat(void **state) {
    (void)state;
    chatfile *f;
    assert_ok(chatfile_open(state_dir, NULL, &f, &err), err);
    char *answer = malloc(1 << 20);
    assert_non_null(answer);
    memset(answer, 'a', (1 << 20) - 1);
    answer[(1 << 20) - 1] = 0;
    for (int i = 0; i < 8; i++)
        assert_ok(turn(f, "q", answer, "eos"), err);
    for (int i = 0; i < 5000; i++)
        assert_ok(turn(f, "q", "a", "eos"), err);
    chatfile_close(f);
    saved_chat c;
    assert_ok(chatfile_read(state_dir, NULL, &c, &err), err);
    assert_int_equal(c.nturns, 5008);
    assert_int_equal(strlen(c.turns[7].answer), (1 << 20) - 1);
    saved_chat_close(&c);
    free(answer);
}

static void chatfile_refuses_bad_ids(void **state) {
    (void)state;
    char outside[160];
    snprintf(outside, sizeof outside, "%s/secret.jsonl", state_dir);
    put_file(outside, "{\"pali\": 1}\n", 12);
    static const char *const bad[] = {
        "../secret",
        "",
        "a/b",
        "x.y",
        "..",
        "A",
        " ",
        "\xff",
        "a\n",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        saved_chat c;
        chatfile *f = (chatfile *)home;
        err = (pali_error){0};
        assert_int_equal(chatfile_read(state_dir, bad[i], &c, &err), PALI_EARG);
        assert_non_null(strstr(err.what, "there is no chat"));
        assert_int_equal(chatfile_resume(state_dir, bad[i], NULL, &f, NULL), PALI_EARG);
        assert_null(f);
    }
    saved_chat c;
    assert_int_equal(chatfile_read(state_dir, "20200101-000000-1", &c, NULL), PALI_EIO);
    chatfile *f;
    assert_int_equal(chatfile_resume(state_dir, "20200101-000000-1", NULL, &f, NULL), PALI_EIO);
    assert_null(f);
}

/* --- where ---------------------------------------------------------------------------------- */

static void chatfile_finds_its_folder(void **state) {
    (void)state;
    char dir[256], xdg[160], want[256];
    snprintf(xdg, sizeof xdg, "%s/deep/er/state", home);
    snprintf(want, sizeof want, "%s/pali", xdg);
    assert_ok(chatfile_state_dir(xdg, home, dir, sizeof dir, &err), err);
    assert_string_equal(dir, want);
    assert_ok(chatfile_state_dir("not/absolute", home, dir, sizeof dir, &err), err);
    assert_string_equal(dir, state_dir);
    assert_int_equal(chatfile_state_dir(NULL, NULL, dir, sizeof dir, &err), PALI_EIO);
    assert_non_null(strstr(err.hint, "--no-save"));
    assert_int_equal(chatfile_state_dir(NULL, "", dir, sizeof dir, NULL), PALI_EIO);
    assert_int_equal(chatfile_state_dir(NULL, home, dir, 10, NULL), PALI_EIO);
    char file[200];
    snprintf(file, sizeof file, "%s/file", home);
    put_file(file, "", 0);
    err = (pali_error){0};
    assert_int_equal(chatfile_state_dir(file, NULL, dir, sizeof dir, &err), PALI_EIO);
    assert_non_null(strstr(err.hint, "--no-save"));
}

static void chatfile_says_when_it_cannot_write(void **state) {
    (void)state;
    char dir[160];
    snprintf(dir, sizeof dir, "%s/chats", state_dir);
    assert_int_equal(rmdir(dir), 0); /* a test that runs as root cannot be kept out otherwise */
    chatfile *f;
    assert_ok(chatfile_open(state_dir, NULL, &f, &err), err);
    assert_int_equal(turn(f, "q", "a", "eos"), PALI_EIO);
    assert_non_null(strstr(err.what, dir));
    /* The folder is back: the next turn is kept. */
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_ok(turn(f, "q2", "a", "eos"), err);
    chatfile_close(f);
    saved_chat c;
    assert_ok(chatfile_read(state_dir, NULL, &c, &err), err);
    assert_int_equal(c.nturns, 1);
    saved_chat_close(&c);
}

/* A disk that fills up in the middle of a line: only that turn is lost. */
static void chatfile_survives_a_full_disk(void **state) {
    (void)state;
    chatfile *f;
    assert_ok(chatfile_open(state_dir, NULL, &f, &err), err);
    assert_ok(turn(f, "one", "1", "eos"), err);
    struct rlimit all, little;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    signal(SIGXFSZ, SIG_IGN);
    struct stat st;
    assert_int_equal(stat(path_of(chatfile_id(f)), &st), 0);
    little = all;
    little.rlim_cur = (rlim_t)st.st_size + 5;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    int rc = turn(f, "two", "2", "eos");
    int rc2 = chatfile_turn(f, &(chat_turn){"two", "2", "eos", 0, 0}, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(rc, PALI_EIO);
    assert_int_equal(rc2, PALI_EIO);
    assert_non_null(strstr(err.hint, "this turn is not kept"));
    assert_ok(turn(f, "three", "3", "eos"), err);
    chatfile_close(f);
    saved_chat c;
    assert_ok(chatfile_read(state_dir, NULL, &c, &err), err);
    assert_int_equal(c.nturns, 2);
    assert_string_equal(c.turns[1].question, "three");
    saved_chat_close(&c);
}

static void chatfile_writes_anywhere_but_over(void **state) {
    (void)state;
    char path[160];
    snprintf(path, sizeof path, "%s/saved.json", home);
    chat_turn turns[] = {{"q", "a", "eos", 0, 0}, {"q2", "a2", "", 0, 0}};
    assert_ok(chatfile_write(path, "m", "i.png", turns, 2, &err), err);
    saved_chat c;
    assert_ok(chatfile_read_path(path, &c, &err), err);
    assert_int_equal(c.nturns, 2);
    assert_string_equal(c.model, "m");
    assert_string_equal(c.image, "i.png");
    assert_null(c.id);
    saved_chat_close(&c);
    assert_int_equal(chatfile_write(path, "m", "i", turns, 2, &err), PALI_EIO);
    unlink(path);
    assert_ok(chatfile_write(path, NULL, NULL, NULL, 0, NULL), err); /* an empty chat is one */
    assert_ok(chatfile_read_path(path, &c, NULL), err);
    saved_chat_close(&c);
}

/* --- the list --------------------------------------------------------------------------------- */

static char listed[512];

static void each(void *user, const char *id, size_t nturns, const char *first) {
    assert_ptr_equal(user, listed);
    size_t n = strlen(listed);
    snprintf(listed + n, sizeof listed - n, "%s:%zu:%s ", id, nturns, first);
}

static void chatfile_lists(void **state) {
    (void)state;
    saved_chat c;
    assert_int_equal(chatfile_read(state_dir, NULL, &c, &err), PALI_EARG);
    assert_non_null(strstr(err.what, "no chat has been kept"));
    err = (pali_error){0};
    static const char turn[] = "{\"pali\": 1}\n{\"q\": \"hello\", \"a\": \"x\"}\n";
    static const char *const ids[] = {"20250101-000000-5", "20260101-000000-5"};
    for (int i = 0; i < 2; i++)
        put_file(path_of(ids[i]), turn, sizeof turn - 1);
    put_file(path_of("20270101-000000-5"), "", 0);       /* a crash at the start */
    put_file(path_of("~backup"), turn, sizeof turn - 1); /* not ours */
    put_file(path_of("zzz zzz"), turn, sizeof turn - 1);
    *listed = 0;
    assert_ok(chatfile_list(state_dir, each, listed, &err), err);
    assert_string_equal(listed, "20260101-000000-5:1:hello 20250101-000000-5:1:hello ");
    assert_ok(chatfile_read(state_dir, NULL, &c, &err), err);
    assert_string_equal(c.id, "20260101-000000-5");
    saved_chat_close(&c);
    assert_int_equal(chatfile_list("/nonexistent", each, listed, &err), PALI_EIO);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, each_up, each_down)
    const struct CMUnitTest tests[] = {
        T(chatfile_keeps_turns),
        T(chatfile_goes_on),
        T(chatfile_keeps_whole_paths),
        T(chatfile_keeps_turns_of_broken_text),
        T(chatfile_survives_any_cut),
        T(chatfile_passes_over_corrupt_lines),
        T(chatfile_refuses_what_is_no_chat),
        T(chatfile_reads_a_large_chat),
        T(chatfile_refuses_bad_ids),
        T(chatfile_finds_its_folder),
        T(chatfile_says_when_it_cannot_write),
        T(chatfile_survives_a_full_disk),
        T(chatfile_writes_anywhere_but_over),
        T(chatfile_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
