/* test_chat.c - the terminal chat from outside: keys in, screen out.
 *
 * The model is the tiny random one of tests/data/hf, which answers nonsense of full length:
 * right for streaming, stopping and queueing. Answers that mean something are tested with
 * the demo model elsewhere.                                                              */
#include "core/image.h"
#include "tests/core/scripted_model.h"
#include "tests/e2e/tty.h"

#include <dirent.h>
#include <ftw.h>
#include <locale.h>
#include <sys/stat.h>

#define MODEL "tests/data/hf/pg1-bf16"

static char home[64];  /* of this run: HOME, XDG_STATE_HOME */
static char image[96]; /* a 64x48 picture */

static const char *program(void) {
    const char *p = getenv("PALI");
    return p && *p ? p : "build/release/pali";
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static int set_up(void **state) {
    (void)state;
    strcpy(home, "/tmp/pali-chat-XXXXXX");
    if (!mkdtemp(home))
        return -1;
    snprintf(image, sizeof image, "%s/shapes.ppm", home);
    FILE *f = fopen(image, "wb");
    if (!f)
        return -1;
    fprintf(f, "P6\n64 48\n255\n");
    for (int y = 0; y < 48; y++)
        for (int x = 0; x < 64; x++) {
            int red = (x - 20) * (x - 20) + (y - 24) * (y - 24) < 144;
            fputc(red ? 220 : 250, f);
            fputc(red ? 20 : 250, f);
            fputc(red ? 20 : 250, f);
        }
    return fclose(f);
}

static int tear_down(void **state) {
    (void)state;
    return nftw(home, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static char star_dir[96];

/* A model that answers everything with a star in the middle four fifths. */
static void make_star(void) {
    int tokens[64];
    snprintf(star_dir, sizeof star_dir, "%s/star", home);
    mkdir(star_dir, 0700);
    size_t n = scripted_object(tokens, (int[]){100, 101, 900, 901}, scripted_star, "star");
    scripted_model(star_dir, tokens, n);
}

static void forget_chats(void) {
    char dir[128];
    snprintf(dir, sizeof dir, "%s/state", home);
    nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static bool nothing_named; /* model and picture are left to what was kept */

/* picture NULL: none. */
static void start_on(tty *t, int rows, int cols, const char *picture, const char *const *extra_args,
                     const char *const *extra_env) {
    const char *argv[24] = {program(), "--threads", "2"};
    int n = 3;
    if (!nothing_named) {
        argv[n++] = "-m";
        argv[n++] = MODEL;
        if (picture)
            argv[n++] = picture;
    }
    for (int i = 0; extra_args && extra_args[i]; i++)
        argv[n++] = extra_args[i];
    char h[96], s[128];
    snprintf(h, sizeof h, "HOME=%s", home);
    snprintf(s, sizeof s, "XDG_STATE_HOME=%s/state", home);
    /* The first of a name counts, so the test's own come first. */
    const char *env[24] = {0};
    n = 0;
    for (int i = 0; extra_env && extra_env[i]; i++)
        env[n++] = extra_env[i];
    const char *const rest[] = {
        h, s, "LC_ALL=C.UTF-8", "INPUTRC=/dev/null", "PATH=/usr/bin:/bin", "TERM=xterm-256color"};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        env[n++] = rest[i];
    static const char *const passed_on[] = {"ASAN_OPTIONS", "LSAN_OPTIONS"};
    char a[2][512];
    for (size_t i = 0; i < 2; i++)
        if (getenv(passed_on[i])) {
            snprintf(a[i], sizeof a[i], "%s=%s", passed_on[i], getenv(passed_on[i]));
            env[n++] = a[i];
        }
    tty_start(t, rows, cols, argv, env);
}

static void start_env(tty *t, int rows, int cols, const char *const *extra_args,
                      const char *const *extra_env) {
    start_on(t, rows, cols, image, extra_args, extra_env);
}

static void start(tty *t, int rows, int cols) {
    start_env(t, rows, cols, (const char *[]){"--graphics", "symbols", NULL}, NULL);
    tty_wait(t, "Ask about the picture");
    tty_wait(t, "64x48 -> "); /* the picture is there, and the model */
}

/* Waits until all that was asked for is on the screen, picture included. Frames are drawn in
 * the order of the keys: when something typed after it has come and gone, it is there. */
static void wait_drawn(tty *t) {
    tty_wait_gone(t, "opening ...");
    tty_wait_gone(t, "drawing ...");
    tty_send(t, "Qj7");
    tty_wait(t, "Qj7");
    tty_send(t, "\177\177\177");
    tty_wait_gone(t, "Qj7");
}

static void quit(tty *t) {
    tty_send(t, "\025/quit\r"); /* Ctrl-U: whatever was typed */
    int status = tty_end(t);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("ended with status %x; last words: %s", status,
                 t->nlog > 400 ? t->log + t->nlog - 400 : t->log);
    tty_expect_restored(t);
    tty_close(t);
}

/* --- the screen ------------------------------------------------------------------------ */

/* A cell inside the red disc is red in the background. */
static bool shows_red(tty *t, const void *user) {
    (void)user;
    for (int y = 0; y < 29; y++)
        for (int x = 0; x < 47; x++) {
            VTermScreenCell c;
            vterm_screen_get_cell(t->screen, (VTermPos){y, x}, &c);
            vterm_screen_convert_color_to_rgb(t->screen, &c.bg);
            if (c.bg.rgb.red > 180 && c.bg.rgb.green < 90 && c.bg.rgb.blue < 90)
                return true;
        }
    return false;
}

static void chat_shows_picture_and_status(void **state) {
    (void)state;
    tty t;
    start(&t, 30, 100);
    tty_wait(&t, "64x48 -> ");
    assert_true(tty_wait_until(&t, shows_red, NULL));
    quit(&t);
}

/* The screen as text. Caller frees. */
static char *screen_text(tty *t) {
    char *got = NULL, row[4096];
    size_t n;
    FILE *f = open_memstream(&got, &n);
    for (int y = 0; y < t->rows; y++)
        fprintf(f, "%s\n", tty_row(t, y, row, sizeof row));
    fclose(f);
    return got;
}

static bool shows_screen(tty *t, const void *want) {
    char *got = screen_text(t);
    bool same = !strcmp(want, got);
    free(got);
    return same;
}

/* The whole screen against tests/data/chat/NAME.txt; PALI_GOLDEN=1 writes it anew. */
static void expect_screen(tty *t, const char *name) {
    char path[128];
    snprintf(path, sizeof path, TEST_DATA "chat/%s.txt", name);
    FILE *f;
    if (getenv("PALI_GOLDEN")) {
        char *now = screen_text(t);
        f = fopen(path, "w");
        assert_non_null(f);
        fputs(now, f);
        fclose(f);
        free(now);
    }
    f = fopen(path, "r");
    if (!f)
        fail_msg("%s: %s", path, strerror(errno));
    char *want = calloc(1, 65536);
    assert_true(fread(want, 1, 65535, f) > 0);
    fclose(f);
    if (!tty_wait_until(t, shows_screen, want)) {
        char *got = screen_text(t);
        fprintf(stderr, "--- want\n%s--- got\n%s", want, got);
        free(got);
        fail_msg("%s: another screen", name);
    }
    free(want);
}

static void chat_lays_out_by_size(void **state) {
    (void)state;
    static const int sizes[][2] = {{24, 80}, {12, 40}, {60, 200}, {40, 60}, {30, 100}, {16, 120}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        tty t;
        start_env(&t, sizes[i][0], sizes[i][1], (const char *[]){"--graphics", "ascii", NULL},
                  (const char *[]){"TERM=vt100", NULL});
        tty_wait(&t, "64x48 -> ");
        tty_send(&t, "h\303\251llo");
        tty_wait(&t, "h\303\251llo");
        wait_drawn(&t);
        char name[32];
        snprintf(name, sizeof name, "%dx%d", sizes[i][1], sizes[i][0]);
        expect_screen(&t, name);
        quit(&t);
    }
}

static void chat_says_when_the_screen_is_too_small(void **state) {
    (void)state;
    tty t;
    start(&t, 24, 80);
    tty_resize(&t, 5, 20);
    tty_wait(&t, "pali needs 40x12");
    tty_resize(&t, 24, 80);
    tty_wait(&t, "Ask about the picture");
    quit(&t);
}

static void chat_shows_help(void **state) {
    (void)state;
    tty t;
    start(&t, 40, 100);
    tty_send(&t, "?\r");
    tty_wait(&t, "keys and commands");
    tty_wait(&t, "/segment THING");
    tty_send(&t, "\033");
    tty_wait_gone(&t, "keys and commands");
    tty_send(&t, "\033OP"); /* F1 */
    tty_wait(&t, "keys and commands");
    tty_send(&t, "x"); /* any key closes it */
    tty_wait_gone(&t, "keys and commands");
    quit(&t);
}

static const char card_end[] = "/quit       leave";

static bool shows_or_ends(tty *t, const void *text) {
    return tty_shows(t, text) || tty_shows(t, card_end);
}

/* All of the card, on the smallest screen. */
static void chat_scrolls_the_help_card(void **state) {
    (void)state;
    tty t;
    start(&t, 12, 40);
    tty_send(&t, "?\r");
    tty_wait(&t, "Up Down PgUp PgDn: 1-9 of ");
    tty_wait(&t, "Enter       ask; while an answer");
    tty_send(&t, "\033[B"); /* Down */
    tty_wait(&t, ": 2-10 of ");
    tty_send(&t, "\033[A\033[A\033[A"); /* Up, and no further */
    tty_wait(&t, ": 1-9 of ");
    static const char *const names[] = {"F2 ",
                                        "F6 ",
                                        "Ctrl-D ",
                                        "/caption [LANG]",
                                        "/crop [X0 Y0 X1 Y1|off]",
                                        "/graphics KIND",
                                        "auto kitty iterm2 sixel",
                                        "/history none|auto|N",
                                        "temperature top-k top-p",
                                        card_end};
    tty_send(&t, "\033[6~"); /* PgDn */
    tty_wait(&t, ": 9-17 of ");
    tty_send(&t, "\033[5~"); /* PgUp */
    tty_wait(&t, ": 1-9 of ");
    /* Line by line, each name is there in several frames: that before the one whose foot is seen
     * was drawn whole. */
    int seen = 0, names_n = sizeof names / sizeof *names;
    for (int at = 1; !tty_shows(&t, card_end); at++) {
        while (tty_shows(&t, names[seen]))
            seen++;
        char see[32];
        assert_true(at < 200);
        tty_send(&t, "\033[B"); /* Down */
        snprintf(see, sizeof see, ": %d-", at + 1);
        assert_true(tty_wait_until(&t, shows_or_ends, see));
    }
    while (seen < names_n)
        tty_wait(&t, names[seen++]);
    tty_send(&t, "\033[1;5H"); /* Ctrl-Home */
    tty_wait(&t, ": 1-9 of ");
    tty_send(&t, "\033[<65;5;5M"); /* the wheel */
    tty_wait(&t, ": 4-12 of ");
    tty_resize(&t, 60, 100); /* all of it fits */
    tty_wait(&t, "any key closes");
    tty_wait(&t, "Enter                       ask; while");
    tty_send(&t, "x");
    tty_wait_gone(&t, "keys and commands");
    quit(&t);
}

static void chat_says_how_to_open_a_picture(void **state) {
    (void)state;
    tty t;
    start_on(&t, 24, 80, NULL, (const char *[]){"--graphics", "symbols", NULL}, NULL);
    tty_wait(&t, "no picture yet");
    tty_wait(&t, "/image PATH opens one");
    tty_wait(&t, "/paste takes the clipboard's");
    tty_wait(&t, "First a picture:");
    char line[160];
    snprintf(line, sizeof line, "/image %s\r", image);
    tty_send(&t, line);
    tty_wait(&t, "64x48 -> ");
    tty_wait_gone(&t, "no picture yet");
    quit(&t);
    start_on(&t, 24, 80, "/nonexistent.png", (const char *[]){"--graphics", "symbols", NULL}, NULL);
    tty_wait(&t, "! /nonexistent.png");
    tty_wait(&t, "no picture yet"); /* and not for ever "opening ..." */
    quit(&t);
}

/* --- talking ------------------------------------------------------------------------------ */

static void chat_moves_function_keys(void **state) {
    (void)state;
    tty t;
    start_env(&t, 40, 100, (const char *[]){"--graphics", "symbols", "--keys", "help=F2", NULL},
              NULL);
    tty_wait(&t, "Keys and commands: F2 or ?");
    tty_send(&t, "\033OQ"); /* F2 */
    tty_wait(&t, "keys and commands");
    tty_wait(&t, "F1                          picture on or off");
    tty_send(&t, "x");
    tty_wait_gone(&t, "keys and commands");
    quit(&t);
}

static void chat_answers_and_notes_the_limit(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", "-n", "12", NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    tty_send(&t, "what is this\r");
    tty_wait(&t, "> what is this");
    tty_wait(&t, "[cut at the length limit]");
    tty_wait(&t, "tok/s");
    quit(&t);
}

/* Waits until the program has written one of two texts. */
static void wait_log_either(tty *t, const char *a, const char *b) {
    long until = tty_now() + TTY_WAIT_MS;
    while (!(t->log && (strstr(t->log, a) || strstr(t->log, b))) && tty_now() < until)
        tty_pump(t, 20);
    if (!t->log || !(strstr(t->log, a) || strstr(t->log, b)))
        fail_msg("\"%s\" was never written", a);
}

static void wait_log(tty *t, const char *text) {
    wait_log_either(t, text, text);
}

/* Keeps the chat busy for as long as a test may need, with answers of 20 s each on a quiet
 * machine. */
#define BUSY "-n", "7900", "--context", "8192"
static void ask_many(tty *t) {
    for (int i = 0; i < 80; i++)
        tty_send(t, "go\r");
    tty_wait(t, "answering:");
}

static void chat_queues_and_stops(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", BUSY, NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    ask_many(&t);
    tty_wait(&t, "waiting");
    tty_send(&t, "\033");      /* that one only */
    wait_log(&t, "[stopped]"); /* it scrolls away at once */
    tty_wait(&t, "answering:");
    tty_send(&t, "\003");
    tty_wait(&t, "64x48 -> "); /* at rest again: the others were forgotten */
    tty_send(&t, "/set max-tokens 3\rlast\r");
    tty_wait(&t, "> last");
    tty_send(&t, "/undo\r"); /* whether it still runs or not */
    tty_wait_gone(&t, "> last");
    quit(&t);
}

/* Row of the screen that shows text, -1: none. */
static int row_of(tty *t, const char *text) {
    char row[4096];
    for (int y = 0; y < t->rows; y++)
        if (strstr(tty_row(t, y, row, sizeof row), text))
            return y;
    return -1;
}

/* What goes wrong while an answer streams follows it in the conversation; questions about a
 * picture that is not there are not asked. */
static void chat_tells_errors_after_the_answer(void **state) {
    (void)state;
    tty t;
    char fifo[96], line[256];
    start_env(&t, 30, 100, (const char *[]){"--graphics", "none", "-n", "900", NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    tty_send(&t, "go\r");
    wait_log_either(&t, "answering:", "[cut at the length limit]"); /* it has begun */
    tty_send(&t, "/image /nonexistent.png\r");
    tty_wait(&t, "! /nonexistent.png");
    tty_wait(&t, "[cut at the length limit]");
    assert_true(row_of(&t, "[cut at the length") < row_of(&t, "! /nonexistent.png"));
    /* It is opened for as long as nobody writes to it. */
    snprintf(fifo, sizeof fifo, "%s/fifo.png", home);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    snprintf(line, sizeof line, "/image %s\rwhat is it\r/quux\r", fifo);
    tty_send(&t, line);
    tty_wait(&t, "there is no command /quux");
    int fd = open(fifo, O_WRONLY);
    assert_true(fd >= 0 && write(fd, "no picture", 10) == 10);
    close(fd);
    tty_wait(&t, "fifo.png");
    tty_wait(&t, "! 1 question about it was not asked");
    assert_false(tty_shows(&t, "> what is it"));
    /* But those that wait for the picture after it are. */
    snprintf(line, sizeof line, "/image %s\r/image %s\rwhat is that\r/quox\r", fifo, image);
    tty_send(&t, "/set max-tokens 3\r/clear\r");
    tty_wait_gone(&t, "was not asked");
    tty_send(&t, line);
    tty_wait(&t, "there is no command /quox");
    fd = open(fifo, O_WRONLY);
    assert_true(fd >= 0 && write(fd, "no picture", 10) == 10);
    close(fd);
    tty_wait(&t, "> what is that");
    assert_false(tty_shows(&t, "not asked"));
    unlink(fifo);
    quit(&t);
}

/* Two models in a row: the folder is that of the one that answers. */
static void chat_knows_its_model(void **state) {
    (void)state;
    tty t;
    char line[256];
    forget_chats();
    make_star();
    start(&t, 30, 100);
    snprintf(line, sizeof line, "/model %s\r/model %s\r", MODEL, star_dir);
    tty_send(&t, line);
    tty_send(&t, "/detect star\r");
    tty_wait(&t, "star at 6,5"); /* the second has been loaded */
    tty_send(&t, "/info\r");
    tty_wait(&t, "about this chat");
    snprintf(line, sizeof line, "  %s", star_dir);
    tty_wait(&t, line);
    tty_send(&t, "x");
    tty_wait_gone(&t, "about this chat");
    quit(&t);
    nothing_named = true; /* and so does who goes on with it */
    start_env(&t, 30, 100, (const char *[]){"--graphics", "none", "--resume", NULL}, NULL);
    nothing_named = false;
    tty_wait(&t, "> detect star");
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "/info\r");
    tty_wait(&t, line);
    tty_send(&t, "x");
    tty_wait_gone(&t, "about this chat");
    quit(&t);
}

static void chat_labels_what_it_measures(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 120, (const char *[]){"--graphics", "none", "-n", "3", NULL}, NULL);
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "why\r");
    tty_wait(&t, "  context 2");
    tty_wait(&t, " tok/s  first ");
    tty_resize(&t, 30, 70); /* less and less of it */
    tty_wait_gone(&t, " tok/s  first ");
    tty_wait(&t, "  context 2");
    tty_resize(&t, 30, 55);
    tty_wait_gone(&t, "context");
    tty_wait(&t, "/1280");
    quit(&t);
}

static void chat_edits_while_an_answer_streams(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", BUSY, NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    ask_many(&t);
    tty_send(&t, "abcd");
    tty_wait(&t, "> abcd");
    tty_send(&t, "\001X"); /* Ctrl-A */
    tty_wait(&t, "> Xabcd");
    tty_send(&t, "\005\027"); /* Ctrl-E, Ctrl-W */
    tty_wait_gone(&t, "Xabcd");
    tty_send(&t, "\033[5~\033[5~"); /* PgUp scrolls the running answer away */
    tty_send(&t, "\003");
    quit(&t);
}

/* Until everything that the chat has drawn by now is on the screen: a letter behind the draft
 * comes in a frame of its own, and goes in a later one. */
static void see_all(tty *t) {
    tty_send(t, "!");
    tty_wait(t, "> draft!");
    tty_send(t, "\177");
    tty_wait_gone(t, "> draft!");
}

/* The screen once it stays as it is. Caller frees. */
static char *still_screen(tty *t) {
    char *text = screen_text(t);
    for (int same = 0, i = 0; same < 3 && i < 100; i++) {
        see_all(t);
        char *now = screen_text(t);
        same = strcmp(text, now) ? 0 : same + 1;
        free(text);
        text = now;
    }
    return text;
}

/* Whether the screen after a storm is what a fresh drawing shows. */
static bool survives_a_storm(void) {
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", BUSY, NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    ask_many(&t);
    tty_send(&t, "draft");
    unsigned seed = 7;
    for (int i = 0; i < 1000; i++) {
        seed = seed * 1103515245u + 12345u;
        tty_resize(&t, 1 + (int)(seed >> 16) % 60, 2 + (int)(seed >> 8) % 180);
        tty_pump(&t, 0);
    }
    tty_resize(&t, 30, 100);
    tty_wait(&t, "answering:");
    tty_send(&t, "\003"); /* stops the answer; the draft stays */
    tty_wait(&t, "> draft");
    tty_wait(&t, "64x48 -> ");
    see_all(&t);
    tty_wait_gone(&t, "answering:");
    tty_wait(&t, "64x48 -> ");
    assert_true(tty_wait_until(&t, shows_red, NULL)); /* one of another size would not be shown */
    char *before = still_screen(&t);
    tty_send(&t, "\014"); /* Ctrl-L */
    char *fresh = still_screen(&t);
    bool same = !strcmp(before, fresh);
    if (!same)
        fprintf(stderr, "--- fresh\n%s--- before\n%s", fresh, before);
    free(before);
    free(fresh);
    quit(&t);
    return same;
}

/* The picture with its boxes is drawn by another thread, which may come late: not three times. */
static void chat_survives_a_resize_storm(void **state) {
    (void)state;
    int tries = 1;
    while (!survives_a_storm())
        assert_true(++tries <= 3);
}

static void chat_takes_a_megabyte_of_paste(void **state) {
    (void)state;
    tty t;
    start(&t, 30, 100);
    size_t n = 1 << 20;
    char *text = malloc(n + 32);
    strcpy(text, "\033[200~");
    memset(text + 6, 'p', n);
    memcpy(text + 6, "\033]0;evil\007\xff\xfe", 11);
    strcpy(text + 6 + n, "END\033[201~");
    tty_send(&t, text);
    free(text);
    tty_wait(&t, "ppEND");
    assert_null(strstr(t.log, "\033]0;evil"));
    tty_send(&t, "\003");
    tty_wait_gone(&t, "ppEND");
    tty_send(&t, "\xff\xfe\xc3(ok");
    tty_wait(&t, "> (ok");
    quit(&t);
}

static void chat_opens_a_pasted_path(void **state) {
    (void)state;
    tty t;
    start(&t, 30, 100);
    char line[256], odd[128];
    snprintf(odd, sizeof odd, "%s/it's \033[31m odd.ppm", home);
    unlink(odd);
    assert_int_equal(link(image, odd), 0);
    snprintf(line, sizeof line, "\033[200~'%s/it'\\''s \033[31m odd.ppm' \033[201~", home);
    tty_send(&t, line);
    tty_wait(&t, "64x48 -> 256 tokens  it's ^[[31m odd.ppm");
    assert_null(strstr(t.log, "\033[31m odd"));
    unlink(odd);
    quit(&t);
}

static bool knows_clipboard(tty *t, const void *user) {
    (void)user;
    return tty_shows(t, "64x48 -> 256 tokens  clipboard") ||
           tty_shows(t, "no picture on the clipboard");
}

/* wl-paste is a script of ours here. */
static void chat_pastes_a_picture(void **state) {
    (void)state;
    char path[128], env[256];
    snprintf(path, sizeof path, "%s/bin", home);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/bin/wl-paste", home);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n[ \"$*\" = '--type image/png' ] && exec cat '%s'\n", image);
    fclose(f);
    chmod(path, 0700);
    snprintf(env, sizeof env, "PATH=%s/bin:/usr/bin:/bin", home);
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", NULL},
              (const char *[]){env, NULL});
    tty_wait(&t, "Ask about the picture");
    for (int tries = 0; tries < 10; tries++) { /* the script has 5 s each time */
        tty_send(&t, "/paste\r");
        assert_true(tty_wait_until(&t, knows_clipboard, NULL));
        if (!tty_shows(&t, "no picture on"))
            break;
        tty_send(&t, "/clear\r");
        tty_wait_gone(&t, "no picture on");
    }
    tty_wait(&t, "64x48 -> 256 tokens  clipboard");
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("#!/bin/sh\nexit 1\n", f);
    fclose(f);
    tty_send(&t, "/paste\r");
    tty_wait(&t, "no picture on the clipboard");
    quit(&t);
}

static void chat_completes(void **state) {
    (void)state;
    tty t;
    start(&t, 30, 100);
    tty_send(&t, "/seg\t");
    tty_wait(&t, "> /segment");
    tty_send(&t, "\025/o\t\t");
    tty_wait(&t, "/overlay");
    char line[160], see[160];
    snprintf(line, sizeof line, "\025/image %s/shap\t", home);
    snprintf(see, sizeof see, "/image %s", image);
    tty_send(&t, line);
    tty_wait(&t, see);
    tty_send(&t, "\025desc\t");
    tty_wait(&t, "> describe en");
    quit(&t);
}

static bool is_written(tty *t, const void *path) {
    (void)t;
    return !access(path, R_OK);
}

static void chat_runs_every_command(void **state) {
    (void)state;
    tty t;
    start_env(&t, 36, 120, (const char *[]){"--graphics", "symbols", "-n", "3", NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    char line[256];
    static const struct {
        const char *type, *see;
    } steps[] = {
        {"/caption", "> caption en"},
        {"/ocr", "> ocr"},
        {"/detect cat ; dog", "> detect cat ; dog"},
        {"/segment cat", "> segment cat"},
        {"/ask why", "> why"},
        {"/detect", "name what to find"},
        {"/nonsense", "there is no command /nonsense"},
        {"/history 3", "history: 3"},
        {"/history x", "/history none, auto"},
        {"/set temperature 0.5", "temperature: 0.5"},
        {"/set temperature nan", "/set temperature, top-k"},
        {"/retry", "> why"},
        {"/overlay off", "> "},
        {"/confidence", "/confidence on or /confidence off"},
        {"/crop 0 0 32 24", "asking about a part of 32x24"},
        {"/crop 9 9 8 8", "not inside the picture"},
        {"/crop off", "64x48 -> "},
        {"/image /nonexistent.png", "/nonexistent.png"},
        {"/model /nonexistent", "/nonexistent"},
        {"/copy", "sent to the terminal"},
        {"/graphics ascii", "> "},
        {"/graphics symbols", "> "},
        {"/info", "about this chat"},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        snprintf(line, sizeof line, "%s\r", steps[i].type);
        tty_send(&t, line);
        tty_wait(&t, steps[i].see);
        tty_wait_gone(&t, "answering:");
    }
    tty_send(&t, "\033");
    tty_wait_gone(&t, "about this chat");
    assert_non_null(strstr(t.log, "\033]52;c;"));
    static const char *const ends[] = {"md", "json", "png"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(line, sizeof line, "/save %s/out.%s\r", home, ends[i]);
        tty_send(&t, line);
        snprintf(line, sizeof line, "out.%s", ends[i]);
        tty_wait(&t, line);
        char path[128];
        snprintf(path, sizeof path, "%s/out.%s", home, ends[i]);
        assert_true(tty_wait_until(&t, is_written, path));
    }
    tty_send(&t, "/clear\r");
    tty_wait_gone(&t, "> why");
    snprintf(line, sizeof line, "/load %s/out.json\r", home);
    tty_send(&t, line);
    tty_wait(&t, "> why");
    quit(&t);
}

/* Pictures side by side, up to what the context holds; another /image begins anew. */
static void chat_adds_pictures(void **state) {
    (void)state;
    tty t;
    start(&t, 30, 100);
    char line[160];
    snprintf(line, sizeof line, "/add %s\r", image);
    tty_wait(&t, "64x48 -> 256 tokens");
    for (int n = 2; n < 5; n++) {
        tty_send(&t, line);
        char see[64];
        snprintf(see, sizeof see, "%d pictures are asked about; boxes are in the first", n);
        tty_wait(&t, see);
    }
    tty_send(&t, line);
    tty_wait(&t, "there is room for 4 pictures");
    tty_send(&t, "what is in them\r");
    tty_wait(&t, "10");
    tty_wait(&t, "tok/s");
    tty_wait(&t, "64x48 +3 -> 1024 tokens");
    snprintf(line, sizeof line, "/image %s\r", image);
    tty_send(&t, line);
    tty_wait(&t, "64x48 -> 256 tokens");
    tty_send(&t, "/add\r");
    tty_wait(&t, "/add PATH");
    quit(&t);

    start_env(&t, 30, 100, (const char *[]){image, image, "-n", "3", "--graphics", "none", NULL},
              NULL);
    tty_wait(&t, "3 pictures are asked about");
    tty_send(&t, "\r"); /* read */
    tty_wait(&t, "64x48 +2 -> 768 tokens  shapes.ppm");
    tty_send(&t, "caption en\r");
    tty_wait(&t, "775/1792");
    quit(&t);
}

/* Cells of the conversation that stand out as little probable: yellow, magenta or on red in
 * colour, underlined or reversed without. */
static int shaded_cells(tty *t, bool colour) {
    int n = 0;
    for (int y = 0; y < 20; y++)
        for (int x = 0; x < 99; x++) {
            VTermScreenCell c;
            vterm_screen_get_cell(t->screen, (VTermPos){y, x}, &c);
            bool fg = VTERM_COLOR_IS_INDEXED(&c.fg) && !VTERM_COLOR_IS_DEFAULT_FG(&c.fg);
            bool bg = VTERM_COLOR_IS_INDEXED(&c.bg) && !VTERM_COLOR_IS_DEFAULT_BG(&c.bg);
            n += colour ? (fg && c.attrs.underline) || (bg && c.bg.indexed.idx == 1)
                        : c.attrs.underline || c.attrs.reverse;
        }
    return n;
}

static bool is_shaded(tty *t, const void *colour) {
    return shaded_cells(t, *(const int *)colour) > 10;
}

static bool is_plain(tty *t, const void *colour) {
    return shaded_cells(t, *(const int *)colour) == 0;
}

/* The random model is never sure of its words. */
static void chat_shades_words_by_probability(void **state) {
    (void)state;
    for (int colour = 0; colour < 2; colour++) {
        tty t;
        start_env(&t, 30, 100, (const char *[]){"--graphics", "none", "-n", "30", "-t", "2", NULL},
                  (const char *[]){colour ? "COLORTERM=" : "NO_COLOR=1", NULL});
        tty_wait(&t, "Ask about the picture");
        tty_send(&t, "tell me\r");
        tty_wait(&t, "[cut at the length limit]");
        wait_drawn(&t);
        assert_int_equal(shaded_cells(&t, colour), 0);
        tty_send(&t, "/confidence on\r");
        tty_wait(&t, "shaded: words with a probability below 90, 60, 30 %");
        assert_true(tty_wait_until(&t, is_shaded, &colour));
        tty_send(&t, "/confidence off\r");
        tty_wait(&t, "words are not shaded");
        assert_true(tty_wait_until(&t, is_plain, &colour));
        quit(&t);
    }
}

/* --- terminals ------------------------------------------------------------------------------ */

/* --- masks ------------------------------------------------------------------------------- */

static void start_star(tty *t, const char *weights) {
    make_star();
    start_env(t, 30, 100,
              (const char *[]){"-m", star_dir, "--graphics", "symbols",
                               weights ? "--mask-weights" : NULL, weights, NULL},
              NULL);
    tty_wait(t, "Ask about the picture");
    tty_wait(t, "64x48 -> ");
    tty_send(t, "/segment star\r");
    tty_wait(t, "star at 6,5"); /* the answer, in words */
}

/* Cells of the picture with the first object's colour over white (the disc is red). */
static int tinted_cells(tty *t) {
    int n = 0;
    for (int y = 0; y < 29; y++)
        for (int x = 0; x < 47; x++) {
            VTermScreenCell c;
            vterm_screen_get_cell(t->screen, (VTermPos){y, x}, &c);
            VTermColor both[2] = {c.bg, c.fg};
            for (int k = 0; k < 2; k++) {
                vterm_screen_convert_color_to_rgb(t->screen, &both[k]);
                int r = both[k].rgb.red, g = both[k].rgb.green, b = both[k].rgb.blue;
                if (r > 220 && g > 190 && g < 235 && b > 120 && b < 175) {
                    n++;
                    break;
                }
            }
        }
    return n;
}

static void wait_tint(tty *t, bool there) {
    long until = tty_now() + TTY_WAIT_MS;
    while ((tinted_cells(t) > 10) != there && tty_now() < until)
        tty_pump(t, 20);
    if ((tinted_cells(t) > 10) != there)
        fail_msg("%d cells are tinted", tinted_cells(t));
}

/* Whether the picture shown has boxes on it: as it is saved. */
static bool is_marked(tty *t) {
    char line[160], path[128];
    snprintf(path, sizeof path, "%s/marked.png", home);
    snprintf(line, sizeof line, "/save %s\r", path);
    unlink(path);
    tty_send(t, line);
    long until = tty_now() + TTY_WAIT_MS;
    pali_image saved = {0};
    while (pali_image_open(path, &saved, NULL) && tty_now() < until)
        tty_pump(t, 20);
    assert_true(saved.width > 0);
    bool marked = false; /* it is white and of one red */
    for (int i = 0; i < saved.width * saved.height; i++) {
        const uint8_t *p = saved.rgb + 3 * i;
        marked |= p[1] != p[2] || p[0] != (p[1] == 20 ? 220 : 250);
    }
    pali_image_close(&saved);
    return marked;
}

/* An answer's boxes are on no other part of the picture, be it of the same size. */
static void chat_marks_what_was_asked_about(void **state) {
    (void)state;
    tty t;
    make_star();
    start_env(&t, 30, 100, (const char *[]){"-m", star_dir, "--graphics", "symbols", NULL}, NULL);
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "/crop 0 0 32 24\r/detect star\r/crop off\r/crop 32 24 64 48\r");
    tty_wait(&t, "star at 3,2");
    assert_false(is_marked(&t));
    tty_send(&t, "/clear\r");
    tty_wait_gone(&t, "star at 3,2");
    tty_send(&t, "/crop off\r/detect star\r");
    tty_wait(&t, "star at 6,5");
    assert_true(is_marked(&t));
    quit(&t);
}

static void chat_draws_masks(void **state) {
    (void)state;
    tty t;
    char line[160], path[128];
    start_star(&t, "assets/demo/mask.npz");
    wait_tint(&t, true);
    tty_wait(&t, "\u25a0 star"); /* the legend */
    tty_send(&t, "/overlay off\r");
    wait_tint(&t, false);
    tty_send(&t, "/overlay on\r");
    wait_tint(&t, true);
    snprintf(path, sizeof path, "%s/star.png", home);
    snprintf(line, sizeof line, "/save %s\r", path);
    tty_send(&t, line);
    long until = tty_now() + TTY_WAIT_MS;
    pali_image saved = {0};
    while (pali_image_open(path, &saved, NULL) && tty_now() < until)
        tty_pump(&t, 20);
    assert_int_equal(saved.width, 64);
    /* White outside of the star in its box's corner, tinted inside beside the disc. */
    const uint8_t *out = saved.rgb + (38 * 64 + 10) * 3, *in = saved.rgb + (24 * 64 + 35) * 3;
    if (out[2] < 240 || in[2] > 180 || in[0] < 200)
        fail_msg("outside %d %d %d, inside %d %d %d", out[0], out[1], out[2], in[0], in[1], in[2]);
    pali_image_close(&saved);
    quit(&t);
}

/* Boxes stay, and one sentence says why there is no more. */
static void chat_says_what_masks_need(void **state) {
    (void)state;
    tty t;
    start_star(&t, NULL);
    tty_wait(&t, "has no vae-oid.npz");
    tty_wait(&t, "\u25a0 star");
    assert_true(tinted_cells(&t) < 3);
    quit(&t);
    start_star(&t, "tests/data/npz/one.npy");
    tty_wait(&t, "has no array");
    tty_wait(&t, "\u25a0 star");
    quit(&t);
}

static void chat_says_that_nothing_was_found(void **state) {
    (void)state;
    char dir[96];
    snprintf(dir, sizeof dir, "%s/silent", home);
    mkdir(dir, 0700);
    scripted_model(dir, NULL, 0);
    tty t;
    start_env(&t, 24, 80, (const char *[]){"-m", dir, "--graphics", "none", NULL}, NULL);
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "detect cat\r");
    tty_wait(&t, "  [nothing was found]");
    tty_send(&t, "\033OS"); /* F4: as it was generated, which is nothing */
    tty_wait_gone(&t, "[nothing was found]");
    tty_send(&t, "\033OS");
    tty_wait(&t, "[nothing was found]");
    tty_send(&t, "/undo\r");
    tty_wait_gone(&t, "[nothing was found]");
    tty_send(&t, "/segment cat\r");
    tty_wait(&t, "[nothing was found]");
    tty_send(&t, "/clear\rwhat is this\r");
    tty_wait(&t, "[no answer]");
    quit(&t);
    start_env(&t, 24, 80, (const char *[]){"-m", dir, "--graphics", "none", "--resume", NULL},
              NULL);
    tty_wait(&t, "> what is this");
    tty_wait(&t, "[no answer]");
    quit(&t);
}

static void chat_respects_no_color(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "ascii", NULL},
              (const char *[]){"NO_COLOR=1", "COLORTERM=truecolor", NULL});
    tty_wait(&t, "Ask about the picture");
    tty_wait(&t, "64x48 -> ");
    assert_null(strstr(t.log, "38;2;"));
    assert_null(strstr(t.log, "38;5;"));
    assert_null(strstr(t.log, "\033[31m"));
    assert_null(strstr(t.log, "\033[36m"));
    quit(&t);
}

