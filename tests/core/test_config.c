/* config.json: the defaults of the released checkpoints, and every wrong value. */
#include "core/config.h"

#include "tests/core/make_model.h"

#include <math.h>

static pali_config c;
static pali_error err;

static int parse(const char *json) {
    memset(&err, 0, sizeof err);
    memset(&c, 0x55, sizeof c);
    return pali_config_parse(json, strlen(json), "config.json", &c, &err);
}

/* {"model_type": "paligemma", "text_config": {text}, "vision_config": {vision}, top} */
static int parse_with(const char *top, const char *text, const char *vision) {
    char json[2048];
    snprintf(json, sizeof json,
             "{\"model_type\":\"paligemma\",\"text_config\":{%s},\"vision_config\":{%s}%s%s}", text,
             vision, *top ? "," : "", top);
    return parse(json);
}

static void expect_failure(int rc, int code, const char *words) {
    if (rc != code || !strstr(err.what, words))
        fail_msg("got %d '%s', expected %d and '%s'", rc, err.what, code, words);
    assert_int_equal(err.code, code);
    assert_string_not_equal(err.hint, "");
    assert_int_equal(c.text.D, 0); /* nothing half-read comes back */
}

#define assert_near(a, b) assert_true(fabs((double)(a) - (double)(b)) <= 1e-6 * (double)(b))

/* --- the released files -------------------------------------------------------------- */

static void config_reads_paligemma_1(void **state) {
    (void)state;
    assert_ok(parse("{\"architectures\":[\"PaliGemmaForConditionalGeneration\"],"
                    "\"bos_token_id\":2,\"eos_token_id\":1,\"hidden_size\":2048,"
                    "\"ignore_index\":-100,\"image_token_index\":257152,"
                    "\"model_type\":\"paligemma\",\"pad_token_id\":0,\"projection_dim\":2048,"
                    "\"_vocab_size\":257152,\"torch_dtype\":\"float32\","
                    "\"transformers_version\":\"4.42.0.dev0\",\"text_config\":{"
                    "\"hidden_size\":2048,\"intermediate_size\":16384,\"model_type\":\"gemma\","
                    "\"num_attention_heads\":8,\"num_hidden_layers\":18,"
                    "\"num_image_tokens\":256,\"num_key_value_heads\":1,"
                    "\"torch_dtype\":\"float32\",\"vocab_size\":257216},"
                    "\"vision_config\":{\"hidden_size\":1152,\"intermediate_size\":4304,"
                    "\"model_type\":\"siglip_vision_model\",\"num_attention_heads\":16,"
                    "\"num_hidden_layers\":27,\"num_image_tokens\":256,\"patch_size\":14,"
                    "\"projection_dim\":2048,\"projector_hidden_act\":\"gelu_fast\","
                    "\"vision_use_head\":false}}"),
              err);
    assert_int_equal(c.vision.S, 0); /* not said: the position table decides */
    assert_int_equal(c.vision.patch, 14);
    assert_int_equal(c.vision.channels, 3);
    assert_int_equal(c.vision.layers, 27);
    assert_int_equal(c.vision.D, 1152);
    assert_int_equal(c.vision.H, 16);
    assert_int_equal(c.vision.F, 4304);
    assert_near(c.vision.eps, 1e-6);
    assert_int_equal(c.text.gemma, 1);
    assert_int_equal(c.text.layers, 18);
    assert_int_equal(c.text.D, 2048);
    assert_int_equal(c.text.H, 8);
    assert_int_equal(c.text.K, 1);
    assert_int_equal(c.text.E, 256);
    assert_int_equal(c.text.F, 16384);
    assert_int_equal(c.text.V, 257216);
    assert_int_equal(c.text.max_positions, 8192);
    assert_near(c.text.eps, 1e-6);
    assert_near(c.text.rope_theta, 10000);
    assert_near(c.text.query_scale, 1.0 / 16);
    assert_true(c.text.attn_softcap == 0 && c.text.final_softcap == 0);
    assert_int_equal(c.image_token, 257152);
    assert_int_equal(c.bos, 2);
    assert_int_equal(c.eos, 1);
    assert_int_equal(c.pad, 0);
    assert_int_equal(c.untied, 0);
}

