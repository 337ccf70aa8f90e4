/* file.h - opening and reading the files of a model, with sentences for a person.
 *
 * Everything comes back through a regular file: a folder, a pipe or a device is
 * refused before a byte is read, so that no name can make pali wait or read
 * without end.                                                                 */
#ifndef PALI_FILE_H
#define PALI_FILE_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Opens a regular file read-only; *size = its bytes now. Returns a descriptor that
 * the caller closes, or PALI_EIO. */
int pali_file_open(const char *path, uint64_t *size, pali_error *err);

/* The whole of a file of at most limit bytes, with a NUL after its *n bytes. Caller
 * frees *bytes with free(). PALI_EIO, PALI_ELIMIT, PALI_ENOMEM. */
int pali_file_read(const char *path, size_t limit, char **bytes, size_t *n, pali_error *err);

/* "dir/name". Caller frees with free(); NULL without memory. */
char *pali_file_join(const char *dir, const char *name);

/* Whether path (links followed) is a regular file, or a folder. */
bool pali_file_exists(const char *path);
bool pali_file_is_folder(const char *path);

/* Whether there is something before tail. */
bool pali_file_has_ending(const char *path, const char *tail);

/* What tells one state of a file from another: any change of it changes one of these. */
typedef struct {
    uint64_t inode, size;
    int64_t modified, changed; /* nanoseconds */
} pali_file_stamp;
/* false when there is no regular file at path. */
bool pali_file_look(const char *path, pali_file_stamp *out);

/* Makes the folder path and those above it that are missing, for their owner only. false: errno
 * says why. */
bool pali_file_make_folders(const char *path);

/* path, or only its end when it is long: what fits in a pali_error. Borrowed. */
const char *pali_file_brief(const char *path);

/* Complains when the first bytes of a file are not the file itself but what a
 * failed download leaves: a git-lfs pointer or a web page. 0 when they are not. */
int pali_file_check_stub(const char *path, const void *bytes, size_t n, pali_error *err);

#ifdef __cplusplus
}
#endif

#endif
