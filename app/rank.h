/* rank.h - `pali rank`: which of some texts fits a picture, or which picture fits a text.
 *
 * The score of a text is what the model gives it as the answer to a prompt ("caption en"): the mean
 * over its tokens and the end of the answer of log p(token | picture, prompt, tokens before). The
 * share is e^sum over the sum of all e^sum: how probable a text is if it must be one of these, and,
 * with one text and pictures that were equally likely before, how probable a picture is.           */
#ifndef APP_RANK_H
#define APP_RANK_H

#include "app/options.h"

/* --text and --texts against every picture of the words; without them the first word is the text
 * that pictures are ranked for. Best first on standard output. Pictures that cannot be read are told
 * and left out; PALI_EFORMAT at the end, when there were such. */
int app_rank_run(const app_options *o, pali_error *err);

#endif