static void config_reads_paligemma_2(void **state) {
    (void)state;
    assert_ok(parse("{\"model_type\":\"paligemma\",\"image_token_index\":257152,"
                    "\"num_hidden_layers\":26,\"projection_dim\":2304,\"text_config\":{"
                    "\"attention_bias\":false,\"attn_logit_softcapping\":50.0,"
                    "\"cache_implementation\":\"hybrid\",\"eos_token_id\":[1,107],"
                    "\"final_logit_softcapping\":30.0,\"head_dim\":256,"
                    "\"hidden_act\":\"gelu_pytorch_tanh\","
                    "\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_size\":2304,"
                    "\"intermediate_size\":9216,\"model_type\":\"gemma2\","
                    "\"num_attention_heads\":8,\"num_hidden_layers\":26,"
                    "\"num_key_value_heads\":4,\"query_pre_attn_scalar\":256,"
                    "\"rope_theta\":10000.0,\"rms_norm_eps\":1e-06,\"sliding_window\":4096,"
                    "\"vocab_size\":257216},\"vision_config\":{\"hidden_size\":1152,"
                    "\"image_size\":448,\"intermediate_size\":4304,"
                    "\"model_type\":\"siglip_vision_model\",\"num_attention_heads\":16,"
                    "\"num_hidden_layers\":27,\"num_positions\":256,\"patch_size\":14}}"),
              err);
    assert_int_equal(c.text.gemma, 2);
    assert_int_equal(c.text.layers, 26);
    assert_int_equal(c.text.K, 4);
    assert_int_equal(c.vision.S, 448);
    assert_near(c.text.query_scale, 1.0 / 16);
    assert_near(c.text.attn_softcap, 50);
    assert_near(c.text.final_softcap, 30);
    assert_int_equal(c.eos, 1);
}

static void config_reads_28b(void **state) {
    (void)state;
    const char *stated = "\"model_type\":\"gemma2\",\"hidden_size\":4608,\"head_dim\":128,"
                         "\"num_attention_heads\":32,\"num_key_value_heads\":16,"
                         "\"query_pre_attn_scalar\":144";
    assert_ok(parse_with("", stated, ""), err);
    assert_int_equal(c.text.E, 128);
    assert_near(c.text.query_scale, 1.0 / 12);
    /* without the scalar: it is known from the shape */
    assert_ok(parse_with("", "\"model_type\":\"gemma2\",\"hidden_size\":4608,\"head_dim\":128", ""),
              err);
    assert_near(c.text.query_scale, 1.0 / 12);
}

/* --- what is missing -------------------------------------------------------------------- */

static void config_leaves_open_what_only_tensors_know(void **state) {
    (void)state;
    static const char *const empty[] = {
        "{\"model_type\":\"paligemma\"}",
        "{\"model_type\":\"paligemma\",\"text_config\":null,\"vision_config\":null}",
        "{\"model_type\":\"paligemma\",\"text_config\":{},\"vision_config\":{}}",
        "{\"architectures\":[\"PaliGemmaForConditionalGeneration\"]}",
    };
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        assert_ok(parse(empty[i]), err);
        assert_int_equal(c.text.gemma, 0);
        assert_int_equal(c.text.D, 0);
        assert_int_equal(c.text.F, 0);
        assert_int_equal(c.text.layers, 0);
        assert_int_equal(c.text.H, 0);
        assert_int_equal(c.text.K, 0);
        assert_int_equal(c.text.V, 0);
        assert_int_equal(c.text.E, 256);
        assert_int_equal(c.text.max_positions, 8192);
        assert_true(c.text.query_scale == 0);
        assert_int_equal(c.vision.D, 0);
        assert_int_equal(c.vision.F, 0);
        assert_int_equal(c.vision.layers, 0);
        assert_int_equal(c.vision.patch, 0);
        assert_int_equal(c.vision.S, 0);
        assert_int_equal(c.vision.H, 16);
        assert_int_equal(c.image_token, 257152);
        assert_int_equal(c.bos, 2);
        assert_int_equal(c.eos, 1);
        assert_int_equal(c.pad, 0);
    }
}

