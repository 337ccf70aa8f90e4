/* make_model.h - a tiny random PaliGemma on disk, for tests that need a model folder,
 * whole or broken in one place.
 *
 *     char dir[64];
 *     model_folder(dir);                              a fresh temporary folder
 *     model_plan *p = model_tiny(2);                  PaliGemma 2, every tensor listed
 *     model_find(p, "multi_modal_projector.linear.bias")->shape[0] = 7;   break it
 *     model_write(p, dir);                            config.json + *.safetensors
 *     ...
 *     model_remove(dir);
 *     free(p);
 *
 * Sizes are awkward on purpose: head_dim is not hidden / heads, widths are not
 * multiples of a vector register. Weights are small and random, the same every time. */
#ifndef PALI_MAKE_MODEL_H
#define PALI_MAKE_MODEL_H

#include "tests/test.h"

#include <ftw.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MODEL_TENSORS = 256,
    MODEL_CONFIG = 4096
};

typedef struct {
    char name[128];
    char dtype[12]; /* "F32", "BF16", "F16", or another word of the format: 2 bytes each */
    int ndim;
    int64_t shape[5];
    int shard;  /* which file it goes to; 0 when there is one */
    bool gone;  /* leave it out */
    float mean; /* of its values; they spread over mean +- spread */
    float spread;
    const float *values; /* instead of random ones; borrowed until it is written */
} model_tensor;

typedef struct {
    int gemma; /* 1 or 2 */
    int S, patch, vision_D, vision_H, vision_F, vision_layers;
    int D, H, K, E, F, layers, V;
    const char *vision, *projector, *text; /* name prefixes */
    int shards;                            /* 1: model.safetensors */
    char config[MODEL_CONFIG];             /* config.json as it will be written */
    model_tensor tensors[MODEL_TENSORS];
    int count;
} model_plan;

/* --- folders -------------------------------------------------------------------- */

