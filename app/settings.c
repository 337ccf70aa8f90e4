/* settings.c - see settings.h. */
#include "app/settings.h"

#include "core/file.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static char *skip_blanks(char *s) {
    while (is_blank(*s))
        s++;
    return s;
}

int app_settings_blame(app_settings *s, int line, pali_error *err, const char *fmt, ...) {
    char sentence[512], *all;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    if (asprintf(&all, "%s%s:%d: %s\n", s->problems ? s->problems : "",
                 s->path ? pali_file_brief(s->path) : "", line, sentence) < 0)
        return pali_fail_nomem(err, "reading the config file");
    free(s->problems);
    s->problems = all;
    return 0;
}

/* Cuts the value that begins at v: without quotes, without what follows. NULL when that is not a
 * comment. */
static char *cut_value(char *v) {
    char *end;
    if (*v == '"') {
        end = strchr(++v, '"');
        if (!end)
            return NULL;
        *end++ = '\0';
        end = skip_blanks(end);
        return *end && *end != '#' ? NULL : v;
    }
    for (end = v; *end; end++)
        if (*end == '#' && (end == v || is_blank(end[-1])))
            break;
    while (end > v && is_blank(end[-1]))
        end--;
    *end = '\0';
    return v;
}

static int read_line(app_settings *s, char *text, int line, pali_error *err) {
    char *key = skip_blanks(text), *end = key + strcspn(key, "= \t#"), *value;
    if (!*key || *key == '#')
        return 0;
    for (const char *c = text; *c; c++)
        if (((unsigned char)*c < ' ' && *c != '\t') || *c == 127)
            return app_settings_blame(s, line, err, "there is a control character in it");
    char *equals = skip_blanks(end);
    if (end == key || *equals != '=')
        return app_settings_blame(s, line, err, "expected key = value, not \"%.60s\"", text);
    *end = '\0';
    value = cut_value(skip_blanks(equals + 1));
    if (!value)
        return app_settings_blame(s, line, err, "the quotes of %.40s do not match", key);
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->items[i].key, key))
            return app_settings_blame(s, line, err, "%.40s was set in line %d already", key,
                                      s->items[i].line);
    if (s->n == APP_SETTINGS_MAX)
        return app_settings_blame(s, line, err, "more than %d settings", APP_SETTINGS_MAX);
    s->items[s->n++] = (app_setting){key, value, line};
    return 0;
}

int app_settings_parse(const char *path, const char *text, size_t n, app_settings *out,
                       pali_error *err) {
    static const char mark[] = "\xef\xbb\xbf"; /* that some editors write first */
    *out = (app_settings){.path = strdup(path), .text = malloc(n + 1)};
    if (!out->path || !out->text)
        return pali_fail_nomem(err, "reading the config file");
    memcpy(out->text, text, n);
    out->text[n] = '\0';
    char *at = out->text + (strncmp(out->text, mark, 3) ? 0 : 3), *last = out->text + n;
    int rc = 0;
    for (int line = 1; at < last && !rc; line++) {
        char *end = memchr(at, '\n', (size_t)(last - at)), *next = end ? end + 1 : last;
        if (!end)
            end = last;
        if (end > at && end[-1] == '\r')
            end--;
        bool nul = memchr(at, '\0', (size_t)(end - at)) != NULL;
        *end = '\0';
        rc = nul ? app_settings_blame(out, line, err, "there is a control character in it")
                 : read_line(out, at, line, err);
        at = next;
    }
    return rc;
}

int app_settings_read(const char *path, bool must_be, app_settings *out, pali_error *err) {
    char *text;
    size_t n;
    *out = (app_settings){0};
    if (!path)
        return 0;
    if (!must_be && access(path, F_OK))
        return (out->path = strdup(path)) ? 0 : pali_fail_nomem(err, "looking for the config file");
    int rc = pali_file_read(path, APP_SETTINGS_MAX_BYTES, &text, &n, err);
    if (rc)
        return rc;
    rc = app_settings_parse(path, text, n, out, err);
    free(text);
    return rc;
}

void app_settings_close(app_settings *s) {
    free(s->path);
    free(s->text);
    free(s->problems);
    *s = (app_settings){0};
}

int app_settings_path(const char *named, const char *xdg, const char *home, char **path,
                      pali_error *err) {
    *path = NULL;
    if (named) {
        if (*named && !(*path = strdup(named)))
            return pali_fail_nomem(err, "looking for the config file");
        return 0;
    }
    bool in_xdg = xdg && *xdg == '/'; /* as its specification says */
    if (!in_xdg && (!home || !*home))
        return 0;
    if (asprintf(path, "%s%s/pali/config", in_xdg ? xdg : home, in_xdg ? "" : "/.config") < 0) {
        *path = NULL;
        return pali_fail_nomem(err, "looking for the config file");
    }
    return 0;
}
