/* Pulling a model from a server that speaks the hub's API and does all that can go wrong. */
#include "app/pull.h"

#include "tests/app/hub_server.h"
#include "tests/core/make_model.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define FOLDER "models--org--tiny"
#define TOKEN  "hf_secret"

enum {
    WEIGHTS = 1500000,
    PIECE = 65536
};

static unsigned char weights[WEIGHTS], tokenizer[5000];
static const server_file files[] = {
    {"README.md", (const unsigned char *)"not wanted", 10, false, 0},
    {"config.json", (const unsigned char *)"{\"model_type\": \"paligemma\"}\n", 28, false, 0},
    {"generation_config.json", (const unsigned char *)"{}\n", 3, false, 0},
    {"model.safetensors", weights, WEIGHTS, true, 0},
    {"onnx/model.onnx", weights, WEIGHTS, true, 0},
    {"preprocessor_config.json", (const unsigned char *)"{\"size\": {\"height\": 224}}\n", 26,
     false, 0},
    {"tokenizer.model", tokenizer, sizeof tokenizer, true, 0},
};
enum {
    NFILES = sizeof files / sizeof *files
};

static char top[64], snapshot[1024], weights_hash[65];
static hub_server hub, storage;
static pull_request request;
static pali_error err;
static atomic_int cancel;
static int seen[PULL_WAIT + 1]; /* events, by kind */
static uint64_t most, total;    /* of the events */
static int held = -1;           /* a lock, let go when the pull waits for it */
static bool stop_at_bytes;

static void on_event(void *user, const pull_event *e) {
    (void)user;
    seen[e->what]++;
    assert_true(e->file_have <= e->file_bytes && e->have <= e->bytes);
    most = e->have > most ? e->have : most;
    total = e->bytes;
    if (e->what == PULL_BUSY) {
        close(held);
        held = -1;
    }
    if (e->what == PULL_BYTES && stop_at_bytes && e->file_have > 100000)
        cancel = 1;
}

static int setup(void **state) {
    (void)state;
    for (unsigned long i = 0; i < WEIGHTS; i++)
        weights[i] = (unsigned char)(i * i / 251 + i * 3);
    for (unsigned i = 0; i < sizeof tokenizer; i++)
        tokenizer[i] = (unsigned char)(i * 31 + 7);
    server_hash(&files[3], weights_hash);
    model_folder(top);
    hub = (hub_server){.commit = COMMIT, .files = files, .nfiles = NFILES, .storage = &storage};
    storage = (hub_server){.commit = COMMIT, .files = files, .nfiles = NFILES};
    server_start(&hub);
    server_start(&storage);
    request = (pull_request){.id = {.org = "org", .name = "tiny"},
                             .env = {.hf_hub_cache = top},
                             .http = {.endpoint = hub.endpoint,
                                      .connections = 4,
                                      .piece = PIECE,
                                      .retry_ms = 1,
                                      .stall_s = 300, /* a thread here may stand still */
                                      .cancel = &cancel}};
    cancel = 0;
    stop_at_bytes = false;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    server_stop(&hub);
    server_stop(&storage);
    model_remove(top);
    return 0;
}

static int pull(void) {
    pull_listener l = {.on = on_event};
    memset(&err, 0, sizeof err);
    memset(seen, 0, sizeof seen);
    most = total = 0;
    return pull_run(&request, &l, snapshot, sizeof snapshot, &err);
}

static void expect_failure(int code, const char *words) {
    int rc = pull();
    if (rc != code || !strstr(err.what, words))
        fail_msg("got %d '%s', expected %d and '%s'", rc, err.what, code, words);
    assert_int_equal(err.code, code);
    assert_string_not_equal(err.hint, "");
    assert_null(strstr(err.what, TOKEN));
}

static const char *under(const char *path) {
    static char full[2048];
    snprintf(full, sizeof full, "%s/" FOLDER "/%s", top, path);
    return full;
}

static char *blob(const char *tail) {
    static char path[256];
    snprintf(path, sizeof path, "blobs/%s%s", weights_hash, tail);
    return path;
}

