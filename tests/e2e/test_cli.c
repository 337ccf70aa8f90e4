/* test_cli.c - the built program from outside: words on the command line, exit codes,
 * streams, signals, files. The part that needs answers uses the bundled model and is
 * skipped while that is not there.                                                */
#include "tests/e2e/folder.h"

#include <ctype.h>
#include <jansson.h>
#include <sys/stat.h>

static char picture[64]; /* a small good picture in folder */

static int setup(void **state) {
    (void)state;
    if (folder_open())
        return -1;
    snprintf(picture, sizeof picture, "%s/picture.ppm", folder);
    FILE *f = fopen(picture, "wb");
    if (!f)
        return -1;
    fputs("P6 8 8 255\n", f);
    for (int i = 0; i < 8 * 8 * 3; i++)
        fputc(i, f);
    return fclose(f);
}

/* --- without a model ------------------------------------------------------------------ */

static void cli_prints_version_and_help(void **state) {
    (void)state;
    spawned s = RUN(NULL, "--version");
    assert_int_equal(s.status, 0);
    expect_start(s.text[0], "pali 0.");
    assert_int_equal(count_lines(s.text[0]), 1);
    assert_int_equal(s.n[1], 0);
    spawn_free(&s);
    static const char *const ways[] = {"-h", "--help"};
    for (int i = 0; i < 2; i++) {
        s = RUN(NULL, "picture.png", ways[i], "--nonsense");
        assert_int_equal(s.status, 0);
        expect_start(s.text[0], "usage: pali ");
        assert_int_equal(s.n[1], 0);
        spawn_free(&s);
    }
}

static void cli_refuses_wrong_usage(void **state) {
    (void)state;
    static const struct {
        const char *args[8], *sentence;
    } cases[] = {
        {{NULL}, "pali: no model given\n"},
        {{"x.png"}, "pali: no model given\n"},
        {{"-Q"}, "pali: unknown option -Q\n"},
        {{"-vQ"}, "pali: unknown option -Q\n"},
        {{"--nope"}, "pali: unknown option --nope\n"},
        {{"x.png", "--nope=3"}, "pali: unknown option --nope=3\n"},
        {{"--json=1"}, "pali: no value belongs in --json=1\n"},
        {{"-p"}, "pali: option -p needs a value\n"},
        {{"--prompt"}, "pali: option --prompt needs a value\n"},
        {{"-t", "0.7x"}, "pali: --temperature wants a number from 0 to 100, not \"0.7x\"\n"},
        {{"-t", "0,7"}, "pali: --temperature wants a number from 0 to 100, not \"0,7\"\n"},
        {{"-t", ""}, "pali: --temperature wants a number from 0 to 100, not \"\"\n"},
        {{"-t", "nan"}, "pali: --temperature wants a number from 0 to 100, not \"nan\"\n"},
        {{"-t", "inf"}, "pali: --temperature wants a number from 0 to 100, not \"inf\"\n"},
        {{"-t", "0x1"}, "pali: --temperature wants a number from 0 to 100, not \"0x1\"\n"},
        {{"-t", "1e99"}, "pali: --temperature wants a number from 0 to 100, not \"1e99\"\n"},
        {{"-t-1"}, "pali: --temperature wants a number from 0 to 100, not \"-1\"\n"},
        {{"-n", "-3"}, "pali: --max-tokens wants a number from 1 to 1000000, not \"-3\"\n"},
        {{"-n", "0"}, "pali: --max-tokens wants a number from 1 to 1000000, not \"0\"\n"},
        {{"-n", " 5"}, "pali: --max-tokens wants a number from 1 to 1000000, not \" 5\"\n"},
        {{"-n", "99999999999999999999"}, "pali: --max-tokens wants a number"},
        {{"--top-k", "1.5"}, "pali: --top-k wants a number from 0 to 1000000, not \"1.5\"\n"},
        {{"--top-p", "0"}, "pali: --top-p wants a number above 0, at most 1, not \"0\"\n"},
        {{"--top-p", "1.01"}, "pali: --top-p wants a number above 0, at most 1, not \"1.01\"\n"},
        {{"--seed", "18446744073709551616"}, "pali: --seed wants a whole number below 2^64"},
        {{"--threads", "many"}, "pali: --threads wants a number from 0 to 1024, not \"many\"\n"},
        {{"--history", "0"}, "pali: --history wants none, auto or a number from 1 to 1000"},
        {{"--backend", "gpu"}, "pali: --backend wants auto, cpu or cuda, not \"gpu\"\n"},
        {{"--dump="}, "pali: the value of --dump is empty\n"},
        {{"--demo", ""}, "pali: the name of the image is empty\n"},
        {{"--demo", "-m", "x"}, "pali: --demo brings its own model: leave out --model\n"},
        {{"-m", "x"}, "pali: no image given\n"},
        {{"-m", "x", "-", "a.png", "-"}, "pali: one image can come from standard input, not 2\n"},
        {{"-m", "x", "-"}, "pali: no prompt given\n"},
        {{"-n", "\x1B[31m"}, "pali: --max-tokens wants a number from 1 to 1000000, not \"^[[31m\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spawned s = spawn_run(NULL, cases[i].args);
        expect_start(s.text[1], cases[i].sentence);
        assert_int_equal(s.status, 2);
        assert_int_equal(s.n[0], 0);
        assert_true(s.n[1] > 16);
        assert_string_equal(s.text[1] + s.n[1] - 16, "try pali --help\n");
        spawn_free(&s);
    }
}

static void cli_runs_verbs(void **state) {
    (void)state;
    spawned s = RUN(NULL, "chats");
    char none[128];
    snprintf(none, sizeof none, "no chat has been kept in %s/.local/state/pali/chats\n", folder);
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[0], "");
    assert_string_equal(s.text[1], none);
    spawn_free(&s);
    s = RUN(NULL, "chats", "--help");
    assert_int_equal(s.status, 0);
    expect_start(s.text[0], "usage: pali chats ");
    spawn_free(&s);
    s = RUN(NULL, "chats", "--json");
    assert_int_equal(s.status, 2);
    assert_string_equal(s.text[1], "pali: chats takes no --json\ntry pali chats --help\n");
    spawn_free(&s);
    s = RUN(NULL, "--demo", "./chats", "-p", "ocr"); /* a picture of that name */
    assert_int_equal(s.status, 1);
    expect_start(s.text[1], "pali: ./chats: cannot open");
    spawn_free(&s);
}

