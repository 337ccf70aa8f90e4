/* emit.c - see emit.h. */
#include "app/emit.h"

#include "app/marks.h"
#include "app/output.h"
#include "app/pictures_out.h"
#include "app/results.h"
#include "core/file.h"
#include "core/rle.h"
#include "ui/text.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct app_emit {
    const app_options *o;
    bool many;
    app_masks masks;
    app_pictures *pictures;
    char **classes; /* owned; of coco and yolo */
    size_t nclasses, cap;
    char *listed; /* the prompt whose list the classes have */
    json_t *images, *annotations;
    size_t failed; /* files of labels */
};

static bool needs_masks(const app_options *o) {
    return o->format == APP_FORMAT_JSONL || o->format == APP_FORMAT_COCO || o->overlay ||
           o->mask_dir;
}

static bool needs_pictures(const app_options *o) {
    return o->overlay || o->mask_dir || o->crop_dir;
}

/* The folder of yolo's files: found out now, not after an hour of work. */
static int open_labels(const char *folder, pali_error *err) {
    bool made = mkdir(folder, 0777) == 0;
    int why = made ? 0 : errno;
    if (!made && why == EEXIST && !pali_file_is_folder(folder))
        return pali_fail(err, PALI_EIO, "name a folder with -o",
                         "%s: is a file, and --format yolo fills a folder",
                         pali_file_brief(folder));
    if (why == EEXIST)
        why = access(folder, W_OK | X_OK) ? errno : 0;
    return why ? pali_fail(err, PALI_EIO, NULL, "%s: %s", pali_file_brief(folder), strerror(why))
               : 0;
}

int app_emit_open(const app_options *o, bool many, app_emit **out, pali_error *err) {
    app_emit *e = *out = calloc(1, sizeof *e);
    if (!e)
        return pali_fail_nomem(err, "opening the output");
    const app_pictures_wish wish = {o->overlay, o->mask_dir, o->crop_dir, many};
    e->o = o;
    e->many = many;
    e->masks.file = o->mask_weights;
    e->pictures = app_pictures_open(&wish);
    e->images = json_array();
    e->annotations = json_array();
    if (!e->pictures || !e->images || !e->annotations)
        return pali_fail_nomem(err, "opening the output");
    return o->format == APP_FORMAT_YOLO && o->output ? open_labels(o->output, err) : 0;
}

void app_emit_model(app_emit *e, const char *model_dir) {
    e->masks.model_dir = model_dir;
}

int app_emit_close(app_emit *e, pali_error *err) {
    if (!e)
        return 0;
    size_t failed = e->failed + (e->pictures ? app_pictures_failed(e->pictures) : 0);
    app_masks_close(&e->masks);
    app_pictures_close(e->pictures);
    for (size_t i = 0; i < e->nclasses; i++)
        free(e->classes[i]);
    free(e->classes);
    free(e->listed);
    json_decref(e->images);
    json_decref(e->annotations);
    free(e);
    return failed ? pali_fail(err, PALI_EIO, NULL, "%zu file%s could not be written", failed,
                              failed == 1 ? "" : "s")
                  : 0;
}

/* --- classes ------------------------------------------------------------------------------- */

/* Its number from 0; -1: no memory. */
static int class_of(app_emit *e, const char *label) {
    for (size_t i = 0; i < e->nclasses; i++)
        if (!strcmp(e->classes[i], label))
            return (int)i;
    if (e->nclasses == e->cap) {
        size_t cap = e->cap ? 2 * e->cap : 16;
        char **more = reallocarray(e->classes, cap, sizeof *more);
        if (!more)
            return -1;
        e->classes = more;
        e->cap = cap;
    }
    if (!(e->classes[e->nclasses] = strdup(label)))
        return -1;
    return (int)e->nclasses++;
}

/* What follows "detect " or "segment "; NULL: another prompt. */
static const char *wanted(const char *prompt) {
    return !strncmp(prompt, "detect ", 7)    ? prompt + 7
           : !strncmp(prompt, "segment ", 8) ? prompt + 8
                                             : NULL;
}

bool app_emit_wants_objects(const char *prompt) {
    return wanted(prompt) != NULL;
}

