/* fuzz_prompt.c - any turns and question to a prefix. Bytes: history, room, then texts
 * with NULs between: the last is the question, those before it are turns.            */
#include "core/prompt.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum {
    MAX_TURNS = 32
};

static void require(int holds) {
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    static pali_tokenizer *tok;
    pali_error err = {0};
    if (!tok)
        require(pali_tokenizer_open("tests/data/tokenizer/added.model", &tok, &err) == 0);
    if (n < 2)
        return 0;
    int history = (int8_t)bytes[0] % 8;
    size_t room = bytes[1];
    char *text = malloc(n - 1);
    require(text != NULL);
    memcpy(text, bytes + 2, n - 2);
    text[n - 2] = 0;
    const char *texts[2 * MAX_TURNS + 1];
    size_t ntexts = 0;
    for (char *p = text, *end = text + n - 2; p <= end && ntexts < 2 * MAX_TURNS + 1;
         p += strlen(p) + 1)
        texts[ntexts++] = p;
    pali_turn_text turns[MAX_TURNS];
    size_t nturns = (ntexts - 1) / 2;
    for (size_t i = 0; i < nturns; i++)
        turns[i] = (pali_turn_text){texts[2 * i], texts[2 * i + 1]};

    int32_t *ids;
    size_t count, used;
    int rc = pali_prompt_build(tok, turns, nturns, history, texts[ntexts - 1], room, &ids, &count,
                               &used, &err);
    if (rc) {
        require(rc == PALI_ELIMIT && err.what[0] && !ids && count == 0 && used == 0);
    } else {
        require(count >= 2 && count <= room && used <= nturns);
        require(history <= 0 || used <= (size_t)history);
        require(ids[0] == pali_tokenizer_bos(tok));
        require(ids[count - 1] == pali_tokenizer_newline(tok));
        for (size_t i = 1; i < count; i++)
            require(ids[i] > 3 && ids[i] < pali_tokenizer_vocab(tok));
    }
    free(ids);
    free(text);
    return 0;
}
