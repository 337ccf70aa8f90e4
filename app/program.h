/* program.h - what another program says on its standard output. */
#ifndef APP_PROGRAM_H
#define APP_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Runs argv (ends with NULL; found by PATH, no shell), its input and errors nowhere. True when it
 * ended well within deadline_ms and said something, at most `most` bytes: then the caller frees
 * *bytes with free(). A program that says or takes more is killed. *missing: there is none. */
bool program_read(const char *const argv[], size_t most, int deadline_ms, uint8_t **bytes,
                  size_t *n, bool *missing);

#endif
