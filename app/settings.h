/* settings.h - the config file: `key = value`, a line each.
 *
 *     # a comment; also behind a value, after a space
 *     model = google/paligemma2-3b-mix-224
 *     theme = "dark"                          quotes keep spaces and #
 *     no-save = yes
 *
 * Keys are the long names of options; options.c knows which and what they may be. Here are
 * the lines only. Untrusted: it is limited in size, and what is no such line is told with its
 * number, all of them at once.                                                            */
#ifndef APP_SETTINGS_H
#define APP_SETTINGS_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    APP_SETTINGS_MAX_BYTES = 64 << 10,
    APP_SETTINGS_MAX = 256
};

typedef struct {
    const char *key, *value; /* borrowed from the settings */
    int line;
} app_setting;

typedef struct {
    char *path; /* owned; NULL: nowhere */
    char *text; /* owned, NULL: not there; cut into the strings of items */
    app_setting items[APP_SETTINGS_MAX];
    size_t n;
    char *problems; /* owned; a line of text each, "PATH:3: ..."; NULL: none */
} app_settings;

/* Where the file is: named (PALI_CONFIG; "" means none), else pali/config in xdg
 * (XDG_CONFIG_HOME), else in home's .config. Caller frees *path; NULL: nowhere. PALI_ENOMEM. */
int app_settings_path(const char *named, const char *xdg, const char *home, char **path,
                      pali_error *err);

/* Reads path (copied; NULL: none). A file that is not there is an empty one, unless it must be. Close
 * *out in any case. PALI_EIO, PALI_ELIMIT, PALI_ENOMEM; wrong lines are no error but problems. */
int app_settings_read(const char *path, bool must_be, app_settings *out, pali_error *err);
/* The same for n bytes. */
int app_settings_parse(const char *path, const char *text, size_t n, app_settings *out,
                       pali_error *err);
void app_settings_close(app_settings *s);

/* Adds "PATH:line: sentence" to the problems. */
int app_settings_blame(app_settings *s, int line, pali_error *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
