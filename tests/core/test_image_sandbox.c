/* test_image_sandbox.c - hostile decoders behind core/image_sandbox.c. */
#include "core/image_formats.h"
#include "core/image_sandbox.h"
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const uint8_t some_bytes[] = "the bytes of a file";

/* What the child does is chosen by the first byte of its file: one server serves all. */
static int hostile(const pali_image_input *in, pali_image *out, pali_error *err) {
    static volatile int *nowhere;
    switch (in->bytes[0]) {
    case 'a':
        abort();
    case 'c':
        *nowhere = 1;
        break;
    case 'l':
        for (volatile int i = 0;; i++)
            continue;
    case 'm': /* far over the limit of the address space */
        for (size_t i = 0; i < 64; i++) {
            char *p = mmap(NULL, (size_t)1 << 30, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (p == MAP_FAILED)
                return pali_fail_nomem(err, "being greedy");
        }
        break;
    case 'o':
        return open("/etc/passwd", O_RDONLY) >= 0 ? 0 : PALI_EIO;
    case 's':
        return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : PALI_EIO;
    case 'f':
        return fork() >= 0 ? 0 : PALI_EIO;
    case 'k':
        kill(getppid(), SIGKILL);
        break;
    case 'x':
        execl("/bin/true", "true", (char *)NULL);
        break;
    case 'w':
        return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0) != MAP_FAILED
                   ? 0
                   : PALI_EIO;
    case 'p': /* no crash, no work, no end */
        for (;;)
            nanosleep(&(struct timespec){.tv_sec = 1000}, NULL);
    case 'e': /* quietly gone */
        _exit(0);
    case 'n':
        return 7;
    case 't': { /* a reply in the child's own words, before the true one */
        char junk[100];
        memset(junk, 'A', sizeof junk);
        send(5, junk, sizeof junk, 0);
        break;
    }
    default:
        return pali_image_decode_input(in, out, err);
    }
    return 0; /* out is still empty: 0 x 0 pixels */
}

/* Limits that only what never ends reaches: a busy machine gives a second of its processor in a
 * minute, and a guest's clock of it goes on while its host computes for others. */
static int start(void **state) {
    (void)state;
    pali_error err = {0};
    pali_sandbox_rules r = {hostile, 60, 600};
    if (pali_image_sandbox_start_with(&r, &err))
        fprintf(stderr, "%s\n", err.what);
    return pali_image_sandbox_on() ? 0 : -1;
}

static int stop(void **state) {
    (void)state;
    pali_image_sandbox_stop();
    return pali_image_sandbox_on() ? -1 : 0;
}

static void hostile_file(char kind, pali_error *err) {
    uint8_t bytes[sizeof some_bytes];
    pali_image image;
    memcpy(bytes, some_bytes, sizeof bytes);
    bytes[0] = (uint8_t)kind;
    *err = (pali_error){0};
    assert_int_not_equal(pali_image_decode(bytes, sizeof bytes, "evil.png", &image, err), 0);
    assert_null(image.rgb);
    assert_non_null(strstr(err->what, kind == 'm' ? "" : "evil.png"));
}

static void read_whole(const char *path, uint8_t **bytes, size_t *n) {
    pali_error err = {0};
    assert_ok(pali_image_read_file(path, bytes, n, &err), err);
}

static void same_as_in_this_process(const char *path) {
    uint8_t *bytes;
    size_t n;
    pali_error err = {0}, plain_err = {0};
    pali_image a, b;
    read_whole(path, &bytes, &n);
    pali_image_input in = {bytes, n, path, PALI_IMAGE_MAX_PIXELS, NULL};
    int plain = pali_image_decode_input(&in, &b, &plain_err);
    assert_int_equal(pali_image_decode(bytes, n, path, &a, &err), plain);
    assert_string_equal(err.what, plain_err.what);
    assert_string_equal(err.hint, plain_err.hint);
    if (!plain) {
        assert_int_equal(a.width, b.width);
        assert_int_equal(a.height, b.height);
        assert_memory_equal(a.rgb, b.rgb, (size_t)a.width * (size_t)a.height * 3);
    }
    pali_image_close(&a);
    pali_image_close(&b);
    free(bytes);
}

static void sandbox_gives_the_same_pixels_and_sentences(void **state) {
    (void)state;
    same_as_in_this_process("assets/demo/demo.png");
    same_as_in_this_process("assets/demo/single.png");
    same_as_in_this_process("Makefile"); /* not a picture */
}

/* Every decoder and all that it calls gets by with what it may do: a colour profile, for one, made
 * libc look for the time zone's file. */
