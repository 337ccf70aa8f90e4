/* doctor.c - see doctor.h.
 *
 * Looking and telling are apart: look() fills one struct, and that is written either as
 * lines or as JSON, so that both always say the same.                               */
#include "app/doctor.h"

#include "app/output.h"
#include "app/session.h"
#include "core/cpu/kernels.h"
#include "core/fit.h"
#include "core/image_sandbox.h"
#include "core/machine.h"
#include "core/plugin.h"
#include "core/quant.h"
#include "ui/term.h"
#include "ui/text.h"

#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* What a model can be turned into when it is opened. */
static const struct {
    pali_quant quant;
    const char *name; /* as --quantize has it */
} precisions[] = {
    {PALI_QUANT_NONE, "as stored"},
    {PALI_QUANT_INT8, "int8"},
    {PALI_QUANT_NF4, "nf4"},
};
enum {
    PRECISIONS = sizeof precisions / sizeof *precisions,
    BACKENDS = 2
};

typedef struct {
    bool known; /* this backend can say what it needs */
    uint64_t mapped, weights, kv, workspace, sum;
    bool fits;
} need;

typedef struct {
    pali_machine machine;
    pali_survey cuda;
    const pali_backend *backends[BACKENDS]; /* cpu, cuda; NULL: not usable here */
    const char *why_not_cuda, *advice;      /* NULL: nothing to say */
    bool terminal;
    char no_terminal[256]; /* why, when it is none */
    ui_term_caps caps;
    char dir[PATH_MAX]; /* of the model; "" without one */
    pali_weights *weights;
    int context;
    need needs[BACKENDS][PRECISIONS];
} findings;

/* --- looking --------------------------------------------------------------------------- */

/* The terminal answers about itself only when it is brought up; it is put back at once. */
static void look_at_terminal(const app_options *o, findings *f) {
    char *early = NULL;
    size_t n;
    if (o->json)
        return;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        snprintf(f->no_terminal, sizeof f->no_terminal, "none on standard %s",
                 isatty(STDIN_FILENO)    ? "output"
                 : isatty(STDOUT_FILENO) ? "input"
                                         : "input and output");
        return;
    }
    ui_term_options to = {.term = o->env.term,
                          .colorterm = o->env.colorterm,
                          .term_program = o->env.term_program,
                          .tmux = o->env.tmux};
    f->terminal =
        ui_term_open(&to, &f->caps, &early, &n, f->no_terminal, sizeof f->no_terminal) == 0;
    ui_term_close();
    free(early);
}

/* The CPU works on the mapped files, but for what it quantised; a card has its own copy. */
static void look_at_needs(const app_options *o, findings *f) {
    const pali_weights *w = f->weights;
    for (int b = 0; b < BACKENDS; b++)
        for (int p = 0; p < PRECISIONS && f->backends[b]; p++) {
            need *n = &f->needs[b][p];
            pali_memory m;
            pali_backend_options bo = {
                .positions = f->context, .quant = precisions[p].quant, .quant_all = o->quant_all};
            if (f->backends[b]->memory(w, &bo, &m, NULL) != 0)
                continue;
            n->known = true;
            n->mapped = b ? 0 : pali_fit_mapped(w, &bo);
            n->weights = m.weights;
            n->kv = m.kv;
            n->workspace = m.workspace;
            n->sum = n->mapped + m.weights + m.kv + m.workspace;
            uint64_t room = f->machine.available;
            if (b)
                room = f->cuda.devices.device[f->cuda.devices.chosen].free;
            n->fits = n->sum + (b ? PALI_DEVICE_RESERVE : 0) <= room;
        }
}

static int look_at_model(const app_options *o, findings *f, pali_error *err) {
    int rc = app_session_find_model(o, f->dir, sizeof f->dir, err);
    if (!rc && *f->dir)
        rc = pali_weights_open(f->dir, &f->weights, err);
    if (rc || !f->weights)
        return rc;
    f->context = o->context ? o->context : pali_default_context(&f->weights->config, 1);
    look_at_needs(o, f);
    return 0;
}

