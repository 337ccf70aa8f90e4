/* hub_server.h - a small web server that speaks the hub's API, in threads of the test.
 *
 *     hub_server s = {.commit = ..., .files = ..., .nfiles = ...};
 *     server_start(&s);  ... s.endpoint ...  server_stop(&s);
 *
 * It answers /api/models/ORG/NAME/revision/REVISION and /ORG/NAME/resolve/COMMIT/FILE, with
 * ranges; large files are redirected to `storage`, another server, when there is one. What
 * is to go wrong is said in the fields, and what was asked is counted in them: before the
 * bytes leave, since the other side may be through with them before a thread here goes on. */
#ifndef PALI_HUB_SERVER_H
#define PALI_HUB_SERVER_H

#include "tests/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glib.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SERVER_CONNECTIONS = 256,
    SERVER_RULES = 8
};

typedef struct {
    const char *name;
    const unsigned char *bytes;
    size_t n;
    bool lfs;
    unsigned long long said; /* another size in the list of files; 0: n */
} server_file;

typedef struct {
    const char *part; /* of the path; NULL ends the rules */
    int times;        /* requests it is for */
    int status;
    const char *headers; /* lines with \r\n; may be NULL */
    const char *body;
} server_rule;

typedef struct hub_server {
    const char *commit;
    const server_file *files;
    int nfiles;
    const char *listing; /* another answer than the list of files */
    const char *token;   /* files only with it */
    const char *page;    /* of the redirect from an old name; NULL: none */
    struct hub_server *storage;
    server_rule rules[SERVER_RULES];
    bool no_ranges;    /* everything is sent, whatever was asked */
    bool wrong_ranges; /* Content-Range says another part */
    long corrupt;      /* a bit of this byte of large files is flipped; 0: none */
    int breaks;        /* answers that end in the middle */
    int stalls;        /* answers that stop without end */
    long break_after;  /* bytes, for both */
    long slow_us;      /* after each 16 kB */

    /* what happened */
    atomic_int requests, api, ranges, broken, tokens;
    atomic_long body; /* bytes of files sent */

    char endpoint[64];
    int port, listener;
    pthread_t acceptor, threads[SERVER_CONNECTIONS];
    int sockets[SERVER_CONNECTIONS], nsockets;
    atomic_bool stop;
    pthread_mutex_t lock;
} hub_server;

typedef struct {
    hub_server *s;
    int fd;
} server_connection;

static inline void server_hash(const server_file *f, char out[65]) {
    char head[64];
    GChecksum *sum = g_checksum_new(f->lfs ? G_CHECKSUM_SHA256 : G_CHECKSUM_SHA1);
    int n = snprintf(head, sizeof head, "blob %zu", f->n) + 1;
    if (!f->lfs)
        g_checksum_update(sum, (unsigned char *)head, n);
    g_checksum_update(sum, f->bytes, (gssize)f->n);
    snprintf(out, 65, "%s", g_checksum_get_string(sum));
    g_checksum_free(sum);
}

static inline bool server_send(int fd, const void *bytes, size_t n) {
    const char *p = bytes;
    while (n) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

static inline bool server_answer(int fd, int status, const char *headers, const char *body) {
    char head[1024];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n", status,
                     strlen(body), headers ? headers : "");
    return server_send(fd, head, (size_t)n) && server_send(fd, body, strlen(body));
}

static inline bool server_list(hub_server *s, int fd) {
    char *text = NULL;
    size_t n;
    if (s->listing)
        return server_answer(fd, 200, NULL, s->listing);
    FILE *f = open_memstream(&text, &n);
    fprintf(f, "{\"id\": \"org/tiny\", \"sha\": \"%s\", \"gated\": \"manual\", \"siblings\": [",
            s->commit);
    for (int i = 0; i < s->nfiles; i++) {
        const server_file *x = &s->files[i];
        char hash[65];
        unsigned long long size = x->said ? x->said : x->n;
        server_hash(x, hash);
        fprintf(f, "%s{\"rfilename\": \"%s\", \"size\": %llu, ", i ? ", " : "", x->name, size);
        if (x->lfs)
            fprintf(f,
                    "\"blobId\": \"%040d\", \"lfs\": {\"sha256\": \"%s\", \"size\": %llu, "
                    "\"pointerSize\": 135}}",
                    i, hash, size);
        else
            fprintf(f, "\"blobId\": \"%s\"}", hash);
    }
    fputs("]}", f);
    fclose(f);
    bool good = server_answer(fd, 200, "Content-Type: application/json\r\n", text);
    free(text);
    return good;
}

