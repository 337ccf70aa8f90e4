/* A plugin of another pali: everything is right but its number. */
#include "core/plugin.h"

const pali_plugin *pali_plugin_entry(void) {
    static const pali_plugin plugin = {PALI_PLUGIN_ABI - 1, sizeof(pali_weights),
                                       sizeof(pali_backend), NULL, NULL};
    return &plugin;
}
