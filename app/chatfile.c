/* chatfile.c - reading and writing chats; see chatfile.h for the format.
 *
 * Every record is one write() of one whole line to a file opened for appending, so a killed
 * process leaves at most one cut line, at the end; a full disk may cut one in the middle.
 * Reading takes nothing on trust: lines that are not JSON objects of the known form are passed
 * over, sizes are limited.                                                                 */
#include "app/chatfile.h"

#include "core/file.h"
#include "ui/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILE ((off_t)64 << 20)

struct chatfile {
    char path[PATH_MAX];
    char id[64];
    char *model, *image; /* the last told; the picture only until the first line is written */
    int fd;              /* -1 until there is something to keep */
    bool cut;            /* the last line has no end */
};

int chatfile_state_dir(const char *xdg_state, const char *home, char *dir, size_t size,
                       pali_error *err) {
    char chats[PATH_MAX];
    bool xdg = xdg_state && *xdg_state == '/';
    int n = xdg             ? snprintf(dir, size, "%s/pali", xdg_state)
            : home && *home ? snprintf(dir, size, "%s/.local/state/pali", home)
                            : -1;
    if (n < 0 || (size_t)n >= size || (size_t)n + 8 > sizeof chats)
        return pali_fail(err, PALI_EIO, "set HOME or use --no-save",
                         "there is no folder to keep chats in");
    snprintf(chats, sizeof chats, "%s/chats", dir);
    return pali_file_make_folders(chats)
               ? 0
               : pali_fail(err, PALI_EIO, "use --no-save to chat without a file",
                           "%s: cannot be made: %s", pali_file_brief(chats), strerror(errno));
}

/* --- writing ----------------------------------------------------------------------------- */

int chatfile_open(const char *state_dir, const char *model, chatfile **out, pali_error *err) {
    chatfile *f = *out = calloc(1, sizeof *f);
    if (!f)
        return pali_fail_nomem(err, "keeping the chat");
    f->fd = -1;
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    size_t n = strftime(f->id, sizeof f->id, "%Y%m%d-%H%M%S", &tm);
    snprintf(f->id + n, sizeof f->id - n, "-%ld", (long)getpid());
    f->model = model ? strdup(model) : NULL;
    if (snprintf(f->path, sizeof f->path, "%s/chats/%s.jsonl", state_dir, f->id) >=
        (int)sizeof f->path) {
        chatfile_close(f);
        *out = NULL;
        return pali_fail(err, PALI_EIO, NULL, "the path of the chat file is too long");
    }
    return 0;
}

static bool good_id(const char *id) {
    size_t n = strlen(id);
    return n > 0 && n < 60 && strspn(id, "0123456789-abcdefghijklmnopqrstuvwxyz") == n;
}

int chatfile_resume(const char *state_dir, const char *id, const char *model, chatfile **out,
                    pali_error *err) {
    *out = NULL;
    if (!good_id(id))
        return pali_fail(err, PALI_EARG, "`pali chats` lists them", "there is no chat %.40s", id);
    int rc = chatfile_open(state_dir, model, out, err);
    if (rc)
        return rc;
    chatfile *f = *out;
    snprintf(f->id, sizeof f->id, "%s", id);
    snprintf(f->path, sizeof f->path, "%s/chats/%s.jsonl", state_dir, id);
    f->fd = open(f->path, O_RDWR | O_APPEND | O_CLOEXEC);
    if (f->fd < 0) {
        rc = pali_fail(err, PALI_EIO, NULL, "%s: %s", f->path, strerror(errno));
        chatfile_close(f);
        *out = NULL;
        return rc;
    }
    char last;
    off_t size = lseek(f->fd, 0, SEEK_END);
    f->cut = size > 0 && pread(f->fd, &last, 1, size - 1) == 1 && last != '\n';
    return 0;
}

void chatfile_close(chatfile *f) {
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    free(f->model);
    free(f->image);
    free(f);
}

const char *chatfile_id(const chatfile *f) {
    return f->id;
}

/* Takes over line. */
static int put(chatfile *f, json_t *line, pali_error *err) {
    char *s = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    size_t n = s ? strlen(s) : 0, m = 0;
    char *whole = s ? malloc(n + 3) : NULL;
    if (!whole) {
        free(s);
        return pali_fail_nomem(err, "keeping the chat");
    }
    if (f->cut) /* a line that was cut off is ended first, else this one is lost with it */
        whole[m++] = '\n';
    memcpy(whole + m, s, n);
    m += n;
    whole[m++] = '\n';
    free(s);
    ssize_t k = write(f->fd, whole, m);
    free(whole);
    if (k == (ssize_t)m) {
        f->cut = false;
        return 0;
    }
    int rc = pali_fail(err, PALI_EIO, "the chat goes on, but this turn is not kept", "%s: %s",
                       f->path, k < 0 ? strerror(errno) : "the disk is full");
    f->cut |= k > 0;
    return rc;
}

