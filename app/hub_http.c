/* hub_http.c - see hub_http.h.
 *
 * A file is cut into pieces. The transfer that holds the piece at the write position, the
 * head, hands its bytes on as they come; the others keep theirs in memory until it is their
 * turn. So the bytes on disk are always the beginning of the file: an interrupted download
 * of ours goes on anywhere, in other tools too, and nothing has to be remembered beside it.
 *
 * The first request goes alone. Its answer tells whether the server does ranges (206) or
 * sends everything (200: one connection then brings it all), and where the redirect to the
 * storage leads; the other pieces ask there directly. Such an address expires: what it
 * refuses is asked for at the hub again.                                             */
#include "app/hub_http.h"

#include "app/curl.h"
#include "core/pali.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    CONNECTIONS_MAX = 16,
    HOPS_MAX = 8,
    ATTEMPTS = 6,        /* in a row, of one piece */
    FIRST_ATTEMPTS = 3,  /* to reach the hub at all */
    PROGRESS = 64 << 10, /* bytes after which attempts are counted afresh */
    WAIT_MAX_S = 300,    /* a longer Retry-After is not waited for */
    CONNECT_S = 20,
    POLL_MS = 100,
    ERROR_BODY_MAX = 64 << 10,
    TOKEN_MAX = 1024,
    URL_BYTES = 8192
};

typedef struct {
    char origin[320]; /* scheme://host:port */
    bool https;
} place;

typedef enum {
    IDLE,
    RUNNING,
    WAITING, /* until retry_at, then the rest of the piece again */
    READY,   /* the piece is in memory */
} transfer_state;

struct fetch;

typedef struct {
    CURL *easy;
    struct fetch *f;
    transfer_state state;
    uint64_t begin, end, got; /* the piece, and how much of it came */
    char *buffer;             /* of the piece; NULL while it was only ever the head */
    char url[URL_BYTES];
    int hops, failures;
    uint64_t got_before; /* at the last failure */
    long retry_at;

    /* the answer */
    bool accepted;
    uint64_t skip;    /* bytes of it that we have already */
    uint64_t ignored; /* bytes of the text of an error */
    bool has_range;
    uint64_t range_begin, range_total;
    char code[40]; /* X-Error-Code */
    char text[CURL_ERROR_SIZE];
} transfer;

typedef struct fetch {
    hub_http *h;
    const char *path;
    const hub_http_sink *sink;    /* NULL: into memory, of unknown size */
    uint64_t size, written, next; /* next: the first byte that belongs to no transfer */
    bool ranges;
    transfer *single;       /* it brings all the rest; NULL: pieces */
    char direct[URL_BYTES]; /* where the hub sent us; "" before */
    int rc;                 /* the failure that ends it */
    pali_error *err;
} fetch;

struct hub_http {
    hub_http_options o;
    place home;
    CURLM *multi;
    struct curl_slist *authorization;
    transfer transfers[CONNECTIONS_MAX];
};

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- addresses ------------------------------------------------------------------------ */

/* False when url is not one of http or https. */
static bool locate(const char *url, place *out) {
    CURLU *u = curl.curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool good = u && !curl.curl_url_set(u, CURLUPART_URL, url, 0) &&
                !curl.curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
                !curl.curl_url_get(u, CURLUPART_HOST, &host, 0) &&
                !curl.curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
    if (good) {
        out->https = !strcasecmp(scheme, "https");
        int n = snprintf(out->origin, sizeof out->origin, "%s://%s:%s", scheme, host, port);
        good =
            (out->https || !strcasecmp(scheme, "http")) && n > 0 && (size_t)n < sizeof out->origin;
    }
    curl.curl_free(scheme);
    curl.curl_free(host);
    curl.curl_free(port);
    curl.curl_url_cleanup(u);
    return good;
}

/* --- what went wrong, for a person ------------------------------------------------------ */

