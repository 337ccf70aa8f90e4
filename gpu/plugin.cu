/* plugin.cu - the CUDA backend as core/plugin.h wants it: is there a device, and a table of
 * what can be done on it. Opening takes all memory; a failure gives all of it back.
 *
 * Every reason for "no" has a sentence of its own with what to do about it. A device that
 * fails in the middle of work stays failed for this process (CUDA's own rule), so later
 * calls repeat the first sentence.                                                    */
#include "gpu/port.cuh"

#include "core/plugin.h"
#include "gpu/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char use_cpu[] = "use the CPU: --backend cpu";

/* --- the device ---------------------------------------------------------------------- */

int check_cuda(cudaError_t e, const char *what, pali_error *err) {
    if (e == cudaSuccess)
        return 0;
    cudaGetLastError(); /* told here: it is not to be found again after the next launch */
    if (e == cudaErrorMemoryAllocation)
        return pali_fail(err, PALI_ENOMEM,
                         "close what else uses the graphics card, or "
                         "use the CPU: --backend cpu",
                         "the graphics card is out of memory while %s", what);
    return pali_fail(err, PALI_EIO, "start pali again, or use the CPU: --backend cpu",
                     "the graphics card failed while %s: %s", what, cudaGetErrorString(e));
}

/* Is a driver there that can run us, and how many cards does it show? */
static int check_driver(int *driver, int *runtime, int *n, pali_error *err) {
    *driver = *runtime = *n = 0;
    if (cudaDriverGetVersion(driver) != cudaSuccess || *driver == 0)
        return pali_fail(err, PALI_EUNSUPPORTED,
                         "install NVIDIA's driver, or use the CPU: --backend cpu",
                         "no NVIDIA driver is installed on this machine");
    cudaRuntimeGetVersion(runtime);
    cudaError_t e = cudaGetDeviceCount(n);
    if (*driver / 1000 < *runtime / 1000 || e == cudaErrorInsufficientDriver)
        return pali_fail(err, PALI_EUNSUPPORTED,
                         "install a newer NVIDIA driver, or use the CPU: --backend cpu",
                         "the NVIDIA driver is too old: it speaks CUDA %d.%d, pali needs %d.0",
                         *driver / 1000, *driver % 1000 / 10, *runtime / 1000);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && *n == 0))
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu,
                         "an NVIDIA driver is installed, but it sees no graphics card");
    if (e != cudaSuccess)
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu, "the NVIDIA driver does not start: %s",
                         cudaGetErrorString(e));
    return 0;
}

/* Can this card run us? It is the current one afterwards. *built: as kernels_fit_device has it. */
static int check_device(int i, cudaDeviceProp *p, int *built, pali_error *err) {
    cudaError_t e = cudaGetDeviceProperties(p, i);
    if (e == cudaSuccess && p->major * 10 + p->minor < 75)
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu,
                         "the graphics card %.60s has compute capability %d.%d, pali needs 7.5 "
                         "(GeForce RTX 20 or GTX 16, Tesla T4) or newer",
                         p->name, p->major, p->minor);
    if (e == cudaSuccess)
        e = cudaSetDevice(i);
    if (e != cudaSuccess)
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu, "the graphics card does not start: %s",
                         cudaGetErrorString(e));
    e = kernels_fit_device(built);
    cudaGetLastError();
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorInvalidDeviceFunction) {
        char hint[120];
        snprintf(hint, sizeof hint,
                 "build it with `make ARCH=sm_%d%d`, or use the CPU: --backend cpu", p->major,
                 p->minor);
        return pali_fail(err, PALI_EUNSUPPORTED, hint,
                         "this build of the CUDA backend has no code for the graphics card %.60s "
                         "(compute capability %d.%d)",
                         p->name, p->major, p->minor);
    }
    if (e != cudaSuccess)
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu,
                         "the graphics card %.60s does not run our kernels: %s", p->name,
                         cudaGetErrorString(e));
    return 0;
}

/* The usable device with the most memory, made current; else why the largest is not. The
 * others are not woken: that costs each of them memory and us a third of a second. */
