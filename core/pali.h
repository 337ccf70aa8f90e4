/* pali.h - the public face of core: a loaded model, and conversations about images.
 *
 * pali_engine is a loaded model. pali_dialog is one conversation about one image, or
 * several, on an engine: it owns the turns so far.
 * Callers see text, boxes and numbers, never tensors. One thread at a time may use
 * an engine and its dialogs; cancel may be set from any thread.                   */
#ifndef PALI_H
#define PALI_H

#include "core/backend.h"
#include "core/config.h"
#include "core/error.h"
#include "core/image.h"
#include "core/locate.h"
#include "core/prompt.h"
#include "core/sample.h"

#include <stdbool.h>

#define PALI_VERSION "0.1.0"

typedef struct pali_engine pali_engine;
typedef struct pali_dialog pali_dialog;

typedef struct {
    const char *model_dir; /* directory with config.json, *.safetensors, tokenizer.model */
    const char *backend;   /* "auto", "cpu", "cuda"; NULL = "auto" */
    int threads;           /* 0 = one per core */
    pali_math math;        /* of the CPU backend; see backend.h */
    pali_quant quant;      /* of the decoder's matrices; see quant.h */
    int context; /* positions of the key/value cache; 0 = images + 1024, at most the model's */
    int images;  /* to make room for when context is 0; 0 = 1 */
    bool head8, quant_all;    /* pali_backend_options */
    const char *image_folder; /* embeddings of pictures are kept in it (keep.h); NULL: nowhere */
    /* May be NULL: gets a line for a person who wants to know more, such as what became of a
     * picture's embeddings in that folder. Borrowed for the call. */
    void (*remark)(void *user, const char *line);
    void *user;
} pali_engine_options;

typedef struct {
    const char *backend;   /* borrowed */
    const char *dtype;     /* of the decoder's matrices: "F32", "BF16", "F16", "INT8", "NF4" */
    bool coded_tower;      /* the tower's and the projector's are quantised too */
    int generation;        /* 1 PaliGemma, 2 PaliGemma 2 */
    int image_size;        /* S */
    int image_tokens;      /* P */
    int context;           /* positions */
    uint64_t params;       /* weights in the model */
    uint64_t weight_bytes; /* of the files' tensors */
    const char *fallback;  /* "auto" took the CPU: why no graphics card; else NULL. Borrowed */
    bool card;             /* and there is one, so that the user should know */
    const char *advice;    /* what to do about it, or "". Borrowed */
    const char *note;      /* a sentence on memory, precision or the kept pictures that the
                           * user should see, or NULL */
} pali_engine_info;

/* The context of an engine that was asked for none: images + 1024, at most the model's. */
int pali_default_context(const pali_config *c, int images);

/* Opens files, tokenizer and backend. Close with pali_engine_close, after its dialogs. */
int pali_engine_open(const pali_engine_options *o, const pali_run *run, pali_engine **out,
                     pali_error *err);
void pali_engine_close(pali_engine *e);
void pali_engine_describe(const pali_engine *e, pali_engine_info *out);

/* The bytes of a token, as they stand in an answer: not NUL-terminated, perhaps a part of a
 * character, none for control tokens. Borrowed until the engine is closed. */
const char *pali_engine_token(const pali_engine *e, int32_t id, size_t *n);

/* What a turn hands out while it runs. text is valid UTF-8, whole characters only,
 * but NOT free of control characters: the model may say anything. */
typedef struct {
    const char *text; /* new text of the answer; borrowed for the call, NUL-terminated */
    size_t n;         /* its bytes */
    int32_t token;    /* the token it came from; -1 for the flush at the end */
    float logprob;    /* of that token */
    int index;        /* number of the token in this answer, from 0 */
} pali_piece;