/* Without a card nobody needs to be told how to get the backend for one. */
static void look_for_reasons(findings *f) {
    const pali_machine *m = &f->machine;
    f->why_not_cuda = f->cuda.why_not;
    f->advice = f->cuda.why_not && *f->cuda.advice ? f->cuda.advice : NULL;
    if (f->cuda.why_not && !m->nvidia_cards && !*m->nvidia_driver && !f->cuda.devices.driver) {
        f->why_not_cuda = "no NVIDIA graphics card was seen";
        f->advice = NULL;
    }
}

static int look(const app_options *o, findings *f, pali_error *err) {
    pali_machine_look("", &f->machine);
    pali_backend_survey(&f->cuda);
    f->backends[0] = pali_backend_cpu();
    if (pali_backend_find("cuda", &f->backends[1], NULL) != 0 || f->cuda.devices.chosen < 0)
        f->backends[1] = NULL;
    look_for_reasons(f);
    look_at_terminal(o, f);
    return look_at_model(o, f, err);
}

static const char *used(const app_options *o, const findings *f) {
    return f->backends[1] && strcmp(o->backend, "cpu") ? "cuda" : "cpu";
}

/* --- as text ------------------------------------------------------------------------------ */

/* A name from outside, safe for the terminal, in buf. */
static const char *clean(const char *s, char *buf, size_t size) {
    return ui_text_clean(UI_TEXT_LINE, s, buf, size);
}

