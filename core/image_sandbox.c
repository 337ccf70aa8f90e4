/* image_sandbox.c - the server, its children and the caller's side; see image_sandbox.h.
 *
 * A request is one message on the server's socket that carries three descriptors: the
 * file's bytes, an empty nameless file for the pixels, and one end of a socket pair for
 * the reply. The caller keeps the other end: a child that dies closes its end, so a
 * wait always ends, and several threads can wait at once. Nothing a child says is
 * believed: sizes are checked again, and pixels are read (not mapped, so that the child
 * cannot pull them away) into memory of the caller's.
 *
 * The filter lists what an allocator, threads of a decoder and the reply need. Anything
 * else kills the child, opening a file included.                                    */
#include "core/image_sandbox.h"

#include "core/image_formats.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define LIMIT_ADDRESSES 0 /* the sanitizer reserves terabytes */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LIMIT_ADDRESSES 0
#endif
#endif
#ifndef LIMIT_ADDRESSES
#define LIMIT_ADDRESSES 1
#endif

enum {
    NAME_MAX_BYTES = 256
};

/* What a child may use at most: a picture at the limit as decoders hold it (a JPEG's
 * progressive coefficients are the largest), and its file. */
#define CHILD_BYTES ((rlim_t)8 * PALI_IMAGE_MAX_PIXELS + 2 * PALI_IMAGE_MAX_BYTES)

typedef struct {
    char name[NAME_MAX_BYTES]; /* for messages */
    unsigned frames;           /* 0: one picture */
} request;

typedef struct {
    int rc;
    int width, height, full_width, full_height;
    unsigned frames;
    pali_error error;
} reply;

enum {
    FD_BYTES,
    FD_PIXELS,
    FD_REPLY,
    FDS
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the two below */
static int server_socket = -1;
static pid_t server;
static pali_sandbox_rules rules;

/* --- child --------------------------------------------------------------------------- */

static int allow(scmp_filter_ctx f, int call) {
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 0);
}

/* NULL when there is no memory for it. */
static scmp_filter_ctx make_filter(void) {
    static const int calls[] = {
        SCMP_SYS(read),
        SCMP_SYS(write),
        SCMP_SYS(pread64),
        SCMP_SYS(pwrite64),
        SCMP_SYS(sendto),
        SCMP_SYS(sendmsg),
        SCMP_SYS(close),
        SCMP_SYS(fstat),
        SCMP_SYS(newfstatat),
        SCMP_SYS(lseek),
        SCMP_SYS(brk),
        SCMP_SYS(munmap),
        SCMP_SYS(mremap),
        SCMP_SYS(madvise),
        SCMP_SYS(futex),
        SCMP_SYS(sched_yield),
        SCMP_SYS(sched_getaffinity),
        SCMP_SYS(set_robust_list),
        SCMP_SYS(rseq),
        SCMP_SYS(clock_gettime),
        SCMP_SYS(clock_nanosleep),
        SCMP_SYS(getrandom),
        SCMP_SYS(gettid),
        SCMP_SYS(getpid),
        SCMP_SYS(tgkill),
        SCMP_SYS(rt_sigaction),
        SCMP_SYS(rt_sigprocmask),
        SCMP_SYS(rt_sigreturn),
        SCMP_SYS(sigaltstack),
        SCMP_SYS(exit),
        SCMP_SYS(exit_group),
    };
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int bad = !f;
    for (size_t i = 0; !bad && i < sizeof calls / sizeof *calls; i++)
        bad = allow(f, calls[i]);
    /* Memory, but none that can be run as a program. */
    struct scmp_arg_cmp data = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    bad = bad || seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, data) ||
          seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, data);
    /* Threads of a decoder, but no processes; clone3 hides its flags, without it libc uses clone. */
    bad = bad ||
          seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                           SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)) ||
          seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) ||
          seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                           SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0));
    if (bad && f) {
        seccomp_release(f);
        f = NULL;
    }
    return f;
}

static void limit(int what, rlim_t most) {
    struct rlimit l = {most, most};
    setrlimit(what, &l); /* one that is lower already stays */
}

static int write_all(int fd, const uint8_t *p, size_t n) {
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno != EINTR)
            return -1;
        if (done > 0) {
            p += done;
            n -= (size_t)done;
        }
    }
    return 0;
}

