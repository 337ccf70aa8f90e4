/* fuzz_tokenizer.c - any bytes as a tokenizer.model; what loads must encode. */
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    static const char text[] =
        "a  cat\n\n<bos><eos><pad><image><loc0001><seg127> 12 \xF0\x9F\x98\x80\xFF aab";
    pali_error err = {0};
    pali_tokenizer *tok;
    int rc = pali_tokenizer_parse(bytes, n, "fuzz.model", &tok, &err);
    if (rc) {
        require(!tok && err.code == rc && err.what[0] && !strchr(err.what, '\n'));
        return 0;
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
    /* The model's own bytes hold its pieces: text that reaches all of them. */
    encode(tok, (const char *)bytes, n < 4096 ? n : 4096);
    pali_tokenizer_close(tok);
    return 0;
}
