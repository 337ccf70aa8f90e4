/* test_emit.c - what answers with boxes leave behind: --json, --format, --overlay, --mask-dir,
 * --crop-dir. The model is scripted: two objects, one with the mask of a star.               */
#include "core/image.h"
#include "tests/core/scripted_model.h"
#include "tests/e2e/spawn.h"

#include <jansson.h>
#include <math.h>

#define WEIGHTS "assets/demo/mask.npz"

static char top[64], model[80];

/* top/name for one statement; at most eight at a time. */
static const char *at(const char *name) {
    static char paths[8][160];
    static int turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof *paths, "%s/%s", top, name);
    return path;
}

static void put_picture(const char *path, int width, int height) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fprintf(f, "P6\n%d %d\n255\n", width, height);
    for (int i = 0; i < width * height * 3; i++)
        fputc(250, f);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state) {
    (void)state;
    model_folder(top);
    setenv("PALI_CONFIG", "", 1);
    setenv("HOME", top, 1);
    unsetenv("PALI_MASK_WEIGHTS");
    snprintf(model, sizeof model, "%s", at("model"));
    mkdir(model, 0700);
    int tokens[64];
    size_t n = scripted_object(tokens, (int[]){128, 256, 896, 768}, scripted_star, "star");
    tokens[n++] = SCRIPT_SEMICOLON;
    n += scripted_object(tokens + n, (int[]){0, 512, 64, 1023}, NULL, "log");
    scripted_model(model, tokens, n);
    mkdir(at("a"), 0700);
    mkdir(at("b"), 0700);
    put_picture(at("a/x.ppm"), 200, 100);
    put_picture(at("b/x.ppm"), 64, 64);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(top);
    return 0;
}

/* The last JSON object among the lines of text. */
static json_t *last_line(const char *text) {
    const char *line = text;
    for (const char *end; (end = strchr(line, '\n')) && end[1];)
        line = end + 1;
    json_t *j = json_loads(line, 0, NULL);
    if (!j)
        fail_msg("no JSON: %s", text);
    return j;
}

static double number_at(const json_t *j, const char *key, size_t i) {
    return json_number_value(json_array_get(json_object_get(j, key), i));
}

static const char *string_at(const json_t *j, const char *key) {
    const char *s = json_string_value(json_object_get(j, key));
    if (!s)
        fail_msg("no %s", key);
    return s;
}

/* Pixels of 128 and more that a COCO run-length string sets, and its whole length. */
static long area_of(const char *s, long *all) {
    long counts[4096], n = 0, area = 0;
    *all = 0;
    while (*s) {
        long x = 0, shift = 0, c;
        do {
            c = *s++ - 48;
            x |= (c & 31) << shift;
            shift += 5;
        } while (c & 32);
        if (c & 16)
            x -= 1L << shift;
        counts[n] = x + (n > 2 ? counts[n - 2] : 0);
        area += n % 2 ? counts[n] : 0;
        *all += counts[n++];
    }
    return area;
}

static pali_image picture(const char *path) {
    pali_image image;
    pali_error err = {0};
    assert_ok(pali_image_open(path, &image, &err), err);
    return image;
}

