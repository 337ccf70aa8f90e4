/* keymap.c - see keymap.h. */
#include "app/keymap.h"

#include <stdbool.h>
#include <string.h>

static const char *const names[APP_KEYS] = {"help", "picture", "boxes", "tokens", "copy", "zoom"};

app_keymap app_keymap_default(void) {
    app_keymap m;
    for (int i = 0; i < APP_KEYS; i++)
        m.f[i] = (unsigned char)(i + 1);
    return m;
}

int app_keymap_action(const app_keymap *map, int f) {
    for (int i = 0; i < APP_KEYS; i++)
        if (map->f[i] == f)
            return i;
    return -1;
}

/* "copy=F2" at s, n bytes: into *map, which has 0 for what is not named yet. */
static bool take(const char *s, size_t n, app_keymap *map) {
    const char *equals = memchr(s, '=', n);
    if (!equals || (size_t)(s + n - equals) != 3 || (equals[1] != 'F' && equals[1] != 'f') ||
        equals[2] < '1' || equals[2] > '0' + APP_KEYS)
        return false;
    int f = equals[2] - '0';
    for (int i = 0; i < APP_KEYS; i++)
        if (strlen(names[i]) == (size_t)(equals - s) &&
            !strncmp(names[i], s, (size_t)(equals - s))) {
            if (map->f[i] || app_keymap_action(map, f) >= 0)
                return false;
            map->f[i] = (unsigned char)f;
            return true;
        }
    return false;
}

int app_keymap_parse(const char *text, app_keymap *out, pali_error *err) {
    app_keymap map = {{0}};
    for (const char *s = text;; s++) {
        size_t n = strcspn(s, ",");
        if (!take(s, n, &map))
            return pali_fail(
                err, PALI_EARG, NULL,
                "--keys wants help, picture, boxes, tokens, copy or zoom, each once, as in "
                "copy=F2,picture=F5 (F1 to F6), not \"%.80s\"",
                text);
        s += n;
        if (!*s)
            break;
    }
    for (int i = 0; i < APP_KEYS; i++)
        if (!map.f[i] && app_keymap_action(&map, i + 1) < 0)
            map.f[i] = (unsigned char)(i + 1);
    for (int i = 0; i < APP_KEYS; i++)
        for (int f = 1; f <= APP_KEYS && !map.f[i]; f++)
            if (app_keymap_action(&map, f) < 0)
                map.f[i] = (unsigned char)f;
    *out = map;
    return 0;
}
