/* prompt.h - what the model is asked: history + question -> prefix text -> ids.
 *
 * Prefix = [P image tokens][bos][text tokens][newline]. The text of a task prompt
 * is the prompt alone, as the model was trained. A free-text question may carry
 * earlier turns, one line each for question and answer:
 *
 *     question 1 \n answer 1 \n question 2 \n answer 2 \n question 3
 *
 * because newline is what separates question and answer in training too. Oldest
 * turns drop first when the room is used up; image and question never.
 *
 * Line breaks (\n, \r):
 *   - at the end of the prompt they are removed, so that the newline that ends the
 *     prefix is one of its own;
 *   - inside a prompt that goes alone they stay as typed;
 *   - inside a line of history, and inside the prompt when a turn goes before it,
 *     each run of them becomes one space, and at either end none stays.
 * An empty question has no line. A turn without an answer is left out.           */
#ifndef PALI_PROMPT_H
#define PALI_PROMPT_H

#include "core/error.h"
#include "core/tokenizer.h"

#include <stdbool.h>

enum {
    PALI_HISTORY_NONE = 0,
    PALI_HISTORY_AUTO = -1
}; /* n > 0: at most n turns, always */

typedef struct {
    const char *question, *answer; /* borrowed, UTF-8 */
} pali_turn_text;

/* Whether text is a task prompt of the training grammar: caption, cap, describe,
 * ocr, answer, question, detect, segment as its first word (case-sensitive, as
 * trained), or empty. Spaces before the word do not count. */
bool pali_prompt_is_task(const char *text);

/* Ids of [bos] text [newline] for prompt after turns[0..nturns) (oldest first)
 * under the history rule above: PALI_HISTORY_AUTO is every turn that fits before
 * free text and none before a task prompt. An empty prompt always goes alone.
 * room: most ids that may come back. *used (may be NULL) = turns that made it in.
 * Caller frees *ids with free(). PALI_ELIMIT when the prompt alone is longer than
 * room. */
int pali_prompt_build(const pali_tokenizer *tok, const pali_turn_text *turns, size_t nturns,
                      int history, const char *prompt, size_t room, int32_t **ids, size_t *count,
                      size_t *used, pali_error *err);

#endif
