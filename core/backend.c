/* backend.c - finding a backend by name; see backend.h. */
#include "core/backend.h"

#include <string.h>

int pali_backend_find(const char *name, const pali_backend **out, pali_error *err) {
    *out = NULL;
    if (strcmp(name, "cpu") == 0 || strcmp(name, "auto") == 0) {
        *out = pali_backend_cpu();
        return 0;
    }
    if (strcmp(name, "cuda") == 0)
        return pali_fail(err, PALI_EUNSUPPORTED, "use the CPU: --backend cpu",
                         "this build of pali has no CUDA backend yet");
    return pali_fail(err, PALI_EARG, "choose auto, cpu or cuda",
                     "there is no backend called \"%s\"", name);
}
