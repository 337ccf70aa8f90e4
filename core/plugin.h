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
    PALI_PLUGIN_ABI = 7, /* counts up with every change of what crosses */
    PALI_MAX_DEVICES = 16,
    PALI_DEVICE_RESERVE = 64 << 20 /* bytes left to the driver and the library of products */
};
#define PALI_PLUGIN_ENTRY "pali_plugin_entry"

/* A graphics card as its driver shows it. */
typedef struct {
    char name[96];
    int major, minor;    /* compute capability */
    size_t memory, free; /* bytes; free stays 0 when the card cannot be used */
    char why_not[320];   /* one sentence; empty: it can be used */
} pali_device;

/* What the plugin finds on a machine. */
typedef struct {
    int driver, runtime; /* CUDA that the driver speaks and the plugin needs, 13000 for 13.0;
                          * driver 0: none is installed */
    int count;           /* cards, of which the first PALI_MAX_DEVICES are below */
    pali_device device[PALI_MAX_DEVICES];
    int chosen;           /* the one that is used, -1: none */
    char no_library[320]; /* why matrix products cannot be computed; empty: they can */
} pali_devices;

typedef struct {
    uint32_t abi;          /* PALI_PLUGIN_ABI */
    uint32_t weights_size; /* sizeof(pali_weights), pali_backend, as the plugin knows them */
    uint32_t backend_size;

    /* Is there a device that can be used? Then its table, else PALI_EUNSUPPORTED and why. */
    int (*probe)(const pali_backend **out, pali_error *err);
    /* Everything that probe looks at, for a person: slower, and every card is woken. */
    void (*describe)(pali_devices *out);
} pali_plugin;

typedef const pali_plugin *pali_plugin_entry_fn(void);

/* Opens the plugin at path, for the life of the process. PALI_EUNSUPPORTED. */
int pali_plugin_open(const char *path, const pali_plugin **out, pali_error *err);
/* The same, and asks it for a device. */
int pali_plugin_load(const char *path, const pali_backend **out, pali_error *err);

/* What pali_backend_find found on its way to a graphics card. */
typedef struct {
    const char *path;    /* of the plugin; NULL: there is none. Borrowed, for ever */
    const char *why_not; /* one sentence, NULL when a card can be used; likewise */
    const char *advice;  /* to it; may be "" */
    pali_devices devices;
} pali_survey;
void pali_backend_survey(pali_survey *out);

/* The CUDA plugin's. */
const pali_plugin *pali_plugin_entry(void);

#ifdef __cplusplus
}
#endif

#endif