static int explain_access(const hub_http *h, const transfer *t, long status, pali_error *err) {
    const char *e = h->o.endpoint, *id = h->o.id;
    bool token = h->authorization != NULL;
    char hint[sizeof err->hint];
    if (token)
        snprintf(hint, sizeof hint,
                 "accept it with the account of the token; see %s/settings/tokens for what the "
                 "token may read",
                 e);
    else
        snprintf(hint, sizeof hint,
                 "then make a token at %s/settings/tokens and set HF_TOKEN, or run: hf auth login",
                 e);
    if (!strcmp(t->code, "GatedRepo") || status == 403)
        return pali_fail(
            err, PALI_EIO, hint, "%s: its licence has to be accepted at %s/%s%s", id, e, id,
            token ? ", or the token may not read it" : ", and a token has to say who you are");
    if (token && strcmp(t->code, "RepoNotFound"))
        return pali_fail(err, PALI_EIO, hint, "%s: the hub does not accept the token", id);
    return pali_fail(err, PALI_EIO,
                     token ? "check the name, and what the token may read"
                           : "check the name; a private model needs a token in HF_TOKEN",
                     "%s: there is no such model on %s, or it is private", id, e);
}

static int explain(const hub_http *h, const transfer *t, long status, pali_error *err) {
    const char *file = strrchr(t->f->path, '/') + 1;
    if (status == 401 || status == 403)
        return explain_access(h, t, status, err);
    if (status == 404 && !strcmp(t->code, "RevisionNotFound"))
        return pali_fail(err, PALI_EIO, "its branches and tags are on its page",
                         "%s: has no such revision", h->o.id);
    if (status == 404 && (!strcmp(t->code, "EntryNotFound") || t->f->sink))
        return pali_fail(err, PALI_EIO, "pull it again", "%s: %.80s is no longer there", h->o.id,
                         file);
    if (status == 404)
        return pali_fail(err, PALI_EIO, "check the name", "%s: there is no such model on %s",
                         h->o.id, h->o.endpoint);
    if (status == 429)
        return pali_fail(err, PALI_EIO, "wait some minutes; with a token more is allowed",
                         "%s: the hub says that we ask too often", h->o.id);
    return pali_fail(err, PALI_EIO, "try again later; what has come is kept",
                     "%s: the hub answers with status %ld", h->o.id, status);
}

/* --- answers ---------------------------------------------------------------------------- */

/* "Content-Range: bytes 5-9/10". */
static void read_range(transfer *t, const char *v) {
    unsigned long long from, to, total;
    t->has_range = sscanf(v, " bytes %llu-%llu/%llu", &from, &to, &total) == 3;
    if (t->has_range) {
        t->range_begin = from;
        t->range_total = total;
    }
}

static size_t on_header(char *p, size_t one, size_t n, void *user) {
    transfer *t = user;
    char line[256];
    snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), p);
    char *value = strchr(line, ':');
    if (!strncmp(line, "HTTP/", 5)) { /* an answer begins; a proxy's came before it */
        t->has_range = false;
        t->code[0] = '\0';
    } else if (value) {
        *value++ = '\0';
        if (!strcasecmp(line, "content-range"))
            read_range(t, value);
        else if (!strcasecmp(line, "x-error-code"))
            sscanf(value, " %39[A-Za-z]", t->code);
    }
    return one * n;
}

/* Whether the answer to t is the part of the file that was asked for. */
static int accept_answer(transfer *t, long status) {
    fetch *f = t->f;
    const char *id = f->h->o.id;
    uint64_t from = t->begin + t->got;
    curl_off_t length = -1;
    curl.curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    t->accepted = true;
    if (!f->sink && status == 200)
        return 0;
    if (status == 206 && t->has_range && t->range_begin == from && t->range_total == f->size) {
        f->ranges = true;
        if (t->hops)
            snprintf(f->direct, sizeof f->direct, "%s", t->url);
        return 0;
    }
    if (status == 200 && from == f->written && (length < 0 || (uint64_t)length == f->size)) {
        t->skip = from;
        t->end = f->size;
        f->single = t; /* the loop stops the others: not in a callback */
        return 0;
    }
    return pali_fail(f->err, PALI_EFORMAT, "pull it again, or without a proxy in between",
                     "%s: what the server sends is not the file that the hub lists", id);
}

