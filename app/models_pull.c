/* models_pull.c - `pali pull`: what app/pull.c does, told on standard error. On a terminal its
 * last line is a bar; elsewhere there is a line for each file, and nothing moves.        */
#include "app/models.h"

#include "app/human.h"
#include "app/output.h"
#include "app/process.h"
#include "app/pull.h"
#include "app/pull_meter.h"
#include "app/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    CONNECTIONS = 4,
    PIECE = 16 << 20, /* three of them wait in memory at most */
    RETRY_MS = 1000,
    STALL_S = 30,
    TOKEN_BYTES = 2048
};

typedef struct {
    const char *id;
    pull_meter meter;
} report;

static int columns(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1 : 79;
}

static void on_event(void *user, const pull_event *e) {
    report *r = user;
    char a[HUMAN_BYTES], b[HUMAN_BYTES], line[256];
    switch (e->what) {
    case PULL_BEGIN:
        app_err_note("%s at %.12s: %zu files, %s%s%s", r->id, e->commit, e->files,
                     human_bytes(e->bytes, a), e->have ? ", here already: " : "",
                     e->have ? human_bytes(e->have, b) : "");
        return;
    case PULL_FILE:
    case PULL_BYTES:
        if (!isatty(STDERR_FILENO))
            return;
        pull_meter_add(&r->meter, app_clock(), e->have);
        pull_meter_line(&r->meter, e->have, e->bytes, columns(), line, sizeof line);
        app_err_status(line);
        return;
    case PULL_CHECKED:
        app_err_note("%s: %s, checksum right", e->file, human_bytes(e->file_bytes, a));
        return;
    case PULL_AGAIN:
        app_err_note("%s: what was here of it is damaged, it comes again", e->file);
        return;
    case PULL_BUSY:
        app_err_note("%s: another program is bringing it; waiting", e->file);
        return;
    case PULL_WAIT:
        app_err_note("%s; trying again in %d s", e->why, e->seconds);
        return;
    }
}

int app_models_id(const app_options *o, pali_hub_id *id, pali_error *err) {
    if (!pali_hub_parse_id(o->words[0], id))
        return pali_fail(err, PALI_EARG, "such as google/paligemma2-3b-mix-224",
                         "\"%.80s\" is not the id of a model (org/name, or org/name@revision)",
                         o->words[0]);
    if (!o->revision)
        return 0;
    if (*id->revision)
        return pali_fail(err, PALI_EARG, NULL, "one revision at a time: \"%.80s\" or \"%.80s\"?",
                         id->revision, o->revision);
    if (!pali_hub_is_revision(o->revision))
        return pali_fail(err, PALI_EARG, NULL,
                         "--revision wants a branch, a tag or a commit, not \"%.80s\"",
                         o->revision);
    snprintf(id->revision, sizeof id->revision, "%s", o->revision);
    return 0;
}

/* Without slashes at its end. */
static char *endpoint(const app_options *o) {
    bool given = o->env.hf_endpoint && *o->env.hf_endpoint;
    char *s = strdup(given ? o->env.hf_endpoint : "https://huggingface.co");
    for (size_t n = s ? strlen(s) : 0; n && s[n - 1] == '/'; n--)
        s[n - 1] = '\0';
    return s;
}

int app_models_pull(const app_options *o, pali_error *err) {
    const char *offline = o->env.hf_hub_offline;
    char token[TOKEN_BYTES], dir[4096];
    report r = {.id = o->words[0]};
    pull_listener listener = {.on = on_event, .user = &r};
    pull_request request = {.env = o->hub,
                            .http = {.token = token,
                                     .connections = CONNECTIONS,
                                     .piece = PIECE,
                                     .retry_ms = RETRY_MS,
                                     .stall_s = STALL_S,
                                     .cancel = app_process_stop_flag()}};
    int rc = app_models_id(o, &request.id, err);
    if (rc)
        return rc;
    if (offline && *offline && strcmp(offline, "0"))
        return pali_fail(err, PALI_EIO, "unset it", "HF_HUB_OFFLINE is set: nothing is downloaded");
    char *at = endpoint(o);
    if (!at)
        return pali_fail_nomem(err, "preparing a download");
    request.http.endpoint = at;
    pull_token(&o->hub, o->env.hf_token, o->env.hf_token_path, token, sizeof token);
    app_process_catch_signals();
    rc = pull_run(&request, &listener, dir, sizeof dir, err);
    explicit_bzero(token, sizeof token);
    free(at);
    app_err_progress_clear();
    if (rc == PALI_ECANCEL)
        app_err_note("stopped; what has come is kept, and the same command goes on");
    if (rc)
        return rc == PALI_EARG ? PALI_EIO : rc; /* of the environment, not of the command line */
    rc = app_out_string(dir, err);
    return rc ? rc : app_out_string("\n", err);
}
