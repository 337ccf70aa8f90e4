/* backend_contract.h - what every backend refuses, and with which code: core/backend.h's
 * promises about arguments, for any pali_backend.                                        */
#ifndef PALI_TEST_BACKEND_CONTRACT_H
#define PALI_TEST_BACKEND_CONTRACT_H

#include "tests/core/random_model.h"

#include "core/backend.h"

/* config: 9 image tokens, 101 rows of vocabulary, two layers or more in both towers. */
static inline void backend_refuses_what_cannot_be(const pali_backend *be, pali_config config) {
    random_model *r = make(config, PALI_BF16);
    float *pixels = random_pixels(&r->w);
    int32_t ids[4];
    random_ids(&r->w, 4, ids);
    pali_backend_options o = {.threads = 1, .positions = 12};
    pali_error err = {0};
    pali_model *m;
    pali_embeds *e;
    assert_ok(be->open(&r->w, &o, NULL, &m, &err), err);
    assert_ok(be->encode_image(m, pixels, NULL, &e, &err), err);
    const pali_embeds *two[] = {e, e};
    assert_int_equal(be->decode(m, 1, NULL, NULL), PALI_EARG); /* no prefix yet */
    pali_error why = {0};
    assert_int_equal(be->prefill(m, two, 2, ids, 1, NULL, &why), PALI_ELIMIT);
    assert_string_equal(why.what, "the prefix has 19 tokens, the context has room for 12");
    assert_int_equal(be->prefill(m, two, 1, ids, 4, NULL, NULL), PALI_ELIMIT);
    assert_int_equal(be->prefill(m, NULL, 0, ids, 0, NULL, NULL), PALI_EARG);
    static const int32_t bad[] = {-1, 101, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        int32_t some[] = {1, bad[i], 2};
        assert_int_equal(be->prefill(m, NULL, 0, some, 3, NULL, NULL), PALI_EARG);
    }
    assert_ok(be->prefill(m, two, 1, ids, 3, NULL, &err), err); /* exactly full */
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(be->decode(m, bad[i], NULL, NULL), PALI_EARG);
    assert_int_equal(be->decode(m, 1, NULL, NULL), PALI_ELIMIT);
    be->embeds_free(m, e);
    be->close(m);

    pali_memory need;
    o.positions = 0;
    assert_int_equal(be->memory(&r->w, &o, &need, NULL), PALI_EARG);
    assert_int_equal(be->open(&r->w, &o, NULL, &m, NULL), PALI_EARG);
    assert_null(m);
    r->w.text[1].down_w.cols++;
    o.positions = 5;
    assert_int_equal(be->open(&r->w, &o, NULL, &m, NULL), PALI_EFORMAT);
    r->w.text[1].down_w.cols--;
    r->w.vision[1].fc1_b.data = NULL;
    assert_int_equal(be->memory(&r->w, &o, &need, NULL), PALI_EFORMAT);
    free(pixels);
    drop(r);
}

/* Embeddings that went through the host are the same to the bit, and so are logits after them;
 * what was in that memory before does not show. */
static inline void backend_takes_embeddings_back(const pali_backend *be, pali_config config) {
    random_model *r = make(config, PALI_BF16);
    size_t n = (size_t)config.vision.P * (size_t)config.text.D, V = (size_t)config.text.V;
    float *pixels = random_pixels(&r->w), *rows = malloc(n * sizeof *rows),
          *again = malloc(n * sizeof *again), *logits = malloc(V * sizeof *logits);
    assert_true(rows && again && logits);
    char line[PALI_ARITHMETIC] = "";
    int32_t ids[4];
    random_ids(&r->w, 4, ids);
    pali_backend_options o = {.threads = 2, .positions = config.vision.P + 4};
    pali_error err = {0};
    pali_model *m;
    pali_embeds *e, *other;
    assert_ok(be->open(&r->w, &o, NULL, &m, &err), err);
    be->arithmetic(m, line);
    assert_true(*line && strlen(line) < sizeof line - 1);
    assert_ok(be->encode_image(m, pixels, NULL, &e, &err), err);
    assert_ok(be->embeds_read(m, e, rows, &err), err);
    const pali_embeds *one = e;
    assert_ok(be->prefill(m, &one, 1, ids, 4, NULL, &err), err);
    memcpy(logits, be->logits(m), V * sizeof *logits);
    pixels[0] += 1;
    assert_ok(be->encode_image(m, pixels, NULL, &other, &err), err);
    be->embeds_free(m, e);
    be->embeds_free(m, other);
    assert_ok(be->embeds_write(m, rows, &e, &err), err);
    assert_ok(be->embeds_read(m, e, again, &err), err);
    assert_memory_equal(rows, again, n * sizeof *rows);
    one = e;
    assert_ok(be->prefill(m, &one, 1, ids, 4, NULL, &err), err);
    assert_memory_equal(logits, be->logits(m), V * sizeof *logits);
    be->embeds_free(m, e);
    be->close(m);
    free(pixels), free(rows), free(again), free(logits);
    drop(r);
}

#endif
