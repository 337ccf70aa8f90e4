/* Any bytes as the config file: lines that hold, and a sentence for every other one. */
#include "app/settings.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void demand(int good) {
    if (!good)
        abort();
}

static int is_clean(const char *s) {
    for (; *s; s++)
        if (((unsigned char)*s < ' ' && *s != '\t') || *s == 127)
            return 0;
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    app_settings s;
    pali_error err = {0};
    demand(app_settings_parse("config", (const char *)data, n, &s, &err) == 0);
    int last = 0;
    for (size_t i = 0; i < s.n; i++) {
        const app_setting *x = &s.items[i];
        demand(*x->key && is_clean(x->key) && is_clean(x->value) && !strpbrk(x->key, "= \t#"));
        demand(x->line > last);
        last = x->line;
        for (size_t j = 0; j < i; j++)
            demand(strcmp(x->key, s.items[j].key) != 0);
    }
    demand(!s.problems || strncmp(s.problems, "config:", 7) == 0);
    app_settings_close(&s);
    return 0;
}