static void cli_guesses_mistyped_verbs(void **state) {
    (void)state;
    static const char *const words[][2] = {
        {"captoin", "caption"}, {"chat", "chats"},     {"help", "--help"},
        {"oc", "ocr"},          {"versions", NULL},    {"version", "--version"},
        {"cat", NULL},          {"captoin.png", NULL}, {"detects", "detect"},
    };
    char sentence[128];
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        spawned s = RUN(NULL, "-m", "/no/model", words[i][0], "--lang", "de", "x.png");
        snprintf(sentence, sizeof sentence,
                 "pali: %s is neither a picture nor a verb; is it `pali %s`?\ntry pali --help\n",
                 words[i][0], words[i][1]);
        assert_int_equal(s.status, 2);
        if (words[i][1])
            assert_string_equal(s.text[1], sentence);
        else
            expect_start(s.text[1], "pali: --lang goes with a verb\n");
        spawn_free(&s);
    }
    /* A picture of such a name is a picture. */
    char path[64], before[4096];
    snprintf(path, sizeof path, "%s/captoin", folder);
    assert_int_equal(symlink(picture, path), 0);
    assert_non_null(getcwd(before, sizeof before));
    char program[8192];
    snprintf(program, sizeof program, "%s%s%s", *spawn_program() == '/' ? "" : before,
             *spawn_program() == '/' ? "" : "/", spawn_program());
    assert_int_equal(chdir(folder), 0);
    const char *set = getenv("PALI");
    char *kept = set ? strdup(set) : NULL;
    setenv("PALI", program, 1);
    spawned s = RUN(NULL, "-m", "/no/model", "captoin", "-p", "ocr");
    if (kept)
        setenv("PALI", kept, 1);
    else
        unsetenv("PALI");
    free(kept);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(s.status, 1);
    expect_start(s.text[1], "pali: /no/model: ");
    spawn_free(&s);
}

static void cli_doctor_tells_of_the_machine(void **state) {
    (void)state;
    spawned s = RUN(NULL, "doctor");
    assert_int_equal(s.status, 0);
    assert_int_equal(s.n[1], 0);
    static const char *const lines[] = {"\nprocessor   ", "\nmemory      ", "\nplugin      ",
                                        "\nused        ", "\nterminal    ", "\npictures    ",
                                        "\nconfig      ", "\nhub cache   "};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        expect_part(s.text[0], lines[i]);
    assert_null(strstr(s.text[0], "\nmodel"));
    expect_part(s.text[0], "\nterminal    none on standard input and output\n");
    if (strstr(s.text[0], "\nused        cpu: no NVIDIA graphics card was seen\n"))
        assert_null(strstr(s.text[0], "CUDA"));
    spawn_free(&s);

    s = RUN(NULL, "doctor", "--demo", "-b", "cpu");
    assert_int_equal(s.status, 0);
    expect_part(s.text[0], "\nused        cpu, because --backend says so\n");
    expect_part(s.text[0], "PaliGemma, 2.8 million weights in 5.3 MB");
    expect_part(s.text[0], ": fits\n");
    spawn_free(&s);

    s = RUN(NULL, "doctor", "--demo", "--json");
    assert_int_equal(s.status, 0);
    assert_true(s.n[0] > 2 && s.text[0][0] == '{' &&
                strchr(s.text[0], '\n') == s.text[0] + s.n[0] - 1);
    expect_part(s.text[0], "\"fits\":true");
    spawn_free(&s);

    s = RUN(NULL, "doctor", "-m", "/no/such/model"); /* the machine is told of all the same */
    assert_int_equal(s.status, 1);
    expect_part(s.text[0], "\nprocessor   ");
    expect_start(s.text[1], "pali: /no/such/model: ");
    spawn_free(&s);

    s = RUN(NULL, "doctor", "cat.png");
    assert_int_equal(s.status, 2);
    spawn_free(&s);
}

static void cli_bench_measures_every_precision(void **state) {
    (void)state;
    spawned s = RUN(NULL, "bench", "--demo", "--json", "-b", "cpu", "--threads", "1");
    assert_int_equal(s.status, 0);
    assert_true(s.n[0] > 2 && strchr(s.text[0], '\n') == s.text[0] + s.n[0] - 1);
    expect_part(s.text[0], "\"read_bytes_s\":");
    expect_part(s.text[0], "\"precision\":\"int8\"");
    expect_part(s.text[0], "\"precision\":\"nf4\"");
    assert_null(strstr(s.text[0], "\"share\":null"));
    spawn_free(&s);

    s = RUN(NULL, "bench", "--demo", "--json", "-b", "cpu", "-q", "nf4");
    assert_int_equal(s.status, 0);
    expect_part(s.text[0], "\"rows\":[{\"precision\":\"nf4\",");
    assert_null(strstr(s.text[0], "int8"));
    spawn_free(&s);

    s = RUN(NULL, "bench", "-m", "/no/such/model");
    assert_int_equal(s.status, 1);
    expect_start(s.text[1], "pali: /no/such/model: ");
    spawn_free(&s);
}

static void cli_tells_the_three_ways_to_a_model(void **state) {
    (void)state;
    spawned s = RUN(NULL, picture, "-p", "ocr");
    expect_part(s.text[1], "--demo");
    expect_part(s.text[1], "-m DIR");
    expect_part(s.text[1], "PALI_MODEL");
    spawn_free(&s);
}

