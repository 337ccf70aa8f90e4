/* test_frames.c - `--frames N` from outside: animated GIFs, and videos through programs named
 * ffprobe and ffmpeg, which here are scripts that note how they were called.               */
#include "tests/e2e/folder.h"

#include <jansson.h>
#include <sys/stat.h>

#define GIF "tests/data/frames/keep.gif"

static char video[96], calls[96], programs[96];

static int write_file(const char *path, const char *text, size_t n, mode_t mode) {
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    fwrite(text, 1, n, f);
    return fclose(f) | chmod(path, mode);
}

/* A program of that name that runs these lines of shell. */
static int script(const char *name, const char *lines) {
    char path[160], text[1024];
    snprintf(path, sizeof path, "%s/%s", programs, name);
    int n =
        snprintf(text, sizeof text, "#!/bin/sh\necho \"${0##*/} $*\" >> %s\n%s\n", calls, lines);
    return write_file(path, text, (size_t)n, 0755);
}

static int setup(void **state) {
    (void)state;
    if (folder_open())
        return -1;
    snprintf(video, sizeof video, "%s/a clip.mp4", folder);
    snprintf(calls, sizeof calls, "%s/calls", folder);
    snprintf(programs, sizeof programs, "%s/bin", folder);
    static const char start[] = "\0\0\0\x18"
                                "ftypisom\0\0\2\0isommp41";
    return mkdir(programs, 0755) | write_file(video, start, sizeof start - 1, 0644);
}

/* How many image tokens the prompt had, in pictures of the demo model. */
static int pictures_of(const char *json) {
    json_t *j = json_loads(json, 0, NULL);
    assert_non_null(j);
    json_t *t = json_object_get(j, "timings");
    int tokens = (int)json_integer_value(json_object_get(t, "prefix_tokens"));
    json_decref(j);
    return tokens / 64;
}

static void frames_of_a_gif(void **state) {
    (void)state;
    need_demo();
    static const char *const counts[] = {"1", "3", "40"};
    static const int want[] = {1, 3, 7};
    for (int i = 0; i < 3; i++) {
        spawned s = RUN(NULL, "--demo", "--json", "-n", "3", "-p", "caption en", "--frames",
                        counts[i], GIF);
        assert_int_equal(s.status, 0);
        assert_int_equal(pictures_of(s.text[0]), want[i]);
        spawn_free(&s);
    }
    /* A still among them is one picture; without --frames a GIF is its first. */
    spawned s = RUN(NULL, "--demo", "--json", "-n", "3", "-p", "caption en", "--frames", "2", GIF,
                    DEMO "demo.png");
    assert_int_equal(s.status, 0);
    assert_int_equal(pictures_of(s.text[0]), 3);
    spawn_free(&s);
    s = RUN(NULL, "--demo", "--json", "-n", "3", "-p", "caption en", GIF);
    assert_int_equal(pictures_of(s.text[0]), 1);
    spawn_free(&s);
    s = RUN(NULL, "--demo", "-p", "x", "--frames", "0", GIF);
    assert_int_equal(s.status, 2);
    assert_non_null(strstr(s.text[1], "pali: --frames wants a number from 1 to 64, not \"0\"\n"));
    spawn_free(&s);
}

/* Runs pali with `programs` as the whole PATH, but for the shell and sed. */
static spawned run_video(const char *frames) {
    char path[160], *old = strdup(getenv("PATH"));
    snprintf(path, sizeof path, "%s:/bin:/usr/bin", programs);
    setenv("PATH", path, 1);
    spawned s =
        RUN(NULL, "--demo", "--json", "-n", "3", "-p", "caption en", "--frames", frames, video);
    setenv("PATH", old, 1);
    free(old);
    return s;
}

