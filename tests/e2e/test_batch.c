/* test_batch.c - task verbs, and one prompt about many pictures, from outside. Uses the bundled
 * model and is skipped while that is not there.                                             */
#include "tests/e2e/folder.h"

#include <jansson.h>
#include <sys/stat.h>

/* folder/name for one statement; at most four at a time. */
static const char *at(const char *name) {
    static char paths[4][96];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof *paths, "%s/%s", folder, name);
    return path;
}

static void copy_picture(const char *from, const char *to) {
    char command[256];
    snprintf(command, sizeof command, "cp %s %s", from, to);
    assert_int_equal(system(command), 0);
}

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state) {
    (void)state;
    if (folder_open() || mkdir(at("dir"), 0700))
        return -1;
    copy_picture(DEMO "demo.png", at("dir/b.png"));
    copy_picture(DEMO "single.png", at("dir/a.png"));
    put(at("bad.png"), "no picture");
    return 0;
}

static char *read_file(const char *path) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char *text = calloc(1, 65536);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, f) < 65535);
    fclose(f);
    return text;
}

/* The answer of `pali --demo -p prompt path`, and of it as a line of results. Caller frees both. */
static void answer_of(const char *path, const char *prompt, char **text, char **line) {
    spawned s = RUN(NULL, "--demo", path, "-p", prompt);
    assert_int_equal(s.status, 0);
    assert_int_equal(count_lines(s.text[0]), 1); /* the miniature has no more to say */
    *text = strdup(s.text[0]);
    assert_true(asprintf(line, "%s\t%s", path, s.text[0]) > 0);
    spawn_free(&s);
}

static void batch_verbs_are_prompts(void **state) {
    (void)state;
    need_demo();
    static const struct {
        const char *args[6], *prompt;
    } cases[] = {
        {{"caption"}, "caption en"},
        {{"caption", "--lang", "de"}, "caption de"},
        {{"ocr"}, "ocr"},
        {{"ask", "what color is the star?"}, "what color is the star?"},
        {{"ask", "--lang", "en", "what color is the star?"}, "answer en what color is the star?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *args[10] = {"--demo"};
        size_t n = 1;
        for (size_t k = 0; cases[i].args[k]; k++)
            args[n++] = cases[i].args[k];
        spawned own = spawn_run(NULL, args); /* the demo's picture */
        args[n] = at("dir/b.png");
        spawned verb = spawn_run(NULL, args);
        char *text, *line;
        answer_of(at("dir/b.png"), cases[i].prompt, &text, &line);
        assert_int_equal(verb.status, 0);
        assert_string_equal(verb.text[0], text);
        assert_string_equal(own.text[0], text);
        assert_string_equal(verb.text[1], "");
        spawn_free(&own);
        spawn_free(&verb);
        free(text);
        free(line);
    }
}

static void batch_reads_standard_input(void **state) {
    (void)state;
    need_demo();
    char *text, *line;
    answer_of(at("dir/a.png"), "caption en", &text, &line);
    int in = open(at("dir/a.png"), O_RDONLY | O_CLOEXEC);
    assert_true(in >= 0);
    spawned s = START(in, -1, "caption", "-", "--demo", "-v");
    spawn_finish(&s);
    close(in);
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[0], text);
    spawn_free(&s);
    s = RUN(NULL, "caption", "-", "--demo", "-"); /* the second time nothing would be left of it */
    assert_int_equal(s.status, 2);
    expect_part(s.text[1], "one image can come from standard input, not 2");
    spawn_free(&s);
    free(text);
    free(line);
}

/* Folder, file, bad file, missing file, list: each gives its line or its sentence, in order. */
static void batch_gives_a_line_a_picture(void **state) {
    (void)state;
    need_demo();
    char *text[2], *line[2], want[4096], input[512];
    answer_of(at("dir/a.png"), "caption en", &text[0], &line[0]);
    answer_of(at("dir/b.png"), "caption en", &text[1], &line[1]);
    assert_string_not_equal(text[0], text[1]);
    snprintf(want, sizeof want, "%s%s%s%s%s", line[0], line[1], line[1], line[0], line[1]);
    snprintf(input, sizeof input, "%s\n%s\n%s", at("bad.png"), at("dir/a.png"), at("dir/b.png"));
    spawned s = RUN(input, "caption", at("dir"), "--demo", at("none.png"), at("dir/b.png"),
                    "--files-from", "-");
    assert_int_equal(s.status, 1);
    assert_string_equal(s.text[0], want);
    expect_part(s.text[1], "none.png: cannot open");
    expect_part(s.text[1], "bad.png");
    expect_part(s.text[1], "pali: 2 of 7 pictures could not be read\n");
    spawn_free(&s);
    for (int i = 0; i < 2; i++) {
        free(text[i]);
        free(line[i]);
    }
}