static bool there(const char *path) {
    struct stat st;
    return !lstat(under(path), &st);
}

/* Bytes of a file that begins like the weights; -1: none, -2: other bytes. */
static long part_of_weights(const char *path) {
    FILE *f = fopen(under(path), "rb");
    if (!f)
        return -1;
    unsigned char *got = malloc(WEIGHTS + 1);
    long n = (long)fread(got, 1, WEIGHTS + 1, f);
    fclose(f);
    bool same = n <= WEIGHTS && !memcmp(got, weights, (size_t)n);
    free(got);
    return same ? n : -2;
}

static void expect_whole(void) {
    char found[1024];
    assert_int_equal(part_of_weights(blob("")), WEIGHTS);
    assert_false(there(blob(".incomplete")));
    assert_ok(pali_hub_find(&request.env, "org/tiny", found, sizeof found, &err), err);
    assert_string_equal(found, snapshot);
}

static void expect_nothing_named(void) {
    assert_false(there("refs/main"));
    assert_false(there("snapshots/" COMMIT "/model.safetensors"));
    assert_false(there(blob("")));
}

/* --- what it does ------------------------------------------------------------------ */

static void pull_brings_a_model(void **state) {
    (void)state;
    assert_ok(pull(), err);
    expect_whole();
    assert_true(storage.ranges >= WEIGHTS / PIECE);
    assert_int_equal(hub.body + storage.body, 28 + 3 + 26 + WEIGHTS + sizeof tokenizer);
    assert_int_equal(seen[PULL_BEGIN], 1);
    assert_int_equal(seen[PULL_FILE], 5);
    assert_int_equal(seen[PULL_CHECKED], 5);
    assert_int_equal(most, total);
}

static int listed(const char *path, const struct stat *st, int flag, struct FTW *ftw);
static char *lines[128];
static int nlines;

