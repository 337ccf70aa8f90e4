/* bench_chat.c - how the terminal chat feels, measured from the other end of its terminal.
 *
 *   make build/release/pali build/release/tests/bench/bench_chat
 *   build/release/tests/bench/bench_chat [KEYS [IMAGE]]      400 keys; a picture made here
 *
 * The program runs on a pty of 40x120 and answers with the tiny model of tests/data/hf, which
 * streams some hundred tokens a second and keeps every processor busy. Three things are taken:
 *   key to echo     from the write of a key to the read that holds its echo, at random times
 *                   while answers stream. Each key is a letter that is nowhere on the screen.
 *   cost            processor time of the UI thread (Linux's schedstat) between the ends of
 *                   two answers, by the tokens between them; and bytes to the terminal.
 *   first picture   from before fork to the first byte of the picture, and to its last one.
 *                   Files are in the page cache. The terminal answers queries at once.
 * Goals: 99 of 100 echoes within 16 ms, the first picture within 100 ms.                    */
#include "app/png.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_TOKENS = 900, /* of an answer; the tiny model always uses them up */
    QUESTIONS = 200,
    KEYS_A_LINE = 20,
    STARTS = 20,
    GIVE_UP_MS = 60000,
};

static char home[64], picture[128];

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "bench_chat: %s\n", what);
    exit(1);
}