static int choose_device(int *device, cudaDeviceProp *chosen, int *built, pali_error *err) {
    int driver, runtime, n;
    int rc = check_driver(&driver, &runtime, &n, err);
    if (rc)
        return rc;
    pali_error first = {};
    bool tried[PALI_MAX_DEVICES] = {};
    n = n < PALI_MAX_DEVICES ? n : PALI_MAX_DEVICES;
    for (int round = 0; round < n; round++) {
        int best = -1;
        size_t most = 0;
        for (int i = 0; i < n; i++) {
            cudaDeviceProp p = {};
            cudaGetDeviceProperties(&p, i);
            if (!tried[i] && (best < 0 || p.totalGlobalMem > most)) {
                best = i;
                most = p.totalGlobalMem;
            }
        }
        tried[best] = true;
        *device = best;
        if (check_device(best, chosen, built, &first) == 0)
            return 0;
    }
    return pali_fail(err, first.code, first.hint, "%s", first.what);
}

/* The same, and what fits it. */
static int choose_tuned(int *device, tuning *t, pali_error *err) {
    cudaDeviceProp p = {};
    int built = 0, rc = choose_device(device, &p, &built, err);
    int capability = p.major * 10 + p.minor;
    if (!rc)
        *t = tuning_of(built < capability ? built : capability, p.multiProcessorCount);
    return rc;
}

/* --- the frame of a long call ---------------------------------------------------------- */

static int tell(pali_model *m, pali_error *err) {
    if (m->run->progress)
        m->run->progress(m->run->user, m->stage, m->told, m->total);
    if (m->told < m->total && m->run->cancel && m->run->cancel->load())
        return pali_fail(err, PALI_ECANCEL, NULL, "stopped");
    return 0;
}

int steps_begin(pali_model *m, pali_stage stage, int total, pali_error *err) {
    m->stage = stage;
    m->total = total;
    m->queued = m->told = 0;
    return tell(m, err);
}

static int wait_until(pali_model *m, int step, pali_error *err) {
    while (m->told < step) {
        int rc = check_cuda(cudaEventSynchronize(m->events[m->told % EVENTS]),
                            "computing an answer", err);
        m->told++;
        if (!rc)
            rc = tell(m, err);
        if (rc)
            return rc;
    }
    return 0;
}

int step_queued(pali_model *m, pali_error *err) {
    int rc = check_cuda(cudaGetLastError(), "computing an answer", err);
    if (!rc)
        rc = check_cuda(cudaEventRecord(m->events[m->queued % EVENTS], m->stream),
                        "computing an answer", err);
    m->queued++;
    return rc ? rc : wait_until(m, m->queued - LAG, err);
}

int steps_drain(pali_model *m, pali_error *err) {
    return wait_until(m, m->queued, err);
}

static const pali_run no_run = {};

/* The current device belongs to the thread, and a model may be opened by another one. */
static int use_device(const pali_model *m, pali_error *err) {
    return check_cuda(cudaSetDevice(m->device), "taking up work", err);
}

static int enter(pali_model *m, const pali_run *run, pali_error *err) {
    if (m->broken.code)
        return pali_fail(err, m->broken.code, m->broken.hint, "%s", m->broken.what);
    int rc = use_device(m, err);
    if (!rc)
        m->run = run ? run : &no_run;
    return rc;
}

/* Nothing of a call is left in the stream when it returns: the caller's memory and ours
 * that was in use is free again. why: what the call itself told. */
static int leave(pali_model *m, int rc, const pali_error *why, pali_error *err) {
    pali_error late = {};
    int end = check_cuda(cudaStreamSynchronize(m->stream), "computing an answer", &late);
    m->run = NULL;
    if (rc == PALI_EIO || (end && end != PALI_ENOMEM))
        m->broken = why->code == PALI_EIO ? *why : late;
    if (why->code)
        return pali_fail(err, why->code, why->hint, "%s", why->what);
    if (end)
        return pali_fail(err, late.code, late.hint, "%s", late.what);
    return rc;
}

/* --- the table ---------------------------------------------------------------------------- */

static int memory_on(const tuning *t, const pali_weights *w, const pali_backend_options *o,
                     pali_memory *out, pali_error *err) {
    pali_model m = {};
    m.tune = *t;
    int rc = layout_prepare(&m, w, o, err);
    if (!rc)
        rc = layout_place(&m, out, err);
    layout_done(&m);
    return rc;
}

