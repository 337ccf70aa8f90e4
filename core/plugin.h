/* plugin.h - what a backend in a file of its own looks like: pali-cuda.so.
 *
 * The file exports one C function, pali_plugin_entry. Both sides are compiled from the
 * same tree, and the numbers below refuse a file that was not. Nothing but these calls
 * crosses the boundary: the plugin brings its own copy of core/error.c, throws nothing
 * and ends nothing.                                                                 */
#ifndef PALI_PLUGIN_H
#define PALI_PLUGIN_H

#include "core/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PALI_PLUGIN_ABI = 2 /* counts up with every change of what crosses */
};
#define PALI_PLUGIN_ENTRY "pali_plugin_entry"

typedef struct {
    uint32_t abi;          /* PALI_PLUGIN_ABI */
    uint32_t weights_size; /* sizeof(pali_weights), pali_backend, as the plugin knows them */
    uint32_t backend_size;

    /* Is there a device that can be used? Then its table, else PALI_EUNSUPPORTED and why. */
    int (*probe)(const pali_backend **out, pali_error *err);
} pali_plugin;

typedef const pali_plugin *pali_plugin_entry_fn(void);

/* Opens the plugin at path and asks it for a device. The file stays open on success. */
int pali_plugin_load(const char *path, const pali_backend **out, pali_error *err);

/* The CUDA plugin's. */
const pali_plugin *pali_plugin_entry(void);

#ifdef __cplusplus
}
#endif

#endif
