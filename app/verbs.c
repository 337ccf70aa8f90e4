/* verbs.c - the table; see verbs.h. */
#include "app/verbs.h"

#include "app/interactive.h"

#include <string.h>

/* In the order of --help. */
static const app_verb table[] = {
    {
        .name = "chats",
        .args = "",
        .help = "list the chats that were kept",
        .run = app_interactive_list,
    },
};
enum {
    ROWS = sizeof table / sizeof *table
};

const app_verb *app_verb_at(size_t i) {
    return i < ROWS ? &table[i] : NULL;
}

const app_verb *app_verb_find(const char *name) {
    for (size_t i = 0; i < ROWS; i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}