static void config_takes_null_as_missing(void **state) {
    (void)state;
    assert_ok(parse_with("\"bos_token_id\":null,\"image_token_index\":null,"
                         "\"quantization_config\":null",
                         "\"model_type\":null,\"hidden_size\":null,\"head_dim\":null,"
                         "\"hidden_activation\":null,\"hidden_act\":null,\"rope_theta\":null,"
                         "\"rope_scaling\":null,\"rope_parameters\":null,\"rms_norm_eps\":null,"
                         "\"attention_bias\":null,\"tie_word_embeddings\":null",
                         "\"image_size\":null,\"layer_norm_eps\":null,\"hidden_act\":null"),
              err);
    assert_int_equal(c.text.E, 256);
    assert_near(c.text.rope_theta, 10000);
    assert_int_equal(c.bos, 2);
}

static void config_defaults_gemma_2(void **state) {
    (void)state;
    assert_ok(parse_with("", "\"model_type\":\"gemma2\"", ""), err);
    assert_near(c.text.query_scale, 1.0 / 16);
    assert_near(c.text.attn_softcap, 50);
    assert_near(c.text.final_softcap, 30);
    /* The scale is the scalar's, not the head size's. */
    assert_ok(parse_with("", "\"model_type\":\"gemma2\",\"head_dim\":64", ""), err);
    assert_near(c.text.query_scale, 1.0 / 16);
    /* null switches a cap off. */
    assert_ok(parse_with("",
                         "\"model_type\":\"gemma2\",\"attn_logit_softcapping\":null,"
                         "\"final_logit_softcapping\":null",
                         ""),
              err);
    assert_true(c.text.attn_softcap == 0 && c.text.final_softcap == 0);
    /* A key that only Gemma 2 has gives it away. */
    assert_ok(parse_with("", "\"query_pre_attn_scalar\":64", ""), err);
    assert_int_equal(c.text.gemma, 2);
    assert_near(c.text.query_scale, 1.0 / 8);
    assert_near(c.text.attn_softcap, 50);
}

static void config_ignores_gemma_2_keys_in_gemma_1(void **state) {
    (void)state;
    assert_ok(parse_with("",
                         "\"model_type\":\"gemma\",\"head_dim\":64,"
                         "\"query_pre_attn_scalar\":9,\"attn_logit_softcapping\":50.0",
                         ""),
              err);
    assert_int_equal(c.text.gemma, 1);
    assert_near(c.text.query_scale, 1.0 / 8);
    assert_true(c.text.attn_softcap == 0);
}

static void config_decides_gemma_later(void **state) {
    (void)state;
    assert_ok(parse("{\"model_type\":\"paligemma\"}"), err);
    pali_config_set_gemma(&c, 2);
    assert_int_equal(c.text.gemma, 2);
    assert_near(c.text.query_scale, 1.0 / 16);
    assert_near(c.text.final_softcap, 30);
    pali_config_set_gemma(&c, 1);
    assert_near(c.text.query_scale, 1.0 / 16);
    assert_true(c.text.final_softcap == 0);
}

static void config_reads_newer_spellings(void **state) {
    (void)state;
    assert_ok(parse_with("\"image_token_id\":7,\"eos_token_id\":[5,107]",
                         "\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"default\"}",
                         ""),
              err);
    assert_near(c.text.rope_theta, 500000);
    assert_int_equal(c.image_token, 7);
    assert_int_equal(c.eos, 5);
    assert_ok(parse_with("", "\"rope_theta\":20000,\"rope_scaling\":{\"type\":\"default\"}", ""),
              err);
    assert_near(c.text.rope_theta, 20000);
}