static int listed(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    char line[1024], target[256] = "";
    const char *rest = path + strlen(top) + 1;
    if (ftw->level == 0)
        return 0;
    if (flag == FTW_SL || flag == FTW_SLN) {
        assert_true(readlink(path, target, sizeof target - 1) > 0);
        snprintf(line, sizeof line, "%s -> %s\n", rest, target);
    } else if (flag == FTW_D) {
        snprintf(line, sizeof line, "%s/\n", rest);
    } else {
        int n = snprintf(line, sizeof line, "%s %ld", rest, (long)st->st_size);
        if (strstr(path, "/refs/")) {
            FILE *f = fopen(path, "r");
            assert_non_null(fgets(target, sizeof target, f));
            fclose(f);
            n += snprintf(line + n, sizeof line - (size_t)n, " %s", target);
        }
        strcpy(line + n, "\n");
    }
    lines[nlines++] = strdup(line);
    return 0;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* tests/reference/hub_layout.py asked huggingface_hub for the same. */
static void pull_lays_the_cache_out_as_the_hubs_own_tools(void **state) {
    (void)state;
    assert_ok(pull(), err);
    strcpy(request.id.revision, "refs/pr/1");
    assert_ok(pull(), err);
    assert_int_equal(seen[PULL_FILE], 0); /* the same commit */
    nlines = 0;
    nftw(top, listed, 16, FTW_PHYS);
    qsort(lines, (size_t)nlines, sizeof *lines, by_text);
    FILE *f = fopen(TEST_DATA "hub/layout.txt", "r");
    assert_non_null(f);
    char line[1024];
    for (int i = 0; i < nlines; i++) {
        assert_non_null(fgets(line, sizeof line, f));
        assert_string_equal(lines[i], line);
        free(lines[i]);
    }
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
}

static void pull_brings_nothing_twice(void **state) {
    (void)state;
    assert_ok(pull(), err);
    long sent = hub.body + storage.body;
    int asked = hub.requests + storage.requests;
    assert_ok(pull(), err);
    assert_int_equal(hub.body + storage.body, sent);
    assert_int_equal(hub.requests + storage.requests, asked + 1);
    assert_int_equal(seen[PULL_FILE], 0);
    expect_whole();
}

static void pull_mends_a_snapshot(void **state) {
    (void)state;
    assert_ok(pull(), err);
    assert_int_equal(unlink(under("snapshots/" COMMIT "/config.json")), 0);
    assert_int_equal(truncate(under(blob("")), 1000), 0);
    assert_int_equal(unlink(under("snapshots/" COMMIT "/tokenizer.model")), 0);
    assert_int_equal(symlink("nowhere", under("snapshots/" COMMIT "/tokenizer.model")), 0);
    assert_ok(pull(), err);
    assert_int_equal(seen[PULL_FILE], 1);
    expect_whole();
    assert_int_equal(access(under("snapshots/" COMMIT "/config.json"), R_OK), 0);
    assert_int_equal(access(under("snapshots/" COMMIT "/tokenizer.model"), R_OK), 0);
}

static void pull_follows_a_renamed_model(void **state) {
    (void)state;
    hub.page = "new/name";
    assert_ok(pull(), err);
    expect_whole();
}

static void pull_works_with_one_connection_and_small_pieces(void **state) {
    (void)state;
    request.http.connections = 1;
    request.http.piece = 4096;
    assert_ok(pull(), err);
    expect_whole();
}

static void pull_works_without_a_storage(void **state) {
    (void)state;
    hub.storage = NULL;
    assert_ok(pull(), err);
    expect_whole();
    assert_true(hub.ranges > 10);
}

/* --- the token ----------------------------------------------------------------------- */

static void pull_gives_the_token_to_the_hub_alone(void **state) {
    (void)state;
    hub.token = TOKEN;
    request.http.token = TOKEN;
    assert_ok(pull(), err);
    assert_int_equal(hub.tokens, hub.requests);
    assert_true(storage.requests > 10);
    assert_int_equal(storage.tokens, 0);
}

static void pull_gives_no_token_to_another_name_of_the_host(void **state) {
    (void)state;
    char other[64], location[128];
    snprintf(other, sizeof other, "http://localhost:%d", hub.port);
    snprintf(location, sizeof location, "Location: %s/org/tiny/resolve/x/config.json\r\n", other);
    hub.rules[0] = (server_rule){"/config.json", 1, 302, location, ""};
    request.http.token = TOKEN;
    assert_ok(pull(), err);
    assert_int_equal(hub.tokens, hub.requests - 1);
}

static void pull_explains_what_a_gated_model_needs(void **state) {
    (void)state;
    char page[128];
    snprintf(page, sizeof page, "accepted at %s/org/tiny", hub.endpoint);
    hub.token = TOKEN;
    expect_failure(PALI_EIO, page);
    assert_non_null(strstr(err.hint, "/settings/tokens and set HF_TOKEN"));
    request.http.token = "hf_other";
    expect_failure(PALI_EIO, page);
    assert_non_null(strstr(err.hint, "with the account of the token"));
    assert_int_equal(seen[PULL_WAIT], 0);
}

static void pull_refuses_a_token_that_would_be_a_header(void **state) {
    (void)state;
    request.http.token = "hf_a\r\nX-Evil: 1";
    expect_failure(PALI_EARG, "characters that no token has");
    assert_int_equal(hub.requests, 0);
}

static void pull_finds_the_token(void **state) {
    (void)state;
    char token[64], home[128], path[160];
    snprintf(home, sizeof home, "%s/hf", top);
    snprintf(path, sizeof path, "%s/mine", top);
    mkdir(home, 0700);
    model_put(home, "token", " hf_file\n", 9);
    model_put(top, "mine", "hf_mine", 7);
    pali_hub_env env = {.hf_home = home, .home = "/nowhere"};
    pull_token(&env, "hf_env", path, token, sizeof token);
    assert_string_equal(token, "hf_env");
    pull_token(&env, "", path, token, sizeof token);
    assert_string_equal(token, "hf_mine");
    pull_token(&env, NULL, NULL, token, sizeof token);
    assert_string_equal(token, "hf_file");
    env.hf_home = NULL;
    pull_token(&env, NULL, NULL, token, sizeof token);
    assert_string_equal(token, "");
}

/* --- what the hub refuses ---------------------------------------------------------------- */

static void refuse(const char *part, int times, int status, const char *headers) {
    hub.rules[0] = (server_rule){part, times, status, headers, "<html>no</html>"};
}

static void pull_explains_refusals(void **state) {
    (void)state;
    refuse("/api/", 1, 401, "X-Error-Code: RepoNotFound\r\n");
    expect_failure(PALI_EIO, "there is no such model");
    refuse("/api/", 1, 404, NULL);
    expect_failure(PALI_EIO, "there is no such model");
    refuse("/api/", 1, 404, "X-Error-Code: RevisionNotFound\r\n");
    expect_failure(PALI_EIO, "no such revision");
    refuse("/api/", 1, 418, NULL);
    expect_failure(PALI_EIO, "status 418");
    refuse("/config.json", 1, 403, "X-Error-Code: GatedRepo\r\n");
    expect_failure(PALI_EIO, "its licence has to be accepted");
    refuse("/config.json", 1, 404, "X-Error-Code: EntryNotFound\r\n");
    expect_failure(PALI_EIO, "config.json is no longer there");
    request.http.token = TOKEN;
    refuse("/api/", 1, 401, NULL);
    expect_failure(PALI_EIO, "does not accept the token");
    expect_nothing_named();
}

static void pull_tries_again_what_may_pass(void **state) {
    (void)state;
    static const int statuses[] = {408, 429, 500, 502, 503, 504};
    for (int i = 0; i < 6; i++)
        hub.rules[i] = (server_rule){i % 2 ? "/api/" : "/resolve/", 1, statuses[i], NULL, NULL};
    storage.rules[0] = (server_rule){"/model.safetensors", 3, 503, NULL, NULL};
    assert_ok(pull(), err);
    expect_whole();
}

static void pull_waits_as_long_as_the_hub_says(void **state) {
    (void)state;
    refuse("/api/", 1, 429, "Retry-After: 1\r\n");
    assert_ok(pull(), err);
    assert_int_equal(seen[PULL_WAIT], 1);
    refuse("/api/", 1, 429, "Retry-After: 100000\r\n"); /* but not for days */
    expect_failure(PALI_EIO, "we ask too often");
}

static void pull_gives_up(void **state) {
    (void)state;
    refuse("/api/", 1000, 503, NULL);
    expect_failure(PALI_EIO, "status 503");
    assert_int_equal(hub.rules[0].times, 1000 - 6);
    refuse("/api/", 1000, 429, NULL);
    expect_failure(PALI_EIO, "we ask too often");
    /* Nobody listens, and nobody else can: the port is ours. */
    char nowhere[64];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int deaf = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(deaf, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(deaf, (struct sockaddr *)&a, &n), 0);
    snprintf(nowhere, sizeof nowhere, "http://127.0.0.1:%d", ntohs(a.sin_port));
    request.http.endpoint = nowhere;
    expect_failure(PALI_EIO, nowhere);
    close(deaf);
}

static void pull_asks_the_hub_when_an_address_expired(void **state) {
    (void)state;
    storage.rules[0] = (server_rule){"/model.safetensors", 4, 403, NULL, NULL};
    assert_ok(pull(), err);
    expect_whole();
}

static void pull_refuses_redirects_in_circles_and_to_files(void **state) {
    (void)state;
    hub.rules[0] = (server_rule){"/config.json", 1000, 302, "Location: /org/config.json\r\n", ""};
    expect_failure(PALI_EIO, "in circles");
    hub.rules[0] = (server_rule){"/config.json", 1000, 302, "Location: file:///etc/passwd\r\n", ""};
    expect_failure(PALI_EIO, "not safe");
    hub.rules[0] = (server_rule){"/config.json", 1000, 302, NULL, ""};
    expect_failure(PALI_EIO, "in circles");
}

static void pull_refuses_what_is_no_endpoint(void **state) {
    (void)state;
    request.http.endpoint = "file:///tmp";
    expect_failure(PALI_EARG, "HF_ENDPOINT is \"file:///tmp\"");
    request.http.endpoint = "";
    expect_failure(PALI_EARG, "HF_ENDPOINT");
}

/* --- broken transfers ------------------------------------------------------------------------ */

static void pull_goes_on_after_broken_connections(void **state) {
    (void)state;
    storage.breaks = 12;
    storage.break_after = 20000;
    assert_ok(pull(), err);
    expect_whole();
    assert_true(storage.broken > 0);
}

static void pull_gives_up_a_connection_that_stands_still(void **state) {
    (void)state;
    request.http.stall_s = 15; /* a thread that stands still for as long costs an attempt */
    storage.stalls = 1;
    storage.break_after = 10000;
    assert_ok(pull(), err);
    expect_whole();
    assert_int_equal(storage.broken, 1);
}

static void pull_resumes_where_it_stopped(void **state) {
    (void)state;
    storage.slow_us = 20000;
    stop_at_bytes = true;
    expect_failure(PALI_ECANCEL, "stopped");
    expect_nothing_named();
    long had = part_of_weights(blob(".incomplete"));
    assert_true(had > 0 && had < WEIGHTS);
    server_stop(&storage);
    storage = (hub_server){.commit = COMMIT, .files = files, .nfiles = NFILES};
    server_start(&storage);
    cancel = 0;
    stop_at_bytes = false;
    assert_ok(pull(), err);
    expect_whole();
    assert_int_equal(storage.body, WEIGHTS - had);
}

static void pull_takes_everything_from_a_server_without_ranges(void **state) {
    (void)state;
    storage.no_ranges = true;
    assert_ok(pull(), err);
    expect_whole();
}

static void pull_resumes_on_a_server_without_ranges(void **state) {
    (void)state;
    storage.no_ranges = true;
    storage.breaks = 3;
    storage.break_after = 500000;
    assert_ok(pull(), err);
    expect_whole();
    assert_int_equal(storage.broken, 3);
}

static void pull_refuses_another_part_than_it_asked_for(void **state) {
    (void)state;
    storage.wrong_ranges = true;
    expect_failure(PALI_EFORMAT, "not the file that the hub lists");
    expect_nothing_named();
}

static void pull_refuses_another_size_than_the_list_says(void **state) {
    (void)state;
    server_file lies[NFILES];
    memcpy(lies, files, sizeof files);
    hub.files = lies;
    lies[1].said = 20;
    expect_failure(PALI_EFORMAT, "not the file that the hub lists");
    lies[1].said = 200;
    expect_failure(PALI_EFORMAT, "not the file that the hub lists");
    lies[1].said = 0;
    lies[3].said = WEIGHTS + 1;
    expect_failure(PALI_EFORMAT, "not the file that the hub lists");
}

/* --- checksums ----------------------------------------------------------------------------------- */

static void pull_refuses_a_wrong_checksum(void **state) {
    (void)state;
    storage.corrupt = 700000;
    expect_failure(PALI_EFORMAT, "model.safetensors came damaged");
    expect_nothing_named();
    assert_false(there(blob(".incomplete")));
    storage.corrupt = 0;
    assert_ok(pull(), err);
    expect_whole();
}

static void pull_replaces_a_beginning_that_is_not_the_files(void **state) {
    (void)state;
    storage.corrupt = 700000;
    expect_failure(PALI_EFORMAT, "damaged");
    storage.corrupt = 0;
    unsigned char *other = calloc(1, WEIGHTS + 5);
    for (size_t n = 1000; n <= WEIGHTS + 5; n = n == 1000 ? WEIGHTS : n + 5) {
        model_put(top, "part", other, n);
        char part[256];
        snprintf(part, sizeof part, "%s/part", top);
        assert_int_equal(rename(part, under(blob(".incomplete"))), 0);
        assert_ok(pull(), err);
        assert_int_equal(seen[PULL_AGAIN], n <= WEIGHTS);
        expect_whole();
        unlink(under(blob("")));
    }
    free(other);
}

static void pull_leaves_the_old_commit_until_the_new_one_is_whole(void **state) {
    (void)state;
    static const char other[] = "fedcba9876543210fedcba9876543210fedcba98";
    char found[1024], expected[1024];
    assert_ok(pull(), err);
    strcpy(expected, snapshot);
    server_file newer[NFILES];
    memcpy(newer, files, sizeof files);
    newer[3].bytes = tokenizer;
    newer[3].n = 3000;
    hub.files = storage.files = newer;
    hub.commit = other;
    storage.corrupt = 10;
    expect_failure(PALI_EFORMAT, "damaged");
    assert_ok(pali_hub_find(&request.env, "org/tiny", found, sizeof found, &err), err);
    assert_string_equal(found, expected);
    storage.corrupt = 0;
    assert_ok(pull(), err);
    assert_non_null(strstr(snapshot, other));
    assert_ok(pali_hub_find(&request.env, "org/tiny", found, sizeof found, &err), err);
    assert_string_equal(found, snapshot);
}

/* --- names and sizes ------------------------------------------------------------------------------ */

static void pull_refuses_names_that_lead_elsewhere(void **state) {
    (void)state;
    static const char *const names[] = {"../config.json",
                                        "/tmp/model.safetensors",
                                        "a/../../b.npz",
                                        "./config.json",
                                        "a//b",
                                        "x\\\\..\\\\y",
                                        "config.json\\u000a",
                                        "..",
                                        ""};
    char listing[1024];
    hub.listing = listing;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(listing, sizeof listing,
                 "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"%s\", \"size\": 1, "
                 "\"blobId\": \"" COMMIT "\"}]}",
                 names[i]);
        expect_failure(PALI_EFORMAT, "a name that no honest file has");
    }
    assert_false(there(""));
}

