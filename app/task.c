/* task.c - see task.h. */
#include "app/task.h"

#include "app/batch.h"
#include "app/oneshot.h"
#include "core/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char blanks[] = " \t\n\r";

/* "a;b ;; c" -> "a ; b ; c"; other text only loses the blanks around it. out has room for
 * 3 strlen(text) + 1 bytes. */
static void tidy(const char *text, bool is_list, char *out) {
    char *end = out;
    for (const char *s = text; *s;) {
        size_t n = is_list ? strcspn(s, ";") : strlen(s), from = strspn(s, blanks), to = n;
        while (to > from && strchr(blanks, s[to - 1]))
            to--;
        if (from < to)
            end += sprintf(end, "%s%.*s", end > out ? " ; " : "", (int)(to - from), s + from);
        s += n + (s[n] != '\0');
    }
    *end = '\0';
}

int app_task_prompt(const char *verb, const char *text, const char *lang, char **out,
                    pali_error *err) {
    *out = NULL;
    bool asks = !strcmp(verb, "ask");
    bool speaks = asks ? lang != NULL : !strcmp(verb, "caption") || !strcmp(verb, "describe");
    if (text && strlen(text) > APP_TASK_TEXT_MAX)
        return pali_fail(err, PALI_EARG, NULL, "the text of %s is longer than %d bytes", verb,
                         APP_TASK_TEXT_MAX);
    char tidied[3 * APP_TASK_TEXT_MAX + 1] = "";
    if (text)
        tidy(text, !asks, tidied);
    if (text && !*tidied)
        return pali_fail(err, PALI_EARG, NULL, "%s wants a text before the image", verb);
    const char *word = !asks ? verb : lang ? "answer" : "";
    if (asprintf(out, "%s%s%s%s%s", word, speaks ? " " : "",
                 !speaks ? ""
                 : lang  ? lang
                         : "en",
                 text && *word ? " " : "", tidied) < 0) {
        *out = NULL;
        return pali_fail_nomem(err, "reading the options");
    }
    return 0;
}

int app_task_run(const app_options *o, pali_error *err) {
    char *prompt;
    const char *text = o->verb->texts ? o->words[0] : NULL;
    int rc = app_task_prompt(o->verb->name, text, o->lang, &prompt, err);
    if (rc)
        return rc;
    bool many = o->nimages > 1 || o->files_from || o->output ||
                (o->nimages && pali_file_is_folder(o->images[0]));
    if (many && o->format == APP_FORMAT_YOLO && !o->output) {
        rc = pali_fail(err, PALI_EARG, "name a folder with -o",
                       "--format yolo is a file a picture, so several have no place on standard "
                       "output");
    } else if (many) {
        rc = app_batch_run(o, prompt, err);
    } else {
        app_options one = *o;
        one.prompts = (const char *[]){prompt};
        one.nprompts = 1;
        rc = app_oneshot_run(&one, APP_ASK_PROMPTS, err);
    }
    free(prompt);
    return rc;
}