static int cuda_memory(const pali_weights *w, const pali_backend_options *o, pali_memory *out,
                       pali_error *err) {
    int device;
    tuning t;
    int rc = choose_tuned(&device, &t, err);
    return rc ? rc : memory_on(&t, w, o, out, err);
}

static void cuda_close(pali_model *m) {
    if (!m)
        return;
    if (m->stream) {
        use_device(m, NULL);
        cudaStreamSynchronize(m->stream);
    }
    free(m->embeds);
    if (m->step)
        cudaGraphExecDestroy(m->step);
    for (int i = 0; i < 2; i++)
        if (m->turn[i])
            cudaGraphExecDestroy(m->turn[i]);
    if (m->gemm)
        gemm_close(m->gemm);
    for (int i = 0; i < EVENTS; i++)
        if (m->events[i])
            cudaEventDestroy(m->events[i]);
    if (m->stream)
        cudaStreamDestroy(m->stream);
    cudaFreeHost(m->host_logits);
    cudaFreeHost(m->host_ids);
    cudaFreeHost(m->host_state);
    cudaFreeHost(m->host_rule);
    cudaFreeHost(m->ring);
    cudaFree(m->weight_block);
    cudaFree(m->kv_block);
    cudaFree(m->work_block);
    layout_done(m);
    free(m);
}

static const size_t margin = PALI_DEVICE_RESERVE;

static size_t sum_of(const pali_memory *m) {
    return m->weights + m->kv + m->workspace;
}

/* Bytes that the model of m would need otherwise; SIZE_MAX: it cannot be had so. */
static size_t need_with(const pali_model *m, int positions, pali_quant quant) {
    pali_backend_options o = {};
    pali_memory need;
    o.positions = positions;
    o.quant = quant;
    o.head8 = m->head8;
    return memory_on(&m->tune, m->w, &o, &need, NULL) == 0 ? sum_of(&need) + margin : SIZE_MAX;
}

/* What to try when the card is too small, in this order. */
static const struct {
    pali_quant quant; /* NONE: as it is */
    bool shorter;     /* the longest context that fits, image and 256 tokens at least */
    const char *option;
} remedies[] = {
    {PALI_QUANT_NONE, true, ""},
    {PALI_QUANT_INT8, false, "-q int8"},
    {PALI_QUANT_NF4, false, "-q nf4"},
    {PALI_QUANT_NF4, true, "-q nf4 "},
};

static pali_quant quant_of(const pali_model *m) {
    return m->form == FORM_INT8  ? PALI_QUANT_INT8
           : m->form == FORM_NF4 ? PALI_QUANT_NF4
                                 : PALI_QUANT_NONE;
}

/* The first remedy that fits into room, as advice. */
static void find_remedy(const pali_model *m, size_t room, char *advice, size_t size) {
    const int step = 64, least = m->w->config.vision.P + 256;
    for (size_t i = 0; i < sizeof remedies / sizeof *remedies; i++) {
        pali_quant quant = remedies[i].quant ? remedies[i].quant : quant_of(m);
        int low = remedies[i].shorter ? least : m->positions, high = m->positions;
        if (quant < quant_of(m) || (remedies[i].shorter && least >= m->positions) ||
            need_with(m, low, quant) > room)
            continue;
        while (high - low > step) { /* low fits, high is too much or all */
            int middle = low + (high - low) / 2;
            if (need_with(m, middle, quant) <= room)
                low = middle;
            else
                high = middle;
        }
        size_t need = need_with(m, low, quant);
        if (remedies[i].shorter)
            snprintf(advice, size, "use %s--context %d, which needs %zu MB", remedies[i].option,
                     low, need >> 20);
        else
            snprintf(advice, size, "use %s, which needs %zu MB", remedies[i].option, need >> 20);
        return;
    }
    snprintf(advice, size, "close what else uses the card, or use the CPU: --backend cpu");
}

