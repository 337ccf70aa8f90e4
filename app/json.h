/* json.h - one turn as one line of JSON (--json).
 *
 * Everything beyond ASCII is escaped, so a line is harmless on a terminal and means
 * the same in every locale.                                                      */
#ifndef APP_JSON_H
#define APP_JSON_H

#include "core/pali.h"

typedef struct {
    double load_s;  /* opening the model; 0 after the first turn */
    double first_s; /* from the question to the first token; 0 when none came */
} app_timings;

/* {"image", "prompt", "text", "tokens", "objects": [{"label", "box"}], "timings", "stop"} and a
 * newline. image: the picture's name as it was given. Caller frees *out with free(). */
int app_json_turn(const char *image, const char *prompt, const pali_result *result,
                  const app_timings *timings, char **out, pali_error *err);

/* A name among others, and what it got; see app/rank.h. */
typedef struct {
    const char *name; /* borrowed: a text, or a picture's path */
    pali_score score;
    double share;
} app_ranked;

/* {"image", "prompt", "ranking": [{"text", "score", "share", "sum", "tokens"}]} of texts, or
 * {"text", "prompt", "ranking": [{"image", ..}]}, and a newline. Caller frees *out. */
int app_json_ranking(bool of_texts, const char *subject, const char *prompt, const app_ranked *list,
                     size_t n, char **out, pali_error *err);

#endif
