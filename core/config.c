/* config.c - see config.h.
 *
 * Every key may be absent or null. The defaults are those that the released
 * checkpoints mean; where a checkpoint always states a size (or the tensors do), there
 * is no default here and the size is left 0. Keys that are ignored because published
 * files carry leftovers in them: projector_hidden_act, num_image_tokens, num_positions,
 * projection_dim, the top-level hidden_size, sliding_window, vision_use_head,
 * text_config's token ids.                                                        */
#include "core/config.h"

#include "core/file.h"
#include "core/json.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_MAX = 1 << 20
};

static const char again[] = "download config.json again from the model's page";

/* One object of the file being read. rc keeps the first failure, so that a run of
 * reads needs one check at its end. */
typedef struct {
    const char *file;    /* for messages */
    const char *section; /* "" or "text_config." */
    const json_t *object;
    pali_error *err;
    int rc;
} reader;

/* --- typed reads --------------------------------------------------------------- */

/* The value of key; NULL when absent or null, which mean the same. */
static const json_t *lookup(const reader *r, const char *key) {
    const json_t *v = json_object_get(r->object, key);
    return json_is_null(v) ? NULL : v;
}

static void complain(reader *r, const char *key, const json_t *v, const char *expected) {
    char shown[48];
    if (!r->rc)
        r->rc = pali_fail(r->err, PALI_EFORMAT, again, "%s: %s%s is %s, expected %s", r->file,
                          r->section, key, pali_json_show(v, shown, sizeof shown), expected);
}

static int value_int(reader *r, const char *key, const json_t *v, int min, int max) {
    if (json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max)
        return (int)json_integer_value(v);
    char expected[64];
    snprintf(expected, sizeof expected, "a whole number from %d to %d", min, max);
    complain(r, key, v, expected);
    return 0;
}

static int read_int(reader *r, const char *key, int min, int max, int missing) {
    const json_t *v = lookup(r, key);
    return v ? value_int(r, key, v, min, max) : missing;
}

/* A number above min (not equal) and up to max. */
static double read_real(reader *r, const char *key, double min, double max, double missing) {
    const json_t *v = lookup(r, key);
    if (!v)
        return missing;
    double x = json_number_value(v);
    if (json_is_number(v) && x > min && x <= max)
        return x;
    char expected[64];
    snprintf(expected, sizeof expected, "a number above %g, at most %g", min, max);
    complain(r, key, v, expected);
    return missing;
}

static bool read_bool(reader *r, const char *key, bool missing) {
    const json_t *v = lookup(r, key);
    if (!v)
        return missing;
    if (!json_is_boolean(v))
        complain(r, key, v, "true or false");
    return json_is_true(v);
}

/* NULL when absent. Borrowed from the JSON. */
static const char *read_string(reader *r, const char *key) {
    const json_t *v = lookup(r, key);
    if (v && !json_is_string(v))
        complain(r, key, v, "a word in quotes");
    return json_string_value(v);
}

/* The section key of top; an absent one reads as empty. */
static reader read_section(reader *top, const char *key, const char *section) {
    reader r = *top;
    r.section = section;
    r.object = lookup(top, key);
    if (r.object && !json_is_object(r.object))
        complain(top, key, r.object, "an object");
    return r;
}

/* --- meaning --------------------------------------------------------------------- */

/* The activation of an MLP must be GELU by its tanh formula. exact_too: files of this
 * tower say "gelu" and were trained with the tanh formula all the same. */
static void check_activation(reader *r, const char *key, bool exact_too) {
    static const char *const tanh_names[] = {"gelu_pytorch_tanh", "gelu_new", "gelu_fast"};
    const char *s = read_string(r, key);
    if (!s || r->rc || (exact_too && strcmp(s, "gelu") == 0))
        return;
    for (size_t i = 0; i < sizeof tanh_names / sizeof *tanh_names; i++)
        if (strcmp(s, tanh_names[i]) == 0)
            return;
    r->rc = pali_fail(r->err, PALI_EUNSUPPORTED, "use a PaliGemma or PaliGemma 2 as released",
                      "%s: %s%s is %.40s; pali computes gelu_pytorch_tanh", r->file, r->section,
                      key, s);
}

static void refuse(reader *r, const char *what) {
    if (!r->rc)
        r->rc = pali_fail(r->err, PALI_EUNSUPPORTED, "use a PaliGemma or PaliGemma 2 as released",
                          "%s: %s", r->file, what);
}

/* Some tools keep only "architectures"; it names the model as well. */
static bool is_paligemma_class(const reader *top) {
    const json_t *a = lookup(top, "architectures");
    const char *s = json_string_value(json_array_get(a, 0));
    return s && strncmp(s, "PaliGemma", 9) == 0;
}

