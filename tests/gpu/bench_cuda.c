/* bench_cuda.c - the times of one model on the CUDA backend.
 *
 *   bench_cuda PLUGIN MODEL [READ_CEILING_GB_S [FORMS]]
 *
 * FORMS is 1: the weights as they are; 3 (the default): int8 and NF4 too. For each: load, image
 * encoding, prefill of image and 32 ids, and both together up to the logits on the host
 * (time to the first token, warm): medians of 7 after one that is not counted. Then decode at
 * three lengths of context: the median step of 64 that wait for the host's logits, and the
 * pace of 64 tokens that the device samples itself; the bytes such a step must read (decoder
 * in its form, head and cached keys and values in 16 bits), and their rate as a share of the
 * ceiling that bench_read measured.                                                        */
#include "core/plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    RUNS = 8,
    STEPS = 64,
    IDS = 32
};

static pali_error err;

static void check(int rc) {
    if (rc == 0)
        return;
    fprintf(stderr, "bench_cuda: %s. %s\n", err.what, err.hint);
    exit(1);
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *t, int n) {
    qsort(t, (size_t)n, sizeof *t, by_size);
    return t[n / 2];
}

static void show(const char *what, double *t, int n) {
    double m = median(t, n);
    printf("%-28s %9.3f ms   (%.3f .. %.3f)\n", what, m, t[0], t[n - 1]);
}

/* What one step reads besides the cache. */
static double step_bytes(const pali_text_config *c, pali_quant quant) {
    double each = quant == PALI_QUANT_NONE ? 2 : quant == PALI_QUANT_INT8 ? 1 : 0.516;
    double layer =
        (double)c->D * (c->H + 2 * c->K) * c->E + (double)c->H * c->E * c->D + 3.0 * c->D * c->F;
    return each * c->layers * layer + 2.0 * c->V * c->D;
}

static bool count(void *user, int32_t token, float logprob) {
    (void)token;
    (void)logprob;
    ++*(int *)user;
    return true;
}

typedef struct {
    const pali_backend *be;
    const pali_weights *w;
    const float *pixels;
    const int32_t *ids;
    double ceiling;
    int longest; /* context */
} bench;

static void time_form(const bench *b, pali_quant quant, const char *name) {
    const pali_backend *be = b->be;
    const pali_text_config *c = &b->w->config.text;
    const pali_vision_config *v = &b->w->config.vision;
    int first = v->P + IDS, contexts[] = {first, 1024, 4096};
    pali_model *m;
    pali_embeds *image = NULL;
    pali_backend_options o = {.positions = b->longest + STEPS, .quant = quant};
    printf("-- %s\n", name);
    double t0 = now_ms();
    check(be->open(b->w, &o, NULL, &m, &err));
    double load = now_ms() - t0;
    printf("%-28s %9.0f ms   %.2f GB/s of file\n", "load", load, (double)b->w->bytes / load * 1e-6);
    double encode[RUNS], prefill[RUNS], both[RUNS];
    for (int i = 0; i < RUNS; i++) {
        if (image)
            be->embeds_free(m, image);
        double a = now_ms();
        check(be->encode_image(m, b->pixels, NULL, &image, &err));
        double d = now_ms();
        const pali_embeds *images[] = {image};
        check(be->prefill(m, images, 1, b->ids, IDS, NULL, &err));
        volatile float logit = be->logits(m)[0];
        (void)logit;
        double end = now_ms();
        encode[i] = d - a;
        prefill[i] = end - d;
        both[i] = end - a;
    }
    show("vision", encode + 1, RUNS - 1);
    show("prefill, image + 32", prefill + 1, RUNS - 1);
    show("first token", both + 1, RUNS - 1);
    for (int i = 0; i < 3; i++) {
        if (contexts[i] < first || contexts[i] > b->longest)
            continue;
        double step[STEPS];
        const pali_embeds *images[] = {image};
        check(be->prefill(m, images, 1, b->ids, contexts[i] - v->P, NULL, &err));
        for (int s = 0; s < STEPS; s++) {
            double a = now_ms();
            check(be->decode(m, b->ids[s % IDS], NULL, &err));
            volatile float logit = be->logits(m)[0];
            (void)logit;
            step[s] = now_ms() - a;
        }
        char what[40];
        snprintf(what, sizeof what, "step at %d", contexts[i]);
        show(what, step, STEPS);
        for (int hot = 0; hot < 2 && be->generate; hot++) {
            int got = 0;
            pali_generation g = {.first = b->ids[0],
                                 .sampling = {.temperature = (float)hot, .top_p = hot ? 0.9f : 1},
                                 .vocab = c->V,
                                 .max = STEPS,
                                 .eos = -1,
                                 .token = count,
                                 .user = &got};
            check(be->rewind(m, contexts[i], &err));
            double a = now_ms();
            check(be->generate(m, &g, NULL, &err));
            double ms = (now_ms() - a) / got;
            double rate = (step_bytes(c, quant) +
                           4.0 * c->layers * c->K * c->E * (contexts[i] + STEPS / 2.0)) /
                          ms * 1e-6;
            printf("decode at %-5d %-12s %9.3f ms   %.1f tok/s, %.0f GB/s", contexts[i],
                   hot ? "T 1, p 0.9" : "greedy", ms, 1e3 / ms, rate);
            if (b->ceiling > 0)
                printf(", %.1f%% of the ceiling", 100 * rate / b->ceiling);
            printf("\n");
        }
    }
    be->embeds_free(m, image);
    be->close(m);
}

int main(int argc, char **argv) {
    static const char *const names[] = {"as in the file", "int8", "nf4"};
    static const pali_quant forms[] = {PALI_QUANT_NONE, PALI_QUANT_INT8, PALI_QUANT_NF4};
    if (argc < 3) {
        fprintf(stderr, "use: bench_cuda PLUGIN MODEL [READ_CEILING_GB_S [FORMS]]\n");
        return 2;
    }
    bench b = {.ceiling = argc > 3 ? atof(argv[3]) : 0};
    pali_weights *w;
    check(pali_plugin_load(argv[1], &b.be, &err));
    check(pali_weights_open(argv[2], &w, &err));
    b.w = w;
    const pali_vision_config *v = &w->config.vision;
    int V = w->config.text.V, contexts[] = {1024, 4096};
    b.longest = v->P + IDS;
    for (int i = 0; i < 2; i++)
        if (contexts[i] > b.longest && contexts[i] + STEPS <= w->config.text.max_positions)
            b.longest = contexts[i];
    size_t n = (size_t)v->channels * (size_t)v->S * (size_t)v->S;
    float *pixels = malloc(n * sizeof *pixels);
    int32_t *ids = malloc((size_t)b.longest * sizeof *ids);
    if (!pixels || !ids)
        return 1;
    srand(1);
    for (size_t i = 0; i < n; i++)
        pixels[i] = (float)rand() / (float)RAND_MAX * 2 - 1;
    for (int i = 0; i < b.longest; i++)
        ids[i] = rand() % (V < 1000 ? V : 1000);
    b.pixels = pixels;
    b.ids = ids;
    printf("%s: %d px, %d image tokens, %d positions\n", argv[2], v->S, v->P, b.longest + STEPS);
    int most = argc > 4 ? atoi(argv[4]) : 3;
    for (int i = 0; i < 3 && i < most; i++)
        time_form(&b, forms[i], names[i]);
    pali_weights_close(w);
    free(pixels);
    free(ids);
    return 0;
}