static void emit_describes_objects_as_json(void **state) {
    (void)state;
    spawned s = RUN(NULL, "-m", model, at("a/x.ppm"), "-p", "segment star", "--json",
                    "--mask-weights", WEIGHTS, "--mask-dir", at("masks"), "--crop-dir", at("crops"),
                    "--overlay", at("over.png"));
    assert_int_equal(s.status, 0);
    json_t *j = last_line(s.text[0]), *objects = json_object_get(j, "objects");
    assert_int_equal(json_array_size(objects), 2);
    json_t *star = json_array_get(objects, 0), *log = json_array_get(objects, 1);
    assert_string_equal(string_at(star, "label"), "star");
    static const double box[4] = {50, 12.5, 150, 87.5};
    for (size_t i = 0; i < 4; i++)
        assert_true(number_at(star, "box", i) == box[i]);
    /* The scripted model is sure. */
    assert_true(json_number_value(json_object_get(star, "score")) > 0.99);
    json_t *mask = json_object_get(star, "mask");
    assert_true(number_at(mask, "size", 0) == 100 && number_at(mask, "size", 1) == 200);
    long all, area = area_of(string_at(mask, "counts"), &all);
    assert_int_equal(all, 200 * 100);
    assert_null(json_object_get(log, "mask"));
    assert_null(json_object_get(star, "codes"));

    pali_image png = picture(string_at(star, "mask_png"));
    assert_string_equal(string_at(star, "mask_png"), at("masks/x-1-star.png"));
    assert_true(png.width == 200 && png.height == 100);
    long set = 0;
    for (int i = 0; i < 200 * 100; i++)
        set += png.rgb[3 * i] >= 128;
    assert_int_equal(set, area);
    assert_true(area > 100 * 75 / 5 && area < 100 * 75 / 2); /* a star in its box */
    pali_image_close(&png);

    pali_image crop = picture(string_at(star, "crop"));
    assert_true(crop.width == 100 && crop.height == 76); /* every pixel that the box touches */
    pali_image_close(&crop);
    crop = picture(string_at(log, "crop"));
    assert_true(crop.width == 100 && crop.height == 7);
    pali_image_close(&crop);

    assert_string_equal(string_at(j, "overlay"), at("over.png"));
    pali_image over = picture(at("over.png"));
    const uint8_t *in = over.rgb + (50 * 200 + 100) * 3, *out = over.rgb + (80 * 200 + 100) * 3;
    assert_true(in[2] < 200 && out[2] > 240); /* the middle is star, below it is not */
    pali_image_close(&over);
    json_decref(j);
    spawn_free(&s);
}

/* Without weights: one sentence, the codes instead of the mask, all else as before. */
static void emit_goes_on_without_weights(void **state) {
    (void)state;
    spawned s = RUN(NULL, "-m", model, at("a/x.ppm"), "-p", "segment star", "--json");
    assert_int_equal(s.status, 0);
    assert_non_null(strstr(s.text[1], "vae-oid.npz"));
    json_t *j = last_line(s.text[0]), *star = json_array_get(json_object_get(j, "objects"), 0);
    assert_true(number_at(star, "codes", 0) == scripted_star[0]);
    assert_null(json_object_get(star, "mask"));
    json_decref(j);
    spawn_free(&s);

    FILE *f = fopen(at("bad.npz"), "wb");
    assert_non_null(f);
    fputs("PK\3\4 and no more", f);
    fclose(f);
    s = RUN(NULL, "segment", "star", at("a/x.ppm"), "-m", model, "--mask-weights", at("bad.npz"),
            "--mask-dir", at("none"), "--crop-dir", at("crops"));
    assert_int_equal(s.status, 1);
    assert_non_null(strstr(s.text[0], "star"));
    assert_non_null(strstr(s.text[1], "bad.npz: the directory at its end is missing"));
    assert_non_null(strstr(s.text[1], "1 file could not be written"));
    assert_int_equal(access(at("crops/x-2-log.png"), R_OK), 0);
    spawn_free(&s);

    s = RUN(NULL, "segment", "star", at("a/x.ppm"), "-m", model); /* text needs no masks */
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[1], "");
    spawn_free(&s);
}

static void emit_keeps_results_when_a_file_cannot_be_written(void **state) {
    (void)state;
    spawned s = RUN(NULL, "segment", "star", at("a/x.ppm"), "-m", model, "--mask-weights", WEIGHTS,
                    "--json", "--overlay", "/dev/null/x.png", "--mask-dir", "/dev/null/m",
                    "--crop-dir", at("crops"));
    assert_int_equal(s.status, 1);
    json_t *j = last_line(s.text[0]), *star = json_array_get(json_object_get(j, "objects"), 0);
    assert_null(json_object_get(j, "overlay"));
    assert_null(json_object_get(star, "mask_png"));
    assert_non_null(json_object_get(star, "mask"));
    string_at(star, "crop");
    assert_non_null(strstr(s.text[1], "/dev/null/x.png: "));
    assert_non_null(strstr(s.text[1], "2 files could not be written"));
    json_decref(j);
    spawn_free(&s);
}

