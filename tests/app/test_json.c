/* test_json.c - a turn as a line of JSON: what is in it, and that nothing a prompt or a
 * model says can break the line.                                                  */
#include "app/json.h"
#include "tests/test.h"

#include <jansson.h>

static json_t *turn_of(const char *prompt, const pali_result *r, char **line) {
    pali_error err = {0};
    app_timings t = {.load_s = 0.25, .first_s = 1.0 / 3};
    static const char *const images[] = {"a.png"};
    app_turn turn = {.images = images, .nimages = 1, .prompt = prompt, .result = r, .timings = &t};
    assert_ok(app_json_turn(&turn, line, &err), err);
    size_t n = strlen(*line);
    assert_int_equal((*line)[n - 1], '\n');
    for (size_t i = 0; i + 1 < n; i++)
        assert_true((*line)[i] >= 0x20 && (*line)[i] < 0x7F);
    json_error_t e;
    json_t *j = json_loads(*line, 0, &e);
    if (!j)
        fail_msg("%s: %s", e.text, *line);
    return j;
}

static void json_holds_the_whole_turn(void **state) {
    (void)state;
    pali_object objects[] = {
        {.box = {0.1f, 2, 639.996f, 65535}, .label = "car", .score = 0.75f},
        {.box = {1, 2, 3, 4}, .label = "caf\xC3\xA9"},
    };
    int32_t tokens[] = {256000, 1, 7};
    pali_result r = {.text = (char *)(uintptr_t) "<loc0001> car",
                     .tokens = tokens,
                     .ntokens = 3,
                     .objects = objects,
                     .nobjects = 2,
                     .stop = PALI_STOP_LENGTH,
                     .prefix_tokens = 260,
                     .prefill_s = 2};
    char *line;
    json_t *j = turn_of("detect car", &r, &line);
    const char *image, *prompt, *text, *stop, *label[2];
    double box[4], score[2], load, encode, prefill, decode, first;
    int token[3], prefix;
    int rc = json_unpack(
        j,
        "{s:s, s:s, s:s, s:[i,i,i!], s:[{s:s, s:[F,F,F,F!], s:F !}, {s:s, s:[F,F,F,F!],"
        "s:F !} !], s:{s:F, s:F, "
        "s:F, s:F, s:F, s:i !}, s:s !}",
        "image", &image, "prompt", &prompt, "text", &text, "tokens", &token[0], &token[1],
        &token[2], "objects", "label", &label[0], "box", &box[0], &box[1], &box[2], &box[3],
        "score", &score[0], "label", &label[1], "box", &load, &load, &load, &load, "score",
        &score[1], "timings", "load_s", &load, "encode_s", &encode, "prefill_s", &prefill,
        "decode_s", &decode, "first_token_s", &first, "prefix_tokens", &prefix, "stop", &stop);
    assert_int_equal(rc, 0);
    assert_string_equal(image, "a.png");
    assert_string_equal(prompt, "detect car");
    assert_string_equal(text, "<loc0001> car");
    assert_string_equal(label[0], "car");
    assert_string_equal(label[1], "caf\xC3\xA9");
    assert_true(score[0] == 0.75 && score[1] == 0);
    assert_string_equal(stop, "length");
    assert_int_equal(token[0], 256000);
    assert_int_equal(prefix, 260);
    assert_non_null(strstr(line, "[0.1,2.0,640.0,65535.0]")); /* not 0.10000000149 */
    assert_true(load == 0.25 && encode == 0 && prefill == 2 && decode == 0);
    assert_true(first > 0.333 && first < 0.334);
    json_decref(j);
    free(line);
}

static void json_tells_that_a_picture_was_made_smaller(void **state) {
    (void)state;
    pali_image image = {.width = 50, .height = 40};
    pali_result r = {.text = (char *)(uintptr_t) "a", .stop = PALI_STOP_EOS};
    app_timings t = {0};
    static const char *const images[] = {"a.png"};
    app_turn turn = {.images = images,
                     .nimages = 1,
                     .prompt = "p",
                     .result = &r,
                     .timings = &t,
                     .image = &image};
    char *line;
    pali_error err = {0};
    assert_ok(app_json_turn(&turn, &line, &err), err);
    assert_null(strstr(line, "decoded"));
    free(line);
    image.full_width = 100;
    image.full_height = 80;
    assert_ok(app_json_turn(&turn, &line, &err), err);
    assert_non_null(strstr(line, "\"decoded\":[50,40]"));
    free(line);
}

static void json_keeps_any_text_on_one_line(void **state) {
    (void)state;
    pali_result r = {.text = (char *)(uintptr_t) "a\n\x1B[2J\"\\\xE2\x80\xA8\xF0\x9F\x98\x80",
                     .stop = PALI_STOP_CANCEL};
    char *line;
    json_t *j = turn_of("bad \xFF\xC3 bytes\r\n", &r, &line);
    assert_string_equal(json_string_value(json_object_get(j, "prompt")),
                        "bad \xEF\xBF\xBD\xEF\xBF\xBD bytes\r\n");
    assert_string_equal(json_string_value(json_object_get(j, "text")), r.text);
    assert_int_equal(json_array_size(json_object_get(j, "tokens")), 0);
    assert_int_equal(json_array_size(json_object_get(j, "objects")), 0);
    assert_string_equal(json_string_value(json_object_get(j, "stop")), "cancel");
    json_decref(j);
    free(line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_holds_the_whole_turn),
        cmocka_unit_test(json_tells_that_a_picture_was_made_smaller),
        cmocka_unit_test(json_keeps_any_text_on_one_line),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