static void chat_refuses_a_dumb_terminal(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 100, NULL, (const char *[]){"TERM=dumb", NULL});
    int status = tty_end(&t);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(t.log, "no chat here: this terminal (TERM=dumb)"));
    assert_non_null(strstr(t.log, "-p"));
    tty_close(&t);
}

/* Of a terminal that TERM calls one of 256 colours: its own word counts, else COLORTERM's. */
static void chat_asks_for_true_colours(void **state) {
    (void)state;
    static const struct {
        const char *answer, *env, *see;
    } cases[] = {
        {NULL, "COLORTERM=", "true colours"},                           /* libvterm's answer */
        {"\033P1$r0;48:2::1:2:3m\033\\", "COLORTERM=", "true colours"}, /* xterm */
        {"\033P1$r0;48;2;1;2;3m\033\\", "COLORTERM=", "true colours"},
        {"\033P1$r0;48:5:16m\033\\", "COLORTERM=", "256 colours"}, /* xterm with a palette */
        {"\033P1$r0m\033\\", "COLORTERM=", "256 colours"},
        {"\033P0$r\033\\", "COLORTERM=", "256 colours"}, /* "not understood" */
        {"", "COLORTERM=", "256 colours"},
        {"", "COLORTERM=truecolor", "true colours"},
        {"", "TMUX=/tmp/x,1,0", "true colours"},
    };
    int late = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tty t;
        start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", NULL},
                  (const char *[]){cases[i].env, NULL});
        t.colour = cases[i].answer;
        tty_wait(&t, "64x48 -> ");
        tty_send(&t, "/info\r");
        tty_wait(&t, " colours");
        if (*cases[i].see == 't' && tty_shows(&t, "256 colours") && late++ < 5) {
            quit(&t); /* our answer came after a second: once more */
            i--;
            continue;
        }
        tty_wait(&t, cases[i].see);
        tty_send(&t, "x");
        tty_wait_gone(&t, "about this chat");
        wait_log(&t, *cases[i].see == 't' ? ";48;2;250;250;250m" : ";48;5;");
        assert_true(*cases[i].see == 't' || !strstr(t.log, "38;2;"));
        quit(&t);
    }
    /* GNU screen would hand the question on: it is not asked. */
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", NULL},
              (const char *[]){"TERM=screen-256color", NULL});
    tty_wait(&t, "64x48 -> ");
    assert_null(strstr(t.log, "\033P"));
    quit(&t);
}

