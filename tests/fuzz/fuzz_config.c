/* Any bytes as config.json: either one clear failure, or numbers within their ranges. */
#include "core/config.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void demand(int good) {
    if (!good)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    pali_config c;
    pali_error err = {0};
    int rc = pali_config_parse((const char *)data, n, "config.json", &c, &err);
    demand(err.code == rc && (rc == 0) == (err.what[0] == 0));
    const pali_text_config *t = &c.text;
    const pali_vision_config *v = &c.vision;
    if (rc) {
        demand(t->E == 0 && v->H == 0);
        return 0;
    }
    const int sizes[] = {t->layers, t->D, t->H,     t->K,          t->F,  t->V,  v->layers, v->D,
                         v->F,      v->S, v->patch, c.image_token, c.bos, c.eos, c.pad};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        demand(sizes[i] >= 0 && sizes[i] <= PALI_MAX_VOCAB);
    demand(t->E > 0 && t->E % 2 == 0 && v->H > 0 && v->channels == 3 && t->max_positions > 0);
    demand(t->gemma >= 0 && t->gemma <= 2);
    const float numbers[] = {t->eps, v->eps, t->rope_theta};
    for (size_t i = 0; i < 3; i++)
        demand(isfinite(numbers[i]) && numbers[i] > 0);
    demand(isfinite(t->query_scale) && (t->gemma == 0 || t->query_scale > 0));
    demand(isfinite(t->attn_softcap) && t->attn_softcap >= 0);
    demand(isfinite(t->final_softcap) && t->final_softcap >= 0);
    return 0;
}