static void config_accepts_names_of_one_activation(void **state) {
    (void)state;
    assert_ok(parse_with("", "\"hidden_act\":\"gelu\"", ""), err);
    assert_ok(parse_with("", "\"hidden_act\":\"gelu\",\"hidden_activation\":null", ""), err);
    assert_ok(parse_with("", "\"hidden_activation\":\"gelu_new\"", ""), err);
    assert_ok(parse_with("", "", "\"hidden_act\":\"gelu_pytorch_tanh\""), err);
    expect_failure(parse_with("", "\"hidden_act\":\"silu\"", ""), PALI_EUNSUPPORTED,
                   "text_config.hidden_act is silu");
    expect_failure(parse_with("", "\"hidden_activation\":\"relu\"", ""), PALI_EUNSUPPORTED,
                   "text_config.hidden_activation is relu");
    expect_failure(parse_with("", "", "\"hidden_act\":\"quick_gelu\""), PALI_EUNSUPPORTED,
                   "vision_config.hidden_act is quick_gelu");
    expect_failure(parse_with("", "", "\"hidden_act\":\"gelu\""), PALI_EUNSUPPORTED,
                   "vision_config.hidden_act is gelu;"); /* there the exact formula is meant */
}

static void config_notes_an_untied_head(void **state) {
    (void)state;
    assert_ok(parse_with("\"tie_word_embeddings\":true", "\"tie_word_embeddings\":true", ""), err);
    assert_int_equal(c.untied, 0);
    assert_ok(parse_with("\"tie_word_embeddings\":false", "", ""), err);
    assert_int_equal(c.untied, 1);
    assert_ok(parse_with("", "\"tie_word_embeddings\":false", ""), err);
    assert_int_equal(c.untied, 1);
}

/* --- other models ------------------------------------------------------------------------- */

static void config_names_the_model_it_refuses(void **state) {
    (void)state;
    expect_failure(parse("{\"model_type\":\"llava\"}"), PALI_EUNSUPPORTED,
                   "this is a llava model; pali runs PaliGemma and PaliGemma 2");
    expect_failure(parse("{\"model_type\":\"gemma2\"}"), PALI_EUNSUPPORTED,
                   "this is a gemma2 model");
    expect_failure(parse("{\"model_type\":\"siglip\",\"architectures\":[\"PaliGemmaX\"]}"),
                   PALI_EUNSUPPORTED, "this is a siglip model");
    expect_failure(parse("{}"), PALI_EUNSUPPORTED, "does not say what model");
    expect_failure(parse("{\"architectures\":[]}"), PALI_EUNSUPPORTED, "does not say what model");
    expect_failure(parse("{\"architectures\":[\"LlamaForCausalLM\"]}"), PALI_EUNSUPPORTED,
                   "does not say what model");
    expect_failure(parse("{\"model_type\":7}"), PALI_EFORMAT, "model_type is 7");
    expect_failure(parse_with("", "\"model_type\":\"llama\"", ""), PALI_EUNSUPPORTED,
                   "the text model is a llama");
    expect_failure(parse_with("", "\"model_type\":\"gemma3_text\"", ""), PALI_EUNSUPPORTED,
                   "the text model is a gemma3_text");
    expect_failure(parse_with("", "", "\"model_type\":\"clip_vision_model\""), PALI_EUNSUPPORTED,
                   "the vision tower is a clip_vision_model");
    expect_failure(parse_with("\"quantization_config\":{\"bits\":4}", "", ""), PALI_EUNSUPPORTED,
                   "quantised");
    expect_failure(parse_with("", "\"attention_bias\":true", ""), PALI_EUNSUPPORTED,
                   "attention biases");
    expect_failure(parse_with("", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":8.0}", ""),
                   PALI_EUNSUPPORTED, "rotary");
    expect_failure(parse_with("", "\"rope_parameters\":{\"rope_type\":\"yarn\"}", ""),
                   PALI_EUNSUPPORTED, "rotary");
    expect_failure(parse_with("", "", "\"num_channels\":1"), PALI_EUNSUPPORTED, "RGB");
}

/* --- wrong values --------------------------------------------------------------------------- */