static void check(bool good, const char *what) {
    if (!good)
        die(what);
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void clean_up(void) {
    nftw(home, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static unsigned next_random(void) {
    static unsigned seed = 1;
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

/* --- the program on its terminal ----------------------------------------------------------- */

typedef struct {
    pid_t pid;
    int fd;
    bool asked;         /* the terminal was asked what it is */
    size_t bytes;       /* read so far */
    char seen[1 << 17]; /* the newest bytes: a tail of what was there, and the last read */
    size_t nseen;
    double began, read_at;
} program;

static void start(program *p, const char *graphics) {
    memset(p, 0, sizeof *p);
    struct winsize w = {40, 120, 120 * 8, 40 * 16};
    char tokens[16], h[96], s[128];
    snprintf(tokens, sizeof tokens, "%d", MAX_TOKENS);
    snprintf(h, sizeof h, "HOME=%s", home);
    snprintf(s, sizeof s, "XDG_STATE_HOME=%s/state", home);
    const char *pali = getenv("PALI");
    const char *const argv[] = {pali && *pali ? pali : "build/release/pali",
                                "-m",
                                "tests/data/hf/pg1-bf16",
                                picture,
                                "--graphics",
                                graphics,
                                "-n",
                                tokens,
                                "--history",
                                "none",
                                NULL};
    const char *const env[] = {h,
                               s,
                               "LC_ALL=C.UTF-8",
                               "INPUTRC=/dev/null",
                               "TERM=xterm-256color",
                               "COLORTERM=truecolor",
                               "PATH=/usr/bin:/bin",
                               NULL};
    p->began = now_ms();
    p->pid = forkpty(&p->fd, NULL, NULL, &w);
    if (p->pid == 0) {
        execve(argv[0], (char *const *)argv, (char *const *)env);
        _exit(127);
    }
    check(p->pid > 0, "no pty");
}

static void send_bytes(program *p, const char *s) {
    check(write(p->fd, s, strlen(s)) == (ssize_t)strlen(s), "the terminal takes no bytes");
}

/* Reads what comes within ms. False when nothing came. */
static bool pump(program *p, double ms) {
    struct pollfd f = {p->fd, POLLIN, 0};
    int t = ms > 0 ? (int)ms : 0;
    if (poll(&f, 1, t) <= 0)
        return false;
    size_t tail = p->nseen < 64 ? p->nseen : 64;
    memmove(p->seen, p->seen + p->nseen - tail, tail);
    ssize_t n = read(p->fd, p->seen + tail, sizeof p->seen - tail);
    p->read_at = now_ms();
    if (n <= 0) {
        fwrite(p->seen, 1, tail, stderr);
        die("the program ended");
    }
    p->nseen = tail + (size_t)n;
    p->bytes += (size_t)n;
    if (memmem(p->seen, p->nseen, "\033[c", 3)) {
        if (!p->asked)
            send_bytes(p, "\033P>|bench\033\\\033]11;rgb:0000/0000/0000\033\\\033[?2026;2$y"
                          "\033[6;16;8t");
        send_bytes(p, "\033[?62;4;22c");
        p->asked = true;
        p->nseen = 0; /* once */
    }
    return true;
}

static void finish(program *p) {
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    close(p->fd);
}

/* Nanoseconds of processor time that the main thread has used. */
static double ui_time(const program *p) {
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", (int)p->pid, (int)p->pid);
    FILE *f = fopen(path, "r");
    double ns = 0;
    check(f && fscanf(f, "%lf", &ns) == 1, "no /proc/PID/task/TID/schedstat");
    fclose(f);
    return ns;
}

/* Whole answers that are in the chat file. All must have used up their tokens. */
static int answers(void) {
    char dir[128], path[512] = "";
    snprintf(dir, sizeof dir, "%s/state/pali/chats", home);
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (isdigit((unsigned char)e->d_name[0]))
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    if (d)
        closedir(d);
    FILE *f = *path ? fopen(path, "r") : NULL;
    char *line = NULL;
    size_t cap = 0;
    int n = 0;
    while (f && getline(&line, &cap, f) > 0)
        if (!strncmp(line, "{\"q\":", 5)) {
            check(strstr(line, "\"stop\":\"length\"") != NULL, "an answer ended early");
            n++;
        }
    free(line);
    if (f)
        fclose(f);
    return n;
}

/* --- key to echo, and the cost --------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double share(const double *sorted, int n, double q) {
    int i = (int)(q * n + 0.5) - 1;
    return sorted[i < 0 ? 0 : i >= n ? n - 1 : i];
}

static int wait_for_answer(program *p, int more_than) {
    double until = now_ms() + GIVE_UP_MS;
    int n;
    while ((n = answers()) <= more_than) {
        check(now_ms() < until, "no answer came");
        for (double end = now_ms() + 5; now_ms() < end;)
            pump(p, 1);
    }
    return n;
}

static void measure_keys(int keys) {
    static program p;
    start(&p, "symbols");
    for (double until = now_ms() + GIVE_UP_MS; !memmem(p.seen, p.nseen, "Ask about", 9);) {
        check(now_ms() < until, "the chat did not start");
        pump(&p, 10);
    }
    for (int i = 0; i < QUESTIONS; i++)
        send_bytes(&p, "x\r");
    int first = wait_for_answer(&p, 0);
    double cpu = ui_time(&p), began = now_ms();
    size_t bytes = p.bytes;

    double *ms = calloc((size_t)keys, sizeof *ms);
    check(ms != NULL, "no memory");
    int lost = 0;
    for (int i = 0; i < keys; i++) {
        for (double until = now_ms() + 20 + next_random() % 40, t; (t = until - now_ms()) > 0;)
            pump(&p, t < 1 ? 1 : t);
        if (i % KEYS_A_LINE == 0) {
            send_bytes(&p, "\025"); /* Ctrl-U */
            for (double until = now_ms() + 60; now_ms() < until;)
                pump(&p, 1);
        }
        int code = 0x531 + i % KEYS_A_LINE; /* Armenian: the model does not write it */
        char letter[3] = {(char)(0xc0 | code >> 6), (char)(0x80 | (code & 63)), 0};
        p.nseen = 0;
        double sent = now_ms();
        send_bytes(&p, letter);
        while (now_ms() < sent + 1000 && (!pump(&p, 100) || !memmem(p.seen, p.nseen, letter, 2)))
            ;
        ms[i] = p.read_at - sent;
        lost += !memmem(p.seen, p.nseen, letter, 2);
    }
    int last = wait_for_answer(&p, answers());
    cpu = ui_time(&p) - cpu;
    double s = 1e-3 * (now_ms() - began), tokens = MAX_TOKENS * (double)(last - first);
    bytes = p.bytes - bytes;
    check(last < QUESTIONS, "the questions ran out");
    finish(&p);

    qsort(ms, (size_t)keys, sizeof *ms, by_value);
    printf("while answers stream (%.0f tokens in %.1f s: %.0f tok/s, %d keys)\n", tokens, s,
           tokens / s, keys);
    printf("  key to echo        p50 %6.2f   p95 %6.2f   p99 %6.2f   max %6.2f ms   %s",
           share(ms, keys, 0.50), share(ms, keys, 0.95), share(ms, keys, 0.99), ms[keys - 1],
           lost ? "" : "none lost\n");
    if (lost)
        printf("%d lost\n", lost);
    printf("  UI thread          %.1f us a token, %.2f %% of a processor\n", 1e-3 * cpu / tokens,
           1e-7 * cpu / s);
    printf("  to the terminal    %.0f bytes a token, %.1f kB/s\n", (double)bytes / tokens,
           1e-3 * (double)bytes / s);
    free(ms);
}

/* --- first picture ------------------------------------------------------------------------------ */

static void measure_starts(const char *graphics) {
    static program p;
    double first[STARTS], whole[STARTS];
    for (int i = -1; i < STARTS; i++) { /* one more, to warm the page cache */
        start(&p, graphics);
        double begun = 0, done = 0, until = now_ms() + GIVE_UP_MS;
        while (!done) {
            check(now_ms() < until, "no picture came");
            pump(&p, 100);
            if (!p.asked)
                continue;
            /* It is written with the cursor saved before and restored behind it. */
            const char *at = p.seen;
            size_t n = p.nseen;
            if (!begun && (at = memmem(p.seen, n, "\0337", 2)) != NULL) {
                begun = p.read_at;
                n -= (size_t)(at - p.seen);
            }
            if (begun && memmem(at, n, "\0338", 2))
                done = p.read_at;
        }
        finish(&p);
        if (i >= 0) {
            first[i] = begun - p.began;
            whole[i] = done - p.began;
        }
    }
    qsort(first, STARTS, sizeof *first, by_value);
    qsort(whole, STARTS, sizeof *whole, by_value);
    printf("  %-10s         first byte p50 %5.1f  max %5.1f ms, whole p50 %5.1f  max %5.1f ms\n",
           graphics, share(first, STARTS, 0.5), first[STARTS - 1], share(whole, STARTS, 0.5),
           whole[STARTS - 1]);
}

/* --- the rest -------------------------------------------------------------------------------------- */

static void make_picture(int w, int h) {
    snprintf(picture, sizeof picture, "%s/picture.png", home);
    uint8_t *rgb = malloc((size_t)w * (size_t)h * 3);
    check(rgb != NULL, "no memory");
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            uint8_t *px = rgb + ((size_t)y * (size_t)w + (size_t)x) * 3;
            px[0] = (uint8_t)(x * 255 / w);
            px[1] = (uint8_t)(y * 255 / h);
            px[2] = (uint8_t)((x * x + y * y) / 512);
        }
    pali_error err = {0};
    if (png_write(picture, rgb, w, h, 3, &err))
        die(err.what);
    free(rgb);
}