static void emit_names_never_meet(void **state) {
    (void)state;
    spawned s = RUN(NULL, "segment", "star", at("a/x.ppm"), at("b/x.ppm"), "-m", model,
                    "--mask-weights", WEIGHTS, "--overlay", at("over"), "--mask-dir", at("many"));
    assert_int_equal(s.status, 0);
    static const char *const there[] = {"over/x.png", "over/x-2.png", "many/x-1-star.png",
                                        "many/x-2-1-star.png"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(access(at(there[i]), R_OK), 0);
    pali_image second = picture(at("over/x-2.png"));
    assert_int_equal(second.width, 64);
    pali_image_close(&second);
    spawn_free(&s);
    /* Turns about one picture, too. */
    s = RUN(NULL, "-m", model, at("a/x.ppm"), "-p", "segment star", "-p", "segment star",
            "--mask-weights", WEIGHTS, "--overlay", at("turn.png"));
    assert_int_equal(s.status, 0);
    assert_int_equal(access(at("turn.png"), R_OK), 0);
    assert_int_equal(access(at("turn-2.png"), R_OK), 0);
    spawn_free(&s);
}

/* A run that goes on with another leaves that one's files alone. */
static void emit_names_outlive_a_run(void **state) {
    (void)state;
    spawned s = RUN(NULL, "detect", "star", at("a/x.ppm"), "-m", model, "--json", "--overlay",
                    at("resumed"), "-o", at("resumed.jsonl"), "--files-from", "/dev/null");
    assert_int_equal(s.status, 0);
    spawn_free(&s);
    assert_int_equal(access(at("resumed/x.png"), R_OK), 0);
    pali_image first = picture(at("resumed/x.png"));
    s = RUN(NULL, "detect", "star", at("a/x.ppm"), at("b/x.ppm"), "-m", model, "--json",
            "--overlay", at("resumed"), "-o", at("resumed.jsonl"), "--resume");
    assert_int_equal(s.status, 0);
    spawn_free(&s);
    pali_image same = picture(at("resumed/x.png")), second = picture(at("resumed/x-2.png"));
    assert_int_equal(same.width, first.width);
    assert_int_equal(second.width, 64);
    assert_int_not_equal(first.width, 64);
    pali_image_close(&first);
    pali_image_close(&same);
    pali_image_close(&second);
}

/* The verbs tell a person about objects; -p gives the answer as it is. */
static void emit_tells_objects_in_lines(void **state) {
    (void)state;
    spawned s = RUN(NULL, "detect", "star", at("a/x.ppm"), "-m", model);
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[0], "50,12 150,88\tstar\n100,0 200,6\tlog\n");
    spawn_free(&s);
    s = RUN(NULL, "segment", "star", at("b/x.ppm"), at("a/x.ppm"), "-m", model);
    assert_int_equal(s.status, 0);
    char want[1024];
    snprintf(want, sizeof want,
             "%1$s\t16,8 48,56\tstar\n%1$s\t32,0 64,4\tlog\n%2$s\t50,12 150,88\tstar\n"
             "%2$s\t100,0 200,6\tlog\n",
             at("b/x.ppm"), at("a/x.ppm"));
    assert_string_equal(s.text[0], want);
    spawn_free(&s);
    s = RUN(NULL, "-m", model, at("a/x.ppm"), "-p", "detect star");
    assert_int_equal(strncmp(s.text[0], "<loc0128><loc0256>", 18), 0);
    spawn_free(&s);
}