/* Decodes fd[FD_BYTES]; never returns. The bytes are mapped before the filter is on. */
static _Noreturn void decode_and_exit(scmp_filter_ctx filter, const request *q, const int *fd) {
    reply r = {0};
    pali_image image = {0};
    struct stat st = {0};
    uint8_t *bytes = NULL;
    if (!fstat(fd[FD_BYTES], &st) && st.st_size > 0)
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd[FD_BYTES], 0);
    alarm((unsigned)rules.wait_seconds + 1); /* nobody waits for it any more, even if it sleeps */
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, (rlim_t)rules.cpu_seconds);
    limit(RLIMIT_FSIZE, 3 * PALI_IMAGE_MAX_PIXELS);
    if (LIMIT_ADDRESSES)
        limit(RLIMIT_AS, CHILD_BYTES);
    if (!bytes || bytes == MAP_FAILED || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        seccomp_load(filter))
        _exit(1);
    r.frames = q->frames;
    pali_image_input in = {bytes, (size_t)st.st_size, q->name, PALI_IMAGE_MAX_PIXELS,
                           q->frames ? &r.frames : NULL};
    r.rc = rules.decode(&in, &image, &r.error);
    if (!r.rc) {
        r.width = image.width;
        r.height = image.height;
        r.full_width = image.full_width;
        r.full_height = image.full_height;
        if (write_all(fd[FD_PIXELS], image.rgb, (size_t)image.width * (size_t)image.height * 3))
            r.rc = pali_fail(&r.error, PALI_EIO, NULL, "%s: its pixels cannot be stored: %s",
                             q->name, strerror(errno));
    }
    send(fd[FD_REPLY], &r, sizeof r, MSG_NOSIGNAL);
    _exit(0);
}

/* --- server -------------------------------------------------------------------------- */

