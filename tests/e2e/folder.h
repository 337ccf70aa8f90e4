/* folder.h - a folder of the test's own, which is the program's HOME, and small helps. */
#ifndef PALI_E2E_FOLDER_H
#define PALI_E2E_FOLDER_H

#include "tests/e2e/spawn.h"

#define DEMO "assets/demo/"

static char folder[] = "/tmp/pali-e2e-XXXXXX";

/* No model but one that a test names, and no settings; -1 when there is no folder to be had. */
static inline int folder_open(void) {
    static const char *const names[] = {"PALI_MODEL",     "PALI_MASK_WEIGHTS", "HF_HOME",
                                        "HF_HUB_CACHE",   "XDG_CACHE_HOME",    "XDG_STATE_HOME",
                                        "XDG_CONFIG_HOME"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    setenv("PALI_CONFIG", "", 1);
    return mkdtemp(folder) && !setenv("HOME", folder, 1) ? 0 : -1;
}

static inline int folder_remove(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* Skips the test when the bundled model is not there. */
static inline void need_demo(void) {
    if (!access(DEMO "model.safetensors", R_OK) && !access(DEMO "demo.txt", R_OK))
        return;
    print_message("no model in " DEMO ", so no answers to look at\n");
    skip();
}

static inline void expect_start(const char *text, const char *start) {
    if (strncmp(text, start, strlen(start)))
        fail_msg("\"%s\" does not begin with \"%s\"", text, start);
}

static inline void expect_part(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("no \"%s\" in \"%s\"", part, text);
}

static inline size_t count_lines(const char *text) {
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

#endif