/* Refuses before anything large is taken. */
static int check_room(const pali_model *m, const pali_memory *need, pali_error *err) {
    size_t room = 0, all = 0, sum = sum_of(need) + margin;
    int rc = check_cuda(cudaMemGetInfo(&room, &all), "asking for its free memory", err);
    if (rc || sum <= room)
        return rc;
    char advice[sizeof err->hint];
    find_remedy(m, room, advice, sizeof advice);
    return pali_fail(err, PALI_ENOMEM, advice,
                     "the graphics card has %zu MB free of %zu MB, the model needs %zu MB: "
                     "weights %zu, context %zu, work space %zu, reserve %zu",
                     room >> 20, all >> 20, sum >> 20, need->weights >> 20, need->kv >> 20,
                     need->workspace >> 20, margin >> 20);
}

static size_t embeds_bytes(const pali_model *m) {
    return (size_t)m->w->config.vision.P * (size_t)ld8(m->w->config.text.D) * sizeof(float);
}

static void cuda_embeds_free(pali_model *m, pali_embeds *e) {
    if (!e)
        return;
    e->next = m->free_embeds;
    m->free_embeds = e;
}

/* The places of pictures, none taken. */
static int open_embeds(pali_model *m, pali_error *err) {
    m->embeds = (pali_embeds *)calloc((size_t)m->places, sizeof *m->embeds);
    if (!m->embeds)
        return pali_fail_nomem(err, "opening the model");
    for (int i = m->places - 1; i >= 0; i--) {
        m->embeds[i].rows = m->pictures + (size_t)i * (embeds_bytes(m) / sizeof(float));
        cuda_embeds_free(m, &m->embeds[i]);
    }
    return 0;
}

/* PALI_ENOMEM when every place is taken: nothing is wrong with the card, and one may be given
 * back. */
static int take_embeds(pali_model *m, pali_embeds **out, pali_error *why) {
    pali_embeds *e = m->free_embeds;
    *out = e;
    if (!e)
        return pali_fail(why, PALI_ENOMEM, "show fewer images, or make the context larger",
                         "the graphics card has room for %d images at a time", m->places);
    m->free_embeds = e->next;
    return 0;
}

/* A layer of the encoder and one of prefill at one length, on whatever is there: what the library of
 * products loads, or takes, on first use is then mostly there, and a type or width that it cannot
 * do is known, before a turn waits for it. CUDA loads code when it is first used (programming guide, lazy loading). */
static int try_stages(pali_model *m, pali_error *err) {
    static const int32_t ids[16] = {0};
    const pali_run *run = m->run;
    const pali_embeds *one = &m->embeds[0];
    int P = m->w->config.vision.P, rest = m->positions - P, images = rest > 0;
    int n = images ? rest : m->positions;
    m->run = &no_run;
    m->trial = true;
    int rc = vision_encode(m, NULL, one->rows, err);
    if (!rc)
        rc = decoder_prefill(m, &one, images, ids, n < 16 ? n : 16, err);
    m->trial = false;
    m->run = run;
    m->filled = 0;
    return rc;
}