/* "detect a ; b": a and b, once a prompt. */
static int list_classes(app_emit *e, const char *prompt) {
    if (e->listed && !strcmp(e->listed, prompt))
        return 0;
    free(e->listed);
    e->listed = strdup(prompt);
    const char *things = wanted(prompt);
    char *words = e->listed ? strdup(things ? things : "") : NULL, *rest = words;
    if (!words)
        return -1;
    int rc = 0;
    for (char *item; !rc && (item = strsep(&rest, ";"));) {
        item += strspn(item, " ");
        for (size_t n = strlen(item); n && item[n - 1] == ' ';)
            item[--n] = 0;
        rc = *item && class_of(e, item) < 0 ? -1 : 0;
    }
    free(words);
    return rc;
}

/* --- text ---------------------------------------------------------------------------------- */

bool app_emit_tells_objects(const app_options *o) {
    return o->format == APP_FORMAT_TEXT && o->verb &&
           (!strcmp(o->verb->name, "detect") || !strcmp(o->verb->name, "segment"));
}

static int object_lines(const app_emit *e, const char *path, const pali_result *r, char **out) {
    bool shown = !e->o->output && isatty(STDOUT_FILENO);
    char *name = e->many ? results_line(path, "") : strdup("\n"), label[3 * PALI_LABEL_MAX];
    size_t n;
    FILE *f = name ? open_memstream(out, &n) : NULL;
    size_t room = name ? UI_TEXT_ROOM(strlen(name)) + 1 : 0;
    char *clean = name ? malloc(room) : NULL;
    if (clean)
        name[strlen(name) - 1] = 0;
    for (size_t i = 0; f && clean && i < r->nobjects; i++) {
        const pali_object *o = &r->objects[i];
        ui_text_rule rule = shown ? UI_TEXT_TERMINAL : UI_TEXT_PIPE;
        fprintf(f, "%s%ld,%ld %ld,%ld\t%s\n", ui_text_clean(rule, name, clean, room),
                lrintf(o->box[0]), lrintf(o->box[1]), lrintf(o->box[2]), lrintf(o->box[3]),
                ui_text_clean(rule, o->label, label, sizeof label));
    }
    int rc = clean ? 0 : -1;
    if (!f || (ferror(f) | fclose(f)))
        rc = -1;
    free(clean);
    free(name);
    return rc;
}

int app_emit_objects(const app_emit *e, const char *path, const pali_result *r, char **lines,
                     pali_error *err) {
    *lines = NULL;
    return object_lines(e, path, r, lines) ? pali_fail_nomem(err, "writing the answer") : 0;
}

/* --- yolo ------------------------------------------------------------------------------------ */

static int yolo_lines(app_emit *e, const pali_image *image, const pali_result *r, char **out) {
    size_t n;
    FILE *f = open_memstream(out, &n);
    int rc = f ? 0 : -1;
    for (size_t i = 0; i < r->nobjects && !rc; i++) {
        const float *b = r->objects[i].box;
        double w = pali_image_full_width(image), h = pali_image_full_height(image),
               v[4] = {(b[0] + b[2]) / 2 / w, (b[1] + b[3]) / 2 / h, (b[2] - b[0]) / w,
                       (b[3] - b[1]) / h};
        int number = class_of(e, r->objects[i].label);
        rc = number < 0 ? -1 : 0;
        fprintf(f, "%d", number);
        for (int k = 0; k < 4; k++) /* without a locale's comma: these are parts of one */
            fprintf(f, " %ld.%06ld", lrint(v[k] * 1e6) / 1000000, lrint(v[k] * 1e6) % 1000000);
        fputc('\n', f);
    }
    return f && (ferror(f) | fclose(f)) ? -1 : rc;
}

/* text to DIR/name; a failure is told the first time. */
static int write_text(app_emit *e, const char *name, const char *text) {
    char *path = pali_file_join(e->o->output, name);
    if (!path)
        return -1;
    FILE *f = fopen(path, "we");
    bool bad = !f || fputs(text, f) < 0;
    if (f)
        bad |= fclose(f) != 0;
    if (bad && !e->failed++) {
        pali_error failure = {0};
        pali_fail(&failure, PALI_EIO, NULL, "%s: %s", pali_file_brief(path), strerror(errno));
        app_err_complain(&failure);
    }
    free(path);
    return 0;
}