static void pull_refuses_a_list_that_makes_no_sense(void **state) {
    (void)state;
    static const char config[] =
        "{\"rfilename\": \"config.json\", \"size\": 1, \"blobId\": \"" COMMIT "\"}";
    static const struct {
        const char *sha, *files, *words;
        int code;
    } cases[] = {
        {"main", "", "names no commit", PALI_EFORMAT},
        {"../../../../../../../../../../../../../../etc", "", "names no commit", PALI_EFORMAT},
        {COMMIT, "{}", "a name that no honest file has", PALI_EFORMAT},
        {COMMIT, config, "no model in it", PALI_EUNSUPPORTED},
        {COMMIT, "{\"rfilename\": \"config.json\", \"size\": 1}", "without a checksum",
         PALI_EFORMAT},
        {COMMIT, "{\"rfilename\": \"config.json\", \"size\": 1, \"blobId\": \"../../x\"}",
         "without a checksum", PALI_EFORMAT},
        {COMMIT, "{\"rfilename\": \"config.json\", \"size\": -1, \"blobId\": \"" COMMIT "\"}",
         "without a size", PALI_EFORMAT},
        {COMMIT,
         "{\"rfilename\": \"config.json\", \"size\": 99999999999, \"blobId\": \"" COMMIT "\"}",
         "at most", PALI_ELIMIT},
        {COMMIT, "1, 2", "a name that no honest file has", PALI_EFORMAT},
    };
    char listing[2048];
    hub.listing = listing;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(listing, sizeof listing, "{\"sha\": \"%s\", \"siblings\": [%s]}", cases[i].sha,
                 cases[i].files);
        expect_failure(cases[i].code, cases[i].words);
    }
    snprintf(listing, sizeof listing, "{\"sha\": \"" COMMIT "\"}");
    expect_failure(PALI_EFORMAT, "no files");
    snprintf(listing, sizeof listing, "<html>busy</html>");
    expect_failure(PALI_EFORMAT, "web page");
}

