/* interactive.c - see interactive.h. */
#include "app/interactive.h"

#include "app/chat.h"
#include "app/chatfile.h"
#include "app/demo.h"
#include "app/output.h"
#include "ui/text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static int find_model(void *user, const char *name, char *dir, size_t size, pali_error *err) {
    const app_options *o = user;
    return pali_hub_find(&o->hub, name, dir, size, err);
}

int app_interactive_run(const app_options *o, pali_error *err) {
    app_demo demo = {0};
    char dir[PATH_MAX], state[PATH_MAX], image[PATH_MAX];
    int rc = o->demo ? app_demo_open(&demo, err)
                     : pali_hub_find(&o->hub, o->model, dir, sizeof dir, err);
    if (!rc && !o->no_save)
        rc = chatfile_state_dir(o->env.xdg_state, o->env.home, state, sizeof state, err);
    chat_options c = {
        .engine = {.model_dir = o->demo ? demo.dir : dir,
                   .backend = o->backend,
                   .threads = o->threads,
                   .images = (int)o->nimages,
                   .context = o->context,
                   .math = o->math,
                   .quant = o->quant,
                   .quant_all = o->quant_all,
                   .head8 = o->head8,
                   .image_folder = o->image_folder},
        .image = o->nimages  ? o->images[0]
                 : o->resume ? NULL
                             : demo.picture,
        .further = o->nimages > 1 ? o->images + 1 : NULL,
        .nfurther = o->nimages > 1 ? o->nimages - 1 : 0,
        .confidence = o->logprobs,
        .ask = {.sampling = o->sampling, .max_tokens = o->max_tokens, .history = o->history},
        .mask_weights = o->mask_weights,
        .graphics = o->graphics,
        .theme = o->theme,
        .keys = o->keys,
        .state_dir = o->no_save ? NULL : state,
        .resume = o->resume,
        .resume_id = o->resume_id,
        .find_model = find_model,
        .user = (void *)o,
        .env = {.term = o->env.term,
                .colorterm = o->env.colorterm,
                .term_program = o->env.term_program,
                .tmux = o->env.tmux,
                .home = o->env.home},
    };
    /* A kept chat is found again from any folder. */
    if (c.image && realpath(c.image, image))
        c.image = image;
    if (!rc && chat_run(&c, err))
        rc = err->code;
    app_demo_close(&demo);
    return rc;
}

static void print_chat(void *user, const char *id, size_t nturns, const char *first) {
    pali_error *err = user;
    char clean[160], line[320];
    ui_text_clean(UI_TEXT_LINE, first, clean, sizeof clean);
    snprintf(line, sizeof line, "%s  %3zu turn%s  %s\n", id, nturns, nturns == 1 ? " " : "s",
             clean);
    app_out_string(line, err);
}

int app_interactive_list(const app_options *o, pali_error *err) {
    char state[PATH_MAX];
    int rc = chatfile_state_dir(o->env.xdg_state, o->env.home, state, sizeof state, err);
    if (!rc)
        rc = chatfile_list(state, print_chat, err, err);
    return rc ? rc : err->code;
}
