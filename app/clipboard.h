/* clipboard.h - the picture on the desktop's clipboard, by wl-paste (Wayland) or xclip (X11). */
#ifndef APP_CLIPBOARD_H
#define APP_CLIPBOARD_H

#include "core/error.h"

#include <stddef.h>
#include <stdint.h>

/* Reads the clipboard as PNG; waits a few seconds for its owner, so not for the UI thread.
 * Caller frees *bytes. Says which program is missing, or that there is no picture. */
int clipboard_read_png(uint8_t **bytes, size_t *n, pali_error *err);

#endif