static void pull_looks_at_the_free_space_first(void **state) {
    (void)state;
    enum {
        SHARDS = 250 /* of the largest size that is taken: more than any disk has free */
    };
    static char names[SHARDS][40];
    static server_file huge[1 + SHARDS];
    huge[0] = files[1];
    for (int i = 0; i < SHARDS; i++) {
        snprintf(names[i], sizeof *names, "model-%05d-of-%05d.safetensors", i + 1, SHARDS);
        huge[1 + i] = (server_file){names[i], tokenizer, 10, true, 1ull << 40};
    }
    hub.files = huge;
    hub.nfiles = 1 + SHARDS;
    int rc = pull();
    assert_int_equal(rc, PALI_EIO);
    assert_non_null(strstr(err.what, "275 TB are missing, and "));
    assert_int_equal(hub.requests, 1);
}

static void pull_keeps_what_has_come_when_the_disk_is_full(void **state) {
    (void)state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){300000, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = pull();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, PALI_EIO);
    assert_non_null(strstr(err.what, "the disk is full"));
    assert_int_equal(part_of_weights(blob(".incomplete")), 300000);
    assert_ok(pull(), err);
    expect_whole();
}

static void pull_says_when_the_cache_cannot_be_written(void **state) {
    (void)state;
    model_put(top, "file", "", 0);
    char cache[128];
    snprintf(cache, sizeof cache, "%s/file", top);
    request.env.hf_hub_cache = cache;
    expect_failure(PALI_EIO, "cannot make this folder");
}