static void chat_does_not_know_every_terminal(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 100, NULL, (const char *[]){"TERM=no-such\033[31m-term", NULL});
    int status = tty_end(&t);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(t.log, "no chat here: no-such^[[31m-term is not a TERM that this "));
    const char *line = strchr(t.log, '\n'), *hint = line ? strchr(line + 1, '\n') : NULL;
    assert_true(hint && !hint[1] && strstr(line, "-p QUESTION")); /* a sentence and a hint */
    tty_close(&t);
}

static void chat_does_not_wait_for_a_silent_terminal(void **state) {
    (void)state;
    tty t;
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", NULL}, NULL);
    t.mute = true;
    tty_wait(&t, "Ask about the picture");
    quit(&t);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void chat_restores_the_terminal_after_signals(void **state) {
    (void)state;
    static const int signals[] = {SIGTERM, SIGHUP,  SIGINT, SIGSEGV,
                                  SIGBUS,  SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        tty t;
        start(&t, 24, 80);
        kill(t.pid, signals[i]);
        int status = tty_end(&t);
        /* A sanitizer takes the crash signals and ends in its own way. */
        if (WIFSIGNALED(status))
            assert_int_equal(WTERMSIG(status), signals[i]);
        else
            assert_int_not_equal(WEXITSTATUS(status), 0);
        tty_expect_restored(&t);
        tty_close(&t);
    }
}

/* In a shell with job control, as people have it. */
static void chat_suspends_and_comes_back(void **state) {
    (void)state;
    tty t;
    char command[512], h[96];
    snprintf(h, sizeof h, "HOME=%s", home);
    tty_start(&t, 24, 80, (const char *[]){"/bin/bash", "--norc", "--noprofile", "-i", NULL},
              (const char *[]){h, "LC_ALL=C.UTF-8", "TERM=xterm-256color", "PS1=shell$ ",
                               "PATH=/usr/bin:/bin", "ASAN_OPTIONS=detect_leaks=1", NULL});
    tty_wait(&t, "shell$");
    snprintf(command, sizeof command, "%s -m %s %s --graphics symbols\r", program(), MODEL, image);
    tty_send(&t, command);
    tty_wait(&t, "Ask about the picture");
    assert_true(t.alt);
    tty_send(&t, "half a line\032"); /* Ctrl-Z */
    tty_wait(&t, "Stopped");
    assert_false(t.alt);
    tty_send(&t, "echo $((6 * 7))\r");
    tty_wait(&t, "42");
    tty_send(&t, "fg\r");
    tty_wait(&t, "> half a line");
    tty_wait(&t, "Ask about the picture");
    assert_true(t.alt);
    tty_send(&t, "\025/quit\r");
    tty_wait(&t, "shell$");
    assert_false(t.alt);
    tty_send(&t, "exit\r");
    tty_end(&t);
    tty_close(&t);
}

static void chat_ends_on_ctrl_d_and_hangup(void **state) {
    (void)state;
    tty t;
    start(&t, 24, 80);
    tty_send(&t, "\004");
    int status = tty_end(&t);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tty_expect_restored(&t);
    tty_close(&t);
}

/* --- kept chats ---------------------------------------------------------------------------------- */

/* Turns in the newest chat file that are whole lines. */
static int kept_turns(void) {
    char dir[128], newest[256] = "", path[512];
    snprintf(dir, sizeof dir, "%s/state/pali/chats", home);
    DIR *d = opendir(dir);
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, newest) > 0)
            snprintf(newest, sizeof newest, "%s", e->d_name);
    closedir(d);
    if (!*newest)
        return 0;
    snprintf(path, sizeof path, "%s/%s", dir, newest);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    int n = 0;
    while (getline(&line, &cap, f) > 0)
        n += !strncmp(line, "{\"q\":", 5) && line[strlen(line) - 1] == '\n';
    free(line);
    fclose(f);
    return n;
}

