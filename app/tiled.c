/* tiled.c - see tiled.h. */
#include "app/tiled.h"

#include <stdlib.h>
#include <string.h>

static int crop(const pali_image *from, app_tile t, pali_image *out, pali_error *err) {
    size_t row = 3 * (size_t)t.width;
    *out =
        (pali_image){.width = t.width, .height = t.height, .rgb = malloc(row * (size_t)t.height)};
    if (!out->rgb)
        return pali_fail_nomem(err, "cutting a picture into tiles");
    for (size_t y = 0; y < (size_t)t.height; y++)
        memcpy(out->rgb + y * row,
               from->rgb + 3 * ((y + (size_t)t.y) * (size_t)from->width + (size_t)t.x), row);
    return 0;
}

/* Adds what is countable of one tile's answer to all. */
static int add(pali_result *all, const pali_result *tile, pali_error *err) {
    size_t n = all->ntokens + tile->ntokens;
    int32_t *tokens = reallocarray(all->tokens, n + 1, sizeof *tokens);
    all->tokens = tokens ? tokens : all->tokens;
    float *logprobs = reallocarray(all->logprobs, n + 1, sizeof *logprobs);
    all->logprobs = logprobs ? logprobs : all->logprobs;
    if (!tokens || !logprobs)
        return pali_fail_nomem(err, "reading a picture in tiles");
    for (size_t i = 0; i < tile->ntokens; i++) {
        tokens[all->ntokens + i] = tile->tokens[i];
        logprobs[all->ntokens + i] = tile->logprobs[i];
    }
    all->ntokens = n;
    if (all->stop == PALI_STOP_EOS)
        all->stop = tile->stop;
    all->prefix_tokens += tile->prefix_tokens;
    all->encode_s += tile->encode_s;
    all->prefill_s += tile->prefill_s;
    all->decode_s += tile->decode_s;
    return 0;
}

int app_tiled_ask(pali_dialog *d, const pali_image *image, app_tiling t, const char *prompt,
                  const pali_ask *ask, const pali_run *run, pali_result *out, pali_error *err) {
    int n = t.cols * t.rows, rc = 0;
    char **texts = calloc((size_t)n, sizeof *texts);
    const char **read = calloc((size_t)n, sizeof *read);
    pali_ask quiet = *ask;
    quiet.on_piece = NULL;
    quiet.on_tensor = NULL;
    const pali_run silent = {.cancel = run->cancel};
    *out = (pali_result){.stop = PALI_STOP_EOS};
    if (!texts || !read)
        rc = pali_fail_nomem(err, "reading a picture in tiles");
    for (int i = 0; !rc && i < n; i++) {
        pali_image tile = {0};
        pali_result r = {0};
        read[i] = "";
        if (out->stop == PALI_STOP_CANCEL)
            continue; /* what was read so far is the answer */
        if (run->progress)
            run->progress(run->user, PALI_STAGE_ENCODE, i, n);
        rc = crop(image, app_tile_at(t, image->width, image->height, i), &tile, err);
        if (!rc)
            rc = pali_dialog_set_image(d, &tile, true, err);
        pali_image_close(&tile);
        if (!rc)
            rc = pali_dialog_ask(d, prompt, &quiet, &silent, &r, err);
        if (!rc)
            rc = add(out, &r, err);
        if (!rc) {
            read[i] = texts[i] = r.text;
            r.text = NULL;
        }
        pali_result_close(&r);
    }
    if (!rc)
        rc = app_tiles_join(read, t, &out->text, err);
    if (!rc && ask->on_piece)
        ask->on_piece(ask->user,
                      &(pali_piece){.text = out->text, .n = strlen(out->text), .token = -1});
    if (rc)
        pali_result_close(out);
    for (int i = 0; texts && i < n; i++)
        free(texts[i]);
    free(texts);
    free(read);
    return rc;
}
