/* frames.c - see frames.h. */
#include "app/frames.h"

#include "app/program.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEADLINE_MS = 60000, /* of one run of ffmpeg */
    NAME_MAX_BYTES = 4096 + 8,
};

/* Whether a file that begins with these bytes is a video. */
static bool looks_like_video(const uint8_t *b, size_t n) {
    static const struct {
        size_t at, n;
        const char *bytes;
    } marks[] = {
        {0, 4, "\x1A\x45\xDF\xA3"}, /* Matroska, WebM */
        {0, 4, "\x30\x26\xB2\x75"}, /* ASF, WMV */
        {0, 4, "\0\0\1\xBA"},       /* MPEG */
        {0, 4, "\0\0\1\xB3"},
        {0, 3, "FLV"},
        {0, 4, "OggS"},
        {8, 4, "AVI "},
        {4, 4, "moov"},
        {4, 4, "mdat"},
    };
    static const char *const stills[] = {"heic", "heix", "hevc", "heim",
                                         "mif1", "msf1", "avif", "avis"};
    if (n < 12)
        return false;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (!memcmp(b + marks[i].at, marks[i].bytes, marks[i].n))
            return true;
    if (memcmp(b + 4, "ftyp", 4)) /* else MP4 and QuickTime, or pictures in that container */
        return b[0] == 0x47 && n >= 189 && b[188] == 0x47; /* MPEG transport */
    for (size_t i = 0; i < sizeof stills / sizeof *stills; i++)
        if (!memcmp(b + 8, stills[i], 4))
            return false;
    return true;
}

static bool is_video(const char *path) {
    uint8_t start[189];
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : NULL;
    size_t n = f ? fread(start, 1, sizeof start, f) : 0;
    if (f)
        fclose(f);
    return looks_like_video(start, n);
}

static int fail_missing(const char *path, const char *program, pali_error *err) {
    return pali_fail(err, PALI_EUNSUPPORTED, "install ffmpeg, which takes pictures from videos",
                     "%s is a video, and there is no program %s", path, program);
}

/* Seconds of the video; a plain decimal number, whatever the locale. */
static int video_length(const char *path, const char *url, double *seconds, pali_error *err) {
    const char *const argv[] = {"ffprobe",
                                "-v",
                                "error",
                                "-protocol_whitelist",
                                "file",
                                "-show_entries",
                                "format=duration",
                                "-of",
                                "csv=p=0",
                                url,
                                NULL};
    uint8_t *bytes;
    size_t n;
    bool missing;
    unsigned long whole = 0;
    unsigned tenths = 0;
    if (!program_read(argv, 256, DEADLINE_MS, &bytes, &n, &missing))
        return missing ? fail_missing(path, "ffprobe", err)
                       : pali_fail(err, PALI_EFORMAT, "play it with ffplay to see what it says",
                                   "%s: ffprobe cannot read it", path);
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1),
             (const char *)bytes);
    free(bytes);
    if (sscanf(text, "%9lu.%1u", &whole, &tenths) < 1)
        return pali_fail(err, PALI_EFORMAT, "convert it with ffmpeg first",
                         "%s: ffprobe does not know how long it is", path);
    *seconds = (double)whole + tenths / 10.0;
    return 0;
}

/* The picture at that time; *out stays empty when there is none. */
static int picture_at(const char *path, const char *url, double seconds, pali_image *out,
                      pali_error *err) {
    char when[32];
    snprintf(when, sizeof when, "%lu.%03u", (unsigned long)seconds,
             (unsigned)((seconds - (double)(unsigned long)seconds) * 1000));
    const char *const argv[] = {"ffmpeg",     "-v",   "error", "-nostdin", "-protocol_whitelist",
                                "file,pipe",  "-ss",  when,    "-i",       url,
                                "-frames:v",  "1",    "-an",   "-sn",      "-f",
                                "image2pipe", "-c:v", "ppm",   "pipe:1",   NULL};
    uint8_t *bytes;
    size_t n;
    bool missing;
    *out = (pali_image){0};
    if (!program_read(argv, PALI_IMAGE_MAX_BYTES, DEADLINE_MS, &bytes, &n, &missing))
        return missing ? fail_missing(path, "ffmpeg", err) : 0;
    int rc = pali_image_decode(bytes, n, path, out, err);
    free(bytes);
    return rc;
}

static int open_video(const char *path, size_t n, pali_image *out, size_t *got, pali_error *err) {
    char url[NAME_MAX_BYTES];
    double seconds = 0;
    if (snprintf(url, sizeof url, "file:%s", path) >= (int)sizeof url)
        return pali_fail(err, PALI_EARG, NULL, "%.80s...: the path is too long", path);
    int rc = video_length(path, url, &seconds, err);
    for (size_t i = 0; i < n && !rc; i++) {
        rc =
            picture_at(path, url, seconds * (double)(2 * i + 1) / (double)(2 * n), &out[*got], err);
        *got += out[*got].rgb != NULL;
    }
    if (!rc && !*got)
        rc = pali_fail(err, PALI_EFORMAT, "play it with ffplay to see what it says",
                       "%s: ffmpeg finds no picture in it", path);
    return rc;
}

static int open_animation(const char *path, size_t n, pali_image *out, size_t *got,
                          pali_error *err) {
    uint8_t *bytes;
    size_t nbytes;
    int rc = pali_image_read_file(path, &bytes, &nbytes, err);
    if (rc)
        return rc;
    rc = pali_image_decode_frames(bytes, nbytes, strcmp(path, "-") ? path : "standard input", n,
                                  out, got, err);
    free(bytes);
    return rc;
}

int app_frames_open(const char *path, size_t n, pali_image *out, size_t *got, pali_error *err) {
    *got = 0;
    bool video = is_video(path);
    if (video && !n)
        return pali_fail(err, PALI_EUNSUPPORTED, "--frames 4 asks about 4 pictures of it",
                         "%s is a video", path);
    int rc = video ? open_video(path, n, out, got, err)
             : n   ? open_animation(path, n, out, got, err)
                   : pali_image_open(path, out, err);
    *got += !n && !rc;
    while (rc && *got)
        pali_image_close(&out[--*got]);
    return rc;
}