static void config_refuses_wrong_sizes(void **state) {
    (void)state;
    static const char *const text[] = {
        "hidden_size",         "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim",          "vocab_size",        "max_position_embeddings"};
    static const char *const vision[] = {
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "patch_size",  "image_size",        "num_channels"};
    static const char *const values[] = {
        "0",
        "-1",
        "-9223372036854775808",
        "9223372036854775807",
        "2147483648",
        "100000000",
        "8.5",
        "8.0",
        "1e3",
        "true",
        "\"8\"",
        "[8]",
        "{}",
        "[]",
    };
    char piece[128], words[128];
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (size_t k = 0; k < sizeof text / sizeof *text; k++) {
            snprintf(piece, sizeof piece, "\"%s\":%s", text[k], values[v]);
            snprintf(words, sizeof words, "config.json: text_config.%s is ", text[k]);
            expect_failure(parse_with("", piece, ""), PALI_EFORMAT, words);
            assert_non_null(strstr(err.what, "expected a whole number from 1 to "));
        }
        for (size_t k = 0; k < sizeof vision / sizeof *vision; k++) {
            snprintf(piece, sizeof piece, "\"%s\":%s", vision[k], values[v]);
            snprintf(words, sizeof words, "config.json: vision_config.%s is ", vision[k]);
            expect_failure(parse_with("", "", piece), PALI_EFORMAT, words);
        }
    }
    expect_failure(parse_with("", "\"hidden_size\":-5", ""), PALI_EFORMAT,
                   "text_config.hidden_size is -5, expected a whole number from 1 to 1048576");
}

static void config_refuses_wrong_numbers(void **state) {
    (void)state;
    static const char *const text[] = {"rms_norm_eps", "rope_theta", "query_pre_attn_scalar",
                                       "attn_logit_softcapping", "final_logit_softcapping"};
    static const char *const values[] = {"0",    "0.0",   "-1.5",    "1e300", "1e-300",
                                         "true", "\"1\"", "[1e-06]", "{}"};
    char piece[128], words[128];
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (size_t k = 0; k < sizeof text / sizeof *text; k++) {
            snprintf(piece, sizeof piece, "\"model_type\":\"gemma2\",\"%s\":%s", text[k],
                     values[v]);
            snprintf(words, sizeof words, "config.json: text_config.%s is ", text[k]);
            expect_failure(parse_with("", piece, ""), PALI_EFORMAT, words);
        }
        snprintf(piece, sizeof piece, "\"layer_norm_eps\":%s", values[v]);
        expect_failure(parse_with("", "", piece), PALI_EFORMAT, "vision_config.layer_norm_eps is ");
        snprintf(piece, sizeof piece, "\"rope_parameters\":{\"rope_theta\":%s}", values[v]);
        expect_failure(parse_with("", piece, ""), PALI_EFORMAT,
                       "text_config.rope_parameters.rope_theta is ");
    }
}

static void config_refuses_what_is_not_a_number(void **state) {
    (void)state;
    static const char *const values[] = {
        "NaN",  "Infinity", "-Infinity", "nan", "1e999", "-1e999", "99999999999999999999",
        "0x10", "01",       "1.",        "+1"};
    char piece[128];
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        snprintf(piece, sizeof piece, "\"rms_norm_eps\":%s", values[v]);
        expect_failure(parse_with("", piece, ""), PALI_EFORMAT,
                       "config.json: not valid JSON at line 1: ");
    }
}

static void config_refuses_sizes_that_do_not_fit_together(void **state) {
    (void)state;
    expect_failure(parse_with("", "\"head_dim\":7", ""), PALI_EFORMAT,
                   "text_config.head_dim is 7, expected an even number");
    expect_failure(parse_with("", "\"num_attention_heads\":8,\"num_key_value_heads\":3", ""),
                   PALI_EFORMAT, "8 heads are not a multiple of 3 key/value heads");
    expect_failure(parse_with("", "", "\"hidden_size\":1152,\"num_attention_heads\":17"),
                   PALI_EFORMAT, "hidden_size 1152 is not a multiple of 17 heads");
}