static void sandbox_reads_every_kind_of_picture(void **state) {
    (void)state;
    static const char folder[] = TEST_DATA "image";
    DIR *d = opendir(folder);
    assert_non_null(d);
    int seen = 0;
    for (const struct dirent *e; (e = readdir(d));) {
        char path[512];
        if (e->d_name[0] == '.' || strstr(e->d_name, ".golden"))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        same_as_in_this_process(path);
        seen++;
    }
    closedir(d);
    assert_true(seen > 50);
}

/* Each costs its own picture, and the next one is decoded as if nothing had been. */
static void sandbox_survives_hostile_decoders(void **state) {
    (void)state;
    pali_error err;
    for (const char *kind = "acosfkxwe"; *kind; kind++) {
        hostile_file(*kind, &err);
        assert_int_equal(err.code, PALI_EFORMAT);
        assert_non_null(strstr(err.what, "failed"));
        same_as_in_this_process("assets/demo/demo.png");
    }
}

static void sandbox_stops_what_does_not_end(void **state) {
    pali_error err = {0};
    pali_sandbox_rules r = {hostile, 1, 600};
    pali_image_sandbox_stop();
    assert_ok(pali_image_sandbox_start_with(&r, &err), err);
    hostile_file('l', &err); /* one second on the processor */
    assert_non_null(strstr(err.what, "failed"));
    pali_image_sandbox_stop();
    assert_int_equal(start(state), 0);
}

/* The only child of pid; 0: none. */
static pid_t child_of(pid_t pid) {
    char path[64];
    int child = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    if (fscanf(f, "%d", &child) != 1)
        child = 0;
    fclose(f);
    return child;
}

static void sandbox_stops_what_sleeps(void **state) {
    if (access("/proc/thread-self/children", R_OK))
        skip(); /* a kernel that does not tell */
    pali_error err = {0};
    pali_sandbox_rules r = {hostile, 1, 1};
    pali_image_sandbox_stop();
    assert_ok(pali_image_sandbox_start_with(&r, &err), err);
    hostile_file('p', &err); /* whoever is first, the waiting side or the child's alarm */
    assert_int_equal(err.code, PALI_EFORMAT);
    pid_t server = child_of(getpid());
    assert_int_not_equal(server, 0);
    while (child_of(server)) /* and it is gone */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    pali_image_sandbox_stop();
    assert_int_equal(start(state), 0);
}

static void sandbox_limits_memory(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* the sanitizer's own reservations would be over any limit */
#endif
    pali_error err;
    hostile_file('m', &err);
    assert_int_equal(err.code, PALI_ENOMEM);
}

static void sandbox_believes_no_reply(void **state) {
    (void)state;
    pali_error err;
    hostile_file('n', &err);
    assert_non_null(strstr(err.what, "nonsense"));
    hostile_file('t', &err);
    assert_int_equal(err.code, PALI_EFORMAT);
}

static void *decode_many(void *arg) {
    for (int i = 0; i < 20; i++) {
        pali_image image;
        if (pali_image_open("assets/demo/demo.png", &image, NULL))
            ++*(int *)arg;
        pali_image_close(&image);
    }
    return NULL;
}

static void sandbox_serves_several_threads(void **state) {
    (void)state;
    pthread_t t[4];
    int failed[4] = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, decode_many, &failed[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(failed[i], 0);
    }
}

/* The server dies with the program, however that dies. */
static void sandbox_ends_with_its_program(void **state) {
    (void)state;
    int fd[2];
    char c;
    assert_int_equal(pipe(fd), 0);
    pid_t program = fork();
    if (program == 0) { /* its server inherits the pipe's end as standard error */
        pali_image_sandbox_stop();
        dup2(fd[1], 2);
        if (pali_image_sandbox_start(NULL))
            _exit(1);
        raise(SIGKILL);
    }
    close(fd[1]);
    assert_int_equal(read(fd[0], &c, 1), 0); /* ends when nobody holds the other end */
    close(fd[0]);
    waitpid(program, NULL, 0);
}

/* Without a server decoding is in this process; stopping twice is harmless. */
static void sandbox_can_be_left_out(void **state) {
    (void)state;
    pali_image_sandbox_stop();
    pali_image_sandbox_stop();
    assert_false(pali_image_sandbox_on());
    same_as_in_this_process("assets/demo/demo.png");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sandbox_gives_the_same_pixels_and_sentences),
        cmocka_unit_test(sandbox_reads_every_kind_of_picture),
        cmocka_unit_test(sandbox_survives_hostile_decoders),
        cmocka_unit_test(sandbox_stops_what_does_not_end),
        cmocka_unit_test(sandbox_stops_what_sleeps),
        cmocka_unit_test(sandbox_limits_memory),
        cmocka_unit_test(sandbox_believes_no_reply),
        cmocka_unit_test(sandbox_serves_several_threads),
        cmocka_unit_test(sandbox_ends_with_its_program),
        cmocka_unit_test(sandbox_can_be_left_out),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
