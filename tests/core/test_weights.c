/* A model folder as tensors by meaning, and every way in which one can be broken. */
#include "core/weights.h"

#include "tests/core/make_model.h"

#include <math.h>

static char dir[64];
static pali_error err;

static int setup(void **state) {
    (void)state;
    model_folder(dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_remove(dir);
    return 0;
}

static pali_weights *open_good(void) {
    pali_weights *w;
    memset(&err, 0, sizeof err);
    assert_ok(pali_weights_open(dir, &w, &err), err);
    return w;
}

static void expect_failure(int code, const char *words) {
    pali_weights *w = (void *)1;
    memset(&err, 0, sizeof err);
    int rc = pali_weights_open(dir, &w, &err);
    if (rc != code || !strstr(err.what, words))
        fail_msg("got %d '%s', expected %d and '%s'", rc, err.what, code, words);
    assert_null(w);
    assert_string_not_equal(err.hint, "");
}

/* Writes p, expects the failure, frees p. */
static void expect_bad(model_plan *p, int code, const char *words) {
    model_write(p, dir);
    free(p);
    expect_failure(code, words);
}

/* m must be the tensor name of model.safetensors in dir, rows x cols. */
static void assert_matrix(const pali_matrix *m, const pali_safetensors *st, const char *name,
                          int rows, int cols) {
    const pali_tensor *t = pali_safetensors_find(st, name);
    assert_non_null(t);
    assert_int_equal(m->rows, rows);
    assert_int_equal(m->cols, cols);
    assert_int_equal(m->dtype, t->dtype);
    assert_int_equal((size_t)rows * (size_t)cols * pali_dtype_size(m->dtype), t->bytes);
    assert_memory_equal(m->data, t->data, t->bytes);
}

/* --- whole models ---------------------------------------------------------------------- */

static void weights_give_each_tensor_its_meaning(void **state) {
    (void)state;
    for (int gemma = 1; gemma <= 2; gemma++) {
        model_plan *p = model_tiny(gemma);
        model_write(p, dir);
        pali_weights *w = open_good();
        char path[128], name[128];
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        pali_safetensors *st;
        assert_ok(pali_safetensors_open(path, &st, &err), err);

        int D = p->vision_D, F = p->vision_F;
#define CHECK(m, rows, cols, ...)                                                                  \
    do {                                                                                           \
        snprintf(name, sizeof name, __VA_ARGS__);                                                  \
        assert_matrix(&(m), st, name, rows, cols);                                                 \
    } while (0)
#define V "vision_tower.vision_model."
        CHECK(w->patch_w, D, 3 * 7 * 7, V "embeddings.patch_embedding.weight");
        CHECK(w->patch_b, 1, D, V "embeddings.patch_embedding.bias");
        CHECK(w->position, 16, D, V "embeddings.position_embedding.weight");
        CHECK(w->post_ln_w, 1, D, V "post_layernorm.weight");
        CHECK(w->post_ln_b, 1, D, V "post_layernorm.bias");
        for (int i = 0; i < p->vision_layers; i++) {
            const pali_vision_layer *y = &w->vision[i];
            CHECK(y->ln1_w, 1, D, V "encoder.layers.%d.layer_norm1.weight", i);
            CHECK(y->ln1_b, 1, D, V "encoder.layers.%d.layer_norm1.bias", i);
            CHECK(y->ln2_w, 1, D, V "encoder.layers.%d.layer_norm2.weight", i);
            CHECK(y->ln2_b, 1, D, V "encoder.layers.%d.layer_norm2.bias", i);
            CHECK(y->q_w, D, D, V "encoder.layers.%d.self_attn.q_proj.weight", i);
            CHECK(y->q_b, 1, D, V "encoder.layers.%d.self_attn.q_proj.bias", i);
            CHECK(y->k_w, D, D, V "encoder.layers.%d.self_attn.k_proj.weight", i);
            CHECK(y->k_b, 1, D, V "encoder.layers.%d.self_attn.k_proj.bias", i);
            CHECK(y->v_w, D, D, V "encoder.layers.%d.self_attn.v_proj.weight", i);
            CHECK(y->v_b, 1, D, V "encoder.layers.%d.self_attn.v_proj.bias", i);
            CHECK(y->o_w, D, D, V "encoder.layers.%d.self_attn.out_proj.weight", i);
            CHECK(y->o_b, 1, D, V "encoder.layers.%d.self_attn.out_proj.bias", i);
            CHECK(y->fc1_w, F, D, V "encoder.layers.%d.mlp.fc1.weight", i);
            CHECK(y->fc1_b, 1, F, V "encoder.layers.%d.mlp.fc1.bias", i);
            CHECK(y->fc2_w, D, F, V "encoder.layers.%d.mlp.fc2.weight", i);
            CHECK(y->fc2_b, 1, D, V "encoder.layers.%d.mlp.fc2.bias", i);
        }
#undef V
        CHECK(w->proj_w, p->D, D, "multi_modal_projector.linear.weight");
        CHECK(w->proj_b, 1, p->D, "multi_modal_projector.linear.bias");
        D = p->D;
        F = p->F;
#define L "language_model.model."
        CHECK(w->embed, p->V, D, L "embed_tokens.weight");
        CHECK(w->norm, 1, D, L "norm.weight");
        for (int i = 0; i < p->layers; i++) {
            const pali_text_layer *y = &w->text[i];
            CHECK(y->attn_norm, 1, D, L "layers.%d.input_layernorm.weight", i);
            CHECK(y->q_w, p->H * p->E, D, L "layers.%d.self_attn.q_proj.weight", i);
            CHECK(y->k_w, p->K * p->E, D, L "layers.%d.self_attn.k_proj.weight", i);
            CHECK(y->v_w, p->K * p->E, D, L "layers.%d.self_attn.v_proj.weight", i);
            CHECK(y->o_w, D, p->H * p->E, L "layers.%d.self_attn.o_proj.weight", i);
            CHECK(y->gate_w, F, D, L "layers.%d.mlp.gate_proj.weight", i);
            CHECK(y->up_w, F, D, L "layers.%d.mlp.up_proj.weight", i);
            CHECK(y->down_w, D, F, L "layers.%d.mlp.down_proj.weight", i);
            if (gemma == 1) {
                CHECK(y->mlp_norm, 1, D, L "layers.%d.post_attention_layernorm.weight", i);
                assert_null(y->post_attn_norm.data);
                assert_null(y->post_mlp_norm.data);
            } else {
                CHECK(y->post_attn_norm, 1, D, L "layers.%d.post_attention_layernorm.weight", i);
                CHECK(y->mlp_norm, 1, D, L "layers.%d.pre_feedforward_layernorm.weight", i);
                CHECK(y->post_mlp_norm, 1, D, L "layers.%d.post_feedforward_layernorm.weight", i);
            }
        }
#undef L
#undef CHECK
        uint64_t params = 0;
        for (int i = 0; i < p->count; i++)
            params += model_elements(&p->tensors[i]);
        assert_int_equal(w->params, params);
        assert_int_equal(w->bytes, 4 * params);
        pali_safetensors_close(st);
        pali_weights_close(w);
        free(p);
    }
}

/* The config of the open model must be that of the plan, whole. */
static void assert_config(const pali_config *c, const model_plan *p) {
    assert_int_equal(c->vision.S, p->S);
    assert_int_equal(c->vision.patch, p->patch);
    assert_int_equal(c->vision.channels, 3);
    assert_int_equal(c->vision.P, (p->S / p->patch) * (p->S / p->patch));
    assert_int_equal(c->vision.layers, p->vision_layers);
    assert_int_equal(c->vision.D, p->vision_D);
    assert_int_equal(c->vision.H, p->vision_H);
    assert_int_equal(c->vision.E, p->vision_D / p->vision_H);
    assert_int_equal(c->vision.F, p->vision_F);
    assert_int_equal(c->text.gemma, p->gemma);
    assert_int_equal(c->text.layers, p->layers);
    assert_int_equal(c->text.D, p->D);
    assert_int_equal(c->text.H, p->H);
    assert_int_equal(c->text.K, p->K);
    assert_int_equal(c->text.E, p->E);
    assert_int_equal(c->text.F, p->F);
    assert_int_equal(c->text.V, p->V);
}

static void weights_fill_in_the_config(void **state) {
    (void)state;
    for (int gemma = 1; gemma <= 2; gemma++) {
        model_plan *p = model_tiny(gemma);
        model_write(p, dir);
        pali_weights *w = open_good();
        assert_config(&w->config, p);
        assert_true(fabsf(w->config.text.query_scale - (gemma == 1 ? 0.25f : 0.2236068f)) < 1e-6f);
        pali_weights_close(w);

        /* What the tensors cannot show is all that must be said. */
        snprintf(p->config, sizeof p->config,
                 "{\"model_type\":\"paligemma\",\"text_config\":{\"head_dim\":16},"
                 "\"vision_config\":{\"num_attention_heads\":3}}");
        model_write(p, dir);
        w = open_good();
        assert_config(&w->config, p);
        assert_true(w->config.text.query_scale == (gemma == 1 ? 0.25f : 0.0625f));
        assert_true(w->config.text.attn_softcap == (gemma == 1 ? 0 : 50));
        assert_true(w->config.text.final_softcap == (gemma == 1 ? 0 : 30));
        pali_weights_close(w);
        free(p);
    }
}

static void weights_accept_every_prefix(void **state) {
    (void)state;
    static const char *const vision[] = {"vision_tower.vision_model.", "vision_tower.",
                                         "model.vision_tower.vision_model.", "model.vision_tower."};
    static const char *const projector[] = {"multi_modal_projector.",
                                            "model.multi_modal_projector."};
    static const char *const text[] = {"language_model.model.", "model.language_model.",
                                       "language_model.", "model.language_model.model."};
    for (int v = 0; v < 4; v++)
        for (int t = 0; t < 4; t++) {
            model_plan *p = model_tiny(1 + t % 2);
            p->vision = vision[v];
            p->projector = projector[v / 2];
            p->text = text[t];
            model_list(p);
            model_write(p, dir);
            pali_weights *w = open_good();
            assert_config(&w->config, p);
            pali_weights_close(w);
            free(p);
        }
}

static void weights_open_shards(void **state) {
    (void)state;
    model_plan *p = model_tiny(2);
    model_write(p, dir);
    pali_weights *whole = open_good();
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(unlink(path), 0); /* the mapping outlives the name */
    model_set_shards(p, 3);
    model_write(p, dir);
    pali_weights *w = open_good();
    assert_int_equal(w->nshards, 3);
    assert_int_equal(w->params, whole->params);
    assert_config(&w->config, p);
    assert_memory_equal(w->norm.data, whole->norm.data, (size_t)p->D * 4);
    assert_memory_equal(w->text[1].up_w.data, whole->text[1].up_w.data,
                        (size_t)p->F * (size_t)p->D * 4);
    pali_weights_close(w);
    pali_weights_close(whole);
    free(p);
}

static void weights_accept_mixed_dtypes(void **state) {
    (void)state;
    static const char *const dtypes[] = {"F32", "BF16", "F16"};
    model_plan *p = model_tiny(1);
    uint64_t bytes = 0;
    for (int i = 0; i < p->count; i++) {
        snprintf(p->tensors[i].dtype, sizeof p->tensors[i].dtype, "%s", dtypes[i % 3]);
        bytes += model_elements(&p->tensors[i]) * model_element(&p->tensors[i]);
    }
    model_write(p, dir);
    pali_weights *w = open_good();
    assert_int_equal(w->bytes, bytes);
    pali_weights_close(w);
    free(p);
}

static void weights_take_any_square_of_patches(void **state) {
    (void)state;
    for (int side = 1; side <= 9; side += 4) {
        model_plan *p = model_tiny(1);
        p->S = p->patch * side;
        model_list(p);
        model_edit_config(p, "\"image_size\"", "\"unknown_key\"");
        model_write(p, dir);
        pali_weights *w = open_good();
        assert_config(&w->config, p);
        pali_weights_close(w);
        free(p);
    }
}

static void weights_ignore_a_tied_head(void **state) {
    (void)state;
    static const char *const heads[] = {"language_model.lm_head.weight", "lm_head.weight"};
    for (int i = 0; i < 2; i++) {
        model_plan *p = model_tiny(1);
        model_add(p, "", heads[i], p->V, p->D, 0, 1);
        model_add(p, "", "language_model.model.layers.0.rotary_emb.inv_freq", 8, 0, 0, 1);
        model_write(p, dir);
        pali_weights *w = open_good();
        assert_int_equal(w->embed.rows, p->V);
        pali_weights_close(w);
        model_edit_config(p, "\"bos_token_id\"", "\"tie_word_embeddings\":false,\"bos_token_id\"");
        expect_bad(p, PALI_EUNSUPPORTED, "not tied to the embedding");
    }
    /* Nothing but the word "untied": there is only one matrix, so it is the head. */
    model_plan *p = model_tiny(1);
    model_edit_config(p, "\"bos_token_id\"", "\"tie_word_embeddings\":false,\"bos_token_id\"");
    model_write(p, dir);
    pali_weights_close(open_good());
    free(p);
}

static void weights_prefetch_in_the_background(void **state) {
    (void)state;
    model_plan *p = model_tiny(2);
    model_set_shards(p, 3);
    model_write(p, dir);
    free(p);
    for (int i = 0; i < 20; i++) {
        pali_weights *w = open_good();
        pali_weights_prefetch(w);
        pali_weights_prefetch(w); /* once is enough */
        pali_weights_close(w);    /* at any moment */
    }
    pali_weights_close(NULL);
}

/* --- broken in one place ------------------------------------------------------------------ */

static void weights_name_every_missing_tensor(void **state) {
    (void)state;
    model_plan *p = model_tiny(2);
    for (int i = 0; i < p->count; i++) {
        p->tensors[i].gone = true;
        model_write(p, dir);
        p->tensors[i].gone = false;
        char words[200];
        snprintf(words, sizeof words, "tensor %s is not in the model", p->tensors[i].name);
        expect_failure(PALI_EFORMAT, words);
    }
    free(p);
}

static void weights_name_every_wrong_shape(void **state) {
    (void)state;
    model_plan *p = model_tiny(2);
    for (int i = 0; i < p->count; i++) {
        model_tensor *t = &p->tensors[i];
        for (int d = 0; d < t->ndim; d++) {
            t->shape[d]++;
            model_write(p, dir);
            t->shape[d]--;
            /* The tensor itself or, where it shows a size, the size it contradicts. */
            expect_failure(PALI_EFORMAT, "");
            assert_true((strstr(err.what, t->name) && strstr(err.what, "expected [")) ||
                        strstr(err.what, "config.json says that") ||
                        strstr(err.what, "is not a square number") ||
                        strstr(err.what, "multiple of head_dim") ||
                        strstr(err.what, "num_channels is 4, which is not from 1 to 3"));
        }
        int64_t first = t->shape[0];
        t->shape[0] = 0;
        model_write(p, dir);
        t->shape[0] = first;
        expect_failure(PALI_EFORMAT, t->name);
        t->shape[t->ndim++] = 1;
        model_write(p, dir);
        expect_failure(PALI_EFORMAT, "dimensions, expected");
        assert_non_null(strstr(err.what, t->name));
        t->ndim--;
    }
    free(p);

    p = model_tiny(1);
    model_find(p, "language_model.model.layers.2.mlp.up_proj.weight")->shape[0] = 70;
    expect_bad(p, PALI_EFORMAT,
               "tensor language_model.model.layers.2.mlp.up_proj.weight is [70, 40], expected "
               "[72, 40]");
}

static void weights_compare_sizes_with_the_config(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        {"\"hidden_size\": 40", "\"hidden_size\": 48",
         "config.json says that text_config.hidden_size is 48, the tensors say 40"},
        {"\"intermediate_size\": 72", "\"intermediate_size\": 64",
         "text_config.intermediate_size is 64, the tensors say 72"},
        {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4",
         "text_config.num_hidden_layers is 4, the tensors say 3"},
        {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1",
         "text_config.num_hidden_layers is 1, the tensors say 3"},
        {"\"num_attention_heads\": 4", "\"num_attention_heads\": 8",
         "text_config.num_attention_heads is 8, the tensors say 4"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1",
         "text_config.num_key_value_heads is 1, the tensors say 2"},
        {"\"head_dim\": 16", "\"head_dim\": 32",
         "text_config.num_attention_heads is 4, the tensors say 2"},
        {"\"head_dim\": 16", "\"head_dim\": 24", "64 rows, which is not a multiple of head_dim 24"},
        {"\"vocab_size\": 320", "\"vocab_size\": 321",
         "text_config.vocab_size is 321, the tensors say 320"},
        {"\"hidden_size\": 36", "\"hidden_size\": 39",
         "vision_config.hidden_size is 39, the tensors say 36"},
        {"\"intermediate_size\": 50", "\"intermediate_size\": 51",
         "vision_config.intermediate_size is 51, the tensors say 50"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 27",
         "vision_config.num_hidden_layers is 27, the tensors say 2"},
        {"\"patch_size\": 7", "\"patch_size\": 14",
         "vision_config.patch_size is 14, the tensors say 7"},
        {"\"image_size\": 28", "\"image_size\": 224",
         "vision_config.image_size is 224, the tensors say 28"},
        {"\"num_attention_heads\": 3", "\"num_attention_heads\": null",
         "hidden_size 36 is not a multiple of 16 heads"},
        {"\"hidden_size\": 36,\n    \"intermediate_size\": 50,\n    \"num_hidden_layers\": 2,\n    "
         "\"num_attention_heads\": 3",
         "\"num_attention_heads\": 16", "36 wide, which is not a multiple of its 16 heads"},
        {"\"gemma2\"", "\"gemma\"",
         "says that the text model is Gemma 1, the tensors are Gemma 2's"},
        {"\"bos_token_id\": 2", "\"bos_token_id\": 320",
         "names token 320, but the model has only 320"},
        {"\"eos_token_id\": 1", "\"eos_token_id\": 9999", "names token 9999"},
        {"\"paligemma\"", "\"llava\"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_plan *p = model_tiny(2);
        model_edit_config(p, cases[i].from, cases[i].to);
        if (cases[i].words)
            expect_bad(p, PALI_EFORMAT, cases[i].words);
        else
            expect_bad(p, PALI_EUNSUPPORTED, "this is a llava model");
    }
    model_plan *p = model_tiny(1);
    model_edit_config(p, "\"gemma\"", "\"gemma2\"");
    expect_bad(p, PALI_EFORMAT, "says that the text model is Gemma 2, the tensors are Gemma 1's");
}

static void weights_refuse_heads_that_do_not_divide(void **state) {
    (void)state;
    model_plan *p = model_tiny(2);
    p->K = 3;
    model_list(p);
    model_edit_config(p, "\"num_key_value_heads\": 3", "\"num_key_value_heads\": null");
    expect_bad(p, PALI_EFORMAT, "4 heads, which is not a multiple of its 3 key/value heads");
}

static void weights_refuse_sides_that_are_not_square(void **state) {
    (void)state;
    model_plan *p = model_tiny(1);
    model_find(p, "vision_tower.vision_model.embeddings.position_embedding.weight")->shape[0] = 17;
    expect_bad(p, PALI_EFORMAT, "has 17 rows, which is not a square number");
    p = model_tiny(1);
    model_find(p, "vision_tower.vision_model.embeddings.patch_embedding.weight")->shape[3] = 8;
    expect_bad(p, PALI_EFORMAT, "is [36, 3, 7, 8], expected [36, 3, 7, 7]");
}

static void weights_refuse_other_number_formats(void **state) {
    (void)state;
    model_plan *p = model_tiny(1);
    snprintf(model_find(p, "language_model.model.layers.1.mlp.up_proj.weight")->dtype, 12, "I16");
    expect_bad(p, PALI_EUNSUPPORTED,
               "language_model.model.layers.1.mlp.up_proj.weight is in a number format");
}

static void weights_refuse_a_layer_far_away(void **state) {
    (void)state;
    model_plan *p = model_tiny(1);
    model_add(p, "", "language_model.model.layers.99999.input_layernorm.weight", p->D, 0, 0, 1);
    model_edit_config(p, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": null");
    expect_bad(p, PALI_EFORMAT, "num_hidden_layers is 100000, which is not from 1 to 1024");
}

/* --- folders and files ------------------------------------------------------------------- */

static void weights_say_what_the_folder_lacks(void **state) {
    (void)state;
    pali_weights *w;
    memset(&err, 0, sizeof err);
    assert_int_equal(pali_weights_open("/nowhere/at/all", &w, &err), PALI_EIO);
    assert_string_equal(err.what, "/nowhere/at/all: no such folder");
    assert_int_equal(pali_weights_open("/nowhere/at/all", &w, NULL), PALI_EIO);

    expect_failure(PALI_EIO, "config.json: no such file");
    model_put(dir, "adapter_config.json", "{}", 2);
    expect_failure(PALI_EUNSUPPORTED, "holds an adapter (LoRA)");
    model_put(dir, "config.json", "{\"model_type\":\"paligemma\"}", 26);
    expect_failure(PALI_EIO, "the weights file model.safetensors is not there");
    model_put(dir, "pytorch_model.bin", "", 0);
    expect_failure(PALI_EUNSUPPORTED, "as PyTorch .bin files");
}

static void weights_say_which_shard_is_missing_or_damaged(void **state) {
    (void)state;
    model_plan *p = model_tiny(2);
    model_set_shards(p, 3);
    model_write(p, dir);
    char path[128];
    snprintf(path, sizeof path, "%s/model-00002-of-00003.safetensors", dir);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    expect_failure(PALI_EFORMAT, "model-00002-of-00003.safetensors: tensor ");
    assert_non_null(strstr(err.hint, "cut short"));
    assert_int_equal(truncate(path, 0), 0);
    expect_failure(PALI_EFORMAT, "model-00002-of-00003.safetensors: is empty");
    assert_int_equal(unlink(path), 0);
    expect_failure(PALI_EIO, "the weights file model-00002-of-00003.safetensors is not there");
    assert_int_equal(symlink("nowhere", path), 0);
    expect_failure(PALI_EIO, "the weights file model-00002-of-00003.safetensors is not there");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_failure(PALI_EIO, "model-00002-of-00003.safetensors: is a folder");
    free(p);
}

static void weights_refuse_a_tensor_in_two_files(void **state) {
    (void)state;
    model_plan *p = model_tiny(1);
    model_set_shards(p, 2);
    model_tensor *t = model_add(p, "", p->tensors[0].name, 1, 0, 0, 1);
    t->shard = 1;
    model_write(p, dir);
    /* The index would say it twice, too: make it name both files once. */
    const char *index = "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
                        "\"b\":\"model-00002-of-00002.safetensors\"}}";
    model_put(dir, "model.safetensors.index.json", index, strlen(index));
    free(p);
    expect_failure(PALI_EFORMAT, "is in two files");
}

static void weights_refuse_hostile_indexes(void **state) {
    (void)state;
    model_put(dir, "config.json", "{\"model_type\":\"paligemma\"}", 26);
    static const char *const files[] = {
        "\"../model.safetensors\"",
        "\"/etc/model.safetensors\"",
        "\"a/model.safetensors\"",
        "\"..\"",
        "\"\"",
        "\".safetensors\"",
        "\".hidden.safetensors\"",
        "\"model.bin\"",
        "\"model\\n.safetensors\"",
        "\"model\\\\x.safetensors\"",
        "\"C:model.safetensors\"",
        "7",
        "null",
        "{}",
    };
    char index[512];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(index, sizeof index, "{\"weight_map\":{\"t\":%s}}", files[i]);
        model_put(dir, "model.safetensors.index.json", index, strlen(index));
        expect_failure(PALI_EFORMAT, "tensor t is not in a .safetensors file of this folder");
    }
    static const struct {
        const char *text, *words;
    } whole[] = {
        {"", "index.json: is empty"},
        {"{", "index.json: not valid JSON"},
        {"[]", "expected a JSON object"},
        {"{}", "has no weight_map"},
        {"{\"weight_map\":{}}", "has no weight_map"},
        {"{\"weight_map\":[\"model.safetensors\"]}", "has no weight_map"},
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        model_put(dir, "model.safetensors.index.json", whole[i].text, strlen(whole[i].text));
        expect_failure(PALI_EFORMAT, whole[i].words);
    }

    char *many = malloc(600 * 64);
    assert_non_null(many);
    size_t at = (size_t)sprintf(many, "{\"weight_map\":{");
    for (int i = 0; i < 600; i++)
        at += (size_t)sprintf(many + at, "%s\"t%d\":\"m%d.safetensors\"", i ? "," : "", i, i);
    at += (size_t)sprintf(many + at, "}}");
    model_put(dir, "model.safetensors.index.json", many, at);
    free(many);
    expect_failure(PALI_ELIMIT, "more than 512 files");
}