static void line(FILE *out, const char *label, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void line(FILE *out, const char *label, const char *fmt, ...) {
    char raw[PATH_MAX + 512], safe[UI_TEXT_ROOM(sizeof raw)];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    fprintf(out, "%-12s%s\n", label, clean(raw, safe, sizeof safe));
}

static const char *size_text(uint64_t bytes, char buf[32]) {
    if (bytes >= (uint64_t)1 << 30)
        snprintf(buf, 32, "%.1f GB", (double)bytes / (double)(1 << 30));
    else
        snprintf(buf, 32, "%.1f MB", (double)bytes / (double)(1 << 20));
    return buf;
}

/* Its name, or what is known of it without one. */
static const char *processor(const pali_machine *m) {
    static struct utsname u;
    return *m->cpu ? m->cpu : !uname(&u) ? u.machine : "a processor without a name";
}

static void tell_machine(FILE *out, const pali_machine *m) {
    char a[32], b[32], quota[48] = "", limit[64] = "";
    if (m->quota > 0)
        snprintf(quota, sizeof quota, ", a container grants %.3g", m->quota);
    line(out, "processor", "%s, %d core%s%s, %s code", processor(m), m->cores,
         m->cores == 1 ? "" : "s", quota, pali_kernels_pick()->name);
    if (m->limit)
        snprintf(limit, sizeof limit, ", a container allows %s", size_text(m->limit, a));
    line(out, "memory", "%s available of %s%s", size_text(m->available, a), size_text(m->memory, b),
         limit);
}

static void tell_cards(FILE *out, const findings *f) {
    const pali_devices *d = &f->cuda.devices;
    char a[32], b[32];
    if (f->machine.nvidia_cards || f->machine.nvidia_driver[0])
        line(out, "bus", "%d NVIDIA graphics processor%s, driver %s", f->machine.nvidia_cards,
             f->machine.nvidia_cards == 1 ? "" : "s",
             f->machine.nvidia_driver[0] ? f->machine.nvidia_driver : "not loaded");
    line(out, "plugin", "%s", f->cuda.path ? f->cuda.path : "none");
    if (!f->cuda.path)
        return;
    if (d->driver)
        line(out, "driver", "speaks CUDA %d.%d, the plugin needs %d.0", d->driver / 1000,
             d->driver % 1000 / 10, d->runtime / 1000);
    else
        line(out, "driver", "none");
    for (int i = 0; i < d->count && i < PALI_MAX_DEVICES; i++) {
        const pali_device *p = &d->device[i];
        char label[24];
        snprintf(label, sizeof label, "card %d", i);
        if (*p->why_not)
            line(out, label, "%s: not usable: %s", p->name, p->why_not);
        else
            line(out, label, "%s, compute capability %d.%d, %s free of %s", p->name, p->major,
                 p->minor, size_text(p->free, a), size_text(p->memory, b));
    }
    if (d->count)
        line(out, "cuBLASLt", "%s", *d->no_library ? d->no_library : "found");
}

static void tell_use(FILE *out, const app_options *o, const findings *f) {
    const char *use = used(o, f);
    if (!strcmp(use, "cuda"))
        line(out, "used", "cuda, card %d", f->cuda.devices.chosen);
    else if (!strcmp(o->backend, "cpu"))
        line(out, "used", "cpu, because --backend says so");
    else
        line(out, "used", "cpu: %s", f->why_not_cuda ? f->why_not_cuda : "no card can be used");
    if (f->advice && strcmp(o->backend, "cpu"))
        line(out, "", "%s", f->advice);
}

static void tell_terminal(FILE *out, const findings *f) {
    static const char *const colours[] = {"no colour", "16 colours", "256 colours", "true colour"};
    if (f->terminal)
        line(out, "terminal", "%s, %d x %d, %s, pictures as %s%s", f->caps.name, f->caps.cols,
             f->caps.rows, colours[f->caps.colours], ui_graphics_name(f->caps.graphics),
             f->caps.multiplexer ? " (inside a multiplexer)" : "");
    else
        line(out, "terminal", "%s", f->no_terminal);
    line(out, "pictures", "decoded %s",
         pali_image_sandbox_on() ? "in a sandbox" : "in this process: the system gives no sandbox");
}

static void tell_model(FILE *out, const findings *f) {
    const pali_config *c = &f->weights->config;
    char a[32], b[32], k[32], w[32];
    fputc('\n', out);
    line(out, "model", "%s", f->dir);
    line(out, "", "PaliGemma%s, %.1f million weights in %s, %d x %d pixels in %d tokens",
         c->text.gemma == 2 ? " 2" : "", 1e-6 * (double)f->weights->params,
         size_text(f->weights->bytes, a), c->vision.S, c->vision.S, c->vision.P);
    line(out, "needs", "with room for %d tokens:", f->context);
    for (int i = 0; i < BACKENDS; i++)
        for (int p = 0; p < PRECISIONS; p++) {
            const need *n = &f->needs[i][p];
            if (!n->known)
                continue;
            char label[32];
            snprintf(label, sizeof label, "%s, %s", f->backends[i]->name, precisions[p].name);
            line(out, "", "%-18s %9s: weights %s, context %s, work space %s: %s", label,
                 size_text(n->sum, a), size_text(n->mapped + n->weights, w), size_text(n->kv, k),
                 size_text(n->workspace, b), n->fits ? "fits" : "does not fit");
        }
}

static void tell_places(FILE *out, const app_options *o) {
    char cache[PATH_MAX];
    const app_settings *s = &o->settings;
    if (s->path)
        line(out, "config", s->text ? "%s" : "%s, which is not there", s->path);
    else
        line(out, "config", "no file");
    if (!pali_hub_cache(&o->hub, cache, sizeof cache, NULL))
        line(out, "hub cache", "%s", cache);
}

static int write_text(FILE *out, const app_options *o, const findings *f) {
    fputs("pali " PALI_VERSION "\n\n", out);
    tell_machine(out, &f->machine);
    tell_cards(out, f);
    tell_use(out, o, f);
    tell_terminal(out, f);
    tell_places(out, o);
    if (f->weights)
        tell_model(out, f);
    return 0;
}

/* --- as JSON ---------------------------------------------------------------------------------- */

static json_t *text(const char *s) {
    char safe[UI_TEXT_ROOM(PATH_MAX)];
    return s ? json_string(ui_text_clean(UI_TEXT_VALID, s, safe, sizeof safe)) : json_null();
}

static json_t *bytes(uint64_t n) {
    return json_integer((json_int_t)n);
}

static json_t *json_cards(const pali_devices *d) {
    json_t *list = json_array();
    for (int i = 0; i < d->count && i < PALI_MAX_DEVICES; i++) {
        const pali_device *p = &d->device[i];
        json_array_append_new(list,
                              json_pack("{s:o, s:[i,i], s:o, s:o, s:o}", "name", text(p->name),
                                        "compute_capability", p->major, p->minor, "memory",
                                        bytes(p->memory), "free", bytes(p->free), "why_not",
                                        *p->why_not ? text(p->why_not) : json_null()));
    }
    return list;
}

static json_t *json_model(const findings *f) {
    if (!f->weights)
        return json_null();
    json_t *needs = json_array();
    for (int b = 0; b < BACKENDS; b++)
        for (int p = 0; p < PRECISIONS; p++) {
            const need *n = &f->needs[b][p];
            if (n->known)
                json_array_append_new(needs, json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:b}",
                                                       "backend", f->backends[b]->name, "precision",
                                                       precisions[p].name, "bytes", bytes(n->sum),
                                                       "weights", bytes(n->mapped + n->weights),
                                                       "context", bytes(n->kv), "workspace",
                                                       bytes(n->workspace), "fits", n->fits));
        }
    return json_pack("{s:o, s:i, s:o, s:o, s:i, s:o}", "folder", text(f->dir), "generation",
                     f->weights->config.text.gemma, "weights", bytes(f->weights->params), "bytes",
                     bytes(f->weights->bytes), "context", f->context, "needs", needs);
}