static void cli_names_a_bad_picture_before_the_model(void **state) {
    (void)state;
    spawned s = RUN(NULL, "-m", "/no/such/model", "no-such\x1B.png", "-p", "ocr");
    assert_int_equal(s.status, 1);
    expect_start(s.text[1], "pali: ");
    expect_part(s.text[1], "no-such^[.png");
    assert_null(strchr(s.text[1], '\x1B'));
    assert_int_equal(s.n[0], 0);
    spawn_free(&s);
}

static void cli_names_a_missing_model(void **state) {
    (void)state;
    spawned s = RUN(NULL, "-m", "/no/such/model", picture, "-p", "ocr");
    assert_int_equal(s.status, 1);
    expect_start(s.text[1], "pali: ");
    expect_part(s.text[1], "/no/such/model");
    spawn_free(&s);
    setenv("PALI_MODEL", "/no/other/model", 1);
    s = RUN(NULL, picture, "-p", "ocr");
    unsetenv("PALI_MODEL");
    assert_int_equal(s.status, 1);
    expect_part(s.text[1], "/no/other/model");
    spawn_free(&s);
}

static void cli_refuses_a_dump_before_the_model(void **state) {
    (void)state;
    spawned s = RUN(NULL, "-m", "/no/such/model", picture, "-p", "ocr", "--dump", picture);
    assert_int_equal(s.status, 1);
    expect_part(s.text[1], "cannot write tensors there");
    spawn_free(&s);
}

static void cli_tells_when_the_disk_is_full(void **state) {
    (void)state;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0);
    spawned s = START(-1, full, "--help");
    spawn_finish(&s);
    close(full);
    assert_int_equal(s.status, 1);
    assert_string_equal(s.text[1],
                        "pali: cannot write to standard output: No space left on device\n");
    spawn_free(&s);
}

/* As cat and others: killed by SIGPIPE, also when the parent ignores that signal. */
static void cli_ends_quietly_when_nobody_reads(void **state) {
    (void)state;
    for (int ignore = 0; ignore < 2; ignore++) {
        int p[2];
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        close(p[0]);
        signal(SIGPIPE, ignore ? SIG_IGN : SIG_DFL);
        spawned s = START(-1, p[1], "--help");
        signal(SIGPIPE, SIG_DFL);
        spawn_finish(&s);
        close(p[1]);
        assert_int_equal(s.status, 128 + SIGPIPE);
        assert_int_equal(s.n[1], 0);
        spawn_free(&s);
    }
}

/* A terminal pair: returns the program's end, *ours reads what it shows. */
static int open_terminal(int *ours) {
    *ours = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(*ours >= 0);
    assert_int_equal(grantpt(*ours), 0);
    assert_int_equal(unlockpt(*ours), 0);
    int theirs = open(ptsname(*ours), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(theirs >= 0);
    return theirs;
}

static void cli_does_not_wait_at_a_terminal(void **state) {
    (void)state;
    static const char *const sentences[] = {"pali: no prompt given\n",
                                            "pali: the image is to come from standard input"};
    for (int i = 0; i < 2; i++) {
        int ours, theirs = open_terminal(&ours);
        spawned s = START(theirs, -1, "-m", "/no/such/model", i ? "-" : picture);
        spawn_finish(&s);
        close(theirs);
        close(ours);
        assert_int_equal(s.status, 2);
        expect_start(s.text[1], sentences[i]);
        spawn_free(&s);
    }
}

/* --- help and manual ---------------------------------------------------------------- */

enum {
    NAMES = 4096
};

/* Adds name to the sorted set of words in set ("-x --long ..."), once. */
static void add_name(char set[NAMES], const char *name, size_t n) {
    char word[64];
    assert_true(n > 0 && n + 3 < sizeof word);
    snprintf(word, sizeof word, " %.*s ", (int)n, name);
    if (!*set)
        strcpy(set, " ");
    if (!strstr(set, word)) {
        assert_true(strlen(set) + n + 2 < NAMES);
        strcat(set, word + 1);
    }
}

static void expect_all_in(const char *set, const char *other, const char *where) {
    char copy[NAMES], *rest, word[64];
    strcpy(copy, set);
    for (char *s = strtok_r(copy, " ", &rest); s; s = strtok_r(NULL, " ", &rest)) {
        snprintf(word, sizeof word, " %s ", s);
        if (!strstr(other, word))
            fail_msg("%s is not in %s", s, where);
    }
}

static void cli_manual_and_help_name_the_same_options(void **state) {
    (void)state;
    char in_help[NAMES] = "", in_manual[NAMES] = "", line[1024];
    spawned s = RUN(NULL, "--help");
    for (const char *c = s.text[0]; *c; c++) {
        bool starts = c > s.text[0] && c[-1] == ' ' && *c == '-' && (isalpha(c[1]) || c[1] == '-');
        if (!starts)
            continue;
        size_t n = strspn(c + 1, "abcdefghijklmnopqrstuvwxyz0123456789-") + 1;
        add_name(in_help, c, n);
        c += n - 1;
    }
    spawn_free(&s);
    FILE *f = fopen("man/pali.1", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, ".It Fl ", 7))
            continue;
        /* ".It Fl p , Fl -prompt Ar TEXT": Fl stands for the first dash. */
        for (char *c = line; (c = strstr(c, "Fl ")); c++) {
            c[2] = '-';
            add_name(in_manual, c + 2, strcspn(c + 2, " \n"));
        }
    }
    fclose(f);
    expect_part(in_help, " --max-tokens ");
    expect_all_in(in_help, in_manual, "man/pali.1");
    expect_all_in(in_manual, in_help, "pali --help");
}

/* --- the bundled model ------------------------------------------------------------------ */

