/* verbs.c - the table; see verbs.h. */
#include "app/verbs.h"

#include "app/doctor.h"
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
    {
        .name = "doctor",
        .args = "",
        .help = "what this machine has, and what pali would use of it",
        .about =
            "\nTells of processor, memory, graphics cards, driver and terminal, and why a card is\n"
            "not used. With -m, PALI_MODEL or --demo also what the model needs, and whether it "
            "fits.\n",
        .takes = APP_TAKES_MODEL | APP_TAKES_JSON,
        .run = app_doctor_run,
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
