/* The way from a name to a graphics card: the plugin file is found, checked, asked, and used
 * by an engine; and what an engine does when the card cannot. The plugin is gpu/ built for
 * the emulator, beside this program as pali-cuda.so.                                */
#include "tests/test.h"

#include "core/pali.h"
#include "core/plugin.h"
#include "tests/emu/control.h"

#include <dlfcn.h>
#include <math.h>
#include <unistd.h>

static pali_error err;
static emu_device *(*settings)(void); /* of the plugin's own emulator */
static void (*reset)(void);

static void *symbol(void *file, const char *name) {
    void *s = dlsym(file, name);
    if (!s)
        fail_msg("no %s in the plugin", name);
    return s;
}

static char folder[4096]; /* of this program */

static const char *beside(const char *name) {
    static char path[sizeof folder + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int setup(void **unused) {
    (void)unused;
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (n <= 0)
        return -1;
    folder[n] = '\0';
    *strrchr(folder, '/') = '\0';
    void *file = dlopen(beside("pali-cuda.so"), RTLD_NOW | RTLD_LOCAL);
    if (!file) {
        fprintf(stderr, "%s\n", dlerror());
        return -1;
    }
    void *s = symbol(file, "emu_settings"), *r = symbol(file, "emu_reset");
    memcpy(&settings, &s, sizeof s);
    memcpy(&reset, &r, sizeof r);
    reset();
    return 0;
}

static pali_engine *open_engine(const char *backend, pali_engine_info *info) {
    pali_engine_options o = {.model_dir = "assets/demo", .backend = backend, .threads = 1};
    pali_engine *e;
    memset(&err, 0, sizeof err);
    assert_ok(pali_engine_open(&o, NULL, &e, &err), err);
    pali_engine_describe(e, info);
    return e;
}

static void plugin_refuses_other_files(void **unused) {
    (void)unused;
    const pali_backend *be;
    pali_error why = {0}, other = {0}, old = {0};
    assert_int_equal(pali_plugin_load("./nowhere.so", &be, &why), PALI_EUNSUPPORTED);
    assert_null(be);
    assert_non_null(strstr(why.what, "the CUDA backend cannot be opened: ./nowhere.so"));
    assert_int_equal(pali_plugin_load("libm.so.6", &be, &other), PALI_EUNSUPPORTED);
    assert_string_equal(other.what, "libm.so.6 belongs to another version of pali");
    assert_int_equal(pali_plugin_load(beside("old_plugin.so"), &be, &old), PALI_EUNSUPPORTED);
    assert_non_null(strstr(old.what, "old_plugin.so belongs to another version of pali"));
    assert_true(why.hint[0] && other.hint[0] && old.hint[0]);
}

static void plugin_is_found_beside_the_program(void **unused) {
    (void)unused;
    const pali_backend *be, *best;
    assert_ok(pali_backend_find("cuda", &be, &err), err);
    assert_string_equal(be->name, "cuda");
    assert_ok(pali_backend_find("auto", &best, &err), err);
    assert_ptr_equal(best, be);
    assert_int_equal(pali_backend_why_not_cuda()->code, 0);
    assert_true(pali_backend_has_card());
    pali_survey survey;
    pali_backend_survey(&survey);
    assert_string_equal(survey.path, beside("pali-cuda.so"));
    assert_null(survey.why_not);
    assert_int_equal(survey.devices.chosen, 0);
    assert_string_equal(survey.devices.device[0].name, "emulated device");
}

/* The bundled model's answer, word for word, from both backends. */
static void plugin_answers_as_the_cpu_does(void **unused) {
    (void)unused;
    pali_image image;
    char *text[2];
    assert_ok(pali_image_open("assets/demo/demo.png", &image, &err), err);
    for (int i = 0; i < 2; i++) {
        pali_engine_info info;
        pali_engine *e = open_engine(i ? "auto" : "cpu", &info);
        assert_string_equal(info.backend, i ? "cuda" : "cpu");
        assert_null(info.fallback);
        pali_dialog *d;
        pali_result r;
        pali_ask ask = {.max_tokens = 12};
        assert_ok(pali_dialog_open(e, &d, &err), err);
        assert_ok(pali_dialog_set_image(d, &image, true, &err), err);
        assert_ok(pali_dialog_ask(d, "caption en", &ask, NULL, &r, &err), err);
        text[i] = strdup(r.text);
        pali_result_close(&r);
        pali_dialog_close(d);
        pali_engine_close(e);
    }
    assert_true(text[0][0]);
    assert_string_equal(text[0], text[1]);
    free(text[0]), free(text[1]);
    pali_image_close(&image);
}

/* The prefix that is still on the card, asked again and scored on, is as good as a new one; and
 * the card's scores are the processor's (seen: 2e-3 a token, bf16; a wrong token gives 1 and more). */
static void plugin_reuses_what_is_on_the_card(void **unused) {
    (void)unused;
    static const char *const texts[] = {"a red circle and a blue star", "a green square"};
    pali_image image;
    pali_score scores[2][2];
    assert_ok(pali_image_open("assets/demo/demo.png", &image, &err), err);
    for (int i = 0; i < 2; i++) {
        pali_engine_info info;
        pali_engine *e = open_engine(i ? "cuda" : "cpu", &info);
        pali_dialog *d;
        pali_result first, again, hot;
        pali_ask ask = {.max_tokens = 8},
                 other = {.max_tokens = 8, .sampling = {.temperature = 5, .seed = 3}};
        assert_ok(pali_dialog_open(e, &d, &err), err);
        assert_ok(pali_dialog_set_image(d, &image, true, &err), err);
        assert_ok(pali_dialog_ask(d, "caption en", &ask, NULL, &first, &err), err);
        assert_ok(pali_dialog_ask(d, "caption en", &other, NULL, &hot, &err), err);
        assert_ok(pali_dialog_score(d, "caption en", texts, 2, NULL, scores[i], &err), err);
        assert_ok(pali_dialog_ask(d, "caption en", &ask, NULL, &again, &err), err);
        assert_true(!first.reused && hot.reused && again.reused);
        assert_string_equal(first.text, again.text);
        assert_int_equal(first.ntokens, again.ntokens);
        assert_memory_equal(first.logprobs, again.logprobs, first.ntokens * sizeof(float));
        assert_true(scores[i][0].sum > scores[i][1].sum);
        pali_result_close(&first);
        pali_result_close(&again);
        pali_result_close(&hot);
        pali_dialog_close(d);
        pali_engine_close(e);
    }
    for (int t = 0; t < 2; t++) {
        double off = fabs(scores[0][t].sum - scores[1][t].sum) / scores[0][t].tokens;
        print_message("# \"%s\": %.1e a token\n", texts[t], off);
        assert_int_equal(scores[0][t].tokens, scores[1][t].tokens);
        assert_true(off < 0.1);
    }
    pali_image_close(&image);
}

static void plugin_gives_way_when_the_card_is_too_small(void **unused) {
    (void)unused;
    pali_engine_info info;
    pali_engine *e;
    settings()->memory = (size_t)64 << 20;
    e = open_engine("auto", &info);
    assert_string_equal(info.backend, "cpu");
    assert_non_null(info.fallback);
    assert_true(info.card);
    assert_non_null(strstr(info.fallback, "the graphics card has 64 MB free of 64 MB"));
    pali_engine_close(e);
    pali_engine_options o = {.model_dir = "assets/demo", .backend = "cuda"};
    pali_error why = {0};
    assert_int_equal(pali_engine_open(&o, NULL, &e, &why), PALI_ENOMEM);
    assert_null(e);
    reset();
}

/* What the program beside the plugin says with so many megabytes on the card, on standard
 * error (errors) or output; its exit status goes to *status. */
static char *run_program(bool errors, const char *megabytes, const char *arguments, int *status) {
    static char out[8192], command[8192];
    snprintf(command, sizeof command, "PALI_EMU_MEMORY=%s ASAN_OPTIONS=detect_leaks=0 '%s' %s %s",
             megabytes, beside("pali"), arguments, errors ? "2>&1 >/dev/null" : "2>/dev/null");
    FILE *f = popen(command, "r");
    assert_non_null(f);
    out[fread(out, 1, sizeof out - 1, f)] = '\0';
    *status = pclose(f);
    return out;
}

/* One line where there is a card that cannot be used; none where all is well or the user
 * chose; a failure where the card was asked for. */
static void plugin_says_once_that_the_card_is_not_used(void **unused) {
    (void)unused;
    int status;
    char *said = run_program(true, "64", "-m assets/demo assets/demo/demo.png -p 'caption en' -n 1",
                             &status);
    assert_int_equal(status, 0);
    char *line = strstr(said, "not using the graphics card: the graphics card has 64 MB free");
    assert_non_null(line);
    assert_null(strstr(line + 20, "not using"));
    assert_string_equal(run_program(true, "2048",
                                    "-m assets/demo assets/demo/demo.png -p 'caption en' -n 1",
                                    &status),
                        "");
    assert_int_equal(status, 0);
    assert_string_equal(
        run_program(true, "64", "-m assets/demo assets/demo/demo.png -p 'caption en' -n 1 -b cpu",
                    &status),
        "");
    assert_int_equal(status, 0);
    said = run_program(true, "64",
                       "-m assets/demo assets/demo/demo.png -p 'caption en' -n 1 -b cuda", &status);
    assert_int_equal(status, 1 << 8);
    assert_ptr_equal(strstr(said, "pali: the graphics card has 64 MB free"), said);
}

/* The first way that fits is named, and it does fit. */
static void plugin_names_a_remedy_that_fits(void **unused) {
    (void)unused;
    static const char ask[] = "-m assets/demo assets/demo/demo.png -p 'caption en' -n 1 -b cuda";
    char arguments[160], again[200], memory[16];
    int status, context, need;
    snprintf(arguments, sizeof arguments, "%s -q none", ask);
    char *said = run_program(true, "66", arguments, &status);
    assert_non_null(strstr(said, "close what else uses the card, or use the CPU"));
    char *needs = strstr(said, "the model needs ");
    assert_non_null(needs);
    assert_int_equal(sscanf(needs, "the model needs %d MB", &need), 1);
    snprintf(memory, sizeof memory, "%d", need - 1);
    said = run_program(true, memory, arguments, &status);
    assert_int_equal(status, 1 << 8);
    char *advice = strstr(said, "\n      use --context ");
    assert_non_null(advice);
    assert_int_equal(sscanf(advice, " use --context %d, which needs ", &context), 1);
    snprintf(again, sizeof again, "%s --context %d", arguments, context);
    assert_string_equal(run_program(true, memory, again, &status), "");
    assert_int_equal(status, 0);
    snprintf(again, sizeof again, "%s --context %d", arguments, context + 64);
    run_program(true, memory, again, &status);
    assert_int_equal(status, 1 << 8);
}

/* What `pali doctor` says of cards: a good one, one too old. The emulated plugin's settings
 * go by environment there. */
static void plugin_is_examined_by_the_doctor(void **unused) {
    (void)unused;
    int status;
    char *said = run_program(false, "1024", "doctor -m assets/demo", &status);
    assert_int_equal(status, 0);
    static const char *const parts[] = {
        "\ndriver      speaks CUDA 13.0, the plugin needs 13.0\n",
        "\ncard 0      emulated device, compute capability 9.0, 1.0 GB free of 1.0 GB\n",
        "\ncuBLASLt    found\n",
        "\nused        cuda, card 0\n",
        "cuda, as stored",
        "cuda, int8",
        "cuda, nf4",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(said, parts[i]))
            fail_msg("no \"%s\" in\n%s", parts[i], said);
    said = run_program(false, "64", "doctor -b cuda -m assets/demo", &status);
    assert_int_equal(status, 0);
    assert_non_null(strstr(said, "64.0 MB free of 64.0 MB"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugin_refuses_other_files),
        cmocka_unit_test(plugin_is_found_beside_the_program),
        cmocka_unit_test(plugin_answers_as_the_cpu_does),
        cmocka_unit_test(plugin_reuses_what_is_on_the_card),
        cmocka_unit_test(plugin_gives_way_when_the_card_is_too_small),
        cmocka_unit_test(plugin_says_once_that_the_card_is_not_used),
        cmocka_unit_test(plugin_names_a_remedy_that_fits),
        cmocka_unit_test(plugin_is_examined_by_the_doctor),
    };
    return cmocka_run_group_tests_name("plugin", tests, setup, NULL);
}