static void weights_prefer_the_single_file(void **state) {
    (void)state;
    model_plan *p = model_tiny(1);
    model_write(p, dir);
    model_put(dir, "model.safetensors.index.json", "not JSON", 8);
    pali_weights *w = open_good();
    assert_int_equal(w->nshards, 1);
    pali_weights_close(w);
    free(p);
}

/* --- widening --------------------------------------------------------------------------- */

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static void matrix_read_widens_every_half_exactly(void **state) {
    (void)state;
    enum {
        N = 65536
    };
    unsigned char *raw = malloc(2 * N + 1);
    float *out = malloc(N * sizeof *out);
    assert_non_null(raw);
    assert_non_null(out);
    for (int i = 0; i < N; i++) {
        uint16_t h = (uint16_t)i;
        memcpy(raw + 1 + 2 * i, &h, 2); /* at an odd address on purpose */
    }
    pali_matrix m = {.dtype = PALI_BF16, .rows = 256, .cols = 256, .data = raw + 1};
    pali_matrix_read(&m, 0, N, out);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(bits_of(out[i]), i << 16);

    m.dtype = PALI_F16;
    pali_matrix_read(&m, 0, N, out);
    for (int i = 0; i < N; i++) {
        int sign = i >> 15, exponent = i >> 10 & 31, mantissa = i & 1023;
        assert_int_equal(bits_of(out[i]) >> 31, sign);
        if (exponent == 31 && mantissa) {
            assert_true(isnan(out[i]));
            assert_int_equal(bits_of(out[i]) & 0x7fffff, mantissa << 13);
        } else if (exponent == 31) {
            assert_true(isinf(out[i]));
        } else {
            double x = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
            assert_true(out[i] == (float)(sign ? -x : x));
        }
    }
    free(raw);
    free(out);
}

