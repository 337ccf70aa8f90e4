/* fuzz_tokenizer.c - any bytes as a tokenizer.model; what loads must encode.
 *
 * Mutation alone seldom keeps a protocol buffer's lengths right, so an input that
 * begins with '#' is a recipe: a whole model of the pieces that follow (type, length,
 * bytes), up to a type over 15, and after that the text to encode.                  */
#include "core/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void require(int holds) {
    if (!holds)
        abort();
}

static void encode(const pali_tokenizer *tok, const char *text, size_t n) {
    pali_error err = {0};
    int32_t *ids;
    size_t count;
    int rc = pali_tokenizer_encode(tok, text, n, &ids, &count, &err);
    require(rc == 0 || (err.code == rc && err.what[0] && !ids));
    for (size_t i = 0; i < count; i++) {
        require(ids[i] >= 0 && ids[i] < pali_tokenizer_vocab(tok));
        require(ids[i] != pali_tokenizer_bos(tok) && ids[i] != pali_tokenizer_eos(tok));
        require(ids[i] != pali_tokenizer_pad(tok));
    }
    free(ids);
}

static void try_model(const char *model, size_t n, const char *more, size_t nmore) {
    static const char text[] =
        "a  cat\n\n<bos><eos><pad><image><loc0001><seg127> 12 \xF0\x9F\x98\x80\xFF aab";
    pali_error err = {0};
    pali_tokenizer *tok;
    int rc = pali_tokenizer_parse(model, n, "fuzz.model", &tok, &err);
    if (rc) {
        require(!tok && err.code == rc && err.what[0] && !strchr(err.what, '\n'));
        return;
    }
    require(tok != NULL);
    int32_t vocab = pali_tokenizer_vocab(tok);
    for (int32_t id = -1; id <= vocab; id++) {
        size_t length;
        const char *p = pali_tokenizer_peek(tok, id, &length);
        volatile char last = length ? p[length - 1] : 0;
        (void)last;
    }
    require(pali_tokenizer_newline(tok) >= 0 && pali_tokenizer_newline(tok) < vocab);
    require(pali_tokenizer_seg(tok, PALI_SEGS - 1) < vocab);
    encode(tok, text, sizeof text - 1);
    encode(tok, more, nmore);
    pali_tokenizer_close(tok);
}

static size_t put_piece(char *to, const void *text, size_t n, int type, float score) {
    size_t at = 0;
    to[at++] = 0x0A;
    to[at++] = (char)(n + 9);
    to[at++] = 0x0A;
    to[at++] = (char)n;
    memcpy(to + at, text, n);
    at += n;
    to[at++] = 0x15;
    memcpy(to + at, &score, 4);
    at += 4;
    to[at++] = 0x18;
    to[at++] = (char)type;
    return at;
}

/* Lengths are below 100, so each is one byte. */
static void follow_recipe(const uint8_t *bytes, size_t n) {
    char *model = malloc(64 + 12 * n);
    require(model != NULL);
    size_t at = 0, i = 0;
    at += put_piece(model + at, "<unk>", 5, 2, 0);
    at += put_piece(model + at, "<s>", 3, 3, 0);
    at += put_piece(model + at, "</s>", 4, 3, 0);
    memcpy(model + at, "\x12\x02\x18\x02\x1A\x06\x18\x00\x20\x00\x28\x01", 12);
    at += 12;
    for (; i + 2 <= n && bytes[i] <= 15; i += 2 + bytes[i + 1] % 100) {
        size_t length = bytes[i + 1] % 100;
        if (length > n - i - 2)
            break;
        at += put_piece(model + at, bytes + i + 2, length, bytes[i] % 8, -(float)(i % 5));
    }
    try_model(model, at, (const char *)bytes + i, n - i);
    free(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    if (n && bytes[0] == '#')
        follow_recipe(bytes + 1, n - 1);
    else /* the model's own bytes hold its pieces: text that reaches all of them */
        try_model((const char *)bytes, n, (const char *)bytes, n < 4096 ? n : 4096);
    return 0;
}