static void print_line(const char *what, const char *command) {
    char line[256] = "unknown\n";
    FILE *f = popen(command, "r");
    if (f) {
        if (!fgets(line, sizeof line, f))
            snprintf(line, sizeof line, "unknown\n");
        pclose(f);
    }
    printf("%-10s %s", what, line);
}

int main(int argc, char **argv) {
    int keys = argc > 1 ? atoi(argv[1]) : 400;
    if (keys < 1)
        die("usage: bench_chat [KEYS [IMAGE]]");
    strcpy(home, "/tmp/pali-bench-XXXXXX");
    check(mkdtemp(home) != NULL, "no folder in /tmp");
    atexit(clean_up);
    if (argc > 2)
        snprintf(picture, sizeof picture, "%s", argv[2]);
    else
        make_picture(1280, 960);
    setvbuf(stdout, NULL, _IOLBF, 0);
    print_line("date", "date -u '+%Y-%m-%d %H:%M UTC'");
    print_line("processor", "grep -m1 '^model name' /proc/cpuinfo | cut -d: -f2 | tr -d '\\n'; "
                            "echo \",\" $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg)");
    print_line("commit", "git rev-parse --short HEAD");
    printf("%-10s %s\n", "picture", argc > 2 ? argv[2] : "1280x960 PNG");
    measure_keys(keys);
    printf("from exec to the first picture (%d starts)\n", STARTS);
    measure_starts("symbols");
    measure_starts("sixel");
    return 0;
}