static int take_bytes(transfer *t, const char *p, size_t n) {
    fetch *f = t->f;
    if (n > t->end - t->begin - t->got)
        return f->sink ? pali_fail(f->err, PALI_EFORMAT, "pull it again",
                                   "%s: the server sends more bytes than the file has", f->h->o.id)
                       : pali_fail(f->err, PALI_ELIMIT, "is it the right model?",
                                   "%s: the hub's answer is too long", f->h->o.id);
    if (f->sink && t->begin + t->got == f->written) {
        int rc = f->sink->write(f->sink->user, p, n, f->err);
        if (rc)
            return rc;
        f->written += n;
    } else {
        size_t room = (size_t)(t->end - t->begin);
        if (!t->buffer && !(t->buffer = malloc(room)))
            return pali_fail_nomem(f->err, "downloading");
        memcpy(t->buffer + t->got, p, n);
    }
    t->got += n;
    return 0;
}

static size_t on_body(char *p, size_t one, size_t n, void *user) {
    transfer *t = user;
    fetch *f = t->f;
    size_t all = one * n;
    long status = 0;
    curl.curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status / 100 != 2) { /* the status says enough */
        t->ignored += all;
        return t->ignored > ERROR_BODY_MAX ? 0 : all;
    }
    if (f->rc || (f->single && f->single != t) ||
        (!t->accepted && (f->rc = accept_answer(t, status))))
        return 0;
    size_t had = t->skip < all ? (size_t)t->skip : all;
    t->skip -= had;
    f->rc = take_bytes(t, p + had, all - had);
    return f->rc ? 0 : all;
}

/* --- one transfer ------------------------------------------------------------------------- */

/* Asks for the rest of the piece at t->url. */
static int start(transfer *t) {
    fetch *f = t->f;
    hub_http *h = f->h;
    place p;
    if (!locate(t->url, &p) || (h->home.https && !p.https))
        return pali_fail(f->err, PALI_EIO, "is HF_ENDPOINT that of a Hugging Face hub?",
                         "%s: the hub sends us to an address that is not safe", h->o.id);
    char range[64];
    uint64_t from = t->begin + t->got;
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)from,
             (unsigned long long)t->end - 1);
    bool whole = !f->sink || (from == 0 && t->end == f->size);
    bool at_home = !strcmp(p.origin, h->home.origin);
    t->accepted = false;
    t->skip = t->ignored = 0;
    t->text[0] = '\0';
    CURL *e = t->easy;
    if (curl.curl_easy_setopt(e, CURLOPT_URL, t->url) ||
        curl.curl_easy_setopt(e, CURLOPT_RANGE, whole ? NULL : range) ||
        curl.curl_easy_setopt(e, CURLOPT_HTTPHEADER, at_home ? h->authorization : NULL) ||
        curl.curl_multi_add_handle(h->multi, e))
        return pali_fail_nomem(f->err, "downloading");
    t->state = RUNNING;
    return 0;
}

static int begin_at_hub(transfer *t) {
    hub_http *h = t->f->h;
    int n = snprintf(t->url, sizeof t->url, "%s%s", h->o.endpoint, t->f->path);
    if (n < 0 || (size_t)n >= sizeof t->url)
        return pali_fail(t->f->err, PALI_EARG, NULL, "%s: the address is too long", h->o.id);
    t->hops = 0;
    return start(t);
}

static void stop(hub_http *h, transfer *t) {
    if (t->state == RUNNING)
        curl.curl_multi_remove_handle(h->multi, t->easy);
    free(t->buffer);
    t->buffer = NULL;
    t->state = IDLE;
}

