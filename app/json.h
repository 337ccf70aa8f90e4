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

/* What was made of an object; all borrowed, NULL where there is none. */
typedef struct {
    const char *counts; /* of the mask, core/rle.h, in a picture of width x height */
    int width, height;
    uint64_t area;               /* of the mask in pixels */
    const char *mask_png, *crop; /* paths */
} app_made;

typedef struct {
    const char *const *images; /* [nimages], names as they were given */
    size_t nimages;            /* of one prompt */
    const char *prompt;
    const pali_result *result;
    const app_timings *timings;
    const pali_engine *logprobs; /* tells the tokens' text for "logprobs"; NULL: without */
    const app_made *made;        /* [nobjects], or NULL */
    const char *overlay;         /* path of the file; NULL: none */
    const pali_image *image;     /* the first; NULL: not told about */
} app_turn;

/* {"image", "prompt", "text", "tokens", "objects": [{"label", "box", "score"}], "timings", "stop"}
 * and a newline; with several images also "images"; "logprobs": [{"token", "id", "logprob"}] when
 * asked for; "decoded": [width, height] of a picture that was made smaller while it was decoded
 * (boxes and masks are in its own size). An object has "mask": {"size", "counts"}, "mask_png" and "crop" as it was made, and
 * "codes" while there is no mask for them. Caller frees *out with free(). */
int app_json_turn(const app_turn *turn, char **out, pali_error *err);

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

/* For other documents: NULL without memory, like all of jansson. s as valid UTF-8; v rounded to a
 * multiple of step; j (taken over) as one line. */
struct json_t *app_json_string(const char *s);
struct json_t *app_json_number(double v, double step);
int app_json_line(struct json_t *j, char **out, pali_error *err);

#endif
