/* image_sandbox.h - images are decoded by a process that can do nothing else.
 *
 * Decoders of outside bytes are where a program is broken into, and a picture can
 * be made that takes all memory or never ends. So pali forks once at its start, while
 * it is small and has one thread: a server that waits. For every picture the server
 * forks a child that gives up everything but memory, time by the clock and three
 * descriptors (seccomp and resource limits), decodes, and leaves the pixels in a
 * nameless file. A child that crashes, hangs or grows costs one picture and one
 * sentence. The server ends when pali does.
 *
 *   pali --socket--> server --fork--> child: file bytes in, pixels out, one reply
 *
 * Cost: a fork of a small process at the start and one a picture, a copy of the file
 * and a copy of the pixels.                                                       */
#ifndef PALI_IMAGE_SANDBOX_H
#define PALI_IMAGE_SANDBOX_H

#include "core/image.h"

#include <stdbool.h>

/* From now on pali_image_open and pali_image_decode work through a server, from any
 * thread. Call it once, before threads are started. When the system gives no process
 * or no filter the error says so, and pictures are decoded in this process as before. */
int pali_image_sandbox_start(pali_error *err);

/* Ends the server; decoding is in this process again. Harmless when there is none. */
void pali_image_sandbox_stop(void);

/* Whether there is a server. */
bool pali_image_sandbox_on(void);

#endif