/* Waits until that many turns are in the file: the screen tells of an answer's speed before. */
static void wait_kept(tty *t, int turns) {
    for (long limit = tty_now() + TTY_WAIT_MS; kept_turns() < turns; tty_pump(t, 20))
        if (tty_now() > limit)
            fail_msg("%d turns are kept, not %d", kept_turns(), turns);
    assert_int_equal(kept_turns(), turns);
}

/* Whatever the moment of the kill: an answer that was on screen as finished is in the file. */
static void chat_loses_nothing_that_was_finished(void **state) {
    (void)state;
    unsigned seed = 99;
    for (int round = 0; round < 50; round++) {
        forget_chats();
        tty t;
        start_env(&t, 24, 80, (const char *[]){"--graphics", "none", "-n", "6", NULL}, NULL);
        tty_wait(&t, "Ask about the picture");
        tty_send(&t, "a\rb\rc\rd\re\rf\r");
        seed = seed * 1103515245u + 12345u;
        long until = tty_now() + (seed >> 16) % 120;
        while (tty_now() < until)
            tty_pump(&t, 1);
        kill(t.pid, SIGKILL);
        tty_end(&t);
        int shown = 0;
        char row[4096];
        for (int y = 0; y < t.rows; y++)
            shown += strstr(tty_row(&t, y, row, sizeof row), "[cut at the length limit]") != NULL;
        if (kept_turns() < shown)
            fail_msg("round %d: %d answers on screen, %d in the file", round, shown, kept_turns());
        tty_close(&t);
    }
}

