/* configure.c - see configure.h. */
#include "app/configure.h"

#include "app/output.h"
#include "ui/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void app_configure_complain(const app_options *o) {
    for (const char *at = o->settings.problems; at && *at; at += strcspn(at, "\n") + 1)
        app_err_note("%.*s", (int)strcspn(at, "\n"), at);
}

/* The default as a comment; what was set as the file would say it. */
static void write_line(FILE *f, const app_effective *e) {
    char clean[512], left[640], from[96];
    ui_text_clean(UI_TEXT_LINE, e->value ? e->value : "", clean, sizeof clean);
    if (e->from == APP_FROM_DEFAULT) {
        fprintf(f, *e->initially ? "# %s: %s\n" : "# %s\n", e->name, e->initially);
        return;
    }
    bool quote = !*clean || strpbrk(clean, "# \t");
    snprintf(left, sizeof left, quote ? "%s = \"%s\"" : "%s = %s", e->name, clean);
    if (e->from == APP_FROM_FILE)
        snprintf(from, sizeof from, "line %d", e->line);
    else
        snprintf(from, sizeof from, "%s%s", e->from == APP_FROM_OPTION ? "--" : "",
                 e->from == APP_FROM_OPTION ? e->name : e->variable);
    fprintf(f, "%-40s  # %s\n", left, from);
}

int app_configure_list(const app_options *o, pali_error *err) {
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return pali_fail_nomem(err, "listing the settings");
    char path[1024];
    ui_text_clean(UI_TEXT_LINE, o->settings.path ? o->settings.path : "no config file", path,
                  sizeof path);
    fprintf(f, "# %s%s\n", path, o->settings.path && !o->settings.text ? " (not there)" : "");
    for (size_t i = 0; i < o->neffective; i++)
        write_line(f, &o->effective[i]);
    int rc = fclose(f) ? pali_fail_nomem(err, "listing the settings") : app_out_write(text, n, err);
    free(text);
    if (!rc && o->settings.problems)
        rc = pali_fail(err, PALI_EARG, NULL, "the config file has mistakes");
    return rc;
}
