/* tokenizer.h - text <-> token ids, by SentencePiece.
 *
 * The only C++ in core is tokenizer.cc behind this header. Text is encoded as
 * plain text: control pieces (<bos>, <eos>, <pad>, <image>) typed by a user are
 * split like any other characters; <locNNNN> and <segNNN> become their tokens,
 * whether the pieces are inside the model file or (as ids following its last
 * piece: 1024 locs, then 128 segs) added after it. Invalid UTF-8 is
 * handled as SentencePiece does.                                              */
#ifndef PALI_TOKENIZER_H
#define PALI_TOKENIZER_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pali_tokenizer pali_tokenizer;

enum {
    PALI_LOCS = 1024,
    PALI_SEGS = 128
};

/* Loads a tokenizer.model of at most 64 MiB. Close with pali_tokenizer_close.
 * Safe to share between threads once open. */
int pali_tokenizer_open(const char *path, pali_tokenizer **out, pali_error *err);
/* The same from n bytes in memory; name is for messages. */
int pali_tokenizer_parse(const void *bytes, size_t n, const char *name, pali_tokenizer **out,
                         pali_error *err);
void pali_tokenizer_close(pali_tokenizer *tok);

/* Number of ids with a meaning (257152): ids from here on are padding rows and
 * are never sampled. */
int32_t pali_tokenizer_vocab(const pali_tokenizer *tok);
/* Ids of special pieces; newline is the separator that ends a prefix (108).
 * loc(0) + i and seg(0) + i are consecutive; -1 when out of range. */
int32_t pali_tokenizer_bos(const pali_tokenizer *tok);
int32_t pali_tokenizer_eos(const pali_tokenizer *tok);
int32_t pali_tokenizer_pad(const pali_tokenizer *tok);
int32_t pali_tokenizer_newline(const pali_tokenizer *tok);
int32_t pali_tokenizer_loc(const pali_tokenizer *tok, int i);
int32_t pali_tokenizer_seg(const pali_tokenizer *tok, int i);

/* Encodes n bytes of text without bos, eos or anything added. Caller frees *ids
 * with free(); *count may be 0 (then *ids is NULL). */
int pali_tokenizer_encode(const pali_tokenizer *tok, const char *text, size_t n, int32_t **ids,
                          size_t *count, pali_error *err);

/* The bytes token id stands for in running text: U+2581 as a space, a byte piece
 * as its one byte, loc and seg as written, control and unknown ids as nothing.
 * Borrowed until the tokenizer is closed; not NUL-terminated. */
const char *pali_tokenizer_peek(const pali_tokenizer *tok, int32_t id, size_t *n);

/* --- streaming detokeniser ------------------------------------------------- */

/* Holds back the tail of an unfinished UTF-8 character (at most 3 bytes). Zeroed
 * is ready. Output is always valid UTF-8: a byte that can belong to no character
 * becomes U+FFFD. */
typedef struct {
    unsigned char tail[4];
    int ntail;
} pali_detokenizer;

enum {
    PALI_DETOKENIZER_ROOM = 16
}; /* output bytes beyond 3 per byte fed */

/* Feeds n raw bytes; writes whole characters to out (at least 3 * n + ROOM
 * bytes) and returns how many bytes were written. */
size_t pali_detokenizer_feed(pali_detokenizer *d, const char *bytes, size_t n, char *out);
/* End of text: an unfinished character becomes one U+FFFD. */
size_t pali_detokenizer_finish(pali_detokenizer *d, char *out);

#ifdef __cplusplus
}
#endif
#endif