static int yolo_answer(app_emit *e, const char *stem, const pali_image *image, const pali_result *r,
                       char **line) {
    int rc = yolo_lines(e, image, r, line);
    if (rc || !e->o->output)
        return rc;
    char *name = NULL;
    rc = asprintf(&name, "%s.txt", stem) < 0 ? -1 : write_text(e, name, *line);
    if (!rc)
        free(name);
    free(*line);
    *line = strdup("");
    return rc || !*line ? -1 : 0;
}

static int yolo_end(app_emit *e, char **line) {
    char *text = NULL, label[3 * PALI_LABEL_MAX];
    size_t n;
    FILE *f = open_memstream(&text, &n);
    for (size_t i = 0; f && i < e->nclasses; i++)
        fprintf(f, "%s\n", ui_text_clean(UI_TEXT_LINE, e->classes[i], label, sizeof label));
    int rc = !f || (ferror(f) | fclose(f)) ? -1 : 0;
    if (!rc && e->o->output)
        rc = write_text(e, "classes.txt", text);
    free(text);
    *line = strdup("");
    return *line ? rc : -1;
}

/* --- coco -------------------------------------------------------------------------------------- */

static int coco_answer(app_emit *e, const char *path, const pali_image *image, const pali_result *r,
                       const app_made *made) {
    size_t id = json_array_size(e->images);
    json_t *entry =
        json_pack("{s:I, s:o, s:i, s:i}", "id", (json_int_t)id, "file_name", app_json_string(path),
                  "width", pali_image_full_width(image), "height", pali_image_full_height(image));
    int rc = entry ? 0 : -1;
    if (id && json_equal(entry, json_array_get(e->images, id - 1))) /* another turn about it */
        json_decref(entry);
    else if (!rc)
        rc = json_object_set_new(entry, "id", json_integer((json_int_t)++id)) ||
             json_array_append_new(e->images, entry);
    for (size_t i = 0; i < r->nobjects && !rc; i++) {
        const pali_object *o = &r->objects[i];
        const app_made *m = &made[i];
        int number = class_of(e, o->label);
        double w = o->box[2] - o->box[0], h = o->box[3] - o->box[1];
        json_t *a = json_pack("{s:I, s:I, s:I, s:[o,o,o,o], s:o, s:i, s:o}", "id",
                              (json_int_t)json_array_size(e->annotations) + 1, "image_id",
                              (json_int_t)id, "category_id", (json_int_t)number + 1, "bbox",
                              app_json_number(o->box[0], 0.01), app_json_number(o->box[1], 0.01),
                              app_json_number(w, 0.01), app_json_number(h, 0.01), "area",
                              app_json_number(m->counts ? (double)m->area : w * h, 0.01), "iscrowd",
                              0, "score", app_json_number(o->score, 1e-6));
        if (a && m->counts)
            rc |= json_object_set_new(
                a, "segmentation",
                json_pack("{s:[i,i], s:s}", "size", m->height, m->width, "counts", m->counts));
        if (a && m->mask_png)
            rc |= json_object_set_new(a, "mask_png", app_json_string(m->mask_png));
        rc |= json_array_append_new(e->annotations, a);
        rc |= number < 0;
    }
    return rc ? -1 : 0;
}

static int coco_end(app_emit *e, char **line, pali_error *err) {
    json_t *categories = json_array();
    int rc = categories ? 0 : -1;
    for (size_t i = 0; i < e->nclasses && !rc; i++)
        rc = json_array_append_new(categories, json_pack("{s:I, s:o}", "id", (json_int_t)i + 1,
                                                         "name", app_json_string(e->classes[i])));
    return app_json_line(rc ? NULL
                            : json_pack("{s:O, s:O, s:o}", "images", e->images, "annotations",
                                        e->annotations, "categories", categories),
                         line, err);
}

/* --- an answer ----------------------------------------------------------------------------------- */

/* Everything that is made of the objects of one answer. */
typedef struct {
    app_marks marks;
    pali_mask *placed;
    char **counts;
    app_left left;
    app_made *made;
} made_all;

static void made_close(made_all *m, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (m->placed)
            pali_mask_close(&m->placed[i]);
        if (m->counts)
            free(m->counts[i]);
    }
    free(m->placed);
    free(m->counts);
    free(m->made);
    app_left_close(&m->left);
    app_marks_close(&m->marks);
}