static void check_kind(reader *top) {
    static const char other[] = "name a PaliGemma model, for example google/paligemma2-3b-mix-448";
    const char *type = read_string(top, "model_type");
    if (top->rc)
        return;
    if (type && strcmp(type, "paligemma") != 0)
        top->rc = pali_fail(top->err, PALI_EUNSUPPORTED, other,
                            "%s: this is a %.40s model; pali runs PaliGemma and PaliGemma 2",
                            top->file, type);
    else if (!type && !is_paligemma_class(top))
        top->rc = pali_fail(top->err, PALI_EUNSUPPORTED, other,
                            "%s: does not say what model this is (model_type)", top->file);
    if (lookup(top, "quantization_config"))
        refuse(top, "the model is quantised; pali runs F32, BF16 and F16 weights");
}

static void read_vision(reader *r, pali_vision_config *v) {
    const char *type = read_string(r, "model_type");
    if (type && strcmp(type, "siglip_vision_model") != 0 && !r->rc)
        r->rc = pali_fail(r->err, PALI_EUNSUPPORTED, "use a PaliGemma or PaliGemma 2 as released",
                          "%s: the vision tower is a %.40s; pali runs SigLIP", r->file, type);
    v->D = read_int(r, "hidden_size", 1, PALI_MAX_WIDTH, 0);
    v->F = read_int(r, "intermediate_size", 1, PALI_MAX_WIDTH, 0);
    v->layers = read_int(r, "num_hidden_layers", 1, PALI_MAX_LAYERS, 0);
    v->H = read_int(r, "num_attention_heads", 1, 1024, 16);
    v->patch = read_int(r, "patch_size", 1, 1024, 0);
    v->S = read_int(r, "image_size", 1, 1 << 14, 0);
    v->channels = read_int(r, "num_channels", 1, 1024, 3);
    v->eps = (float)read_real(r, "layer_norm_eps", 1e-30, 1, 1e-6);
    check_activation(r, "hidden_act", false);
    if (!r->rc && v->channels != 3)
        refuse(r, "the vision tower does not take RGB pictures (vision_config.num_channels)");
    if (!r->rc && v->D && v->D % v->H)
        r->rc = pali_fail(r->err, PALI_EFORMAT, again,
                          "%s: vision_config: hidden_size %d is not a multiple of %d heads",
                          r->file, v->D, v->H);
}

static void check_rope_type(reader *r) {
    const char *type = read_string(r, "rope_type");
    if (!type)
        type = read_string(r, "type");
    if (type && strcmp(type, "default") != 0)
        refuse(r, "the text model scales its rotary positions, which no PaliGemma does");
}

/* rope_theta, by itself or in the rope_parameters of newer files. */
static float read_rope(reader *r) {
    reader scaling = read_section(r, "rope_scaling", "text_config.rope_scaling.");
    reader nested = read_section(r, "rope_parameters", "text_config.rope_parameters.");
    check_rope_type(&scaling);
    check_rope_type(&nested);
    double theta = read_real(&nested, "rope_theta", 1, 1e12, 10000);
    if (!r->rc)
        r->rc = scaling.rc ? scaling.rc : nested.rc;
    return (float)read_real(r, "rope_theta", 1, 1e12, theta);
}

