/* keymap.h - which function key does what (--keys). */
#ifndef APP_KEYMAP_H
#define APP_KEYMAP_H

#include "core/error.h"

typedef enum {
    APP_KEY_HELP,
    APP_KEY_PICTURE,
    APP_KEY_BOXES,
    APP_KEY_TOKENS,
    APP_KEY_COPY,
    APP_KEY_ZOOM,
    APP_KEYS,
} app_key;

/* Number of the function key (1 to 6) of each action. */
typedef struct {
    unsigned char f[APP_KEYS];
} app_keymap;

/* help F1, picture F2, and so on. */
app_keymap app_keymap_default(void);
/* "copy=F2,picture=F5": what is not named keeps its key, or gets one that became free. PALI_EARG. */
int app_keymap_parse(const char *text, app_keymap *out, pali_error *err);
/* The action of function key number f; -1 for none. */
int app_keymap_action(const app_keymap *map, int f);

#endif
