/* picture_list.h - which pictures: names, folders, and a list from a file or a pipe.
 *
 * A folder stands for the files directly in it that begin as pictures do, in the order of the bytes
 * of their names; hidden files do not count. A list has one name a line, or ends each with a NUL
 * byte (find -print0): which, its first bytes tell. It is read as it comes, so a program that writes
 * it may be slow or endless.                                                                       */
#ifndef APP_PICTURE_LIST_H
#define APP_PICTURE_LIST_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct picture_list picture_list;

/* names[0..n) (borrowed), then the list in the file `from` ("-": standard input; NULL: none).
 * PALI_EIO when a folder or the list cannot be opened; PALI_EFORMAT for a folder without pictures. */
int picture_list_open(const char *const *names, size_t n, const char *from, picture_list **out,
                      pali_error *err);
void picture_list_close(picture_list *l);

/* 1 and *path (borrowed until the next call), 0 after the last, or an error. */
int picture_list_next(picture_list *l, const char **path, pali_error *err);

/* Any thread: next returns PALI_ECANCEL from now on, also while it waits for a line. */
void picture_list_stop(picture_list *l);

/* How many there are in all; 0 as long as nobody can know. */
size_t picture_list_total(const picture_list *l);

#endif
