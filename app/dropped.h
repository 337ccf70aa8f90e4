/* dropped.h - what terminals paste when a file is dropped on them -> its path. */
#ifndef APP_DROPPED_H
#define APP_DROPPED_H

#include <stdbool.h>
#include <stddef.h>

/* Looks at text[0..n) as it is, quoted ('it'\''s', "it"), backslash-escaped and as a file:
 * URI, in this order, and writes the first path that good accepts. False when there is none;
 * text of several lines never is one. Blanks around it do not count. */
bool dropped_path(const char *text, size_t n, bool (*good)(const char *path), char *path,
                  size_t size);

/* For good: there is a regular file of this name; one that begins as a picture does. */
bool dropped_is_file(const char *path);
bool dropped_is_picture(const char *path);

#endif
