/* backend.c - finding a backend by name; see backend.h.
 *
 * The CUDA backend is a file of its own, so that one program serves machines with and
 * without a graphics card. It is looked for beside the program and in ../lib/pali, opened
 * once, and stays open. Where the card's driver is absent the whole search takes well
 * under a millisecond.                                                             */
#include "core/backend.h"

#include "core/file.h"
#include "core/machine.h"
#include "core/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char use_cpu[] = "use the CPU: --backend cpu";

int pali_plugin_open(const char *path, const pali_plugin **out, pali_error *err) {
    *out = NULL;
    void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!file)
        return pali_fail(err, PALI_EUNSUPPORTED, use_cpu, "the CUDA backend cannot be opened: %s",
                         dlerror());
    void *entry = dlsym(file, PALI_PLUGIN_ENTRY);
    const pali_plugin *p = NULL;
    if (entry) {
        pali_plugin_entry_fn *call;
        memcpy(&call, &entry, sizeof call); /* ISO C has no cast from data to code */
        p = call();
    }
    if (!p || p->abi != PALI_PLUGIN_ABI || p->weights_size != sizeof(pali_weights) ||
        p->backend_size != sizeof(pali_backend)) {
        dlclose(file);
        return pali_fail(err, PALI_EUNSUPPORTED,
                         "install pali and its CUDA backend together, or use the CPU: "
                         "--backend cpu",
                         "%s belongs to another version of pali", pali_file_brief(path));
    }
    *out = p;
    return 0;
}

int pali_plugin_load(const char *path, const pali_backend **out, pali_error *err) {
    const pali_plugin *p;
    *out = NULL;
    int rc = pali_plugin_open(path, &p, err);
    return rc ? rc : p->probe(out, err);
}

/* The search happens once; every later question gets the same answer. */
static struct {
    pthread_once_t once;
    char path[PATH_MAX]; /* of the plugin, "": none is there */
    const pali_plugin *plugin;
    const pali_backend *backend;
    pali_error why;
} cuda = {.once = PTHREAD_ONCE_INIT};

/* Beside the program, then where `make install` puts it. */
static void find_cuda(void) {
    static const char *const places[] = {"pali-cuda.so", "../lib/pali/pali-cuda.so"};
    char folder[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    for (int i = 0; i < 2 && slash && !*cuda.path; i++)
        if (snprintf(cuda.path, sizeof cuda.path, "%s/%s", folder, places[i]) >=
                (int)sizeof cuda.path ||
            access(cuda.path, F_OK) != 0)
            *cuda.path = '\0';
    if (!*cuda.path)
        pali_fail(&cuda.why, PALI_EUNSUPPORTED,
                  "build it with `make` where CUDA 13 is installed, or use the CPU: "
                  "--backend cpu",
                  "the CUDA backend is not installed: there is no pali-cuda.so beside the "
                  "program or in ../lib/pali");
    else if (pali_plugin_open(cuda.path, &cuda.plugin, &cuda.why) == 0)
        cuda.plugin->probe(&cuda.backend, &cuda.why);
}

int pali_backend_find(const char *name, const pali_backend **out, pali_error *err) {
    *out = NULL;
    if (strcmp(name, "cpu") == 0) {
        *out = pali_backend_cpu();
        return 0;
    }
    bool must = strcmp(name, "cuda") == 0;
    if (!must && strcmp(name, "auto") != 0)
        return pali_fail(err, PALI_EARG, "choose auto, cpu or cuda",
                         "there is no backend called \"%s\"", name);
    pthread_once(&cuda.once, find_cuda);
    if (!cuda.backend && must)
        return pali_fail(err, cuda.why.code, cuda.why.hint, "%s", cuda.why.what);
    *out = cuda.backend ? cuda.backend : pali_backend_cpu();
    return 0;
}

const pali_error *pali_backend_why_not_cuda(void) {
    pthread_once(&cuda.once, find_cuda);
    return &cuda.why;
}

int pali_backend_has_card(void) {
    pthread_once(&cuda.once, find_cuda);
    return cuda.backend || pali_machine_nvidia_cards("") > 0;
}

void pali_backend_survey(pali_survey *out) {
    pthread_once(&cuda.once, find_cuda);
    *out = (pali_survey){
        .path = *cuda.path ? cuda.path : NULL,
        .why_not = cuda.backend ? NULL : cuda.why.what,
        .advice = cuda.why.hint,
        .devices.chosen = -1,
    };
    if (cuda.plugin)
        cuda.plugin->describe(&out->devices);
}
