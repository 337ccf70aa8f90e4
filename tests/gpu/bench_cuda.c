/* bench_cuda.c - the times of one model on the CUDA backend.
 *
 *   bench_cuda PLUGIN MODEL [READ_CEILING_GB_S]
 *
 * Load, image encoding, prefill of image and 32 ids, and both together up to the logits on
 * the host (time to the first token, warm): medians of 7 after one that is not counted. Then
 * decode at three lengths of context: the median step of 64, the bytes such a step must read
 * (decoder, head, cached keys and values in the model's 16 bits), and their rate as a share of
 * the ceiling that bench_read measured.                                                     */
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
static double step_bytes(const pali_text_config *c) {
    double layer =
        (double)c->D * (c->H + 2 * c->K) * c->E + (double)c->H * c->E * c->D + 3.0 * c->D * c->F;
    return 2 * (c->layers * layer + (double)c->V * c->D);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "use: bench_cuda PLUGIN MODEL [READ_CEILING_GB_S]\n");
        return 2;
    }
    double ceiling = argc > 3 ? atof(argv[3]) : 0;
    const pali_backend *be;
    pali_weights *w;
    pali_model *m;
    pali_embeds *image = NULL;
    check(pali_plugin_load(argv[1], &be, &err));
    check(pali_weights_open(argv[2], &w, &err));
    const pali_text_config *c = &w->config.text;
    const pali_vision_config *v = &w->config.vision;
    int first = v->P + IDS, contexts[] = {first, 1024, 4096}, longest = first;
    for (int i = 1; i < 3; i++)
        if (contexts[i] > longest && contexts[i] + STEPS <= c->max_positions)
            longest = contexts[i];
    size_t pixels = (size_t)v->channels * (size_t)v->S * (size_t)v->S;
    float *image_data = malloc(pixels * sizeof *image_data);
    int32_t *ids = malloc((size_t)longest * sizeof *ids);
    if (!image_data || !ids)
        return 1;
    srand(1);
    for (size_t i = 0; i < pixels; i++)
        image_data[i] = (float)rand() / (float)RAND_MAX * 2 - 1;
    for (int i = 0; i < longest; i++)
        ids[i] = rand() % (c->V < 1000 ? c->V : 1000);

    printf("%s: %d px, %d image tokens, %d positions\n", argv[2], v->S, v->P, longest + STEPS);
    double t0 = now_ms();
    check(be->open(w, &(pali_backend_options){.positions = longest + STEPS}, NULL, &m, &err));
    double load = now_ms() - t0;
    printf("%-28s %9.0f ms   %.2f GB/s of file\n", "load", load, (double)w->bytes / load * 1e-6);

    double encode[RUNS], prefill[RUNS], both[RUNS];
    for (int i = 0; i < RUNS; i++) {
        if (image)
            be->embeds_free(m, image);
        double a = now_ms();
        check(be->encode_image(m, image_data, NULL, &image, &err));
        double b = now_ms();
        const pali_embeds *images[] = {image};
        check(be->prefill(m, images, 1, ids, IDS, NULL, &err));
        volatile float logit = be->logits(m)[0];
        (void)logit;
        double end = now_ms();
        encode[i] = b - a;
        prefill[i] = end - b;
        both[i] = end - a;
    }
    show("vision", encode + 1, RUNS - 1);
    show("prefill, image + 32", prefill + 1, RUNS - 1);
    show("first token", both + 1, RUNS - 1);

    for (int i = 0; i < 3; i++) {
        if (contexts[i] < first || contexts[i] > longest)
            continue;
        double step[STEPS];
        const pali_embeds *images[] = {image};
        check(be->prefill(m, images, 1, ids, contexts[i] - v->P, NULL, &err));
        for (int s = 0; s < STEPS; s++) {
            double a = now_ms();
            check(be->decode(m, ids[s % IDS], NULL, &err));
            volatile float logit = be->logits(m)[0];
            (void)logit;
            step[s] = now_ms() - a;
        }
        double ms = median(step, STEPS);
        double bytes =
            step_bytes(c) + 4.0 * c->layers * c->K * c->E * ((double)contexts[i] + STEPS / 2.0);
        double rate = bytes / ms * 1e-6;
        printf("decode at %-5d              %9.3f ms   %.1f tok/s, %.0f GB/s", contexts[i], ms,
               1e3 / ms, rate);
        if (ceiling > 0)
            printf(", %.1f%% of the ceiling", 100 * rate / ceiling);
        printf("\n");
    }
    be->embeds_free(m, image);
    be->close(m);
    pali_weights_close(w);
    free(image_data);
    free(ids);
    return 0;
}