/* The only one, of one question. */
static void keep_a_chat(void) {
    tty t;
    forget_chats();
    start_env(&t, 24, 80, (const char *[]){"--graphics", "symbols", "-n", "6", NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    tty_send(&t, "remember me\r");
    tty_wait(&t, "[cut at the length limit]");
    quit(&t);
    assert_int_equal(kept_turns(), 1);
}

static void chat_resumes(void **state) {
    (void)state;
    tty t;
    keep_a_chat();
    start_env(&t, 24, 80, (const char *[]){"--graphics", "symbols", "-n", "6", "--resume", NULL},
              NULL);
    tty_wait(&t, "> remember me");
    tty_send(&t, "and me\r");
    tty_wait(&t, "> and me");
    wait_kept(&t, 2);
    quit(&t);
    start_env(&t, 24, 80, (const char *[]){"--graphics", "symbols", "--no-save", NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    tty_send(&t, "forget me\r");
    tty_wait(&t, "/1280");
    quit(&t);
    assert_int_equal(kept_turns(), 2);
}

/* What a kept chat found reads as it did, and is on the picture again. */
static void chat_resumes_with_boxes(void **state) {
    (void)state;
    forget_chats();
    make_star();
    const char *const args[] = {"-m", star_dir,         "--graphics",           "symbols", "-n",
                                "30", "--mask-weights", "assets/demo/mask.npz", NULL};
    tty t;
    start_env(&t, 30, 100, args, NULL);
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "/crop 0 0 32 24\r/segment star\r");
    tty_wait(&t, "star at 3,2\u201328,21, with outline"); /* in pixels of the part */
    tty_send(&t, "/crop off\r/detect star\r");
    tty_wait(&t, "star at 6,5\u201356,42, with outline");
    wait_tint(&t, true);
    tty_send(&t, "/set max-tokens 2\r/detect nothing\r");
    tty_wait(&t, "[cut at the length limit]");
    tty_send(&t, "/undo\r");
    tty_wait_gone(&t, "[cut at the length limit]");
    quit(&t);
    const char *again[12] = {"--resume"};
    memcpy(again + 1, args, sizeof args);
    start_on(&t, 30, 100, NULL, again, NULL);
    tty_wait(&t, "star at 3,2\u201328,21, with outline");
    tty_wait(&t, "\u25a0 star at 6,5\u201356,42, with outline");
    assert_false(tty_shows(&t, "<loc"));
    wait_tint(&t, true);
    tty_send(&t, "\033OS"); /* F4 */
    tty_wait(&t, "<loc0100><loc0101>");
    quit(&t);
}

/* Boxes of the kept picture, which is gone, are not on the next one. */
static void chat_resumes_without_its_picture(void **state) {
    (void)state;
    char path[128], line[160];
    forget_chats();
    make_star();
    const char *const args[] = {"-m", star_dir, "--graphics", "symbols", "--resume", NULL};
    tty t;
    snprintf(path, sizeof path, "%s/gone.ppm", home);
    assert_int_equal(link(image, path), 0);
    start_on(&t, 30, 100, path, (const char *[]){"-m", star_dir, "--graphics", "symbols", NULL},
             NULL);
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "/detect star\r");
    tty_wait(&t, "star at 6,5");
    wait_kept(&t, 1);
    quit(&t);
    unlink(path);
    start_on(&t, 30, 100, NULL, args, NULL);
    tty_wait(&t, "gone.ppm");
    tty_wait(&t, "no picture yet");
    snprintf(line, sizeof line, "/image %s\r", image);
    tty_send(&t, line);
    tty_wait(&t, "64x48 -> ");
    tty_wait(&t, "star at 6,5");
    assert_false(is_marked(&t));
    quit(&t);
}

/* Lines of the newest chat file that begin so, from the last one that tells of a picture on. */
static int kept_since_image(const char *begin) {
    char dir[128], newest[256] = "", path[512];
    snprintf(dir, sizeof dir, "%s/state/pali/chats", home);
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, newest) > 0)
            snprintf(newest, sizeof newest, "%s", e->d_name);
    if (d)
        closedir(d);
    snprintf(path, sizeof path, "%s/%s", dir, newest);
    FILE *f = *newest ? fopen(path, "r") : NULL;
    char *line = NULL;
    size_t cap = 0;
    int n = 0;
    while (f && getline(&line, &cap, f) > 0)
        n = !strncmp(line, "{\"q\"", 4) || !strstr(line, "\"image\"")
                ? n + !strncmp(line, begin, strlen(begin))
                : 0;
    free(line);
    if (f)
        fclose(f);
    return n;
}