static void matrix_read_takes_any_stretch(void **state) {
    (void)state;
    float values[12], out[12];
    unsigned char raw[sizeof values + 3];
    for (int i = 0; i < 12; i++)
        values[i] = (float)i * 1.1f - 5;
    values[3] = NAN;
    values[4] = -INFINITY;
    memcpy(raw + 3, values, sizeof values);
    pali_matrix m = {.dtype = PALI_F32, .rows = 3, .cols = 4, .data = raw + 3};
    for (size_t from = 0; from <= 12; from++)
        for (size_t n = 0; n <= 12 - from; n++) {
            memset(out, 0x7f, sizeof out);
            pali_matrix_read(&m, from, n, out);
            assert_memory_equal(out, values + from, n * 4);
            for (size_t i = n; i < 12; i++)
                assert_int_equal(bits_of(out[i]), 0x7f7f7f7f);
        }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(weights_give_each_tensor_its_meaning),
        T(weights_fill_in_the_config),
        T(weights_accept_every_prefix),
        T(weights_open_shards),
        T(weights_accept_mixed_dtypes),
        T(weights_take_any_square_of_patches),
        T(weights_ignore_a_tied_head),
        T(weights_prefetch_in_the_background),
        T(weights_name_every_missing_tensor),
        T(weights_name_every_wrong_shape),
        T(weights_compare_sizes_with_the_config),
        T(weights_refuse_heads_that_do_not_divide),
        T(weights_refuse_sides_that_are_not_square),
        T(weights_refuse_other_number_formats),
        T(weights_refuse_a_layer_far_away),
        T(weights_say_what_the_folder_lacks),
        T(weights_say_which_shard_is_missing_or_damaged),
        T(weights_refuse_a_tensor_in_two_files),
        T(weights_refuse_hostile_indexes),
        T(weights_prefer_the_single_file),
        cmocka_unit_test(matrix_read_widens_every_half_exactly),
        cmocka_unit_test(matrix_read_takes_any_stretch),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