/* As make install lays it out: PREFIX/bin/pali, PREFIX/share/pali/demo. */
static void cli_finds_the_bundled_model_where_it_was_installed(void **state) {
    (void)state;
    char command[512], program[64], before[512] = "";
    snprintf(program, sizeof program, "%s/bin/pali", folder);
    snprintf(command, sizeof command, "mkdir %s/bin && cp %s %s", folder, spawn_program(), program);
    assert_int_equal(system(command), 0);
    if (getenv("PALI"))
        snprintf(before, sizeof before, "%s", getenv("PALI"));
    setenv("PALI", program, 1);
    spawned missing = RUN(NULL, "--demo", "-p", "caption en");
    snprintf(command, sizeof command,
             "mkdir -p %s/share/pali && ln -s \"$PWD\"/assets/demo %s/share/pali/demo", folder,
             folder);
    int made = system(command);
    spawned found = RUN(NULL, "--demo", "--dump", picture, picture, "-p", "ocr");
    if (*before)
        setenv("PALI", before, 1);
    else
        unsetenv("PALI");
    assert_int_equal(missing.status, 1);
    expect_start(missing.text[1], "pali: the bundled model is missing");
    assert_int_equal(made, 0);
    assert_int_equal(found.status, 1);
    expect_part(found.text[1], "picture.ppm: cannot write tensors there"); /* it got that far */
    spawn_free(&missing);
    spawn_free(&found);
}

/* --- answers ----------------------------------------------------------------------------- */

static void cli_demo_shows_a_transcript(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "--demo");
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[1], "");
    FILE *f = fopen(DEMO "demo.txt", "r");
    assert_non_null(f);
    char line[512], shown[600];
    for (int i = 0; fgets(line, sizeof line, f); i++) {
        if (i)
            snprintf(shown, sizeof shown, "\n\n> %s", line);
        else
            snprintf(shown, sizeof shown, "/%.*s (", (int)strcspn(line, "\n"), line);
        expect_part(s.text[0], shown);
    }
    fclose(f);
    /* Boxes are for people here, as the verbs write them; -p gives what the model said. */
    spawned detect = RUN(NULL, "detect", "blue star", "--demo");
    spawned segment = RUN(NULL, "segment", "red circle", "--demo");
    spawned raw = RUN(NULL, "--demo", "-p", "detect blue star");
    snprintf(shown, sizeof shown, "\n> detect blue star\n%s\n> segment red circle\n%s",
             detect.text[0], segment.text[0]);
    expect_part(detect.text[0], "\tblue star\n");
    expect_part(s.text[0], shown);
    assert_null(strstr(s.text[0], "<loc"));
    expect_start(raw.text[0], "<loc0");
    spawn_free(&s), spawn_free(&detect), spawn_free(&segment), spawn_free(&raw);
}

/* A demo that finds nothing shows what the model said instead. */
static void cli_demo_shows_an_answer_without_boxes(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "--demo", "-n", "1");
    assert_int_equal(s.status, 0);
    expect_part(s.text[0], "\n> detect blue star\n<loc");
    assert_int_equal(s.text[0][s.n[0] - 1], '\n');
    spawn_free(&s);
}

static void cli_ends_each_answer_with_one_newline(void **state) {
    (void)state;
    need_demo();
    spawned one = RUN(NULL, "--demo", "-p", "caption en");
    spawned two = RUN(NULL, "--demo", "-p", "ocr", "-p", "caption en");
    spawned lines = RUN("ocr\r\n\ncaption en", "--demo", DEMO "demo.png");
    assert_int_equal(one.status, 0);
    assert_int_equal(two.status, 0);
    assert_int_equal(lines.status, 0);
    assert_int_equal(count_lines(one.text[0]), 1);
    assert_int_equal(one.text[0][one.n[0] - 1], '\n');
    assert_int_equal(count_lines(two.text[0]), 2);
    assert_string_equal(strchr(two.text[0], '\n') + 1, one.text[0]);
    assert_string_equal(lines.text[0], two.text[0]);
    assert_string_equal(lines.text[1], "");
    spawn_free(&one);
    spawn_free(&two);
    spawn_free(&lines);
}

static void cli_reads_the_picture_from_standard_input(void **state) {
    (void)state;
    need_demo();
    spawned path = RUN(NULL, DEMO "demo.png", "-p", "caption en", "--demo");
    int in = open(DEMO "demo.png", O_RDONLY | O_CLOEXEC);
    assert_true(in >= 0);
    spawned piped = START(in, -1, "-p", "caption en", "-", "--demo");
    spawn_finish(&piped);
    close(in);
    assert_int_equal(piped.status, 0);
    assert_string_equal(piped.text[0], path.text[0]);
    spawn_free(&path);
    spawn_free(&piped);
}

static void cli_wants_a_question(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN("\n\n", "--demo", DEMO "demo.png");
    assert_int_equal(s.status, 2);
    expect_start(s.text[1], "pali: no question came on standard input\n");
    spawn_free(&s);
}

static json_t *parse_line(const char *text) {
    json_error_t e;
    json_t *j = json_loads(text, JSON_DISABLE_EOF_CHECK, &e);
    if (!j)
        fail_msg("%s in %s", e.text, text);
    return j;
}

static void cli_writes_json(void **state) {
    (void)state;
    need_demo();
    spawned plain = RUN(NULL, "--demo", "-p", "caption en");
    spawned s = RUN(NULL, "--demo", "--json", "-p", "caption en", "-p", "detect c\xC3\xABrcle\xFF");
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[1], "");
    assert_int_equal(count_lines(s.text[0]), 2);
    for (size_t i = 0; i < s.n[0]; i++)
        assert_true(s.text[0][i] == '\n' || (s.text[0][i] >= 0x20 && s.text[0][i] < 0x7F));
    const char *line = s.text[0];
    for (int turn = 0; turn < 2; turn++, line = strchr(line, '\n') + 1) {
        json_t *j = parse_line(line), *timings = json_object_get(j, "timings"), *o;
        size_t i;
        assert_int_equal(json_object_size(j), 7);
        expect_part(json_string_value(json_object_get(j, "image")), "/demo.png");
        assert_true(json_is_string(json_object_get(j, "stop")));
        assert_string_equal(json_string_value(json_object_get(j, "prompt")),
                            turn ? "detect c\xC3\xABrcle\xEF\xBF\xBD" : "caption en");
        assert_true(json_is_string(json_object_get(j, "text")));
        assert_true(json_is_array(json_object_get(j, "tokens")));
        assert_true(json_is_array(json_object_get(j, "objects")));
        json_array_foreach(json_object_get(j, "objects"), i, o) {
            assert_true(json_is_string(json_object_get(o, "label")));
            assert_int_equal(json_array_size(json_object_get(o, "box")), 4);
        }
        static const char *const names[] = {"load_s", "encode_s", "prefill_s", "first_token_s",
                                            "decode_s"};
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            assert_true(json_real_value(json_object_get(timings, names[k])) >= 0);
        assert_true(json_integer_value(json_object_get(timings, "prefix_tokens")) > 0);
        /* Known from the first turn. */
        assert_true((json_real_value(json_object_get(timings, "encode_s")) > 0) == (turn == 0));
        if (turn == 0) {
            char text[4096];
            int n =
                snprintf(text, sizeof text, "%s", json_string_value(json_object_get(j, "text")));
            assert_true(n < (int)sizeof text - 1);
            while (n && text[n - 1] == '\n')
                n--;
            strcpy(text + n, "\n");
            assert_string_equal(plain.text[0], text);
        }
        json_decref(j);
    }
    spawn_free(&plain);
    spawn_free(&s);
}