static void pull_waits_for_another_that_pulls_the_same(void **state) {
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/.locks", top);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/.locks/" FOLDER, top);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/.locks/" FOLDER "/%s.lock", top, weights_hash);
    held = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(held, LOCK_EX), 0);
    assert_ok(pull(), err);
    assert_int_equal(held, -1);
    assert_int_equal(seen[PULL_BUSY], 1);
    expect_whole();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(pull_brings_a_model),
        TEST(pull_lays_the_cache_out_as_the_hubs_own_tools),
        TEST(pull_brings_nothing_twice),
        TEST(pull_mends_a_snapshot),
        TEST(pull_follows_a_renamed_model),
        TEST(pull_works_with_one_connection_and_small_pieces),
        TEST(pull_works_without_a_storage),
        TEST(pull_gives_the_token_to_the_hub_alone),
        TEST(pull_gives_no_token_to_another_name_of_the_host),
        TEST(pull_explains_what_a_gated_model_needs),
        TEST(pull_refuses_a_token_that_would_be_a_header),
        TEST(pull_finds_the_token),
        TEST(pull_explains_refusals),
        TEST(pull_tries_again_what_may_pass),
        TEST(pull_waits_as_long_as_the_hub_says),
        TEST(pull_gives_up),
        TEST(pull_asks_the_hub_when_an_address_expired),
        TEST(pull_refuses_redirects_in_circles_and_to_files),
        TEST(pull_refuses_what_is_no_endpoint),
        TEST(pull_goes_on_after_broken_connections),
        TEST(pull_gives_up_a_connection_that_stands_still),
        TEST(pull_resumes_where_it_stopped),
        TEST(pull_takes_everything_from_a_server_without_ranges),
        TEST(pull_resumes_on_a_server_without_ranges),
        TEST(pull_refuses_another_part_than_it_asked_for),
        TEST(pull_refuses_another_size_than_the_list_says),
        TEST(pull_refuses_a_wrong_checksum),
        TEST(pull_replaces_a_beginning_that_is_not_the_files),
        TEST(pull_leaves_the_old_commit_until_the_new_one_is_whole),
        TEST(pull_refuses_names_that_lead_elsewhere),
        TEST(pull_refuses_a_list_that_makes_no_sense),
        TEST(pull_looks_at_the_free_space_first),
        TEST(pull_keeps_what_has_come_when_the_disk_is_full),
        TEST(pull_says_when_the_cache_cannot_be_written),
        TEST(pull_waits_for_another_that_pulls_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