static inline void model_folder(char dir[64]) {
    snprintf(dir, 64, "/tmp/pali-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static inline int model_remove_one(const char *path, const struct stat *st, int flag,
                                   struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void model_remove(const char *dir) {
    chmod(dir, 0700);
    nftw(dir, model_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes n bytes to dir/name. */
static inline void model_put(const char *dir, const char *name, const void *bytes, size_t n) {
    char path[4096];
    assert_true(snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* --- the list of tensors ----------------------------------------------------------- */

static inline model_tensor *model_add(model_plan *p, const char *prefix, const char *name,
                                      int64_t a, int64_t b, float mean, float spread) {
    assert_true(p->count < MODEL_TENSORS);
    model_tensor *t = &p->tensors[p->count++];
    memset(t, 0, sizeof *t);
    size_t np = strlen(prefix), nn = strlen(name);
    assert_true(np + nn < sizeof t->name);
    memcpy(t->name, prefix, np);
    memcpy(t->name + np, name, nn + 1);
    snprintf(t->dtype, sizeof t->dtype, "F32");
    t->ndim = b ? 2 : 1;
    t->shape[0] = a;
    t->shape[1] = b;
    t->mean = mean;
    t->spread = spread;
    return t;
}

/* The tensor of that full name; the test fails when there is none. */
static inline model_tensor *model_find(model_plan *p, const char *name) {
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->tensors[i].name, name) == 0)
            return &p->tensors[i];
    fail_msg("no tensor %s in the plan", name);
    return NULL;
}

/* Stores every tensor in that dtype. */
static inline void model_set_dtype(model_plan *p, const char *dtype) {
    for (int i = 0; i < p->count; i++)
        snprintf(p->tensors[i].dtype, sizeof p->tensors[i].dtype, "%s", dtype);
}

/* Deals the tensors out to n files. */
static inline void model_set_shards(model_plan *p, int n) {
    p->shards = n;
    for (int i = 0; i < p->count; i++)
        p->tensors[i].shard = i * n / p->count;
}

/* (Re)makes the list of tensors and config.json from the sizes and prefixes of p. */
static inline void model_list(model_plan *p) {
    char base[64];
    int D = p->vision_D, F = p->vision_F;
    p->count = 0;
    model_tensor *t = model_add(p, p->vision, "embeddings.patch_embedding.weight", D, 3, 0, 0.1f);
    t->ndim = 4;
    t->shape[2] = t->shape[3] = p->patch;
    model_add(p, p->vision, "embeddings.patch_embedding.bias", D, 0, 0, 0.1f);
    int side = p->S / p->patch;
    model_add(p, p->vision, "embeddings.position_embedding.weight", side * side, D, 0, 0.5f);
    for (int i = 0; i < p->vision_layers; i++) {
        static const char *const linear[] = {"self_attn.q_proj", "self_attn.k_proj",
                                             "self_attn.v_proj", "self_attn.out_proj",
                                             "mlp.fc1",          "mlp.fc2"};
        for (int k = 1; k <= 2; k++) {
            snprintf(base, sizeof base, "encoder.layers.%d.layer_norm%d.weight", i, k);
            model_add(p, p->vision, base, D, 0, 1, 0.2f);
            snprintf(base, sizeof base, "encoder.layers.%d.layer_norm%d.bias", i, k);
            model_add(p, p->vision, base, D, 0, 0, 0.2f);
        }
        for (int k = 0; k < 6; k++) {
            int rows = k == 4 ? F : D, cols = k == 5 ? F : D;
            snprintf(base, sizeof base, "encoder.layers.%d.%s.weight", i, linear[k]);
            model_add(p, p->vision, base, rows, cols, 0, 0.3f);
            snprintf(base, sizeof base, "encoder.layers.%d.%s.bias", i, linear[k]);
            model_add(p, p->vision, base, rows, 0, 0, 0.1f);
        }
    }
    model_add(p, p->vision, "post_layernorm.weight", D, 0, 1, 0.2f);
    model_add(p, p->vision, "post_layernorm.bias", D, 0, 0, 0.2f);
    model_add(p, p->projector, "linear.weight", p->D, D, 0, 0.3f);
    model_add(p, p->projector, "linear.bias", p->D, 0, 0, 0.1f);

    D = p->D;
    F = p->F;
    model_add(p, p->text, "embed_tokens.weight", p->V, D, 0, 0.3f);
    for (int i = 0; i < p->layers; i++) {
        const struct {
            const char *name;
            int rows, cols;
        } list[] = {
            {"self_attn.q_proj", p->H * p->E, D},
            {"self_attn.k_proj", p->K * p->E, D},
            {"self_attn.v_proj", p->K * p->E, D},
            {"self_attn.o_proj", D, p->H * p->E},
            {"mlp.gate_proj", F, D},
            {"mlp.up_proj", F, D},
            {"mlp.down_proj", D, F},
            {"input_layernorm", D, 0},
            {"post_attention_layernorm", D, 0},
            {"pre_feedforward_layernorm", D, 0},
            {"post_feedforward_layernorm", D, 0},
        };
        for (int k = 0; k < (p->gemma == 2 ? 11 : 9); k++) {
            snprintf(base, sizeof base, "layers.%d.%s.weight", i, list[k].name);
            model_add(p, p->text, base, list[k].rows, list[k].cols, 0, 0.25f);
        }
    }
    model_add(p, p->text, "norm.weight", D, 0, 0, 0.2f);

    int n = snprintf(
        p->config, sizeof p->config,
        "{\n  \"architectures\": [\"PaliGemmaForConditionalGeneration\"],\n"
        "  \"model_type\": \"paligemma\",\n"
        "  \"bos_token_id\": 2,\n  \"eos_token_id\": 1,\n  \"pad_token_id\": 0,\n"
        "  \"image_token_index\": %d,\n  \"projection_dim\": %d,\n"
        "  \"text_config\": {\n    \"model_type\": \"%s\",\n    \"hidden_size\": %d,\n"
        "    \"intermediate_size\": %d,\n    \"num_hidden_layers\": %d,\n"
        "    \"num_attention_heads\": %d,\n    \"num_key_value_heads\": %d,\n"
        "    \"head_dim\": %d,\n    \"vocab_size\": %d,\n    \"max_position_embeddings\": 8192%s\n"
        "  },\n"
        "  \"vision_config\": {\n    \"model_type\": \"siglip_vision_model\",\n"
        "    \"hidden_size\": %d,\n    \"intermediate_size\": %d,\n"
        "    \"num_hidden_layers\": %d,\n    \"num_attention_heads\": %d,\n"
        "    \"patch_size\": %d,\n    \"image_size\": %d,\n    \"vision_use_head\": false\n  "
        "}\n}\n",
        p->V - 64, p->D, p->gemma == 2 ? "gemma2" : "gemma", p->D, p->F, p->layers, p->H, p->K,
        p->E, p->V,
        p->gemma == 2 ? ",\n    \"query_pre_attn_scalar\": 20,\n"
                        "    \"attn_logit_softcapping\": 50.0,\n"
                        "    \"final_logit_softcapping\": 30.0,\n    \"sliding_window\": 4096"
                      : "",
        p->vision_D, p->vision_F, p->vision_layers, p->vision_H, p->patch, p->S);
    assert_true(n > 0 && (size_t)n < sizeof p->config);
}

/* A tiny PaliGemma of generation 1 or 2 with released names, float32, one file. Change
 * sizes or prefixes, then call model_list again. Free with free(). */
static inline model_plan *model_tiny(int gemma) {
    model_plan *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->gemma = gemma;
    p->S = 28;
    p->patch = 7;
    p->vision_D = 36;
    p->vision_H = 3;
    p->vision_F = 50;
    p->vision_layers = 2;
    p->D = 40;
    p->H = 4;
    p->K = gemma == 2 ? 2 : 1;
    p->E = 16;
    p->F = 72;
    p->layers = 3;
    p->V = 320;
    p->vision = "vision_tower.vision_model.";
    p->projector = "multi_modal_projector.";
    p->text = "language_model.model.";
    p->shards = 1;
    model_list(p);
    return p;
}

/* Replaces the first from in config.json by to; the test fails when there is none. */
static inline void model_edit_config(model_plan *p, const char *from, const char *to) {
    char *at = strstr(p->config, from);
    if (!at)
        fail_msg("no %s in config.json", from);
    size_t nfrom = strlen(from), nto = strlen(to), tail = strlen(at + nfrom) + 1;
    assert_true((size_t)(at - p->config) + nto + tail <= sizeof p->config);
    memmove(at + nto, at + nfrom, tail);
    memcpy(at, to, nto);
}

/* --- files ------------------------------------------------------------------------- */

static inline uint16_t model_half(float f) {
    /* Round to nearest is not needed: the values only have to be the same for all. */
    uint32_t u;
    memcpy(&u, &f, 4);
    int exponent = (int)(u >> 23 & 255) - 127;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (exponent < -14)
        return sign;
    return (uint16_t)(sign | (uint32_t)(exponent + 15) << 10 | (u >> 13 & 0x3ff));
}

/* Bytes of one element as model_write stores it. */
static inline size_t model_element(const model_tensor *t) {
    return strcmp(t->dtype, "F32") == 0 ? 4 : 2;
}

static inline size_t model_elements(const model_tensor *t) {
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++)
        n *= (size_t)t->shape[i];
    return n;
}

/* Name of file number shard of p. */
static inline const char *model_file(const model_plan *p, int shard, char name[64]) {
    if (p->shards == 1)
        return "model.safetensors";
    snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, p->shards);
    return name;
}

static inline void model_write_shard(const model_plan *p, const char *dir, int shard) {
    char path[512], name[64], *header = malloc((size_t)p->count * 256 + 64);
    assert_non_null(header);
    size_t at = 0, offset = 0;
    at += (size_t)sprintf(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < p->count; i++) {
        const model_tensor *t = &p->tensors[i];
        if (t->gone || t->shard != shard)
            continue;
        at += (size_t)sprintf(header + at, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name,
                              t->dtype);
        for (int d = 0; d < t->ndim; d++)
            at += (size_t)sprintf(header + at, d ? ",%lld" : "%lld", (long long)t->shape[d]);
        size_t bytes = model_elements(t) * model_element(t);
        at += (size_t)sprintf(header + at, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
        offset += bytes;
    }
    at += (size_t)sprintf(header + at, "}");

    snprintf(path, sizeof path, "%s/%s", dir, model_file(p, shard, name));
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    uint64_t n = at;
    assert_int_equal(fwrite(&n, 8, 1, f), 1);
    assert_int_equal(fwrite(header, 1, at, f), at);
    for (int i = 0; i < p->count; i++) {
        const model_tensor *t = &p->tensors[i];
        if (t->gone || t->shard != shard)
            continue;
        uint64_t random = (uint64_t)i * 0x9e3779b97f4a7c15u + 1;
        for (size_t k = 0, count = model_elements(t); k < count; k++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            float x = t->mean + t->spread * ((float)(random >> 40) * 0x1p-23f - 1);
            x = t->values ? t->values[k] : x;
            uint32_t bits;
            memcpy(&bits, &x, 4);
            uint16_t half = strcmp(t->dtype, "F16") == 0 ? model_half(x) : (uint16_t)(bits >> 16);
            if (model_element(t) == 4)
                fwrite(&x, 4, 1, f);
            else
                fwrite(&half, 2, 1, f);
        }
    }
    assert_int_equal(fclose(f), 0);
    free(header);
}

/* config.json, the weights, and the index when there are several files. */
static inline void model_write(const model_plan *p, const char *dir) {
    model_put(dir, "config.json", p->config, strlen(p->config));
    for (int i = 0; i < p->shards; i++)
        model_write_shard(p, dir, i);
    if (p->shards == 1)
        return;
    char *index = malloc((size_t)p->count * 256 + 128), name[64];
    assert_non_null(index);
    size_t at = (size_t)sprintf(index, "{\"metadata\":{\"total_size\":0},\"weight_map\":{");
    const char *comma = "";
    for (int i = 0; i < p->count; i++) {
        const model_tensor *t = &p->tensors[i];
        if (t->gone)
            continue;
        at += (size_t)sprintf(index + at, "%s\"%s\":\"%s\"", comma, t->name,
                              model_file(p, t->shard, name));
        comma = ",";
    }
    at += (size_t)sprintf(index + at, "}}");
    model_put(dir, "model.safetensors.index.json", index, at);
    free(index);
}

#endif