/* What it was made smaller by. */
static int factor_of(const pali_image *image) {
    int full = image->full_width, now = image->width;
    if (image->full_height > full) {
        full = image->full_height;
        now = image->height;
    }
    return full ? (full + now - 1) / now : 1;
}

static int make_all(app_emit *e, const char *stem, const pali_image *image, const pali_result *r,
                    made_all *m, pali_error *err) {
    size_t n = r->nobjects;
    m->placed = calloc(n + 1, sizeof *m->placed);
    m->counts = calloc(n + 1, sizeof *m->counts);
    m->made = calloc(n + 1, sizeof *m->made);
    if (!m->placed || !m->counts || !m->made)
        return pali_fail_nomem(err, "writing the answer");
    if (!needs_masks(e->o) && !needs_pictures(e->o))
        return 0;
    pali_error failure = {0};
    if (app_marks_set(&m->marks, &e->masks, r->objects, n, &failure)) {
        if (failure.code == PALI_ENOMEM)
            return pali_fail_nomem(err, "writing the answer");
        app_err_complain(&failure); /* the masks' weights: everything else goes on */
    }
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        app_made *made = &m->made[i];
        if (!m->marks.masks[i])
            continue;
        float box[4];
        pali_image_place_box(image, r->objects[i].box, box);
        rc = pali_mask_place(m->marks.masks[i], box, image->width, image->height, &m->placed[i],
                             err);
        if (!rc && m->placed[i].soft) {
            made->width = pali_image_full_width(image);
            made->height = pali_image_full_height(image);
            made->counts = m->counts[i] =
                pali_rle(&m->placed[i], made->width, made->height, factor_of(image), &made->area);
            rc = made->counts ? 0 : pali_fail_nomem(err, "writing a mask");
        }
    }
    if (!rc && needs_pictures(e->o))
        rc = app_pictures_write(e->pictures, stem, image, &m->marks, m->placed, &m->left, err);
    for (size_t i = 0; i < m->left.n; i++) {
        m->made[i].mask_png = m->left.masks[i];
        m->made[i].crop = m->left.crops[i];
    }
    return rc;
}

static bool names_files(const app_emit *e) {
    return needs_pictures(e->o) || e->o->format == APP_FORMAT_YOLO;
}

void app_emit_skip(app_emit *e, const char *path) {
    if (path && names_files(e))
        free(app_pictures_stem(e->pictures, path));
}

int app_emit_answer(app_emit *e, const app_turn *turn, const pali_image *image, char **line,
                    pali_error *err) {
    *line = NULL;
    made_all m = {0};
    const pali_result *r = turn->result;
    bool names = names_files(e);
    char *stem = names ? app_pictures_stem(e->pictures, turn->images[0]) : NULL;
    if ((names && !stem) || list_classes(e, turn->prompt)) {
        free(stem);
        return pali_fail_nomem(err, "writing the answer");
    }
    int rc = make_all(e, stem, image, r, &m, err), bad = 0;
    app_turn whole = *turn;
    whole.made = m.made;
    whole.overlay = m.left.overlay;
    whole.image = image;
    if (!rc && app_emit_tells_objects(e->o))
        bad = object_lines(e, turn->images[0], r, line);
    else if (!rc && e->o->format == APP_FORMAT_JSONL)
        rc = app_json_turn(&whole, line, err);
    else if (!rc && e->o->format == APP_FORMAT_YOLO)
        bad = yolo_answer(e, stem, image, r, line);
    else if (!rc && e->o->format == APP_FORMAT_COCO)
        bad = coco_answer(e, turn->images[0], image, r, m.made) || !(*line = strdup(""));
    if (bad)
        rc = pali_fail_nomem(err, "writing the answer");
    made_close(&m, r->nobjects);
    free(stem);
    return rc;
}

int app_emit_end(app_emit *e, char **line, pali_error *err) {
    *line = NULL;
    if (e->o->format == APP_FORMAT_COCO)
        return coco_end(e, line, err);
    if (e->o->format == APP_FORMAT_YOLO && yolo_end(e, line))
        return pali_fail_nomem(err, "writing the classes");
    return 0;
}