static void batch_writes_json(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "detect", "star", at("dir"), "--demo", "--json");
    assert_int_equal(s.status, 0);
    assert_int_equal(count_lines(s.text[0]), 2);
    const char *line = s.text[0];
    for (int i = 0; i < 2; i++, line = strchr(line, '\n') + 1) {
        json_t *j = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(j);
        assert_string_equal(json_string_value(json_object_get(j, "image")),
                            at(i ? "dir/b.png" : "dir/a.png"));
        assert_string_equal(json_string_value(json_object_get(j, "prompt")), "detect star");
        double load = json_real_value(json_object_get(json_object_get(j, "timings"), "load_s"));
        assert_true((load > 0) == (i == 0));
        json_decref(j);
    }
    spawn_free(&s);
}

static void batch_goes_on_with_a_file(void **state) {
    (void)state;
    need_demo();
    char dir[96], out[96], *text, *line;
    snprintf(dir, sizeof dir, "%s", at("dir"));
    snprintf(out, sizeof out, "%s", at("out.tsv"));
    spawned s = RUN(NULL, "caption", dir, "--demo", "-o", out);
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[0], "");
    assert_string_equal(s.text[1], "");
    char *first = read_file(out);
    assert_int_equal(count_lines(first), 2);
    spawn_free(&s);
    /* Not by accident. */
    s = RUN(NULL, "caption", dir, "--demo", "-o", out);
    assert_int_equal(s.status, 1);
    expect_part(s.text[1], "out.tsv: the file is not empty\n");
    spawn_free(&s);
    /* A crash in mid-line; and a line that could not be true shows that it is not asked again. */
    answer_of(at("dir/b.png"), "caption en", &text, &line);
    char cut[512], want[1024];
    snprintf(cut, sizeof cut, "%s\tas before\n%s\ta blu", at("dir/a.png"), at("dir/b.png"));
    put(out, cut);
    s = RUN(NULL, "caption", dir, "--demo", "-o", out, "--resume", "-v");
    assert_int_equal(s.status, 0);
    expect_part(s.text[1], "1 known before");
    snprintf(want, sizeof want, "%s\tas before\n%s", at("dir/a.png"), line);
    char *second = read_file(out);
    assert_string_equal(second, want);
    spawn_free(&s);
    /* Nothing left to do: the model is not even looked for. */
    s = RUN(NULL, "caption", dir, "-m", "/no/such/model", "-o", out, "--resume");
    assert_int_equal(s.status, 0);
    spawn_free(&s);
    free(first);
    free(second);
    free(text);
    free(line);
}