static void wait_since_image(tty *t, const char *begin, int want) {
    for (long limit = tty_now() + TTY_WAIT_MS; kept_since_image(begin) < want; tty_pump(t, 20))
        if (tty_now() > limit)
            fail_msg("%d lines %s, not %d", kept_since_image(begin), begin, want);
    assert_int_equal(kept_since_image(begin), want);
}

/* What was asked about a picture does not become a turn about the next one. */
static void chat_keeps_no_turn_of_the_picture_before(void **state) {
    (void)state;
    forget_chats();
    char path[128], line[256];
    tty t;
    snprintf(path, sizeof path, "%s/next.ppm", home);
    unlink(path);
    assert_int_equal(link(image, path), 0);
    start_env(&t, 30, 100, (const char *[]){"--graphics", "symbols", BUSY, NULL}, NULL);
    tty_wait(&t, "Ask about the picture");
    tty_send(&t, "go\r");
    wait_log_either(&t, "answering:", "[cut at the length limit]");
    snprintf(line, sizeof line, "/set max-tokens 2\rwait\r/image %s\r/info\r", path);
    tty_send(&t, line);
    tty_wait(&t, "about this chat");
    snprintf(line, sizeof line, "  %s", path); /* the card's, as opposed to "opening ..." */
    tty_wait(&t, line);
    tty_send(&t, "\033"); /* closes the card */
    tty_wait_gone(&t, "about this chat");
    tty_send(&t, "\033"); /* stops the first; the second is about the old picture, too */
    tty_wait(&t, "64x48 -> 256 tokens  next.ppm");
    assert_false(tty_shows(&t, "> wait"));
    assert_false(tty_shows(&t, "> go"));
    tty_send(&t, "new one\r");
    tty_wait(&t, "> new one");
    wait_since_image(&t, "{\"q\"", 1);
    tty_send(&t, "/undo\r");
    tty_wait_gone(&t, "> new one");
    wait_since_image(&t, "{\"drop\"", 1);
    tty_send(&t, "/undo\r");
    tty_wait(&t, "nothing to take back");
    quit(&t);
    unlink(path);
}