/* Tries again later, or gives up with why. */
static int again(transfer *t, const char *why, long wait_s, long status) {
    fetch *f = t->f;
    hub_http *h = f->h;
    if (!f->sink)
        t->got = 0;
    if (t->got >= t->got_before + PROGRESS)
        t->failures = 0;
    t->got_before = t->got;
    if (++t->failures >= (f->sink || status ? ATTEMPTS : FIRST_ATTEMPTS) || wait_s > WAIT_MAX_S) {
        if (status)
            return explain(h, t, status, f->err);
        return pali_fail(f->err, PALI_EIO, "check the network; what has come is kept", "%s: %s: %s",
                         h->o.id, h->o.endpoint, why);
    }
    long wait = (long)h->o.retry_ms << (t->failures - 1);
    if (wait < wait_s * 1000)
        wait = wait_s * 1000;
    t->retry_at = now_ms() + wait;
    t->state = WAITING;
    if (wait >= 1000 && h->o.waiting)
        h->o.waiting(h->o.user, why, (int)(wait / 1000));
    return 0;
}

static int redirect(transfer *t) {
    char *to = NULL;
    curl.curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &to);
    if (!to || strlen(to) >= sizeof t->url || ++t->hops > HOPS_MAX)
        return pali_fail(t->f->err, PALI_EIO, "is HF_ENDPOINT that of a Hugging Face hub?",
                         "%s: the hub sends us in circles", t->f->h->o.id);
    snprintf(t->url, sizeof t->url, "%s", to);
    return start(t);
}

/* Failures that no second attempt mends. */
static bool is_final(CURLcode c) {
    return c == CURLE_PEER_FAILED_VERIFICATION || c == CURLE_SSL_CACERT_BADFILE ||
           c == CURLE_UNSUPPORTED_PROTOCOL || c == CURLE_URL_MALFORMAT || c == CURLE_OUT_OF_MEMORY;
}

/* A transfer of libcurl's ended with code. */
static int finish(transfer *t, CURLcode code) {
    fetch *f = t->f;
    hub_http *h = f->h;
    long status = 0;
    curl_off_t wait_s = 0;
    char why[CURL_ERROR_SIZE + 64];
    curl.curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    curl.curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &wait_s);
    curl.curl_multi_remove_handle(h->multi, t->easy);
    t->state = IDLE;
    if (f->rc || (f->single && f->single != t))
        return f->rc;
    snprintf(why, sizeof why, "%s", *t->text ? t->text : curl.curl_easy_strerror(code));
    if (is_final(code))
        return pali_fail(f->err, PALI_EIO, "check HF_ENDPOINT, the clock and the certificates",
                         "%s: %s: %s", h->o.id, h->o.endpoint, why);
    if (code != CURLE_OK && status / 100 <= 2)
        return again(t, why, 0, 0);
    if (status / 100 == 3)
        return redirect(t);
    if (status / 100 == 2) {
        if (!f->sink || t->got == t->end - t->begin) {
            t->state = READY;
            return 0;
        }
        return again(t, "the connection was closed early", 0, 0);
    }
    snprintf(why, sizeof why, "the hub answers with status %ld", status);
    if (status == 429 || status == 408 || status / 100 == 5)
        return again(t, why, (long)wait_s, status);
    place p;
    if (locate(t->url, &p) && strcmp(p.origin, h->home.origin)) { /* the storage's has expired */
        f->direct[0] = '\0';
        return again(t, why, 0, status);
    }
    return explain(h, t, status, f->err);
}

/* --- one fetch ----------------------------------------------------------------------------- */

/* Gives the next piece to t. */
static int next_piece(fetch *f, transfer *t) {
    uint64_t left = f->size - f->next, n = f->h->o.piece;
    t->f = f;
    t->begin = f->next;
    t->end = f->next + (left < n ? left : n);
    t->got = t->got_before = 0;
    t->failures = 0;
    f->next = t->end;
    if (!*f->direct)
        return begin_at_hub(t);
    snprintf(t->url, sizeof t->url, "%s", f->direct);
    t->hops = 1;
    return start(t);
}