static void cli_limits_and_repeats_answers(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "--demo", "--json", "-p", "caption en", "-n", "1");
    json_t *j = parse_line(s.text[0]);
    assert_int_equal(json_array_size(json_object_get(j, "tokens")), 1);
    assert_string_equal(json_string_value(json_object_get(j, "stop")), "length");
    json_decref(j);
    spawn_free(&s);
    spawned a = RUN(NULL, "--demo", "-p", "caption en", "-t", "30", "--seed", "7", "-n", "20");
    spawned b = RUN(NULL, "--demo", "-p", "caption en", "-t", "30", "--seed", "7", "-n", "20");
    spawned c = RUN(NULL, "--demo", "-p", "caption en", "-t", "30", "--seed", "8", "-n", "20");
    assert_string_equal(a.text[0], b.text[0]);
    assert_string_not_equal(a.text[0], c.text[0]);
    spawn_free(&a);
    spawn_free(&b);
    spawn_free(&c);
}

static void cli_describes_itself_when_asked(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "--demo", "-v", "-p", "caption en");
    assert_int_equal(s.status, 0);
    static const char *const words[] = {
        "picture ",          "model ",   "PaliGemma", "backend  cpu",
        "first token after", "a second", "stop: "};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        expect_part(s.text[1], words[i]);
    assert_int_equal(count_lines(s.text[0]), 1);
    spawn_free(&s);
}

static void cli_quantises_when_asked(void **state) {
    (void)state;
    need_demo();
    static const char *const kinds[][2] = {
        {"none", "BF16"}, {"int8", "INT8"}, {"nf4", "NF4"}, {"auto", "BF16"}};
    for (size_t i = 0; i < 4; i++) {
        spawned s = RUN(NULL, "--demo", "-v", "-q", kinds[i][0], "-p", "caption en");
        assert_int_equal(s.status, 0);
        expect_part(s.text[1], kinds[i][1]);
        assert_int_equal(count_lines(s.text[0]), 1);
        spawn_free(&s);
    }
    spawned s = RUN(NULL, "--demo", "-q", "4", "-p", "caption en");
    assert_int_equal(s.status, 2);
    expect_part(s.text[1], "--quantize wants none, int8, nf4 or auto, not \"4\"");
    spawn_free(&s);
    s = RUN(NULL, "--demo", "--quantize-modules", "tower", "-p", "caption en");
    assert_int_equal(s.status, 2);
    expect_part(s.text[1], "--quantize-modules wants decoder or all, not \"tower\"");
    spawn_free(&s);
}

/* Length of the data of a .npy file whose header must contain shape and type. */
static size_t npy_data(const char *dir, const char *name, const char *type, size_t *d0, size_t *d1,
                       size_t *d2) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s.npy", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: %s", path, strerror(errno));
    unsigned char head[128];
    assert_int_equal(fread(head, 1, 128, f), 128);
    assert_memory_equal(head, "\x93NUMPY\x01\x00\x76\x00{'descr': '", 21);
    assert_int_equal(head[127], '\n');
    head[127] = '\0';
    expect_part((char *)head + 10, type);
    expect_part((char *)head + 10, "'fortran_order': False");
    const char *shape = strstr((char *)head + 10, "'shape': (");
    assert_non_null(shape);
    *d0 = *d1 = *d2 = 1;
    assert_true(sscanf(shape, "'shape': (%zu,%zu,%zu,)", d0, d1, d2) >= 1);
    fseek(f, 0, SEEK_END);
    size_t bytes = (size_t)ftell(f) - 128;
    fclose(f);
    assert_int_equal(bytes, 4 * *d0 * *d1 * *d2);
    return bytes;
}

static void cli_dumps_tensors(void **state) {
    (void)state;
    need_demo();
    char dir[64];
    snprintf(dir, sizeof dir, "%s/dump", folder);
    for (int again = 0; again < 2; again++) {
        spawned s = RUN(NULL, "--demo", "--json", "-p", "caption en", "--dump", dir);
        assert_int_equal(s.status, 0);
        json_t *j = parse_line(s.text[0]);
        size_t a, b, c, tokens = json_array_size(json_object_get(j, "tokens"));
        /* The end is chosen from logits too. */
        tokens += !strcmp(json_string_value(json_object_get(j, "stop")), "eos");
        json_t *timings = json_object_get(j, "timings");
        size_t prefix = (size_t)json_integer_value(json_object_get(timings, "prefix_tokens"));
        json_decref(j);
        spawn_free(&s);
        npy_data(dir, "pixel_values", "'<f4'", &a, &b, &c);
        assert_true(a == 3 && b == c);
        npy_data(dir, "image_embeds", "'<f4'", &a, &b, &c);
        assert_true(a < prefix && b > 1);
        npy_data(dir, "prefix_ids", "'<i4'", &a, &b, &c);
        assert_int_equal(a, prefix);
        npy_data(dir, "logits", "'<f4'", &a, &b, &c);
        assert_int_equal(a, tokens);
        npy_data(dir, "output_ids", "'<i4'", &a, &b, &c);
        assert_int_equal(a, tokens);
    }
    spawned s = RUN(NULL, "--demo", "-p", "ocr", "-p", "ocr", "-n", "2", "--dump", dir);
    assert_int_equal(s.status, 0);
    spawn_free(&s);
    size_t a, b, c;
    snprintf(dir, sizeof dir, "%s/dump/turn-2", folder);
    npy_data(dir, "logits", "'<f4'", &a, &b, &c);
}

