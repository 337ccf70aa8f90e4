/* emit.h - an answer leaves the program: as a line, as an entry of a document, as pictures.
 *
 * One app_emit lives as long as a run of pictures or turns. --format decides what goes to
 * standard output or to -o:
 *   text   the answer (the caller's: it streams, or is a line of results.h); of the verbs detect
 *          and segment a line for each object, "x0,y0 x1,y1", a tab and its name, in pixels
 *   jsonl  one JSON object an answer, as --json (app/json.h)
 *   coco   one document after the last: a COCO data set whose annotations have scores, too
 *   yolo   "class x y w h" a line for each object, in parts of the picture's sides; with -o a
 *          folder of one file a picture, and classes.txt
 * Classes are numbered as the prompt lists them ("detect cat ; dog"), then as they come.    */
#ifndef APP_EMIT_H
#define APP_EMIT_H

#include "app/json.h"
#include "app/options.h"

typedef struct app_emit app_emit;

/* Whether text is lines of objects, so that the answer itself is not shown. */
bool app_emit_tells_objects(const app_options *o);
/* Whether the prompt asks for objects: "detect ..." or "segment ...". */
bool app_emit_wants_objects(const char *prompt);

/* many: pictures, whose lines of objects begin with their names. */
int app_emit_open(const app_options *o, bool many, app_emit **out, pali_error *err);
/* The folder of the model (for its mask weights) is borrowed; set it when it is known. */
void app_emit_model(app_emit *e, const char *model_dir);

/* One answer about image, the first of turn's; its `made` and `overlay` are filled in. *line is what the format puts out for it now, whole lines, "" for none, NULL for text;
 * caller frees. Files that cannot be written are complained about and counted. */
int app_emit_answer(app_emit *e, const app_turn *turn, const pali_image *image, char **line,
                    pali_error *err);

/* The objects of an answer as the verb detect writes them, whatever the verb and the format; path:
 * of its picture. Caller frees *lines, "" without objects. */
int app_emit_objects(const app_emit *e, const char *path, const pali_result *r, char **lines,
                     pali_error *err);

/* A picture of the list that gets no answer in this run: the names of its files stay its own (those
 * that an earlier run left behind, above all). path NULL: nothing. */
void app_emit_skip(app_emit *e, const char *path);

/* What the format puts out after the last answer, as above. */
int app_emit_end(app_emit *e, char **line, pali_error *err);
/* PALI_EIO when files could not be written. */
int app_emit_close(app_emit *e, pali_error *err);

#endif