/* Taking back a question that failed does not cost the good turn before it. */
static void chat_takes_back_what_failed(void **state) {
    (void)state;
    forget_chats();
    static const char much[] = "a b c d e f g h i j k l m n o p q";
    char line[160];
    tty t;
    start_env(&t, 30, 100,
              (const char *[]){"--graphics", "none", "--context", "300", "-n", "100", NULL}, NULL);
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "hi\r");
    tty_wait(&t, "> hi");
    wait_kept(&t, 1);
    snprintf(line, sizeof line, "%s\r", much);
    tty_send(&t, line);
    tty_wait(&t, "[failed]");
    tty_send(&t, "/undo\r");
    tty_wait_gone(&t, "[failed]");
    assert_int_equal(kept_since_image("{\"drop\""), 0);
    tty_wait(&t, "> hi");
    /* Repeated with room for it, it becomes the second turn. */
    tty_send(&t, line);
    tty_wait(&t, "[failed]");
    tty_send(&t, "/set max-tokens 2\r/retry\r");
    tty_wait_gone(&t, "[failed]");
    wait_kept(&t, 2);
    tty_wait(&t, "> hi");
    tty_wait(&t, "> a b c");
    assert_int_equal(kept_since_image("{\"drop\""), 0);
    /* One with a turn behind it. */
    tty_send(&t, "/set max-tokens 100\r");
    tty_send(&t, line);
    tty_wait(&t, "[failed]");
    tty_send(&t, "ho\r");
    tty_wait(&t, "> ho");
    wait_kept(&t, 3);
    tty_send(&t, "/undo\r");
    tty_wait_gone(&t, "> ho");
    wait_since_image(&t, "{\"drop\":", 1);
    tty_wait(&t, "[failed]");
    tty_send(&t, "/undo\r");
    tty_wait_gone(&t, "[failed]");
    assert_int_equal(kept_since_image("{\"drop\""), 1);
    tty_wait(&t, "> hi");
    tty_wait(&t, "> a b c");
    tty_send(&t, "/clear\r/undo\r");
    tty_wait(&t, "nothing to take back");
    quit(&t);
}