/* Everything between a prepared m and an open one. On failure the caller closes m. */
static int open_device(pali_model *m, pali_error *err) {
    static const char what[] = "opening the model";
    const pali_text_config *t = &m->w->config.text;
    pali_memory need;
    int rc = choose_tuned(&m->device, &m->tune, err);
    if (!rc)
        rc = layout_place(m, &need, err);
    if (!rc)
        rc = check_room(m, &need, err);
    if (rc)
        return rc;
    if ((rc = check_cuda(cudaMalloc((void **)&m->weight_block, need.weights), what, err)) ||
        (rc = check_cuda(cudaMalloc((void **)&m->kv_block, need.kv), what, err)) ||
        (rc = check_cuda(cudaMalloc((void **)&m->work_block, need.workspace), what, err)) ||
        (rc = check_cuda(cudaMallocHost((void **)&m->host_logits, (size_t)t->V * sizeof(float)),
                         what, err)) ||
        (rc = check_cuda(
             cudaMallocHost((void **)&m->host_ids, (size_t)m->positions * sizeof(int32_t)), what,
             err)) ||
        (rc = check_cuda(cudaMallocHost((void **)&m->host_state, sizeof(step_state)), what, err)) ||
        (rc = check_cuda(cudaMallocHost((void **)&m->host_rule, sizeof(draw_rule)), what, err)) ||
        (rc =
             check_cuda(cudaHostAlloc((void **)&m->ring, RING * sizeof(drawn), cudaHostAllocMapped),
                        what, err)) ||
        (rc = check_cuda(cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking), what, err)))
        return rc;
    for (int i = 0; i < EVENTS; i++)
        if ((rc = check_cuda(cudaEventCreateWithFlags(&m->events[i], cudaEventDisableTiming), what,
                             err)))
            return rc;
    layout_place(m, &need, err);
    /* Padding behind rows is read, of weights, activations and keys; counters start at zero. */
    if ((rc =
             check_cuda(cudaMemsetAsync(m->weight_block, 0, need.weights, m->stream), what, err)) ||
        (rc = check_cuda(cudaMemsetAsync(m->kv_block, 0, need.kv, m->stream), what, err)) ||
        (rc = layout_upload(m, err)) ||
        (rc =
             check_cuda(cudaMemsetAsync(m->work_block, 0, need.workspace, m->stream), what, err)) ||
        (rc = layout_upload_rope(m, err)) || (rc = open_embeds(m, err)) ||
        (rc = gemm_open(&m->gemm, m->gemm_space, err)))
        return rc;
    rc = try_stages(m, err);
    return rc ? rc : decoder_record(m, err);
}

static int cuda_open(const pali_weights *w, const pali_backend_options *o, const pali_run *run,
                     pali_model **out, pali_error *err) {
    *out = NULL;
    pali_model *m = (pali_model *)calloc(1, sizeof *m);
    if (!m)
        return pali_fail_nomem(err, "opening the model");
    m->run = run ? run : &no_run;
    int rc = layout_prepare(m, w, o, err);
    if (!rc)
        rc = open_device(m, err);
    if (rc) {
        cuda_close(m);
        return rc;
    }
    m->run = NULL;
    *out = m;
    return 0;
}

static int cuda_encode_image(pali_model *m, const float *pixels, const pali_run *run,
                             pali_embeds **out, pali_error *err) {
    *out = NULL;
    int rc = enter(m, run, err);
    if (rc)
        return rc;
    pali_error why = {};
    pali_embeds *e = NULL;
    rc = take_embeds(m, &e, &why);
    if (!rc)
        rc = vision_encode(m, pixels, e->rows, &why);
    rc = leave(m, rc, &why, err);
    if (rc)
        cuda_embeds_free(m, e);
    else
        *out = e;
    return rc;
}

static int cuda_embeds_read(pali_model *m, const pali_embeds *e, float *out, pali_error *err) {
    int rc = enter(m, NULL, err);
    if (rc)
        return rc;
    pali_error why = {};
    size_t n = (size_t)m->w->config.text.D * sizeof(float);
    rc = check_cuda(
        cudaMemcpy2DAsync(out, n, e->rows, (size_t)ld8(m->w->config.text.D) * sizeof(float), n,
                          (size_t)m->w->config.vision.P, cudaMemcpyDeviceToHost, m->stream),
        "reading embeddings", &why);
    return leave(m, rc, &why, err);
}

static int cuda_embeds_write(pali_model *m, const float *rows, pali_embeds **out, pali_error *err) {
    static const char what[] = "placing an image";
    *out = NULL;
    int rc = enter(m, NULL, err);
    if (rc)
        return rc;
    pali_error why = {};
    pali_embeds *e = NULL;
    size_t n = (size_t)m->w->config.text.D * sizeof(float);
    if (!(rc = take_embeds(m, &e, &why)) && /* padding behind rows is read */
        !(rc = check_cuda(cudaMemsetAsync(e->rows, 0, embeds_bytes(m), m->stream), what, &why)))
        rc = check_cuda(cudaMemcpy2DAsync(e->rows, (size_t)ld8(m->w->config.text.D) * sizeof(float),
                                          rows, n, n, (size_t)m->w->config.vision.P,
                                          cudaMemcpyHostToDevice, m->stream),
                        what, &why);
    rc = leave(m, rc, &why, err);
    if (rc)
        cuda_embeds_free(m, e);
    else
        *out = e;
    return rc;
}