/* Writes what is in memory and has become next, and frees its transfers. */
static int drain(fetch *f) {
    hub_http *h = f->h;
    for (int i = 0; i < h->o.connections;) {
        transfer *t = &h->transfers[i++];
        if (t->state == IDLE || (f->single && f->single != t) || f->written < t->begin ||
            f->written > t->begin + t->got)
            continue;
        size_t n = (size_t)(t->begin + t->got - f->written);
        int rc =
            n ? f->sink->write(f->sink->user, t->buffer + (f->written - t->begin), n, f->err) : 0;
        if (rc)
            return rc;
        f->written += n;
        if (t->state == READY) {
            stop(h, t);
            i = 0; /* another may follow this one */
        }
    }
    return 0;
}

/* Idle transfers get work, waiting ones their next attempt. */
static int dispatch(fetch *f) {
    hub_http *h = f->h;
    long now = now_ms();
    int rc = 0;
    for (int i = 0; i < h->o.connections && !rc; i++) {
        transfer *t = &h->transfers[i];
        if (f->single && f->single != t)
            stop(h, t);
        if (t->state == WAITING && now >= t->retry_at)
            rc = begin_at_hub(t);
        else if (t->state == IDLE && f->next < f->size && (i == 0 || f->ranges) && !f->single)
            rc = next_piece(f, t);
    }
    return rc;
}

static int collect(fetch *f) {
    CURLMsg *m;
    int left, rc = 0;
    while (!rc && (m = curl.curl_multi_info_read(f->h->multi, &left)))
        if (m->msg == CURLMSG_DONE) {
            transfer *t;
            curl.curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
            rc = finish(t, m->data.result);
        }
    return rc;
}

static uint64_t bytes_ahead(const fetch *f) {
    uint64_t sum = 0;
    for (int i = 0; i < f->h->o.connections; i++) {
        const transfer *t = &f->h->transfers[i];
        if (t->state != IDLE && t->begin > f->written)
            sum += t->got;
    }
    return sum;
}

/* How long nothing can happen but on the network. A transfer that was just started ends the
 * wait itself. */
static int patience(const fetch *f) {
    long now = now_ms(), ms = POLL_MS;
    for (int i = 0; i < f->h->o.connections; i++) {
        const transfer *t = &f->h->transfers[i];
        if (t->state == WAITING && t->retry_at - now < ms)
            ms = t->retry_at > now ? t->retry_at - now : 0;
    }
    return (int)ms;
}

static bool is_done(const fetch *f) {
    return f->sink ? f->written == f->size : f->h->transfers[0].state == READY;
}

/* Until the file is written, or the one answer is in memory. */
static int run(fetch *f) {
    hub_http *h = f->h;
    int rc = 0, running;
    while (!rc && !is_done(f)) {
        if (atomic_load(h->o.cancel))
            return pali_fail(f->err, PALI_ECANCEL, "what has come is kept", "%s: stopped", h->o.id);
        rc = dispatch(f);
        if (!rc && (curl.curl_multi_poll(h->multi, NULL, 0, patience(f), NULL) ||
                    curl.curl_multi_perform(h->multi, &running)))
            rc = pali_fail_nomem(f->err, "downloading");
        if (!rc)
            rc = collect(f);
        if (!rc && f->sink)
            rc = drain(f);
        if (!rc && f->sink && f->sink->tick)
            f->sink->tick(f->sink->user, bytes_ahead(f));
    }
    return rc;
}

/* --- public --------------------------------------------------------------------------------- */

int hub_http_get(hub_http *h, const char *path, size_t limit, char **bytes, size_t *n,
                 pali_error *err) {
    transfer *t = &h->transfers[0];
    fetch f = {.h = h, .path = path, .size = limit, .next = limit, .err = err};
    *bytes = NULL;
    t->f = &f;
    t->begin = t->got = t->got_before = 0;
    t->end = limit;
    t->failures = 0;
    int rc = begin_at_hub(t);
    if (!rc)
        rc = run(&f);
    char *copy = NULL;
    if (!rc && !(copy = malloc((size_t)t->got + 1)))
        rc = pali_fail_nomem(err, "downloading");
    if (!rc) {
        if (t->got)
            memcpy(copy, t->buffer, (size_t)t->got);
        copy[t->got] = '\0';
        *bytes = copy;
        *n = (size_t)t->got;
    }
    stop(h, t);
    return rc;
}