static int write_json(FILE *out, const app_options *o, const findings *f) {
    const pali_machine *m = &f->machine;
    const pali_devices *d = &f->cuda.devices;
    json_t *cpu = json_pack("{s:o, s:i, s:o, s:s}", "name", text(processor(m)), "cores", m->cores,
                            "quota", m->quota > 0 ? json_real(m->quota) : json_null(), "code",
                            pali_kernels_pick()->name);
    json_t *memory =
        json_pack("{s:o, s:o, s:o}", "total", bytes(m->memory), "available", bytes(m->available),
                  "limit", m->limit ? bytes(m->limit) : json_null());
    json_t *cuda =
        json_pack("{s:o, s:i, s:o, s:i, s:i, s:o, s:o, s:i, s:o, s:o}", "plugin",
                  text(f->cuda.path), "bus_cards", m->nvidia_cards, "driver_version",
                  *m->nvidia_driver ? text(m->nvidia_driver) : json_null(), "driver_cuda",
                  d->driver, "needs_cuda", d->runtime, "cards", json_cards(d), "no_library",
                  *d->no_library ? text(d->no_library) : json_null(), "chosen", d->chosen,
                  "why_not", text(f->why_not_cuda), "advice", text(f->advice));
    char cache[PATH_MAX];
    bool known = !pali_hub_cache(&o->hub, cache, sizeof cache, NULL);
    json_t *all = json_pack("{s:s, s:o, s:o, s:o, s:s, s:b, s:o, s:o, s:o}", "version",
                            PALI_VERSION, "cpu", cpu, "memory", memory, "cuda", cuda, "used",
                            used(o, f), "sandbox", pali_image_sandbox_on(), "config",
                            text(o->settings.text ? o->settings.path : NULL), "models",
                            known ? text(cache) : json_null(), "model", json_model(f));
    int rc = all ? json_dumpf(all, out, JSON_COMPACT) : -1;
    json_decref(all);
    fputc('\n', out);
    return rc;
}

int app_doctor_run(const app_options *o, pali_error *err) {
    char *report = NULL;
    size_t n;
    findings *f = calloc(1, sizeof *f);
    FILE *out = open_memstream(&report, &n);
    if (!f || !out) {
        if (out)
            fclose(out);
        free(f);
        free(report);
        return pali_fail_nomem(err, "looking at this machine");
    }
    pali_image_sandbox_start(NULL); /* to tell whether there is one */
    int rc = look(o, f, err);
    int written = o->json ? write_json(out, o, f) : write_text(out, o, f);
    if (fclose(out) || written)
        rc = pali_fail_nomem(err, "looking at this machine");
    else if (!rc || !o->json) /* a model that cannot be opened hides nothing of the machine */
        app_out_write(report, n, err);
    if (f->weights)
        pali_weights_close(f->weights);
    free(report);
    free(f);
    return rc;
}