static void config_refuses_wrong_types(void **state) {
    (void)state;
    expect_failure(parse("{\"model_type\":\"paligemma\",\"text_config\":[]}"), PALI_EFORMAT,
                   "text_config is a list, expected an object");
    expect_failure(parse("{\"model_type\":\"paligemma\",\"vision_config\":7}"), PALI_EFORMAT,
                   "vision_config is 7, expected an object");
    expect_failure(parse_with("", "\"rope_parameters\":3", ""), PALI_EFORMAT,
                   "text_config.rope_parameters is 3");
    expect_failure(parse_with("", "\"model_type\":3", ""), PALI_EFORMAT,
                   "text_config.model_type is 3");
    expect_failure(parse_with("", "\"hidden_act\":{}", ""), PALI_EFORMAT,
                   "text_config.hidden_act is an object");
    expect_failure(parse_with("", "\"attention_bias\":1", ""), PALI_EFORMAT,
                   "text_config.attention_bias is 1, expected true or false");
    static const char *const ids[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                      "image_token_index"};
    static const char *const values[] = {"-1", "1.5", "\"1\"", "[]", "[-1]", "[[1]]", "16777216"};
    char piece[128];
    for (size_t k = 0; k < 4; k++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            snprintf(piece, sizeof piece, "\"%s\":%s", ids[k], values[v]);
            expect_failure(parse_with(piece, "", ""), PALI_EFORMAT, ids[k]);
        }
}

static void config_shortens_what_it_quotes(void **state) {
    (void)state;
    char piece[1024];
    memset(piece, 'x', sizeof piece);
    memcpy(piece, "\"hidden_size\":\"", 15);
    memcpy(piece + 600, "\"", 2);
    expect_failure(parse_with("", piece, ""), PALI_EFORMAT, "xxx..., expected a whole number");
}

/* --- files ---------------------------------------------------------------------------------- */

static void config_opens_files(void **state) {
    (void)state;
    char dir[64], path[128];
    model_folder(dir);
    snprintf(path, sizeof path, "%s/config.json", dir);
    memset(&err, 0, sizeof err);
    expect_failure((memset(&c, 0, sizeof c), pali_config_open(path, &c, &err)), PALI_EIO,
                   "config.json: no such file");
    static const struct {
        const char *text;
        int code;
        const char *words;
    } cases[] = {
        {"", PALI_EFORMAT, "is empty"},
        {"version https://git-lfs.github.com/spec/v1\n", PALI_EFORMAT, "git-lfs pointer"},
        {"<!doctype html>", PALI_EFORMAT, "web page"},
        {"[]", PALI_EFORMAT, "expected a JSON object"},
        {"{\"model_type\":\n \"paligemma\",,}", PALI_EFORMAT, "not valid JSON at line 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_put(dir, "config.json", cases[i].text, strlen(cases[i].text));
        memset(&err, 0, sizeof err);
        expect_failure(pali_config_open(path, &c, &err), cases[i].code, cases[i].words);
    }
    assert_int_equal(truncate(path, (1 << 20) + 1), 0);
    memset(&err, 0, sizeof err);
    expect_failure(pali_config_open(path, &c, &err), PALI_ELIMIT, "at most 1048576 are read");
    model_put(dir, "config.json", "{\"model_type\":\"paligemma\"}", 26);
    memset(&err, 0, sizeof err);
    assert_ok(pali_config_open(path, &c, &err), err);
    assert_int_equal(pali_config_open(dir, &c, NULL), PALI_EIO);
    model_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_reads_paligemma_1),
        cmocka_unit_test(config_reads_paligemma_2),
        cmocka_unit_test(config_reads_28b),
        cmocka_unit_test(config_leaves_open_what_only_tensors_know),
        cmocka_unit_test(config_takes_null_as_missing),
        cmocka_unit_test(config_defaults_gemma_2),
        cmocka_unit_test(config_ignores_gemma_2_keys_in_gemma_1),
        cmocka_unit_test(config_decides_gemma_later),
        cmocka_unit_test(config_reads_newer_spellings),
        cmocka_unit_test(config_accepts_names_of_one_activation),
        cmocka_unit_test(config_notes_an_untied_head),
        cmocka_unit_test(config_names_the_model_it_refuses),
        cmocka_unit_test(config_refuses_wrong_sizes),
        cmocka_unit_test(config_refuses_wrong_numbers),
        cmocka_unit_test(config_refuses_what_is_not_a_number),
        cmocka_unit_test(config_refuses_sizes_that_do_not_fit_together),
        cmocka_unit_test(config_refuses_wrong_types),
        cmocka_unit_test(config_shortens_what_it_quotes),
        cmocka_unit_test(config_opens_files),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