/* Part of a file; false when the connection is to end. */
static inline bool server_file_answer(hub_server *s, int fd, const server_file *f,
                                      const char *range) {
    unsigned long long from = 0, to = f->n - 1;
    bool part = range && !s->no_ranges && sscanf(range, "bytes=%llu-%llu", &from, &to) >= 1;
    char head[256];
    if (to >= f->n)
        to = f->n - 1;
    s->ranges += part;
    int n =
        part ? snprintf(head, sizeof head,
                        "HTTP/1.1 206 X\r\nContent-Length: %llu\r\nContent-Range: bytes "
                        "%llu-%llu/%zu\r\n\r\n",
                        to - from + 1, s->wrong_ranges ? from + 1 : from, to, f->n)
             : snprintf(head, sizeof head, "HTTP/1.1 200 X\r\nContent-Length: %zu\r\n\r\n", f->n);
    if (!server_send(fd, head, (size_t)n))
        return false;
    bool breaks = false, stalls = false;
    pthread_mutex_lock(&s->lock);
    bool long_enough = f->lfs && to + 1 - from > (unsigned long long)s->break_after;
    if (long_enough && s->breaks > 0)
        breaks = s->breaks-- > 0;
    else if (long_enough && s->stalls > 0)
        stalls = s->stalls-- > 0;
    pthread_mutex_unlock(&s->lock);
    unsigned long long end = to + 1, first = from;
    while (from < end) {
        size_t some = end - from < 16384 ? (size_t)(end - from) : 16384;
        if ((breaks || stalls) && from - first + some > (unsigned long long)s->break_after)
            some = (size_t)((unsigned long long)s->break_after - (from - first));
        unsigned char chunk[16384];
        memcpy(chunk, f->bytes + from, some);
        if (f->lfs && s->corrupt && from <= (unsigned long long)s->corrupt &&
            (unsigned long long)s->corrupt < from + some)
            chunk[(unsigned long long)s->corrupt - from] ^= 4;
        from += some;
        bool ends = (breaks || stalls) && from - first >= (unsigned long long)s->break_after;
        s->body += (long)some;
        s->broken += ends;
        if (!server_send(fd, chunk, some))
            return false;
        if (ends) {
            while (stalls && !s->stop) /* until the other side has had enough */
                if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 50) > 0)
                    break;
            return false;
        }
        if (s->slow_us)
            usleep((useconds_t)s->slow_us);
    }
    return true;
}

static inline bool server_route(hub_server *s, int fd, const char *path, const char *range,
                                bool known) {
    for (int i = 0; i < SERVER_RULES && s->rules[i].part; i++) {
        server_rule *r = &s->rules[i];
        pthread_mutex_lock(&s->lock);
        bool mine = strstr(path, r->part) && r->times > 0 && r->times-- > 0;
        pthread_mutex_unlock(&s->lock);
        if (mine)
            return server_answer(fd, r->status, r->headers, r->body ? r->body : "no");
    }
    char line[512];
    if (!strncmp(path, "/api/models/", 12)) {
        s->api++;
        if (s->page && !strstr(path, s->page)) {
            snprintf(line, sizeof line, "Location: /api/models/%s/revision/main?blobs=true\r\n",
                     s->page);
            return server_answer(fd, 307, line, "");
        }
        return server_list(s, fd);
    }
    const char *name = strrchr(path, '/') + 1;
    for (int i = 0; i < s->nfiles; i++) {
        const server_file *f = &s->files[i];
        if (strcmp(name, f->name))
            continue;
        if (s->token && !known)
            return server_answer(fd, 401, "X-Error-Code: GatedRepo\r\n", "restricted");
        if (f->lfs && s->storage) {
            snprintf(line, sizeof line, "Location: %s/storage/%s\r\n", s->storage->endpoint, name);
            return server_answer(fd, 302, line, "Found");
        }
        return server_file_answer(s, fd, f, range);
    }
    return server_answer(fd, 404, "X-Error-Code: EntryNotFound\r\n", "no such file");
}

/* Requests of one connection, one after another. */
static inline void *server_serve(void *arg) {
    server_connection c = *(server_connection *)arg;
    free(arg);
    char head[8192];
    size_t n = 0;
    for (;;) {
        char *end = NULL;
        while (!(end = n ? strstr(head, "\r\n\r\n") : NULL)) {
            ssize_t r = n + 1 < sizeof head ? recv(c.fd, head + n, sizeof head - 1 - n, 0) : 0;
            if (r <= 0)
                return NULL;
            n += (size_t)r;
            head[n] = '\0';
        }
        *end = '\0';
        char path[1024] = "", *range = strcasestr(head, "\r\nrange: "),
             *auth = strcasestr(head, "\r\nauthorization: ");
        sscanf(head, "GET %1023s", path);
        c.s->requests++;
        c.s->tokens += auth != NULL;
        char bearer[128];
        snprintf(bearer, sizeof bearer, "Bearer %s", c.s->token ? c.s->token : "");
        bool known = auth && strstr(auth, bearer);
        if (!*path || !server_route(c.s, c.fd, path, range ? range + 9 : NULL, known)) {
            shutdown(c.fd, SHUT_RDWR);
            return NULL;
        }
        n -= (size_t)(end + 4 - head);
        memmove(head, end + 4, n);
        head[n] = '\0';
    }
}

static inline void *server_accept(void *arg) {
    hub_server *s = arg;
    for (;;) {
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && !s->stop && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 || s->stop || s->nsockets == SERVER_CONNECTIONS)
            return NULL;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        server_connection *c = malloc(sizeof *c);
        *c = (server_connection){s, fd};
        s->sockets[s->nsockets] = fd;
        pthread_create(&s->threads[s->nsockets++], NULL, server_serve, c);
    }
}

static inline void server_start(hub_server *s) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    setenv("no_proxy", "*", 1); /* whatever stands between this machine and others */
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 64), 0);
    getsockname(s->listener, (struct sockaddr *)&a, &n);
    s->port = ntohs(a.sin_port);
    snprintf(s->endpoint, sizeof s->endpoint, "http://127.0.0.1:%d", s->port);
    pthread_mutex_init(&s->lock, NULL);
    assert_int_equal(pthread_create(&s->acceptor, NULL, server_accept, s), 0);
}

static inline void server_stop(hub_server *s) {
    if (!s->port)
        return;
    s->stop = true;
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    for (int i = 0; i < s->nsockets; i++) {
        shutdown(s->sockets[i], SHUT_RDWR);
        pthread_join(s->threads[i], NULL);
        close(s->sockets[i]);
    }
    close(s->listener);
    pthread_mutex_destroy(&s->lock);
    s->port = 0;
}

#endif
