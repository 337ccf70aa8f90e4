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

/* {"prompt", "text", "tokens", "objects": [{"label", "box"}], "timings", "stop"} and a
 * newline. Caller frees *out with free(). */
int app_json_turn(const char *prompt, const pali_result *result, const app_timings *timings,
                  char **out, pali_error *err);

#endif