/* Text as JSON; bytes that are no UTF-8 are kept as U+FFFD. */
static json_t *string(const char *s) {
    json_t *j = s ? json_string(s) : NULL;
    if (s && !j) {
        size_t room = UI_TEXT_ROOM(strlen(s)) + 4;
        char *clean = malloc(room);
        if (clean)
            j = json_string(ui_text_clean(UI_TEXT_VALID, s, clean, room));
        free(clean);
    }
    return j ? j : json_null();
}

/* A path as JSON; null when it cannot be told in UTF-8. */
static json_t *path_string(const char *s) {
    json_t *j = s ? json_string(s) : NULL;
    return j ? j : json_null();
}

static int start(chatfile *f, pali_error *err) {
    if (f->fd >= 0)
        return 0;
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (f->fd < 0)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", f->path, strerror(errno));
    int rc = put(f,
                 json_pack("{s:i, s:o, s:o}", "pali", 1, "model", path_string(f->model), "image",
                           path_string(f->image)),
                 err);
    if (rc) { /* the next turn tries again */
        close(f->fd);
        unlink(f->path);
        f->fd = -1;
        f->cut = false;
    }
    return rc;
}

int chatfile_image(chatfile *f, const char *path, pali_error *err) {
    /* The chat may be gone on with from another folder. */
    char *whole = path ? realpath(path, NULL) : NULL;
    if (path && !whole)
        whole = strdup(path);
    if (path && !whole)
        return pali_fail_nomem(err, "keeping the chat");
    if (f->fd >= 0) {
        int rc = put(f, json_pack("{s:o}", "image", path_string(whole)), err);
        free(whole);
        return rc;
    }
    free(f->image); /* known before the first turn: goes into the first line */
    f->image = whole;
    return 0;
}

int chatfile_model(chatfile *f, const char *dir, pali_error *err) {
    char *model = realpath(dir, NULL); /* as with pictures */
    if (!model && !(model = strdup(dir)))
        return pali_fail_nomem(err, "keeping the chat");
    if (f->model && !strcmp(f->model, model)) {
        free(model);
        return 0;
    }
    free(f->model); /* before the first turn it goes into the first line */
    f->model = model;
    return f->fd < 0 ? 0 : put(f, json_pack("{s:o}", "model", path_string(model)), err);
}

int chatfile_turn(chatfile *f, const chat_turn *t, pali_error *err) {
    int rc = start(f, err);
    if (rc)
        return rc;
    json_t *line = json_pack("{s:o, s:o, s:o}", "q", string(t->question), "a", string(t->answer),
                             "stop", string(t->stop));
    if (line && t->width > 0 && t->height > 0)
        json_object_set_new(line, "size", json_pack("[i, i]", t->width, t->height));
    return put(f, line, err);
}

int chatfile_drop(chatfile *f, size_t n, pali_error *err) {
    return f->fd < 0 ? 0 : put(f, json_pack("{s:I}", "drop", (json_int_t)n), err);
}

int chatfile_write(const char *path, const char *model, const char *image, const chat_turn *turns,
                   size_t nturns, pali_error *err) {
    chatfile *f = calloc(1, sizeof *f);
    if (!f)
        return pali_fail_nomem(err, "saving the chat");
    f->fd = -1;
    f->model = model ? strdup(model) : NULL;
    f->image = image ? strdup(image) : NULL;
    int rc = 0;
    if (snprintf(f->path, sizeof f->path, "%s", path) >= (int)sizeof f->path)
        rc = pali_fail(err, PALI_EIO, NULL, "the path is too long");
    if (!rc)
        rc = start(f, err);
    for (size_t i = 0; !rc && i < nturns; i++)
        rc = chatfile_turn(f, &turns[i], err);
    chatfile_close(f);
    return rc;
}

/* --- reading --------------------------------------------------------------------------------- */

static void turn_close(chat_turn *t) {
    free(t->question);
    free(t->answer);
    free(t->stop);
}

void saved_chat_close(saved_chat *c) {
    for (size_t i = 0; i < c->nturns; i++)
        turn_close(&c->turns[i]);
    free(c->turns);
    free(c->id);
    free(c->model);
    free(c->image);
    *c = (saved_chat){0};
}

static char *copy(const json_t *j) {
    const char *s = json_string_value(j);
    return s ? strdup(s) : NULL;
}

/* Of a picture; 0 when the file does not tell. */
static int side(const json_t *size, size_t i) {
    json_int_t n = json_integer_value(json_array_get(size, i));
    return n > 0 && n <= INT_MAX ? (int)n : 0;
}

