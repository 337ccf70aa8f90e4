/* chatfile.h - a chat on disk: one JSON line a turn, written as it happens.
 *
 * File: <state>/chats/<id>.jsonl, mode 0600, id = UTC time of the start and the process. The
 * first line is {"pali": 1, "model": ..., "image": ...}; a turn is {"q": ..., "a": ...,
 * "stop": ..., "size": [w, h]}, the pixels that the boxes of its answer are scaled to; a change of picture {"image": ...}; /undo, /clear {"drop": n}. A line that was
 * cut off by a crash is ignored when reading.                                                */
#ifndef APP_CHATFILE_H
#define APP_CHATFILE_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct chatfile chatfile;

typedef struct {
    char *question, *answer, *stop; /* owned */
    int width, height; /* of the picture (or part) it is about, pixels; 0 = not known */
} chat_turn;

typedef struct {
    char *id, *model, *image; /* owned; model and image may be NULL */
    chat_turn *turns;
    size_t nturns;
} saved_chat;

/* Where chats live: $XDG_STATE_HOME/pali or ~/.local/state/pali, made when missing (0700).
 * home and xdg_state may be NULL. */
int chatfile_state_dir(const char *xdg_state, const char *home, char *dir, size_t size,
                       pali_error *err);

/* Starts a new file; nothing is written before the first turn. */
int chatfile_open(const char *state_dir, const char *model, chatfile **out, pali_error *err);
/* Goes on with the file of a chat that was read, and whose last model that was (NULL: not told). */
int chatfile_resume(const char *state_dir, const char *id, const char *model, chatfile **out,
                    pali_error *err);
void chatfile_close(chatfile *f);
const char *chatfile_id(const chatfile *f);

/* Each is on disk (written, not only buffered) when it returns 0. The picture's path is kept
 * whole, so that the chat can be gone on with from another folder; NULL: it has none. */
int chatfile_image(chatfile *f, const char *path, pali_error *err);
/* The model that answers from here on; nothing is written when it is the one before. */
int chatfile_model(chatfile *f, const char *dir, pali_error *err);
/* t is borrowed; its stop may be NULL. */
int chatfile_turn(chatfile *f, const chat_turn *t, pali_error *err);
int chatfile_drop(chatfile *f, size_t n, pali_error *err);

/* Writes a whole chat to a new file of any name; fails when there is one. */
int chatfile_write(const char *path, const char *model, const char *image, const chat_turn *turns,
                   size_t nturns, pali_error *err);

/* Reads a chat; id NULL = the newest that can be read. Close with saved_chat_close. */
int chatfile_read(const char *state_dir, const char *id, saved_chat *out, pali_error *err);
/* Reads a chat from any file (as /save wrote it). */
int chatfile_read_path(const char *path, saved_chat *out, pali_error *err);
void saved_chat_close(saved_chat *c);

/* Calls back for every chat, newest first: id, turns, first question. */
int chatfile_list(const char *state_dir,
                  void (*each)(void *user, const char *id, size_t nturns, const char *first),
                  void *user, pali_error *err);

#endif