/* A chat knows its model and its picture. */
static void chat_resumes_with_what_it_had(void **state) {
    (void)state;
    tty t;
    keep_a_chat();
    nothing_named = true;
    start_env(&t, 24, 80, (const char *[]){"--graphics", "symbols", "-n", "6", "--resume", NULL},
              NULL);
    tty_wait(&t, "> remember me");
    tty_wait(&t, "64x48 -> ");
    tty_send(&t, "and me\r");
    tty_wait(&t, "> and me");
    wait_kept(&t, 2);
    quit(&t);

    char dir[128], path[256], id[64] = "", why[256];
    snprintf(dir, sizeof dir, "%s/state/pali/chats", home);
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            snprintf(id, sizeof id, "%.*s", (int)strcspn(e->d_name, "."), e->d_name);
    closedir(d);
    static const char gone[] = "99991231-235959-1", lost[] = "99991231-235959-2";
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s.jsonl", dir, i ? lost : gone);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fprintf(f, "{\"pali\":1,\"model\":%s,\"image\":null}\n{\"q\":\"a\",\"a\":\"b\"}\n",
                i ? "null" : "\"/no/such/model\"");
        fclose(f);
        start_env(&t, 24, 200, (const char *[]){"--resume", i ? lost : gone, NULL}, NULL);
        int status = tty_end(&t);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
        snprintf(why, sizeof why,
                 i ? "pali: chat %s does not tell its model\r\n"
                   : "pali: the model of chat %s is gone: /no/such/model: no such folder\r\n",
                 i ? lost : gone);
        assert_non_null(strstr(t.log, why));
        assert_non_null(strstr(t.log, "name another one with -m\r\n"));
        tty_close(&t);
    }
    start_env(&t, 24, 80, (const char *[]){"--graphics", "symbols", "--resume", id, NULL}, NULL);
    tty_wait(&t, "> remember me");
    tty_wait(&t, "64x48 -> ");
    quit(&t);
    start_env(&t, 24, 80, (const char *[]){"--no-save", "--resume", NULL}, NULL);
    int status = tty_end(&t);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
    assert_non_null(strstr(t.log, "keeps none\r\n"));
    tty_close(&t);
    nothing_named = false;
}

int main(void) {
    setlocale(LC_ALL, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_shows_picture_and_status),
        cmocka_unit_test(chat_lays_out_by_size),
        cmocka_unit_test(chat_says_when_the_screen_is_too_small),
        cmocka_unit_test(chat_shows_help),
        cmocka_unit_test(chat_scrolls_the_help_card),
        cmocka_unit_test(chat_says_how_to_open_a_picture),
        cmocka_unit_test(chat_moves_function_keys),
        cmocka_unit_test(chat_answers_and_notes_the_limit),
        cmocka_unit_test(chat_queues_and_stops),
        cmocka_unit_test(chat_tells_errors_after_the_answer),
        cmocka_unit_test(chat_knows_its_model),
        cmocka_unit_test(chat_labels_what_it_measures),
        cmocka_unit_test(chat_edits_while_an_answer_streams),
        cmocka_unit_test(chat_survives_a_resize_storm),
        cmocka_unit_test(chat_takes_a_megabyte_of_paste),
        cmocka_unit_test(chat_opens_a_pasted_path),
        cmocka_unit_test(chat_pastes_a_picture),
        cmocka_unit_test(chat_completes),
        cmocka_unit_test(chat_runs_every_command),
        cmocka_unit_test(chat_marks_what_was_asked_about),
        cmocka_unit_test(chat_draws_masks),
        cmocka_unit_test(chat_says_what_masks_need),
        cmocka_unit_test(chat_says_that_nothing_was_found),
        cmocka_unit_test(chat_adds_pictures),
        cmocka_unit_test(chat_shades_words_by_probability),
        cmocka_unit_test(chat_respects_no_color),
        cmocka_unit_test(chat_refuses_a_dumb_terminal),
        cmocka_unit_test(chat_does_not_know_every_terminal),
        cmocka_unit_test(chat_asks_for_true_colours),
        cmocka_unit_test(chat_does_not_wait_for_a_silent_terminal),
        cmocka_unit_test(chat_restores_the_terminal_after_signals),
        cmocka_unit_test(chat_suspends_and_comes_back),
        cmocka_unit_test(chat_ends_on_ctrl_d_and_hangup),
        cmocka_unit_test(chat_loses_nothing_that_was_finished),
        cmocka_unit_test(chat_resumes),
        cmocka_unit_test(chat_resumes_with_boxes),
        cmocka_unit_test(chat_resumes_without_its_picture),
        cmocka_unit_test(chat_keeps_no_turn_of_the_picture_before),
        cmocka_unit_test(chat_takes_back_what_failed),
        cmocka_unit_test(chat_resumes_with_what_it_had),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