static int take_line(saved_chat *c, const json_t *line, size_t *room, pali_error *err) {
    const char *q = json_string_value(json_object_get(line, "q"));
    const char *a = json_string_value(json_object_get(line, "a"));
    const json_t *image = json_object_get(line, "image");
    const json_t *drop = json_object_get(line, "drop");
    if (image) { /* null: one whose path could not be kept; the one before it is not meant */
        free(c->image);
        c->image = copy(image);
    }
    if (json_object_get(line, "model")) { /* the newest counts */
        free(c->model);
        c->model = copy(json_object_get(line, "model"));
    }
    if (json_is_integer(drop)) {
        for (json_int_t n = json_integer_value(drop); n > 0 && c->nturns; n--)
            turn_close(&c->turns[--c->nturns]);
        return 0;
    }
    if (!q || !a)
        return 0;
    if (c->nturns == *room) {
        *room = *room ? 2 * *room : 16;
        chat_turn *turns = realloc(c->turns, *room * sizeof *turns);
        if (!turns)
            return pali_fail_nomem(err, "reading the chat");
        c->turns = turns;
    }
    chat_turn t = {.question = strdup(q),
                   .answer = strdup(a),
                   .stop = copy(json_object_get(line, "stop")),
                   .width = side(json_object_get(line, "size"), 0),
                   .height = side(json_object_get(line, "size"), 1)};
    if (!t.width || !t.height)
        t.width = t.height = 0;
    if (!t.question || !t.answer) {
        turn_close(&t);
        return pali_fail_nomem(err, "reading the chat");
    }
    c->turns[c->nturns++] = t;
    return 0;
}

int chatfile_read_path(const char *path, saved_chat *out, pali_error *err) {
    *out = (saved_chat){0};
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would never open */
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    if (!f && fd >= 0)
        close(fd);
    if (!f)
        return pali_fail(err, PALI_EIO, "`pali chats` lists the chats that were kept", "%s: %s",
                         path, strerror(errno));
    int rc = 0;
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode) || st.st_size > MAX_FILE)
        rc = pali_fail(err, PALI_EFORMAT, NULL, "%s: not a chat of pali", path);
    char *line = NULL;
    size_t cap = 0, room = 0;
    bool known = false;
    while (!rc && getline(&line, &cap, f) > 0) {
        json_t *j = json_loads(line, 0, NULL);
        if (json_is_object(j)) {
            rc = take_line(out, j, &room, err);
            known |= json_object_get(j, "pali") || out->nturns;
        }
        json_decref(j);
    }
    free(line);
    fclose(f);
    if (!rc && !known)
        rc = pali_fail(err, PALI_EFORMAT, "/load takes the .jsonl or .json files that pali wrote",
                       "%s: not a chat of pali", path);
    if (rc)
        saved_chat_close(out);
    return rc;
}

static int newest_first(const void *a, const void *b) {
    return strcmp(*(char *const *)b, *(char *const *)a);
}

/* Names in <state>/chats, newest first; free each and the array. */
static int list_ids(const char *state_dir, char ***ids, size_t *n, pali_error *err) {
    char dir[PATH_MAX], name[64];
    *ids = NULL;
    *n = 0;
    snprintf(dir, sizeof dir, "%s/chats", state_dir);
    DIR *d = opendir(dir);
    if (!d)
        return pali_fail(err, PALI_EIO, NULL, "%s: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (len < 7 || len >= sizeof name || strcmp(e->d_name + len - 6, ".jsonl"))
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(len - 6), e->d_name);
        if (!good_id(name)) /* not one of ours */
            continue;
        char **more = realloc(*ids, (*n + 1) * sizeof **ids);
        if (!more)
            break;
        *ids = more;
        more[*n] = strdup(name);
        if (!more[*n])
            break;
        ++*n;
    }
    closedir(d);
    if (*n)
        qsort(*ids, *n, sizeof **ids, newest_first);
    return 0;
}

static void free_ids(char **ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        free(ids[i]);
    free(ids);
}

static int read_id(const char *state_dir, const char *id, saved_chat *out, pali_error *err) {
    *out = (saved_chat){0};
    if (!good_id(id))
        return pali_fail(err, PALI_EARG, "`pali chats` lists them", "there is no chat %.40s", id);
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/chats/%s.jsonl", state_dir, id) >= (int)sizeof path)
        return pali_fail(err, PALI_EIO, NULL, "the path of the chat file is too long");
    int rc = chatfile_read_path(path, out, err);
    if (!rc && !(out->id = strdup(id))) {
        saved_chat_close(out);
        rc = pali_fail_nomem(err, "reading the chat");
    }
    return rc;
}

int chatfile_read(const char *state_dir, const char *id, saved_chat *out, pali_error *err) {
    if (id)
        return read_id(state_dir, id, out, err);
    *out = (saved_chat){0};
    char **ids;
    size_t n;
    int rc = list_ids(state_dir, &ids, &n, err);
    if (!rc) {
        rc = PALI_EARG;
        /* A crash at the very start leaves a file with nothing in it. */
        for (size_t i = 0; rc && i < n; i++)
            rc = read_id(state_dir, ids[i], out, NULL);
        if (rc)
            rc = pali_fail(err, PALI_EARG, NULL, "no chat has been kept yet");
    }
    free_ids(ids, n);
    return rc;
}

int chatfile_list(const char *state_dir,
                  void (*each)(void *user, const char *id, size_t nturns, const char *first),
                  void *user, pali_error *err) {
    char **ids;
    size_t n;
    int rc = list_ids(state_dir, &ids, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        saved_chat c;
        if (read_id(state_dir, ids[i], &c, NULL) == 0) {
            each(user, ids[i], c.nturns, c.nturns ? c.turns[0].question : "");
            saved_chat_close(&c);
        }
    }
    free_ids(ids, n);
    return rc;
}