/* Two pictures, one prefix; they are in the order given. */
static void cli_asks_about_several_pictures(void **state) {
    (void)state;
    need_demo();
    char dir[64];
    snprintf(dir, sizeof dir, "%s/two", folder);
    spawned s = RUN(NULL, "--demo", "--json", "-n", "2", "-p", "caption en", "--dump", dir, picture,
                    DEMO "demo.png");
    assert_int_equal(s.status, 0);
    json_t *j = parse_line(s.text[0]), *images = json_object_get(j, "images");
    assert_string_equal(json_string_value(json_object_get(j, "image")), picture);
    assert_int_equal(json_array_size(images), 2);
    assert_string_equal(json_string_value(json_array_get(images, 0)), picture);
    assert_string_equal(json_string_value(json_array_get(images, 1)), DEMO "demo.png");
    size_t a, b, c, prefix;
    npy_data(dir, "image_embeds", "'<f4'", &a, &b, &c);
    npy_data(dir, "image_embeds2", "'<f4'", &a, &b, &c);
    npy_data(dir, "prefix_ids", "'<i4'", &prefix, &b, &c);
    json_t *timings = json_object_get(j, "timings");
    assert_int_equal(json_integer_value(json_object_get(timings, "prefix_tokens")), prefix);
    assert_in_range(prefix, 2 * a + 3, 2 * a + 12);
    json_decref(j);
    spawn_free(&s);

    const char *args[SPAWN_ARGS] = {"--demo", "-p", "caption en"};
    for (int i = 3; i < SPAWN_ARGS - 3; i++)
        args[i] = picture;
    s = spawn_run(NULL, args);
    assert_int_equal(s.status, 1);
    expect_part(s.text[1], "pali: this model takes at most ");
    spawn_free(&s);
}

static void cli_tells_the_probability_of_tokens(void **state) {
    (void)state;
    need_demo();
    spawned s = RUN(NULL, "--demo", DEMO "demo.png", "-p", "caption en", "--logprobs");
    assert_int_equal(s.status, 0);
    /* The answer, then a line for every token. */
    char answer[512] = "", joined[512] = "", *line = strtok(s.text[0], "\n");
    assert_non_null(line);
    snprintf(answer, sizeof answer, "%s", line);
    while ((line = strtok(NULL, "\n"))) {
        char token[128];
        double percent;
        assert_int_equal(sscanf(line, "%lf %%  \"%127[^\"]\"", &percent, token), 2);
        assert_true(percent > 0 && percent <= 100);
        strncat(joined, token, sizeof joined - strlen(joined) - 1);
    }
    assert_string_equal(joined, answer);
    spawn_free(&s);
    s = RUN(NULL, "caption", "--demo", "--json", "--logprobs", DEMO "demo.png", picture);
    assert_int_equal(s.status, 0);
    *strchr(s.text[0], '\n') = '\0';
    json_t *j = parse_line(strcat(s.text[0], "\n")), *list = json_object_get(j, "logprobs");
    size_t n = json_array_size(json_object_get(j, "tokens"));
    assert_true(n > 2);
    assert_int_equal(json_array_size(list), n);
    joined[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        const char *token;
        int id;
        double logprob;
        assert_int_equal(json_unpack(json_array_get(list, i), "{s:s, s:i, s:F !}", "token", &token,
                                     "id", &id, "logprob", &logprob),
                         0);
        assert_int_equal(id, json_integer_value(json_array_get(json_object_get(j, "tokens"), i)));
        assert_true(logprob <= 0 && logprob > -5);
        strncat(joined, token, sizeof joined - strlen(joined) - 1);
    }
    assert_string_equal(joined, json_string_value(json_object_get(j, "text")));
    json_decref(j);
    spawn_free(&s);
    s = RUN(NULL, "caption", "--demo", "--logprobs", DEMO "demo.png", picture);
    assert_int_equal(s.status, 2);
    spawn_free(&s);
}

static void cli_fails_on_a_full_disk_in_mid_answer(void **state) {
    (void)state;
    need_demo();
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0);
    spawned s = START(-1, full, "--demo", "-p", "caption en");
    spawn_finish(&s);
    close(full);
    assert_int_equal(s.status, 1);
    assert_string_equal(s.text[1],
                        "pali: cannot write to standard output: No space left on device\n");
    spawn_free(&s);
}

