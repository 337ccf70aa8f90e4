/* frames.h - a picture, or some pictures of what moves: an animated GIF (core/image.h), or a video
 * through the programs ffprobe and ffmpeg, when they are there.
 *
 * The pictures are the middles of equal parts. ffmpeg is told to read this file and nothing else (no
 * playlist leads it elsewhere); what it writes is decoded as any picture is. It decodes the video
 * itself, outside of the sandbox of pictures.                                                    */
#ifndef APP_FRAMES_H
#define APP_FRAMES_H

#include "core/image.h"

enum {
    APP_FRAMES_MAX = 64
};

/* path ("-": standard input, no video) as n pictures, n from 1 to APP_FRAMES_MAX; fewer when there
 * are not so many. n = 0: the picture itself, the first of a GIF; a video is refused with what to do
 * about it. out has room for n, at least 1. *got > 0 are to be closed. */
int app_frames_open(const char *path, size_t n, pali_image *out, size_t *got, pali_error *err);

#endif
