/* demo.c - see demo.h. */
#include "app/demo.h"

#include "core/image.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Relative to the folder of the program. */
static const char *const places[] = {
    "../assets/demo",     /* build/pali */
    "../../assets/demo",  /* build/release/pali */
    "../share/pali/demo", /* PREFIX/bin/pali */
};

static int join(const char *dir, const char *name, char **out, pali_error *err) {
    if (asprintf(out, "%s/%s", dir, name) >= 0)
        return 0;
    *out = NULL;
    return pali_fail_nomem(err, "opening the bundled model");
}

static int find_dir(char **out, pali_error *err) {
    char program[PATH_MAX], path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (!slash)
        return pali_fail(err, PALI_EIO, "give the model's folder with -m",
                         "cannot tell where this program is, to find the bundled model near it");
    *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s/demo.txt", program, places[i]);
        if (access(path, R_OK))
            continue;
        *strrchr(path, '/') = '\0';
        *out = realpath(path, NULL);
        return *out ? 0 : pali_fail_nomem(err, "looking for the bundled model");
    }
    return pali_fail(err, PALI_EIO, "run make install, or give another model with -m",
                     "the bundled model is missing: no %s beside %.200s", places[2], program);
}

/* Cuts the text into lines; empty ones are skipped. */
static int read_lines(app_demo *d, pali_error *err) {
    size_t lines = 1;
    for (const char *c = d->text; *c; c++)
        lines += *c == '\n';
    d->prompts = calloc(lines, sizeof *d->prompts);
    if (!d->prompts)
        return pali_fail_nomem(err, "opening the bundled model");
    const char *picture = NULL;
    char *rest;
    for (char *s = strtok_r(d->text, "\r\n", &rest); s; s = strtok_r(NULL, "\r\n", &rest)) {
        if (picture)
            d->prompts[d->nprompts++] = s;
        else
            picture = s;
    }
    if (!d->nprompts)
        return pali_fail(err, PALI_EFORMAT, "install pali again",
                         "%.200s/demo.txt: no picture and prompts in it", d->dir);
    return join(d->dir, picture, &d->picture, err);
}

int app_demo_open(app_demo *out, pali_error *err) {
    *out = (app_demo){0};
    char *list = NULL;
    uint8_t *bytes = NULL;
    size_t n;
    int rc = find_dir(&out->dir, err);
    if (!rc)
        rc = join(out->dir, "demo.txt", &list, err);
    if (!rc)
        rc = pali_image_read_file(list, &bytes, &n, err);
    if (!rc && !(out->text = strndup((char *)bytes, n)))
        rc = pali_fail_nomem(err, "opening the bundled model");
    if (!rc)
        rc = read_lines(out, err);
    free(bytes);
    free(list);
    if (rc)
        app_demo_close(out);
    return rc;
}

void app_demo_close(app_demo *d) {
    free(d->text);
    free(d->prompts);
    free(d->picture);
    free(d->dir);
    *d = (app_demo){0};
}