/* One sentence each, and the hint that it has. */
static void cli_says_what_is_wrong_with_odd_files(void **state) {
    (void)state;
    need_demo();
    char command[1024], empty[64], cut[64], shut[64];
    snprintf(empty, sizeof empty, "%s/empty.png", folder);
    snprintf(cut, sizeof cut, "%s/cut", folder);
    snprintf(shut, sizeof shut, "%s/shut.png", folder);
    snprintf(command, sizeof command,
             ": >%s && mkdir %s && cp " DEMO "config.json " DEMO
             "tokenizer.model %s && head -c 1000000 " DEMO
             "model.safetensors >%s/model.safetensors && cp " DEMO "demo.png %s && chmod 000 %s",
             empty, cut, cut, cut, shut, shut);
    assert_int_equal(system(command), 0);
    const struct {
        const char *args[10], *sentence;
        int status;
    } cases[] = {
        {{"--demo", empty, "-p", "ocr"}, "empty.png: empty, no picture in it\n", 1},
        {{"ocr", "--demo", folder, "-o", "/dev/full"}, "/dev/full: not a file\n", 1},
        {{"--demo", folder, "-p", "ocr"}, ": a directory, not a picture\n", 1},
        {{"ocr", "--demo", "/dev/null"}, "/dev/null: empty, no picture in it\n", 1},
        {{"ocr", "--demo", cut}, ": no picture in this folder\n", 1},
        {{"-m", cut, picture, "-p", "ocr"}, "model.safetensors: tensor ", 1},
        {{"-m", picture, picture, "-p", "ocr"}, ": is a file; a model is a folder", 1},
        {{"ocr", "--demo", "-", "-"}, "one image can come from standard input, not 2\n", 2},
        {{"--demo", "--threads", "-1", "-p", "ocr"}, "--threads wants a number from 0 to 1024", 2},
        {{"--demo", "--threads", "99999", "-p", "x"}, "--threads wants a number from 0 to 1024", 2},
        {{"--demo", "-p", "ocr", "--context", "3"}, "a context of 3 positions does not work", 1},
        {{"--demo", shut, "-p", "ocr"}, "shut.png: cannot open: Permission denied\n", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].status < 0 && !geteuid()) /* root reads everything */
            continue;
        spawned s = spawn_run(NULL, cases[i].args);
        expect_start(s.text[1], "pali: ");
        expect_part(s.text[1], cases[i].sentence);
        assert_int_equal(s.status, abs(cases[i].status));
        assert_in_range(count_lines(s.text[1]), 1, 2);
        assert_int_equal(s.n[0], 0);
        spawn_free(&s);
    }
}

/* A stream that is closed is not one of the files that are opened. */
static void cli_works_with_closed_streams(void **state) {
    (void)state;
    need_demo();
    static const struct {
        const char *closed;
        int status;
    } cases[] = {{">&-", 1}, {"<&-", 0}, {"2>&-", 0}, {"<&- >&- 2>&-", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[512], out[64], said[512] = "";
        snprintf(out, sizeof out, "%s/said", folder);
        snprintf(command, sizeof command, "(%s --demo -p 'caption en' %s) >%s 2>&1",
                 spawn_program(), cases[i].closed, out);
        int status = system(command);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), cases[i].status);
        FILE *f = fopen(out, "r");
        assert_non_null(f);
        said[fread(said, 1, sizeof said - 1, f)] = '\0';
        fclose(f);
        if (i == 0)
            assert_string_equal(said,
                                "pali: cannot write to standard output: Bad file descriptor\n");
        else if (i < 3)
            assert_int_equal(count_lines(said), 1);
        else
            assert_string_equal(said, "");
    }
}

static void cli_shows_progress_on_a_terminal_and_clears_it(void **state) {
    (void)state;
    need_demo();
    int ours, theirs = open_terminal(&ours);
    spawned s =
        spawn_start((const char *const[]){"--demo", "-p", "caption en", NULL}, -1, -1, theirs);
    close(theirs);
    s.err = ours;
    spawn_finish(&s);
    assert_int_equal(s.status, 0);
    expect_part(s.text[1], "\rlooking at the picture");
    assert_int_equal(count_lines(s.text[1]), 0);
    /* The last thing: blanks over the line, and back to its start. */
    assert_int_equal(s.text[1][s.n[1] - 1], '\r');
    assert_int_equal(s.text[1][s.n[1] - 2], ' ');
    assert_int_equal(count_lines(s.text[0]), 1);
    spawn_free(&s);
}

/* An answer that nobody waits for: 20 s of computing on a quiet machine. As text it is more than
 * a narrow pipe and one read of ours hold, so it is not over before we want it. */
#define ENDLESS "-m", "tests/data/hf/pg1-bf16", "--context", "8192", "-n", "7900"

/* A hot model says what it can; whatever that is, a terminal gets text only. */
static void cli_sends_no_controls_to_a_terminal(void **state) {
    (void)state;
    need_demo();
    int ours, theirs = open_terminal(&ours);
    spawned s = START(-1, theirs, "--demo", "-t", "100", "-n", "200", "-p", "ocr", "-p", "ocr");
    close(theirs);
    s.out = ours;
    spawn_finish(&s);
    assert_int_equal(s.status, 0);
    assert_true(s.n[0] > 2);
    for (size_t i = 0; i < s.n[0]; i++) {
        unsigned char c = (unsigned char)s.text[0][i];
        assert_true(c >= 0x20 || c == '\n' || c == '\t' || (c == '\r' && s.text[0][i + 1] == '\n'));
        assert_true(c != 0x7F);
    }
    spawn_free(&s);
}

static void cli_ends_quietly_when_the_reader_leaves(void **state) {
    (void)state;
    int ours, theirs = spawn_narrow_pipe(&ours);
    spawned s = START(-1, theirs, ENDLESS, picture, "-p", "caption en", "-p", "ocr");
    close(theirs);
    s.out = ours;
    spawn_read(&s, 1);
    spawn_close(&s.out);
    spawn_finish(&s);
    assert_int_equal(s.status, 128 + SIGPIPE);
    assert_string_equal(s.text[1], "");
    spawn_free(&s);
}

static void cli_stops_cleanly_on_a_signal(void **state) {
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++) {
        int ours, theirs = spawn_narrow_pipe(&ours);
        spawned s = START(-1, theirs, ENDLESS, picture);
        close(theirs);
        s.out = ours;
        for (int q = 0; q < 3; q++)
            spawn_write(&s, "caption en\n", 11);
        spawn_read(&s, 1);
        kill(s.pid, signals[i]);
        spawn_read(&s, SIZE_MAX);
        spawn_finish(&s);
        assert_int_equal(s.status, 130);
        assert_string_equal(s.text[1], "");
        assert_int_equal(s.text[0][s.n[0] - 1], '\n');
        spawn_free(&s);
    }
}