/* One request and its descriptors; 0 when the other side is gone. */
static int receive(int from, request *q, int fd[FDS]) {
    union {
        char space[CMSG_SPACE(FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {q, sizeof *q};
    struct msghdr m = {.msg_iov = &data,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof control.space};
    ssize_t n;
    do
        n = recvmsg(from, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (n != (ssize_t)sizeof *q || !c || c->cmsg_len != CMSG_LEN(FDS * sizeof(int)))
        return 0;
    memcpy(fd, CMSG_DATA(c), FDS * sizeof(int));
    return 1;
}

static _Noreturn void serve(int from, pid_t parent) {
    setsid(); /* keys of the terminal are not meant for it */
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    signal(SIGCHLD, SIG_IGN);
    prctl(PR_SET_NAME, "pali-images", 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    scmp_filter_ctx filter = make_filter(); /* here: pali itself need not wait for it */
    tzset(); /* Little CMS dates the profiles it makes, and libc reads the time zone's file once */
    request q;
    int fd[FDS];
    while (filter && getppid() == parent && receive(from, &q, fd)) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
            close(from);
            decode_and_exit(filter, &q, fd);
        }
        for (int i = 0; i < FDS; i++)
            close(fd[i]);
    }
    _exit(0);
}

/* Every descriptor but keep and the standard three, which point nowhere afterwards
 * except standard error: a sanitizer's words are wanted. */
static void close_others(int keep) {
    if (dup2(keep, 3) < 0)
        _exit(1);
    closefrom(4);
    FILE *null = fopen("/dev/null", "r+");
    if (null) {
        dup2(fileno(null), 0);
        dup2(fileno(null), 1);
        fclose(null);
    }
}

int pali_image_sandbox_start_with(const pali_sandbox_rules *r, pali_error *err) {
    static const char hint[] = "pictures are decoded without it";
    int pair[2];
    rules = *r;
    if (seccomp_api_get() < 3) /* the first that ends the whole process, not one thread */
        return pali_fail(err, PALI_EUNSUPPORTED, hint,
                         "the system has no filter for system calls (seccomp)");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return pali_fail(err, PALI_EIO, hint, "the system gives no socket: %s", strerror(errno));
    pid_t parent = getpid();
    server = fork();
    if (server == 0) {
        close_others(pair[1]);
        serve(3, parent);
    }
    close(pair[1]);
    if (server < 0) {
        close(pair[0]);
        return pali_fail(err, PALI_EIO, hint, "the system gives no process: %s", strerror(errno));
    }
    server_socket = pair[0];
    return 0;
}

int pali_image_sandbox_start(pali_error *err) {
    pali_sandbox_rules r = {pali_image_decode_input, 30, 60};
    return pali_image_sandbox_start_with(&r, err);
}

void pali_image_sandbox_stop(void) {
    pthread_mutex_lock(&lock);
    if (server_socket >= 0) {
        close(server_socket);
        server_socket = -1;
        while (waitpid(server, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    pthread_mutex_unlock(&lock);
}

bool pali_image_sandbox_on(void) {
    return server_socket >= 0;
}

/* --- the caller's side --------------------------------------------------------------- */

static int send_request(const request *q, const int fd[FDS]) {
    union {
        char space[CMSG_SPACE(FDS * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec data = {(void *)q, sizeof *q};
    struct msghdr m = {.msg_iov = &data,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof control.space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(FDS * sizeof(int));
    memcpy(CMSG_DATA(c), fd, FDS * sizeof(int));
    pthread_mutex_lock(&lock);
    ssize_t n = server_socket < 0 ? -1 : sendmsg(server_socket, &m, MSG_NOSIGNAL);
    pthread_mutex_unlock(&lock);
    return n == (ssize_t)sizeof *q ? 0 : -1;
}

/* 1 a whole reply, 0 the child is gone without one, -1 it takes too long. */
static int receive_reply(int fd, reply *r) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    time_t end = t.tv_sec + rules.wait_seconds;
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        if (t.tv_sec >= end)
            return -1;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, (int)(end - t.tv_sec) * 1000) <= 0)
            continue;
        ssize_t n = recv(fd, r, sizeof *r, 0);
        if (n < 0 && errno == EINTR)
            continue;
        return n == (ssize_t)sizeof *r;
    }
}

static int read_pixels(int fd, uint8_t *to, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t got = pread(fd, to + at, n - at, (off_t)at);
        if (got == 0 || (got < 0 && errno != EINTR))
            return -1;
        at += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

static int fail_stopped(const char *name, const char *why, pali_error *err) {
    return pali_fail(err, PALI_EFORMAT, "it is damaged or made to do harm; pali is unharmed",
                     "%s: decoding the picture %s", name, why);
}

/* Takes the reply for what it may be at best: text of limited length, or a size. */
static int take(reply *r, int pixels, const pali_image_input *in, pali_image *out,
                pali_error *err) {
    r->error.what[sizeof r->error.what - 1] = '\0';
    r->error.hint[sizeof r->error.hint - 1] = '\0';
    if (r->rc < 0)
        return pali_fail(err, r->rc < PALI_ECANCEL ? PALI_EFORMAT : r->rc, r->error.hint, "%s",
                         r->error.what);
    unsigned most = in->frames ? *in->frames : 0;
    bool full = r->full_width || r->full_height;
    if (r->rc > 0 || r->width < 1 || r->height < 1 ||
        (full && (r->full_width < r->width || r->full_height < r->height ||
                  r->full_width > PALI_IMAGE_MAX_SIDE || r->full_height > PALI_IMAGE_MAX_SIDE)) ||
        (most && (r->frames < 1 || r->frames > most || (unsigned)r->height % r->frames)))
        return fail_stopped(in->name, "gave nonsense", err);
    int rc = pali_image_alloc(in, "picture", (uint64_t)r->width, (uint64_t)r->height, out, err);
    if (!rc && most)
        *in->frames = r->frames;
    out->full_width = rc ? 0 : r->full_width;
    out->full_height = rc ? 0 : r->full_height;
    if (!rc && read_pixels(pixels, out->rgb, (size_t)r->width * (size_t)r->height * 3)) {
        pali_image_close(out);
        rc = fail_stopped(in->name, "gave fewer pixels than it said", err);
    }
    return rc;
}

int pali_image_sandbox_decode(const pali_image_input *in, pali_image *out, pali_error *err) {
    request q = {.frames = in->frames ? *in->frames : 0};
    snprintf(q.name, sizeof q.name, "%s", in->name);
    int fd[FDS] = {-1, -1, -1}, pair[2] = {-1, -1};
    reply r;
    int rc, said = 0;
    fd[FD_BYTES] = memfd_create("pali-picture", MFD_CLOEXEC);
    fd[FD_PIXELS] = memfd_create("pali-pixels", MFD_CLOEXEC);
    bool ready = fd[FD_BYTES] >= 0 && fd[FD_PIXELS] >= 0 &&
                 !write_all(fd[FD_BYTES], in->bytes, in->n) &&
                 !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
    fd[FD_REPLY] = pair[1];
    bool sent = ready && !send_request(&q, fd);
    if (pair[1] >= 0)
        close(pair[1]);
    if (sent)
        said = receive_reply(pair[0], &r);
    if (!sent)
        rc = pali_fail(err, PALI_EIO, "close other programs, or start pali again",
                       "%s: the process that decodes pictures cannot be reached", in->name);
    else if (said < 0)
        rc = fail_stopped(in->name, "took too long and was stopped", err);
    else if (said == 0)
        rc = fail_stopped(in->name, "failed: it crashed or wanted too much", err);
    else
        rc = take(&r, fd[FD_PIXELS], in, out, err);
    if (pair[0] >= 0)
        close(pair[0]);
    for (int i = 0; i < FD_REPLY; i++)
        if (fd[i] >= 0)
            close(fd[i]);
    return rc;
}