static void read_text(reader *r, pali_config *c) {
    pali_text_config *t = &c->text;
    const char *type = read_string(r, "model_type");
    if (type && !r->rc) {
        t->gemma = strcmp(type, "gemma") == 0 ? 1 : strcmp(type, "gemma2") == 0 ? 2 : 0;
        if (!t->gemma)
            r->rc = pali_fail(r->err, PALI_EUNSUPPORTED, "use a PaliGemma or PaliGemma 2",
                              "%s: the text model is a %.40s; pali runs Gemma and Gemma 2", r->file,
                              type);
    } else if (lookup(r, "query_pre_attn_scalar") || lookup(r, "attn_logit_softcapping") ||
               lookup(r, "final_logit_softcapping")) {
        t->gemma = 2; /* keys that only Gemma 2 has */
    }
    t->D = read_int(r, "hidden_size", 1, PALI_MAX_WIDTH, 0);
    t->F = read_int(r, "intermediate_size", 1, PALI_MAX_WIDTH, 0);
    t->layers = read_int(r, "num_hidden_layers", 1, PALI_MAX_LAYERS, 0);
    t->H = read_int(r, "num_attention_heads", 1, 1024, 0);
    t->K = read_int(r, "num_key_value_heads", 1, 1024, 0);
    /* Not hidden_size / heads: that is 288 for PaliGemma 2 3B and 224 for 10B. */
    t->E = read_int(r, "head_dim", 1, 4096, 256);
    t->V = read_int(r, "vocab_size", 1, PALI_MAX_VOCAB, 0);
    t->max_positions = read_int(r, "max_position_embeddings", 1, 1 << 24, 8192);
    t->eps = (float)read_real(r, "rms_norm_eps", 1e-30, 1, 1e-6);
    t->rope_theta = read_rope(r);
    check_activation(r, "hidden_activation", true);
    check_activation(r, "hidden_act", true);
    if (read_bool(r, "attention_bias", false))
        refuse(r, "the text model has attention biases, which no PaliGemma has");
    if (!read_bool(r, "tie_word_embeddings", true))
        c->untied = 1;
    if (!r->rc && t->E % 2)
        complain(r, "head_dim", lookup(r, "head_dim"), "an even number");
    if (!r->rc && t->H && t->K && t->H % t->K)
        r->rc = pali_fail(r->err, PALI_EFORMAT, again,
                          "%s: text_config: %d heads are not a multiple of %d key/value heads",
                          r->file, t->H, t->K);
    if (r->rc || !t->gemma)
        return;
    pali_config_set_gemma(c, t->gemma);
    if (t->gemma == 2) {
        double scalar = read_real(r, "query_pre_attn_scalar", 1e-6, 1e6, 0);
        if (scalar > 0)
            t->query_scale = (float)(1 / sqrt(scalar));
        /* A soft-cap that is null is switched off; one that is absent is not. */
        t->attn_softcap = json_object_get(r->object, "attn_logit_softcapping")
                              ? (float)read_real(r, "attn_logit_softcapping", 1e-6, 1e6, 0)
                              : t->attn_softcap;
        t->final_softcap = json_object_get(r->object, "final_logit_softcapping")
                               ? (float)read_real(r, "final_logit_softcapping", 1e-6, 1e6, 0)
                               : t->final_softcap;
    }
}

/* A token id; of a list of them the first. */
static int read_id(reader *r, const char *key, int missing) {
    const json_t *v = lookup(r, key);
    if (json_is_array(v) && json_array_size(v) > 0)
        v = json_array_get(v, 0);
    return v ? value_int(r, key, v, 0, PALI_MAX_VOCAB - 1) : missing;
}

static void read_top(reader *top, pali_config *c) {
    check_kind(top);
    c->image_token = read_id(top, "image_token_id", read_id(top, "image_token_index", 257152));
    c->bos = read_id(top, "bos_token_id", 2);
    c->eos = read_id(top, "eos_token_id", 1);
    c->pad = read_id(top, "pad_token_id", 0);
    if (!read_bool(top, "tie_word_embeddings", true))
        c->untied = 1;
    reader vision = read_section(top, "vision_config", "vision_config.");
    if (top->rc)
        return;
    read_vision(&vision, &c->vision);
    top->rc = vision.rc;
    reader text = read_section(top, "text_config", "text_config.");
    if (top->rc)
        return;
    read_text(&text, c);
    top->rc = text.rc;
}

/* --- public ------------------------------------------------------------------------ */

void pali_config_set_gemma(pali_config *c, int generation) {
    pali_text_config *t = &c->text;
    t->gemma = generation;
    double scalar = t->E;
    if (generation == 2) /* PaliGemma 2 28B divides by sqrt(144), the others by sqrt(256) */
        scalar = t->E == 128 && t->D == 4608 ? 144 : 256;
    t->query_scale = (float)(1 / sqrt(scalar));
    t->attn_softcap = generation == 2 ? 50 : 0;
    t->final_softcap = generation == 2 ? 30 : 0;
}

int pali_config_parse(const char *json, size_t n, const char *name, pali_config *out,
                      pali_error *err) {
    json_t *root;
    memset(out, 0, sizeof *out);
    int rc = pali_json_parse(json, n, name, &root, err);
    if (rc)
        return rc;
    reader top = {.file = pali_file_brief(name), .section = "", .object = root, .err = err};
    pali_config c = {0};
    read_top(&top, &c);
    json_decref(root);
    if (!top.rc)
        *out = c;
    return top.rc;
}

int pali_config_open(const char *path, pali_config *out, pali_error *err) {
    char *text;
    size_t n;
    memset(out, 0, sizeof *out);
    int rc = pali_file_read(path, FILE_MAX, &text, &n, err);
    if (!rc)
        rc = pali_config_parse(text, n, path, out, err);
    free(text);
    return rc;
}