int hub_http_fetch(hub_http *h, const char *path, uint64_t from, uint64_t size,
                   const hub_http_sink *sink, pali_error *err) {
    fetch *f = calloc(1, sizeof *f);
    if (!f)
        return pali_fail_nomem(err, "downloading");
    *f = (fetch){.h = h,
                 .path = path,
                 .sink = sink,
                 .size = size,
                 .written = from,
                 .next = from,
                 .err = err};
    int rc = run(f);
    for (int i = 0; i < h->o.connections; i++)
        stop(h, &h->transfers[i]);
    free(f);
    return rc;
}

/* Header injection would need a line break, and a token has no space in it either. */
static bool is_token(const char *s) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] >= 127)
            return false;
    return n <= TOKEN_MAX;
}

static int set_up(transfer *t, const hub_http_options *o) {
    CURL *e = t->easy = curl.curl_easy_init();
    /* HTTP/1.1: several ranges over one connection of HTTP/2 would share its one window.
     * libcurl ignores SIGPIPE while it writes, as long as CURLOPT_NOSIGNAL is not set. */
    return !e || curl.curl_easy_setopt(e, CURLOPT_PRIVATE, t) ||
           curl.curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) ||
           curl.curl_easy_setopt(e, CURLOPT_WRITEDATA, t) ||
           curl.curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) ||
           curl.curl_easy_setopt(e, CURLOPT_HEADERDATA, t) ||
           curl.curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->text) ||
           curl.curl_easy_setopt(e, CURLOPT_USERAGENT, "pali/" PALI_VERSION) ||
           curl.curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) ||
           curl.curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S) ||
           curl.curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L) ||
           curl.curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)o->stall_s) ||
           curl.curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256L << 10);
}

int hub_http_open(const hub_http_options *options, hub_http **out, pali_error *err) {
    *out = NULL;
    bool token = options->token && *options->token;
    if (app_curl_open(err))
        return PALI_EUNSUPPORTED;
    hub_http *h = calloc(1, sizeof *h);
    if (!h || curl.curl_global_init(CURL_GLOBAL_DEFAULT)) {
        free(h);
        return pali_fail_nomem(err, "preparing a download");
    }
    h->o = *options;
    int rc = 0;
    if (!locate(options->endpoint, &h->home))
        rc = pali_fail(err, PALI_EARG, "set it to something like https://huggingface.co",
                       "HF_ENDPOINT is \"%.100s\", not an address of http or https",
                       options->endpoint);
    else if (token && !is_token(options->token))
        rc = pali_fail(err, PALI_EARG, "a token looks like hf_abc...",
                       "the token of the Hugging Face hub has characters that no token has");
    char line[TOKEN_MAX + 32];
    if (!rc && token) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", options->token);
        h->authorization = curl.curl_slist_append(NULL, line);
    }
    h->multi = rc ? NULL : curl.curl_multi_init();
    bool failed = !h->multi || (token && !h->authorization);
    for (int i = 0; !rc && !failed && i < options->connections; i++)
        failed = set_up(&h->transfers[i], options);
    if (!rc && failed)
        rc = pali_fail_nomem(err, "preparing a download");
    if (rc) {
        hub_http_close(h);
        return rc;
    }
    *out = h;
    return 0;
}

void hub_http_close(hub_http *h) {
    if (!h)
        return;
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        curl.curl_easy_cleanup(h->transfers[i].easy);
    curl.curl_slist_free_all(h->authorization);
    curl.curl_multi_cleanup(h->multi);
    curl.curl_global_cleanup();
    free(h);
}