static void frames_of_a_video(void **state) {
    (void)state;
    need_demo();
    assert_int_equal(script("ffprobe", "echo 12.500000"), 0);
    assert_int_equal(script("ffmpeg", "printf 'P6 2 1 255\\n'; printf 'abcdef'"), 0);
    spawned s = run_video("3");
    assert_int_equal(s.status, 0);
    assert_int_equal(pictures_of(s.text[0]), 3);
    spawn_free(&s);
    FILE *f = fopen(calls, "r");
    assert_non_null(f);
    char want[512], got[512];
    snprintf(want, sizeof want,
             "ffprobe -v error -protocol_whitelist file -show_entries format=duration -of csv=p=0 "
             "file:%s\n",
             video);
    assert_non_null(fgets(got, sizeof got, f));
    assert_string_equal(got, want);
    static const char *const when[] = {"2.083", "6.250", "10.416"};
    for (int i = 0; i < 3; i++) {
        snprintf(want, sizeof want,
                 "ffmpeg -v error -nostdin -protocol_whitelist file,pipe -ss %s -i file:%s "
                 "-frames:v 1 -an -sn -f image2pipe -c:v ppm pipe:1\n",
                 when[i], video);
        assert_non_null(fgets(got, sizeof got, f));
        assert_string_equal(got, want);
    }
    assert_null(fgets(got, sizeof got, f));
    fclose(f);
}

static void frames_of_a_video_that_ffmpeg_refuses(void **state) {
    (void)state;
    need_demo();
    static const struct {
        const char *probe, *take, *sentence;
    } cases[] = {
        {"exit 1", "exit 1", ": ffprobe cannot read it\n"},
        {"echo N/A", "exit 1", ": ffprobe does not know how long it is\n"},
        {"echo 3.0", "exit 1", ": ffmpeg finds no picture in it\n"},
        {"echo 3.0", "echo words", ": not a picture that pali recognises"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(script("ffprobe", cases[i].probe) | script("ffmpeg", cases[i].take), 0);
        spawned s = run_video("2");
        assert_int_equal(s.status, 1);
        assert_int_equal(s.n[0], 0);
        if (!strstr(s.text[1], cases[i].sentence))
            fail_msg("no \"%s\" in \"%s\"", cases[i].sentence, s.text[1]);
        spawn_free(&s);
    }
    /* Past the end there is nothing: the pictures that came are asked about. */
    assert_int_equal(script("ffmpeg", "case \"$*\" in *'-ss 0.7'*) printf 'P6 2 1 255\\nabcdef';; "
                                      "*) exit 0;; esac"),
                     0);
    spawned s = run_video("2");
    assert_int_equal(s.status, 0);
    assert_int_equal(pictures_of(s.text[0]), 1);
    spawn_free(&s);
}

static void frames_without_ffmpeg(void **state) {
    (void)state;
    need_demo();
    char sentence[256], *old = strdup(getenv("PATH"));
    setenv("PATH", folder, 1);
    spawned s = RUN(NULL, "--demo", "-p", "x", "--frames", "2", video);
    assert_int_equal(s.status, 1);
    snprintf(sentence, sizeof sentence,
             "pali: %s is a video, and there is no program ffprobe\n"
             "      install ffmpeg, which takes pictures from videos\n",
             video);
    assert_string_equal(s.text[1], sentence);
    spawn_free(&s);
    s = RUN(NULL, "--demo", "-p", "x", video);
    assert_int_equal(s.status, 1);
    snprintf(sentence, sizeof sentence,
             "pali: %s is a video\n      --frames 4 asks about 4 pictures of it\n", video);
    assert_string_equal(s.text[1], sentence);
    spawn_free(&s);
    setenv("PATH", old, 1);
    free(old);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_of_a_gif),
        cmocka_unit_test(frames_of_a_video),
        cmocka_unit_test(frames_of_a_video_that_ffmpeg_refuses),
        cmocka_unit_test(frames_without_ffmpeg),
    };
    return cmocka_run_group_tests_name("frames", tests, setup, folder_remove);
}