/* The library chooses its algorithms by the card, its version and the shapes, of which the tiles
 * of scores are one. */
static void cuda_arithmetic(const pali_model *m, char line[PALI_ARITHMETIC]) {
    cudaDeviceProp p = {};
    int driver = 0;
    cudaGetDeviceProperties(&p, m->device);
    cudaDriverGetVersion(&driver);
    snprintf(line, PALI_ARITHMETIC,
             "%.99s %d.%d, %d processors, driver %d, cuBLAS %zu, type %d of %d, %zu scores", p.name,
             p.major, p.minor, p.multiProcessorCount, driver, gemm_version(), (int)m->half,
             (int)m->tower, m->score_floats);
}

static int cuda_prefill(pali_model *m, const pali_embeds *const *embeds, int nembeds,
                        const int32_t *ids, int n, const pali_run *run, pali_error *err) {
    pali_error why = {};
    int rc = enter(m, run, err);
    return rc ? rc : leave(m, decoder_prefill(m, embeds, nembeds, ids, n, &why), &why, err);
}

static int cuda_decode(pali_model *m, int32_t token, const pali_run *run, pali_error *err) {
    pali_error why = {};
    int rc = enter(m, run, err);
    return rc ? rc : leave(m, decoder_step(m, token, &why), &why, err);
}

static const float *cuda_logits(pali_model *m) {
    return m->host_logits;
}

static int cuda_extend(pali_model *m, const int32_t *ids, int n, const int32_t *targets, int vocab,
                       float *logprobs, const pali_run *run, pali_error *err) {
    pali_error why = {};
    int rc = enter(m, run, err);
    return rc ? rc : leave(m, decoder_extend(m, ids, n, targets, vocab, logprobs, &why), &why, err);
}

static int cuda_generate(pali_model *m, const pali_generation *g, const pali_run *run,
                         pali_error *err) {
    pali_error why = {};
    int rc = enter(m, run, err);
    return rc ? rc : leave(m, decoder_generate(m, g, &why), &why, err);
}

static const pali_backend table = {
    "cuda",           cuda_memory,      cuda_open,         cuda_close,      cuda_encode_image,
    cuda_embeds_read, cuda_embeds_free, cuda_embeds_write, cuda_arithmetic, cuda_prefill,
    cuda_decode,      cuda_logits,      cuda_extend,       decoder_rewind,  cuda_generate,
};

static int probe(const pali_backend **out, pali_error *err) {
    cudaDeviceProp properties = {};
    int device = 0, built;
    *out = NULL;
    int rc = choose_device(&device, &properties, &built, err);
    if (!rc)
        rc = gemm_available(err);
    if (!rc)
        *out = &table;
    return rc;
}

static void describe(pali_devices *out) {
    pali_error why = {};
    memset(out, 0, sizeof *out);
    out->chosen = -1;
    int n, built, rc = check_driver(&out->driver, &out->runtime, &n, &why);
    out->count = n;
    for (int i = 0; rc == 0 && i < n && i < PALI_MAX_DEVICES; i++) {
        pali_device *d = &out->device[i];
        cudaDeviceProp p = {};
        pali_error no = {};
        size_t all;
        if (check_device(i, &p, &built, &no) == 0 && cudaMemGetInfo(&d->free, &all) != cudaSuccess)
            d->free = 0;
        snprintf(d->name, sizeof d->name, "%.95s", p.name);
        snprintf(d->why_not, sizeof d->why_not, "%s", no.what);
        d->major = p.major;
        d->minor = p.minor;
        d->memory = p.totalGlobalMem;
    }
    cudaDeviceProp chosen = {};
    if (rc == 0 && choose_device(&out->chosen, &chosen, &built, NULL) != 0)
        out->chosen = -1;
    pali_error library = {};
    if (rc == 0 && gemm_available(&library) != 0)
        snprintf(out->no_library, sizeof out->no_library, "%s", library.what);
}

extern "C" __attribute__((visibility("default"))) const pali_plugin *pali_plugin_entry(void) {
    static const pali_plugin plugin = {PALI_PLUGIN_ABI, sizeof(pali_weights), sizeof(pali_backend),
                                       probe, describe};
    return &plugin;
}