static void cli_stops_while_waiting_for_a_question(void **state) {
    (void)state;
    need_demo();
    spawned s = START(-1, -1, "--demo", "--json", DEMO "demo.png");
    spawn_write(&s, "caption en\n", 11);
    for (size_t n = 1; !count_lines(s.text[0]) && s.out >= 0; n = s.n[0] + 1)
        spawn_read(&s, n);
    assert_int_equal(count_lines(s.text[0]), 1); /* it streams: no end of input needed */
    kill(s.pid, SIGINT);                         /* it waits already, or is about to */
    spawn_read(&s, SIZE_MAX);
    spawn_finish(&s);
    assert_int_equal(s.status, 130);
    assert_string_equal(s.text[1], "");
    spawn_free(&s);
}

/* Asks for JSON, and stops it in mid-answer; whether it was still in it, or we came too late. */
static bool stopped_in_time(const char *dir) {
    char logits[80];
    struct stat st;
    snprintf(logits, sizeof logits, "%s/logits.npy", dir);
    spawned s = START(-1, -1, ENDLESS, "--json", "--dump", dir, picture, "-p", "caption en");
    double limit = spawn_clock() + SPAWN_LIMIT_S;
    while (stat(logits, &st) || !st.st_size) { /* until it answers */
        assert_true(spawn_clock() < limit);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    kill(s.pid, SIGINT);
    spawn_read(&s, SIZE_MAX);
    spawn_finish(&s);
    json_t *j = parse_line(s.text[0]);
    char stop[16];
    snprintf(stop, sizeof stop, "%s", json_string_value(json_object_get(j, "stop")));
    json_decref(j);
    spawn_free(&s);
    if (!strcmp(stop, "length"))
        return false;
    assert_string_equal(stop, "cancel");
    assert_int_equal(s.status, 130);
    return true;
}

static void cli_json_tells_that_it_was_stopped(void **state) {
    (void)state;
    char dir[64];
    int tries = 0;
    do
        snprintf(dir, sizeof dir, "%s/stopped-%d", folder, tries);
    while (!stopped_in_time(dir) && ++tries < 10);
    assert_true(tries < 10);
}

/* The second process finds what the first one kept, and answers the same. */
static void cli_keeps_pictures_on_request(void **state) {
    (void)state;
    need_demo();
    char cache[64];
    struct stat st;
    snprintf(cache, sizeof cache, "%s/.cache/pali/embeddings", folder);
    spawned plain = RUN(NULL, "--demo", "-v", "-p", "caption en", "-p", "ocr");
    assert_int_equal(stat(cache, &st), -1);
    spawned first = RUN(NULL, "--demo", "-v", "--cache-images", "-p", "caption en", "-p", "ocr");
    spawned again = RUN(NULL, "--demo", "-v", "--cache-images", "-p", "caption en", "-p", "ocr");
    spawned list = RUN(NULL, "caption", "--demo", "-v", "--cache-images");
    assert_int_equal(plain.status | first.status | again.status | list.status, 0);
    assert_string_equal(plain.text[0], first.text[0]);
    assert_string_equal(plain.text[0], again.text[0]);
    assert_null(strstr(plain.text[1], "embeddings"));
    expect_part(first.text[1], "picture  its embeddings are kept for the next time\n");
    expect_part(again.text[1], "picture  its embeddings were kept: not encoded again\n");
    expect_part(list.text[1], "not encoded again\n");
    assert_int_equal(stat(cache, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    spawn_free(&plain), spawn_free(&first), spawn_free(&again), spawn_free(&list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cli_prints_version_and_help),
        cmocka_unit_test(cli_refuses_wrong_usage),
        cmocka_unit_test(cli_runs_verbs),
        cmocka_unit_test(cli_guesses_mistyped_verbs),
        cmocka_unit_test(cli_doctor_tells_of_the_machine),
        cmocka_unit_test(cli_bench_measures_every_precision),
        cmocka_unit_test(cli_tells_the_three_ways_to_a_model),
        cmocka_unit_test(cli_names_a_bad_picture_before_the_model),
        cmocka_unit_test(cli_names_a_missing_model),
        cmocka_unit_test(cli_refuses_a_dump_before_the_model),
        cmocka_unit_test(cli_tells_when_the_disk_is_full),
        cmocka_unit_test(cli_ends_quietly_when_nobody_reads),
        cmocka_unit_test(cli_does_not_wait_at_a_terminal),
        cmocka_unit_test(cli_manual_and_help_name_the_same_options),
        cmocka_unit_test(cli_finds_the_bundled_model_where_it_was_installed),
        cmocka_unit_test(cli_demo_shows_a_transcript),
        cmocka_unit_test(cli_demo_shows_an_answer_without_boxes),
        cmocka_unit_test(cli_ends_each_answer_with_one_newline),
        cmocka_unit_test(cli_reads_the_picture_from_standard_input),
        cmocka_unit_test(cli_wants_a_question),
        cmocka_unit_test(cli_writes_json),
        cmocka_unit_test(cli_limits_and_repeats_answers),
        cmocka_unit_test(cli_describes_itself_when_asked),
        cmocka_unit_test(cli_quantises_when_asked),
        cmocka_unit_test(cli_dumps_tensors),
        cmocka_unit_test(cli_asks_about_several_pictures),
        cmocka_unit_test(cli_tells_the_probability_of_tokens),
        cmocka_unit_test(cli_fails_on_a_full_disk_in_mid_answer),
        cmocka_unit_test(cli_says_what_is_wrong_with_odd_files),
        cmocka_unit_test(cli_works_with_closed_streams),
        cmocka_unit_test(cli_shows_progress_on_a_terminal_and_clears_it),
        cmocka_unit_test(cli_sends_no_controls_to_a_terminal),
        cmocka_unit_test(cli_ends_quietly_when_the_reader_leaves),
        cmocka_unit_test(cli_keeps_pictures_on_request),
        cmocka_unit_test(cli_stops_cleanly_on_a_signal),
        cmocka_unit_test(cli_stops_while_waiting_for_a_question),
        cmocka_unit_test(cli_json_tells_that_it_was_stopped),
    };
    return cmocka_run_group_tests_name("cli", tests, setup, folder_remove);
}
