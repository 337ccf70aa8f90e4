/* chat.h - the terminal chat: picture beside conversation. */
#ifndef APP_CHAT_H
#define APP_CHAT_H

#include "app/keymap.h"
#include "core/pali.h"

#include <stdbool.h>

typedef struct {
    pali_engine_options engine;
    const char *image;          /* path; NULL = none yet */
    const char *const *further; /* [nfurther] of more, for the same prompts */
    size_t nfurther;
    bool confidence;          /* words are shaded from the start */
    const char *mask_weights; /* file; NULL = beside the model */
    pali_ask ask;             /* sampling, length, history; the hooks are the chat's */
    int graphics;             /* a ui_graphics, or -2: ask the terminal */
    const char *theme;        /* "dark", "light", "none"; NULL: by the terminal's background */
    app_keymap keys;          /* the function keys */
    const char *state_dir;    /* for chats and history; NULL = keep nothing */
    bool resume;              /* go on with a kept chat: */
    const char *resume_id;    /* NULL = the newest */
    /* Resolves what /model is given into a folder; 0 or an error. */
    int (*find_model)(void *user, const char *name, char *dir, size_t size, pali_error *err);
    void *user;
    struct {
        const char *term, *colorterm, *term_program, *tmux, *home; /* may be NULL */
    } env;
} chat_options;

/* Runs until the user leaves. Returns the exit code; a failure before the screen is up is
 * told in err and returns -1. Dies of the signal that ended it. */
int chat_run(const chat_options *o, pali_error *err);

#endif