static void emit_writes_yolo(void **state) {
    (void)state;
    /* Centre and size; numbers as the prompt lists the names. */
    static const char lines[] = "1 0.500000 0.500000 0.500000 0.750000\n"
                                "0 0.749512 0.031250 0.499023 0.062500\n";
    spawned s = RUN(NULL, "detect", "log;star", at("a/x.ppm"), "-m", model, "--format", "yolo");
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[0], lines);
    spawn_free(&s);
    s = RUN(NULL, "detect", "log;star", at("a/x.ppm"), at("b/x.ppm"), "-m", model, "--format",
            "yolo", "-o", at("labels"));
    assert_int_equal(s.status, 0);
    assert_string_equal(s.text[0], "");
    static const char *const files[][2] = {
        {"labels/x.txt", lines}, {"labels/x-2.txt", lines}, {"labels/classes.txt", "log\nstar\n"}};
    for (size_t i = 0; i < 3; i++) {
        char text[256] = "";
        FILE *f = fopen(at(files[i][0]), "r");
        assert_non_null(f);
        assert_true(fread(text, 1, sizeof text - 1, f) > 0);
        fclose(f);
        assert_string_equal(text, files[i][1]);
    }
    spawn_free(&s);
    s = RUN(NULL, "detect", "star", at("a/x.ppm"), at("b/x.ppm"), "-m", model, "--format", "yolo");
    assert_int_equal(s.status, 2);
    assert_non_null(strstr(s.text[1], "name a folder with -o"));
    spawn_free(&s);
    /* Told before anything is asked. */
    s = RUN(NULL, "detect", "star", at("a/x.ppm"), "-m", model, "--format", "yolo", "-o",
            at("b/x.ppm"));
    assert_int_equal(s.status, 1);
    assert_non_null(strstr(s.text[1], "b/x.ppm: is a file, and --format yolo fills a folder\n"));
    assert_null(strstr(s.text[1], "written"));
    spawn_free(&s);
}

/* tests/reference/coco_rle.py --check loads such a document with pycocotools. */
static void emit_writes_one_coco_document(void **state) {
    (void)state;
    spawned s =
        RUN(NULL, "segment", "log ; star", at("a/x.ppm"), at("none.ppm"), at("b/x.ppm"), "-m",
            model, "--mask-weights", WEIGHTS, "--format", "coco", "-o", at("all.json"));
    assert_int_equal(s.status, 1); /* of the picture that is not there; the others are */
    json_t *j = json_load_file(at("all.json"), 0, NULL);
    assert_non_null(j);
    assert_int_equal(json_array_size(json_object_get(j, "images")), 2);
    json_t *notes = json_object_get(j, "annotations"), *kinds = json_object_get(j, "categories");
    assert_int_equal(json_array_size(notes), 4);
    assert_int_equal(json_array_size(kinds), 2);
    assert_string_equal(string_at(json_array_get(kinds, 1), "name"), "star");
    json_t *star = json_array_get(notes, 2); /* of the second picture */
    assert_int_equal(json_integer_value(json_object_get(star, "image_id")), 2);
    assert_int_equal(json_integer_value(json_object_get(star, "category_id")), 2);
    assert_true(number_at(star, "bbox", 2) == 32 && number_at(star, "bbox", 3) == 48);
    long all, area = area_of(string_at(json_object_get(star, "segmentation"), "counts"), &all);
    assert_int_equal(all, 64 * 64);
    assert_true(json_number_value(json_object_get(star, "area")) == (double)area);
    json_decref(j);
    spawn_free(&s);
    s = RUN(NULL, "detect", "star", at("a/x.ppm"), "-m", model, "--format", "coco", "--resume",
            "-o", at("x.json"));
    assert_int_equal(s.status, 2);
    spawn_free(&s);
    s = RUN(NULL, "detect", "star", at("a/x.ppm"), "-m", model, "--format", "xml");
    assert_int_equal(s.status, 2);
    assert_non_null(strstr(s.text[1], "text, jsonl, coco or yolo"));
    spawn_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emit_describes_objects_as_json),
        cmocka_unit_test(emit_goes_on_without_weights),
        cmocka_unit_test(emit_keeps_results_when_a_file_cannot_be_written),
        cmocka_unit_test(emit_names_never_meet),
        cmocka_unit_test(emit_names_outlive_a_run),
        cmocka_unit_test(emit_tells_objects_in_lines),
        cmocka_unit_test(emit_writes_yolo),
        cmocka_unit_test(emit_writes_one_coco_document),
    };
    return cmocka_run_group_tests_name("emit", tests, setup, teardown);
}
