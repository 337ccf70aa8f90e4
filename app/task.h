/* task.h - the verbs that are PaliGemma's task prompts: caption, describe, ocr, ask, detect, segment.
 *
 * One picture: as a question with -p, streaming. Several: batch.h.                             */
#ifndef APP_TASK_H
#define APP_TASK_H

#include "app/options.h"

enum {
    APP_TASK_TEXT_MAX = 16384, /* bytes; far more than a model takes in */
};

/* The prompt of a verb in the grammar of training: "caption de", "detect cat ; dog". text: the word
 * of the verbs that have one, else NULL; lang NULL: English where the prompt has a language. Names
 * in a list are set apart as in training, " ; ". A question goes as it is typed, which is what the
 * mix models want; with a language as "answer LANG question". Caller frees *out. PALI_EARG when
 * text is empty. */
int app_task_prompt(const char *verb, const char *text, const char *lang, char **out,
                    pali_error *err);

int app_task_run(const app_options *o, pali_error *err);

#endif