/* Each tile is asked as a picture of its own. */
static void batch_reads_in_tiles(void **state) {
    (void)state;
    need_demo();
    char dir[96];
    snprintf(dir, sizeof dir, "%s", at("dir"));
    for (int many = 0; many < 2; many++) {
        spawned s = RUN(NULL, "ocr", "--demo", "--tile", "2x3", "--json",
                        many ? dir : at("dir/a.png"), "-v");
        assert_int_equal(s.status, 0);
        assert_int_equal(count_lines(s.text[0]), many ? 2 : 1);
        json_t *j = json_loads(s.text[0], JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(j);
        json_t *timings = json_object_get(j, "timings");
        /* Six prefixes: 64 picture tokens and a few more each. */
        assert_in_range(json_integer_value(json_object_get(timings, "prefix_tokens")), 6 * 66,
                        6 * 70);
        json_decref(j);
        spawn_free(&s);
    }
    /* auto leaves a picture without small letters whole. */
    spawned s = RUN(NULL, "ocr", "--demo", "--json", at("dir/a.png"));
    json_t *j = json_loads(s.text[0], JSON_DISABLE_EOF_CHECK, NULL);
    assert_in_range(
        json_integer_value(json_object_get(json_object_get(j, "timings"), "prefix_tokens")), 66,
        70);
    json_decref(j);
    spawn_free(&s);
}

static void batch_refuses_wrong_usage(void **state) {
    (void)state;
    static const struct {
        const char *args[8], *sentence;
    } cases[] = {
        {{"caption", "a.png"}, "pali: no model given\n"},
        {{"-m", "x", "caption"}, "pali: no image given\n"},
        {{"-m", "x", "detect", "cat"}, "pali: no image given\n"},
        {{"-m", "x", "detect"}, "pali: detect wants \"A ; B\" IMAGE...\n"},
        {{"-m", "x", "detect", " ; ", "a.png"}, "pali: detect wants a text before the image\n"},
        {{"-m", "x", "ocr", "--lang", "en", "a.png"}, "pali: ocr takes no --lang\n"},
        {{"-m", "x", "ocr", "-p", "x", "a.png"}, "pali: ocr takes no --prompt\n"},
        {{"-m", "x", "caption", "--lang", "EN"}, "pali: --lang wants a code of two or three"},
        {{"-m", "x", "caption", "--resume", "a.png"}, "pali: --resume goes on with the file of"},
        {{"-m", "x", "caption", "--resume=3", "-o", "x", "y"},
         "pali: --resume goes on with the file"},
        {{"-m", "x", "caption", "-", "--files-from", "-"}, "pali: standard input is the list"},
        {{"-m", "x", "ocr", "--tile", "3", "a.png"}, "pali: --tile wants auto, none, or columns x"},
        {{"-m", "x", "caption", "--tile", "2x2", "a.png"}, "pali: caption takes no --tile\n"},
        {{"-m", "x", "-o", "x", "a.png"}, "pali: --output goes with a verb\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spawned s = spawn_run(NULL, cases[i].args);
        if (strncmp(s.text[1], cases[i].sentence, strlen(cases[i].sentence)))
            fail_msg("\"%s\" does not begin with \"%s\"", s.text[1], cases[i].sentence);
        assert_int_equal(s.status, 2);
        assert_int_equal(s.n[0], 0);
        spawn_free(&s);
    }
}

static void batch_fails_before_the_model_is_loaded(void **state) {
    (void)state;
    static const struct {
        const char *name, *sentence;
    } cases[] = {
        {"bad.png", "2 of 2 pictures could not be read"}, /* none is good: no model needed */
        {"dir", "/no/such/model"},
        {".", "no picture in this folder"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spawned s = RUN(NULL, "caption", "-m", "/no/such/model", at(cases[i].name),
                        i ? at("dir/a.png") : at("bad.png"));
        assert_int_equal(s.status, 1);
        expect_part(s.text[1], cases[i].sentence);
        assert_int_equal(s.n[0], 0);
        spawn_free(&s);
    }
    spawned s = RUN("", "caption", "-m", "/no/such/model", "--files-from", "-");
    assert_int_equal(s.status, 1);
    expect_part(s.text[1], "the list names no picture");
    spawn_free(&s);
}

/* Hot enough for long answers, about 3 kB each: what the pipe does not hold of eight is still
 * to come when the signal does. */
#define LONG_ANSWERS "--demo", "-t", "100", "-n", "100000", "--seed", "1"

static void batch_keeps_finished_lines_on_a_signal(void **state) {
    (void)state;
    need_demo();
    static const int signals[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++) {
        /* While it waits for the list ... */
        char input[128];
        snprintf(input, sizeof input, "%s\n", at("dir/a.png"));
        spawned s = START(-1, -1, "caption", "--demo", "--files-from", "-");
        spawn_write(&s, input, strlen(input));
        spawn_read(&s, 1);
        kill(s.pid, signals[i]);
        spawn_read(&s, SIZE_MAX);
        spawn_finish(&s);
        assert_int_equal(s.status, 130);
        assert_string_equal(s.text[1], "");
        assert_int_equal(count_lines(s.text[0]), 1);
        assert_int_equal(s.text[0][s.n[0] - 1], '\n');
        spawn_free(&s);
        /* ... and in the middle of an answer, with pictures waiting. */
        int ours, theirs = spawn_narrow_pipe(&ours);
        s = START(-1, theirs, "caption", LONG_ANSWERS, at("dir"), at("dir"), at("dir"), at("dir"));
        close(theirs);
        s.out = ours;
        spawn_read(&s, 1);
        kill(s.pid, signals[i]);
        spawn_read(&s, SIZE_MAX);
        spawn_finish(&s);
        assert_int_equal(s.status, 130);
        assert_string_equal(s.text[1], "");
        assert_int_equal(s.text[0][s.n[0] - 1], '\n');
        for (const char *l = s.text[0]; *l; l = strchr(l, '\n') + 1)
            assert_memory_equal(l, folder, strlen(folder));
        spawn_free(&s);
    }
}

/* One signal is enough, too, when a picture is a pipe that nobody writes to, or one that stalls. */
static void batch_stops_while_a_pipe_is_read(void **state) {
    (void)state;
    need_demo();
    char *path = strdup(at("pipe"));
    assert_int_equal(mkfifo(path, 0600), 0);
    for (int stalls = 0; stalls < 2; stalls++) {
        spawned s = START(-1, -1, "caption", "--demo", at("dir/a.png"), path);
        int writer = stalls ? open(path, O_WRONLY | O_CLOEXEC) : -1; /* once it is being read */
        assert_true(!stalls || (writer >= 0 && write(writer, "P6", 2) == 2));
        spawn_read(&s, 1);
        kill(s.pid, SIGINT);
        spawn_finish(&s);
        if (stalls)
            close(writer);
        assert_int_equal(s.status, 130);
        assert_string_equal(s.text[1], "");
        assert_int_equal(count_lines(s.text[0]), 1);
        spawn_free(&s);
    }
    unlink(path);
    free(path);
}

static void batch_tells_when_the_disk_is_full(void **state) {
    (void)state;
    need_demo();
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0);
    spawned s = START(-1, full, "caption", "--demo", at("dir"));
    spawn_finish(&s);
    close(full);
    assert_int_equal(s.status, 1);
    assert_string_equal(s.text[1],
                        "pali: cannot write to standard output: No space left on device\n");
    spawn_free(&s);
    s = RUN(NULL, "caption", "--demo", at("dir"), "-o", "/dev/full");
    assert_int_equal(s.status, 1);
    expect_part(s.text[1], "/dev/full: not a file");
    spawn_free(&s);
}

/* A terminal on standard error sees a bar that is gone in the end. */
static void batch_shows_progress_on_a_terminal(void **state) {
    (void)state;
    need_demo();
    int ours = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(ours >= 0 && !grantpt(ours) && !unlockpt(ours));
    int theirs = open(ptsname(ours), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(theirs >= 0);
    spawned s = spawn_start(
        (const char *const[]){"caption", "--demo", at("dir"), at("bad.png"), NULL}, -1, -1, theirs);
    close(theirs);
    s.err = ours;
    spawn_finish(&s);
    assert_int_equal(s.status, 1);
    assert_int_equal(count_lines(s.text[0]), 2);
    expect_part(s.text[1], "\r######.............. 1 of 3, ");
    expect_part(s.text[1], "\r#############....... 2 of 3, ");
    expect_part(s.text[1], " left");
    expect_part(s.text[1], "\rpali: "); /* at the start of a line that was cleared */
    spawn_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_verbs_are_prompts),
        cmocka_unit_test(batch_reads_standard_input),
        cmocka_unit_test(batch_gives_a_line_a_picture),
        cmocka_unit_test(batch_writes_json),
        cmocka_unit_test(batch_goes_on_with_a_file),
        cmocka_unit_test(batch_reads_in_tiles),
        cmocka_unit_test(batch_refuses_wrong_usage),
        cmocka_unit_test(batch_fails_before_the_model_is_loaded),
        cmocka_unit_test(batch_keeps_finished_lines_on_a_signal),
        cmocka_unit_test(batch_stops_while_a_pipe_is_read),
        cmocka_unit_test(batch_tells_when_the_disk_is_full),
        cmocka_unit_test(batch_shows_progress_on_a_terminal),
    };
    return cmocka_run_group_tests_name("batch", tests, setup, folder_remove);
}