/* A tensor handed out for comparison with a reference (--dump). */
typedef struct {
    const char
        *name;   /* pixel_values, image_embeds (of further images: pixel_values2, ..), prefix_ids,
                    logits, output_ids (eos included) */
    bool is_int; /* int32, else float32 */
    int ndim;
    size_t shape[3];
    const void *data; /* borrowed for the call */
} pali_traced;

typedef struct {
    pali_sampling sampling;
    int max_tokens; /* of the answer; 0 = 256 */
    int history;    /* PALI_HISTORY_NONE, PALI_HISTORY_AUTO or n > 0 */
    void (*on_piece)(void *user, const pali_piece *piece); /* may be NULL */
    void (*on_tensor)(void *user,
                      const pali_traced *tensor); /* may be NULL; logits come one step a call */
    void *user;
} pali_ask;

typedef enum {
    PALI_STOP_EOS,
    PALI_STOP_LENGTH,
    PALI_STOP_CONTEXT,
    PALI_STOP_CANCEL
} pali_stop;
/* "eos", "length", "context", "cancel" */
const char *pali_stop_name(pali_stop s);

typedef struct {
    char *text;      /* the whole answer, UTF-8; owned by the result */
    int32_t *tokens; /* its ids, eos not included */
    size_t ntokens;
    float *logprobs;      /* [ntokens] of the tokens, before temperature */
    pali_object *objects; /* boxes found in it, in pixels of the original (first) image */
    size_t nobjects;
    pali_stop stop;
    int prefix_tokens;                    /* T of the prefill, image tokens included */
    size_t turns_used;                    /* earlier turns in the prefix */
    bool reused;                          /* the prefix was still there: no prefill */
    double encode_s, prefill_s, decode_s; /* seconds; encode_s is 0 when embeddings were cached */
} pali_result;
void pali_result_close(pali_result *r);

int pali_dialog_open(pali_engine *e, pali_dialog **out, pali_error *err);
void pali_dialog_close(pali_dialog *d);

/* Makes image (copied as far as needed; may be closed after) the subject. The turns
 * so far are forgotten when forget is true. Encoding happens in the first ask, or now
 * with pali_dialog_encode; pictures that the engine remembers are not encoded again. */
int pali_dialog_set_image(pali_dialog *d, const pali_image *image, bool forget, pali_error *err);
/* The same for n images, n > 0, in this order. PALI_ELIMIT when they leave no room for a question. */
int pali_dialog_set_images(pali_dialog *d, const pali_image *const *images, size_t n, bool forget,
                           pali_error *err);
int pali_dialog_encode(pali_dialog *d, const pali_run *run, pali_error *err);

/* Asks one question. On success, and on cancel (stop = PALI_STOP_CANCEL, the partial
 * answer kept), *out is filled and the turn becomes history. On failure *out is
 * empty and the dialog is as before. Close *out with pali_result_close. */
int pali_dialog_ask(pali_dialog *d, const char *prompt, const pali_ask *ask, const pali_run *run,
                    pali_result *out, pali_error *err);

/* How well a text fits as the answer to a prompt: its log-probability given the dialog's
 * images and the prompt, the end of the answer included, and over how many tokens that is
 * the sum. sum / tokens compares texts of different lengths. */
typedef struct {
    double sum;
    int tokens;
} pali_score;

/* Scores n texts into out [n]. The prompt goes alone, without the turns so far, and is read
 * once for all texts. Changes nothing in the dialog. PALI_ELIMIT: a text is too long. */
int pali_dialog_score(pali_dialog *d, const char *prompt, const char *const *texts, size_t n,
                      const pali_run *run, pali_score *out, pali_error *err);

/* The turns so far, oldest first; borrowed until the dialog changes. */
size_t pali_dialog_turns(const pali_dialog *d, const pali_turn_text **out);
/* Appends a turn that was had elsewhere (a saved chat); forgets the newest n. */
int pali_dialog_add_turn(pali_dialog *d, const char *question, const char *answer, pali_error *err);
void pali_dialog_drop_turns(pali_dialog *d, size_t n);

#endif
