/* options.c - one table of options for getopt_long, --help and the config file; see options.h. */
#include "app/options.h"

#include "app/frames.h"
#include "app/spelling.h"
#include "ui/term.h"

#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OPT_DEMO = 256, /* beyond every short option */
    OPT_JSON,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_SEED,
    OPT_THREADS,
    OPT_MATH,
    OPT_HISTORY,
    OPT_DUMP,
    OPT_CONTEXT,
    OPT_HEAD,
    OPT_GRAPHICS,
    OPT_THEME,
    OPT_RESUME,
    OPT_NO_SAVE,
    OPT_KEYS,
    OPT_LANG,
    OPT_FILES_FROM,
    OPT_TILE,
    OPT_REVISION,
    OPT_YES,
    OPT_VERSION,
    OPT_LOGPROBS,
    OPT_FRAMES,
    OPT_TEXT,
    OPT_TEXTS,
    OPT_MASK_WEIGHTS,
    OPT_FORMAT,
    OPT_OVERLAY,
    OPT_MASK_DIR,
    OPT_CROP_DIR,
    OPT_CACHE_IMAGES,
    OPT_QUANT_MODULES,
};

/* Beside the groups of an option: the config file may set it, by its long name. */
enum {
    IN_FILE = 1 << 30
};

/* In the order of --help; without a code: a heading. Defaults stand in parentheses. Of two rows with
 * one code the first says whether it has a value. */
static const struct {
    int code; /* the short option, or one of the above */
    const char *name, *value, *text;
    unsigned group; /* verbs that take one of these groups take the option; 0: every verb does */
} table[] = {
    {0, "Model", NULL, NULL, 0},
    {'m', "model", "DIR",
     "directory of a downloaded model, or its hub id when it is\n"
     "in the local hub cache (PALI_MODEL)",
     APP_TAKES_MODEL | IN_FILE},
    {OPT_DEMO, "demo", NULL,
     "the bundled miniature model; without IMAGE its own picture,\n"
     "and then without -p a few prompts about it",
     APP_TAKES_MODEL},
    {'b', "backend", "NAME", "auto, cpu or cuda (auto)", APP_TAKES_MODEL | IN_FILE},
    {OPT_HEAD, "head", "KIND",
     "the matrix that chooses the next token: stored, or int8:\n"
     "fewer bytes to read, less exact (stored)",
     APP_TAKES_MODEL | IN_FILE},
    {OPT_CONTEXT, "context", "N",
     "room for N tokens of picture, question and answer; 0 is the\n"
     "picture and 1024 more (0)",
     APP_TAKES_MODEL | IN_FILE},
    {OPT_THREADS, "threads", "N", "processor threads; 0 is one a core (0)",
     APP_TAKES_MODEL | IN_FILE},
    {'q', "quantize", "KIND",
     "the decoder's weights in fewer bits: none, int8, nf4, or\n"
     "auto, which takes the first of these that fits the free\n"
     "memory (auto)",
     APP_TAKES_MODEL | APP_TAKES_QUANT | IN_FILE},
    {OPT_QUANT_MODULES, "quantize-modules", "KIND",
     "what -q is for: decoder, or all: the image encoder and\n"
     "the projector too, as transformers does (decoder)",
     APP_TAKES_MODEL | APP_TAKES_QUANT | IN_FILE},
    {OPT_MATH, "math", "KIND",
     "products of the picture and the prompt on the processor:\n"
     "bf16 is 2 to 3 times as fast with AMX or AMD's AVX-512,\n"
     "f32 is exact; auto is bf16 for large models (auto)",
     APP_TAKES_MODEL | IN_FILE},
    {OPT_MASK_WEIGHTS, "mask-weights", "FILE",
     "vae-oid.npz, which draws the masks of segment\n"
     "(beside the model; PALI_MASK_WEIGHTS)",
     APP_TAKES_ANSWER | IN_FILE},

    {0, "Asking", NULL, NULL, 0},
    {'p', "prompt", "TEXT", "what to ask; repeated: the next turns of one chat",
     APP_TAKES_ASKING | APP_TAKES_RANK},
    {OPT_HISTORY, "history", "HOW",
     "earlier turns shown to the model: none, auto (before\n"
     "free-text questions) or the last N (auto)",
     APP_TAKES_ASKING | IN_FILE},
    {OPT_FRAMES, "frames", "N",
     "ask about N pictures of each animated GIF or video (videos\n"
     "need ffmpeg), with -p",
     APP_TAKES_ASKING},
    {OPT_CACHE_IMAGES, "cache-images", NULL,
     "keep what the encoder makes of each picture, so that the\n"
     "same picture is not encoded again by the next pali: up to\n"
     "1 GB in ~/.cache/pali/embeddings, for you alone to read (no)",
     APP_TAKES_ANSWER | APP_TAKES_RANK | IN_FILE},
    {'n', "max-tokens", "N", "longest answer, in tokens (256)", APP_TAKES_ANSWER | IN_FILE},

    {0, "Ranking", NULL, NULL, 0},
    {OPT_TEXT, "text", "TEXT", "a text to rank; repeated: the others", APP_TAKES_RANK},
    {OPT_TEXTS, "texts", "FILE", "more of them, one a line; - is standard input", APP_TAKES_RANK},

    {0, "Choosing words", NULL, NULL, 0},
    {'t', "temperature", "X", "0 always takes the likeliest (0)", APP_TAKES_ANSWER | IN_FILE},
    {OPT_TOP_K, "top-k", "N", "only the N likeliest; 0 is off (0)", APP_TAKES_ANSWER | IN_FILE},
    {OPT_TOP_P, "top-p", "X", "only the likeliest that hold this share; 1 is off (1)",
     APP_TAKES_ANSWER | IN_FILE},
    {OPT_SEED, "seed", "N", "of the random numbers (0)", APP_TAKES_ANSWER | IN_FILE},

    {0, "Terminal chat (without -p)", NULL, NULL, 0},
    {OPT_GRAPHICS, "graphics", "KIND", "auto, kitty, iterm2, sixel, symbols, ascii or none (auto)",
     APP_TAKES_CHAT | IN_FILE},
    {OPT_THEME, "theme", "NAME", "dark, light or none (by the terminal; none with NO_COLOR)",
     APP_TAKES_CHAT | IN_FILE},
    {OPT_KEYS, "keys", "LIST",
     "which function key does what; those not named keep theirs\n"
     "(help=F1,picture=F2,boxes=F3,tokens=F4,copy=F5,zoom=F6)",
     APP_TAKES_CHAT | IN_FILE},
    {OPT_RESUME, "resume", "[=ID]",
     "go on with a kept chat: the newest, or this one; with its\n"
     "model and picture, where no others are named",
     APP_TAKES_CHAT},
    {OPT_NO_SAVE, "no-save", NULL, "keep neither chat nor input history", APP_TAKES_CHAT | IN_FILE},

    {0, "Tasks", NULL, NULL, 0},
    {OPT_LANG, "lang", "CODE", "language of the answer, such as de or zh (en)",
     APP_TAKES_LANG | IN_FILE},
    {OPT_TILE, "tile", "HOW",
     "read a large picture in parts that overlap, and join their\n"
     "texts: auto, none, or CxR such as 3x2 (auto)",
     APP_TAKES_TILE | IN_FILE},

    {0, "Many pictures", NULL, NULL, 0},
    {OPT_FILES_FROM, "files-from", "LIST",
     "more pictures: a file that names one a line, or ends each\n"
     "name with a NUL byte; - is standard input",
     APP_TAKES_MANY},
    {'o', "output", "FILE", "write the results to FILE, which must be new or empty",
     APP_TAKES_MANY},
    {OPT_RESUME, "resume", NULL, "with -o: keep what FILE holds and skip its pictures",
     APP_TAKES_MANY},

    {0, "Models", NULL, NULL, 0},
    {OPT_REVISION, "revision", "REV", "branch, tag or commit on the hub (main)",
     APP_TAKES_REVISION},
    {OPT_YES, "yes", NULL, "do it without asking", APP_TAKES_YES},

    {0, "Output", NULL, NULL, 0},
    {OPT_JSON, "json", NULL, "one JSON object a turn or picture, one a line", APP_TAKES_JSON},
    {OPT_LOGPROBS, "logprobs", NULL, "the probability of every token too", APP_TAKES_ANSWER},
    {OPT_FORMAT, "format", "KIND",
     "text, jsonl (as --json), coco (one document with all the\n"
     "boxes and masks) or yolo (boxes; a file a picture) (text)",
     APP_TAKES_FILES},
    {OPT_OVERLAY, "overlay", "FILE",
     "the picture with boxes, masks and labels drawn on it, as\n"
     "PNG; of several pictures: a folder",
     APP_TAKES_FILES},
    {OPT_MASK_DIR, "mask-dir", "DIR", "the masks, one PNG each, 0 to 255", APP_TAKES_FILES},
    {OPT_CROP_DIR, "crop-dir", "DIR", "the parts of the picture in the boxes, one PNG each",
     APP_TAKES_FILES},
    {OPT_DUMP, "dump", "DIR", "write the tensors of each turn to DIR as .npy", APP_TAKES_ASKING},
    {'v', "verbose", NULL, "model, backend and timings on standard error", 0},
    {OPT_VERSION, "version", NULL, "print the version", 0},
    {'h', "help", NULL, "print this", 0},
};
enum {
    ROWS = sizeof table / sizeof *table
};

/* The same option in other words, for the help of verbs that make something else of it. */
static const struct {
    int code;
    const char *verbs; /* separated by spaces */
    const char *text;
} wordings[] = {
    {OPT_DEMO, "caption describe ocr ask detect segment rank",
     "the bundled miniature model; without IMAGE its own picture"},
    {OPT_DEMO, "doctor config bench", "the bundled miniature model"},
    {'q', "convert", "the decoder's weights in fewer bits: none, int8 or nf4\n(none)"},
    {'q', "bench", "only this precision: none, int8 or nf4; auto is all of\nthem (auto)"},
    {OPT_MATH, "bench",
     "only f32 or only bf16, for the picture and the prompt on\nthe processor; auto is both "
     "(auto)"},
    {'p', "rank", "the prompt that the texts are answers to (caption en)"},
    {OPT_LANG, "ask", "put \"answer CODE\" in front of the question"},
    {OPT_JSON, "caption describe ocr ask detect segment", "one JSON object a picture, one a line"},
    {OPT_JSON, "rank", "one JSON object a picture, or one for the text"},
    {OPT_JSON, "doctor bench", "one JSON object"},
    {OPT_JSON, "models", "one JSON object a model, one a line"},
    {'v', "chats doctor config bench pull rm convert", "say more, where there is more to say"},
    {'v', "models", "tell of models that pali does not run, too"},
};

/* What a command line without a verb takes. */
enum {
    WITHOUT_VERB = APP_TAKES_MODEL | APP_TAKES_ASKING | APP_TAKES_ANSWER | APP_TAKES_CHAT |
                   APP_TAKES_JSON | APP_TAKES_FILES
};

/* The groups of a row. */
static unsigned groups(size_t row) {
    return table[row].group & ~(unsigned)IN_FILE;
}

/* --- help -------------------------------------------------------------------------- */

static const char help_head[] =
    "usage: pali [options] [IMAGE...]\n"
    "       pali VERB [options] ...\n"
    "\n"
    "Chats about IMAGE with a PaliGemma model: a PNG, JPEG, WebP, GIF, BMP, PNM, TGA, PSD or HDR\n"
    "file (HEIC and AVIF where libheif is there), or - for standard input. With -p, answers go to\n"
    "standard output and everything else to standard error; without -p and without a terminal,\n"
    "questions are read from standard input, one a line.\n"
    "\n"
    "Verbs; pali VERB --help tells more\n";

static const char help_tail[] =
    "\n"
    "Exit status: 0 answered, 1 failed, 2 wrong usage, 130 stopped by a signal.\n"
    "\n"
    "  pali --demo\n"
    "  pali -m google/paligemma2-3b-mix-224 photo.jpg\n"
    "  pali -m google/paligemma2-3b-mix-224 photo.jpg -p \"caption en\"\n";

/* Whether word is one of the words of list. */
static bool is_one_of(const char *word, const char *list) {
    size_t n = strlen(word);
    for (; list; list = strchr(list, ' ')) {
        list += *list == ' ';
        if (!strncmp(list, word, n) && (list[n] == ' ' || !list[n]))
            return true;
    }
    return false;
}

/* What the row says to who asks about this verb (NULL: about none). */
static const char *wording(size_t row, const app_verb *verb) {
    for (size_t i = 0; verb && i < sizeof wordings / sizeof *wordings; i++)
        if (wordings[i].code == table[row].code && is_one_of(verb->name, wordings[i].verbs))
            return wordings[i].text;
    return table[row].text;
}

/* Whether the help of this verb (NULL: of none) has the row. */
static bool is_told(size_t row, const app_verb *verb) {
    if (verb && verb->lists_settings && groups(row) && !(table[row].group & IN_FILE))
        return false; /* taken, so that a command line may be asked about, but it is no setting */
    return !verb || !groups(row) || groups(row) & verb->takes;
}

/* The options that a verb takes (NULL: all), under their headings. */
static void help_options(FILE *f, const app_verb *verb) {
    const char *heading = NULL;
    for (size_t i = 0; i < ROWS; i++) {
        if (!table[i].code)
            heading = table[i].name;
        if (!table[i].code || !is_told(i, verb))
            continue;
        if (heading)
            fprintf(f, "\n%s\n", heading);
        heading = NULL;
        char left[32], mark[8] = "    ";
        if (table[i].code < 256)
            snprintf(mark, sizeof mark, "-%c, ", table[i].code);
        snprintf(left, sizeof left, "%s--%s%s%s", mark, table[i].name,
                 table[i].value && *table[i].value != '[' ? " " : "",
                 table[i].value ? table[i].value : "");
        const char *text = wording(i, verb);
        for (const char *line = text; line; line = strchr(line, '\n')) {
            line += *line == '\n';
            fprintf(f, "  %-21s  %.*s\n", line == text ? left : "", (int)strcspn(line, "\n"), line);
        }
    }
}

char *app_options_help(const app_verb *verb) {
    char *out = NULL;
    size_t n;
    FILE *f = open_memstream(&out, &n);
    if (!f)
        return NULL;
    if (verb) {
        fprintf(f, "usage: pali %s [options]%s%s\n\n%s\n", verb->name, *verb->args ? " " : "",
                verb->args, verb->help);
        if (verb->about)
            fprintf(f, "\n%s", verb->about);
        help_options(f, verb);
    } else {
        fputs(help_head, f);
        const app_verb *v;
        for (size_t i = 0; (v = app_verb_at(i)); i++) {
            char left[64];
            snprintf(left, sizeof left, "%s %s", v->name, v->args);
            fprintf(f, "  %-24s  %s\n", left, v->help);
        }
        help_options(f, NULL);
        fputs(help_tail, f);
    }
    if (fclose(f)) {
        free(out);
        return NULL;
    }
    return out;
}

/* --- values ------------------------------------------------------------------------ */

static int bad_value(const char *name, const char *value, const char *want, pali_error *err) {
    return pali_fail(err, PALI_EARG, NULL, "%s wants %s, not \"%.80s\"", name, want, value);
}

/* Digits only: no sign, no space, no trailing text. */
static int parse_count(const char *name, const char *s, uint64_t min, uint64_t max,
                       const char *want, uint64_t *out, pali_error *err) {
    uint64_t v = 0;
    bool fits = *s != '\0';
    for (const char *c = s; *c && fits; c++)
        fits = *c >= '0' && *c <= '9' && !__builtin_mul_overflow(v, 10, &v) &&
               !__builtin_add_overflow(v, (uint64_t)(*c - '0'), &v);
    if (!fits || v < min || v > max)
        return bad_value(name, s, want, err);
    *out = v;
    return 0;
}

static int parse_int(const char *name, const char *s, int min, int max, const char *want, int *out,
                     pali_error *err) {
    uint64_t v = 0;
    int rc = parse_count(name, s, (uint64_t)min, (uint64_t)max, want, &v, err);
    if (!rc)
        *out = (int)v;
    return rc;
}

/* A plain decimal number with a point, whatever the locale; no nan, inf or hex. */
static int parse_real(const char *name, const char *s, float max, const char *want, float *out,
                      pali_error *err) {
    if (!*s || s[strspn(s, "0123456789.eE+-")])
        return bad_value(name, s, want, err);
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return pali_fail_nomem(err, "reading the options");
    char *end;
    float v = strtof_l(s, &end, c);
    freelocale(c);
    if (*end || !(v >= 0 && v <= max))
        return bad_value(name, s, want, err);
    *out = v;
    return 0;
}

static int parse_top_p(const char *s, float *out, pali_error *err) {
    static const char want[] = "a number above 0, at most 1";
    int rc = parse_real("--top-p", s, 1, want, out, err);
    return rc || *out > 0 ? rc : bad_value("--top-p", s, want, err);
}

static int parse_backend(const char *s, const char **out, pali_error *err) {
    if (strcmp(s, "auto") && strcmp(s, "cpu") && strcmp(s, "cuda"))
        return bad_value("--backend", s, "auto, cpu or cuda", err);
    *out = s;
    return 0;
}

static int parse_math(const char *s, pali_math *out, pali_error *err) {
    static const char *const names[] = {"auto", "f32", "bf16"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(s, names[i])) {
            *out = (pali_math)i;
            return 0;
        }
    return bad_value("--math", s, "auto, f32 or bf16", err);
}

static int parse_quant(const char *s, pali_quant *out, pali_error *err) {
    static const char *const names[] = {[PALI_QUANT_NONE] = "none",
                                        [PALI_QUANT_INT8] = "int8",
                                        [PALI_QUANT_NF4] = "nf4",
                                        [PALI_QUANT_AUTO] = "auto"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(s, names[i])) {
            *out = (pali_quant)i;
            return 0;
        }
    return bad_value("--quantize", s, "none, int8, nf4 or auto", err);
}

static int parse_format(const char *s, app_options *o, pali_error *err) {
    static const char *const names[] = {"text", "jsonl", "coco", "yolo"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(s, names[i])) {
            o->format = (app_format)i;
            o->json = o->format == APP_FORMAT_JSONL;
            return 0;
        }
    return bad_value("--format", s, "text, jsonl, coco or yolo", err);
}

static int parse_history(const char *s, int *out, pali_error *err) {
    if (!strcmp(s, "none"))
        *out = PALI_HISTORY_NONE;
    else if (!strcmp(s, "auto"))
        *out = PALI_HISTORY_AUTO;
    else
        return parse_int("--history", s, 1, 1000, "none, auto or a number from 1 to 1000", out,
                         err);
    return 0;
}

static int parse_graphics(const char *s, int *out, pali_error *err) {
    *out = ui_graphics_parse(s);
    return *out == -1 ? bad_value("--graphics", s,
                                  "auto, kitty, iterm2, sixel, symbols, ascii or none", err)
                      : 0;
}

static int parse_theme(const char *s, const char **out, pali_error *err) {
    if (strcmp(s, "dark") && strcmp(s, "light") && strcmp(s, "none"))
        return bad_value("--theme", s, "dark, light or none", err);
    *out = s;
    return 0;
}

static int parse_lang(const char *s, const char **out, pali_error *err) {
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz");
    if (s[n] || n < 2 || n > 3)
        return bad_value("--lang", s, "a code of two or three small letters, such as en", err);
    *out = s;
    return 0;
}

static int parse_word(const char *name, const char *s, const char **out, pali_error *err) {
    if (!*s)
        return pali_fail(err, PALI_EARG, NULL, "the value of %s is empty", name);
    *out = s;
    return 0;
}

/* As `pali chats` lists them: 20261130-081500-4711. */
static bool is_chat_id(const char *word) {
    static const char form[] = "dddddddd-dddddd-";
    for (size_t i = 0; form[i]; i++)
        if (form[i] == 'd' ? word[i] < '0' || word[i] > '9' : word[i] != form[i])
            return false;
    const char *process = word + sizeof form - 1;
    return *process && !process[strspn(process, "0123456789")];
}

/* The first word may be a verb, unless it stands behind "--". */
static void add_word(app_options *o, const char *word, bool may_be_verb) {
    if (may_be_verb && !o->verb && !o->nwords && (o->verb = app_verb_find(word)))
        return;
    o->words[o->nwords++] = word;
}

/* --- the whole line ------------------------------------------------------------------ */

/* word: what getopt stumbled over; option: what it took it for, 0 if for nothing. */
static int unknown_option(const char *word, int option, pali_error *err) {
    if (strncmp(word, "--", 2))
        return pali_fail(err, PALI_EARG, NULL, "unknown option -%c", option);
    return pali_fail(err, PALI_EARG, NULL, "%s %.80s",
                     option ? "no value belongs in" : "unknown option", word);
}

static int take(app_options *o, int option, const char *word, pali_error *err) {
    static const char million[] = "a number from 0 to 1000000";
    switch (option) {
    case 1: /* "--resume ID" is what a hand types, though getopt wants "--resume=ID" */
        if (o->resume && !o->verb && !o->resume_id && is_chat_id(optarg))
            o->resume_id = optarg;
        else
            add_word(o, optarg, true);
        return 0;
    case 'm':
        return parse_word("--model", optarg, &o->model, err);
    case OPT_DEMO:
        o->demo = true;
        return 0;
    case 'p':
        o->prompts[o->nprompts++] = optarg;
        return 0;
    case OPT_FRAMES:
        return parse_int("--frames", optarg, 1, APP_FRAMES_MAX, "a number from 1 to 64", &o->frames,
                         err);
    case OPT_CACHE_IMAGES:
        o->cache_images = true;
        return 0;
    case OPT_LOGPROBS:
        o->logprobs = true;
        return 0;
    case OPT_TEXT:
        o->texts[o->ntexts++] = optarg;
        return 0;
    case OPT_TEXTS:
        return parse_word("--texts", optarg, &o->texts_from, err);
    case OPT_JSON:
        o->json = true;
        o->format = APP_FORMAT_JSONL;
        return 0;
    case 'b':
        return parse_backend(optarg, &o->backend, err);
    case 'n':
        return parse_int("--max-tokens", optarg, 1, 1000000, "a number from 1 to 1000000",
                         &o->max_tokens, err);
    case 't':
        return parse_real("--temperature", optarg, 100, "a number from 0 to 100",
                          &o->sampling.temperature, err);
    case OPT_TOP_K:
        return parse_int("--top-k", optarg, 0, 1000000, million, &o->sampling.top_k, err);
    case OPT_TOP_P:
        return parse_top_p(optarg, &o->sampling.top_p, err);
    case OPT_SEED:
        return parse_count("--seed", optarg, 0, UINT64_MAX, "a whole number below 2^64",
                           &o->sampling.seed, err);
    case 'q':
        return parse_quant(optarg, &o->quant, err);
    case OPT_QUANT_MODULES:
        o->quant_all = !strcmp(optarg, "all");
        return o->quant_all || !strcmp(optarg, "decoder")
                   ? 0
                   : bad_value("--quantize-modules", optarg, "decoder or all", err);
    case OPT_MATH:
        return parse_math(optarg, &o->math, err);
    case OPT_HEAD:
        o->head8 = !strcmp(optarg, "int8");
        return o->head8 || !strcmp(optarg, "stored")
                   ? 0
                   : bad_value("--head", optarg, "stored or int8", err);
    case OPT_CONTEXT:
        return parse_int("--context", optarg, 0, 1 << 24, "a number from 0 to 16777216",
                         &o->context, err);
    case OPT_THREADS:
        return parse_int("--threads", optarg, 0, 1024, "a number from 0 to 1024", &o->threads, err);
    case OPT_FORMAT:
        return parse_format(optarg, o, err);
    case OPT_OVERLAY:
        return parse_word("--overlay", optarg, &o->overlay, err);
    case OPT_MASK_DIR:
        return parse_word("--mask-dir", optarg, &o->mask_dir, err);
    case OPT_CROP_DIR:
        return parse_word("--crop-dir", optarg, &o->crop_dir, err);
    case OPT_MASK_WEIGHTS:
        return parse_word("--mask-weights", optarg, &o->mask_weights, err);
    case OPT_HISTORY:
        return parse_history(optarg, &o->history, err);
    case OPT_GRAPHICS:
        return parse_graphics(optarg, &o->graphics, err);
    case OPT_THEME:
        return parse_theme(optarg, &o->theme, err);
    case OPT_RESUME:
        o->resume = true;
        return optarg ? parse_word("--resume", optarg, &o->resume_id, err) : 0;
    case OPT_LANG:
        return parse_lang(optarg, &o->lang, err);
    case OPT_TILE:
        return app_tiling_parse(optarg, &o->tile)
                   ? 0
                   : bad_value("--tile", optarg, "auto, none, or columns x rows such as 3x2", err);
    case OPT_FILES_FROM:
        return parse_word("--files-from", optarg, &o->files_from, err);
    case 'o':
        return parse_word("--output", optarg, &o->output, err);
    case OPT_KEYS:
        return app_keymap_parse(optarg, &o->keys, err);
    case OPT_NO_SAVE:
        o->no_save = true;
        return 0;
    case OPT_REVISION:
        return parse_word("--revision", optarg, &o->revision, err);
    case OPT_YES:
        o->yes = true;
        return 0;
    case OPT_DUMP:
        return parse_word("--dump", optarg, &o->dump, err);
    case 'v':
        o->verbose = true;
        return 0;
    case OPT_VERSION:
        o->version = true;
        return 0;
    case 'h':
        o->help = true;
        return 0;
    case ':':
        return pali_fail(err, PALI_EARG, NULL, "option %.80s needs a value", word);
    default:
        return unknown_option(word, optopt, err);
    }
}

/* The options given (by row) against what the verb takes. Two rows may be one option that means
 * different things in different groups. */
static int check_groups(const app_verb *verb, const bool given[ROWS], pali_error *err) {
    unsigned takes = verb ? verb->takes : WITHOUT_VERB;
    for (size_t i = 0; i < ROWS; i++) {
        bool taken = !given[i];
        for (size_t j = 0; j < ROWS && !taken; j++)
            taken = table[j].code == table[i].code && (!groups(j) || groups(j) & takes);
        if (!taken)
            return verb ? pali_fail(err, PALI_EARG, NULL, "%s takes no --%s", verb->name,
                                    table[i].name)
                        : pali_fail(err, PALI_EARG, NULL, "--%s goes with a verb", table[i].name);
    }
    return 0;
}

/* The words against what the verb wants; finds the pictures among them. */
static int settle_words(app_options *o, pali_error *err) {
    const app_verb *v = o->verb;
    if (v && v->max_words != APP_ANY_NUMBER && o->nwords > (size_t)v->max_words)
        return pali_fail(err, PALI_EARG, NULL, "%s: \"%.80s\" is one word too many", v->name,
                         o->words[v->max_words]);
    if (v && o->nwords < (size_t)v->min_words)
        return pali_fail(err, PALI_EARG, NULL, "%s wants %s", v->name, v->args);
    if (v && !v->has_images)
        return 0;
    size_t texts = v ? (size_t)v->texts : 0;
    o->images = o->words + texts;
    o->nimages = o->nwords - texts;
    size_t piped = 0;
    for (size_t i = 0; i < o->nimages; piped += !strcmp(o->images[i++], "-"))
        if (!*o->images[i])
            return pali_fail(err, PALI_EARG, NULL, "the name of the image is empty");
        else if (!strcmp(o->images[i], "-") && o->files_from && !strcmp(o->files_from, "-"))
            return pali_fail(err, PALI_EARG, NULL, "standard input is the list already");
        else if (!strcmp(o->images[i], "-") && isatty(STDIN_FILENO))
            return pali_fail(err, PALI_EARG, "pipe or redirect the picture into pali",
                             "the image is to come from standard input, but that is a terminal");
    if (piped > 1)
        return pali_fail(err, PALI_EARG, NULL, "one image can come from standard input, not %zu",
                         piped);
    return 0;
}

/* --- the config file and the environment ------------------------------------------------ */

static int unknown_key(app_settings *s, const app_setting *item, pali_error *err) {
    size_t best = ROWS;
    int least = 3;
    for (size_t i = 0; i < ROWS; i++)
        if (table[i].code && table[i].group & IN_FILE &&
            app_spelling_distance(item->key, table[i].name) < least) {
            least = app_spelling_distance(item->key, table[i].name);
            best = i;
        }
    return best < ROWS ? app_settings_blame(s, item->line, err, "there is no key %.60s; is it %s?",
                                            item->key, table[best].name)
                       : app_settings_blame(s, item->line, err, "there is no key %.60s", item->key);
}

/* Takes the value of a line as that of the option; into *o unless it was given already. */
static int take_setting(app_options *o, const app_setting *item, size_t row, bool given,
                        pali_error *err) {
    app_options with = *o;
    pali_error wrong = {0};
    bool flag = !table[row].value, on = !strcmp(item->value, "yes") || !strcmp(item->value, "true");
    if (flag && !on && strcmp(item->value, "no") && strcmp(item->value, "false"))
        return app_settings_blame(&o->settings, item->line, err,
                                  "%s wants yes or no, not \"%.80s\"", item->key, item->value);
    optarg = (char *)(uintptr_t)item->value;
    int rc = flag && !on ? 0 : take(&with, table[row].code, item->key, &wrong);
    if (rc) /* in the words of the option, without its dashes */
        return app_settings_blame(&o->settings, item->line, err, "%s",
                                  wrong.what + (strncmp(wrong.what, "--", 2) ? 0 : 2));
    if (given)
        return 0;
    *o = with;
    o->effective[row].value = item->value;
    o->effective[row].from = APP_FROM_FILE;
    o->effective[row].line = item->line;
    return 0;
}

static int read_settings(app_options *o, const bool given[ROWS], pali_error *err) {
    char *path;
    const char *named = getenv("PALI_CONFIG");
    int rc = app_settings_path(named, getenv("XDG_CONFIG_HOME"), getenv("HOME"), &path, err);
    if (!rc)
        rc = app_settings_read(path, named != NULL, &o->settings, err);
    free(path);
    for (size_t k = 0; k < o->settings.n && !rc; k++) {
        const app_setting *item = &o->settings.items[k];
        size_t row = 0;
        while (row < ROWS && !(table[row].code && table[row].group & IN_FILE &&
                               !strcmp(table[row].name, item->key)))
            row++;
        rc = row == ROWS ? unknown_key(&o->settings, item, err)
                         : take_setting(o, item, row, given[row], err);
    }
    if (!rc && o->settings.problems && !(o->verb && o->verb->lists_settings))
        rc = pali_fail(err, PALI_EARG, "`pali config` shows what is understood",
                       "the config file has mistakes");
    return rc;
}

/* The last thing in parentheses of its text. */
static void describe_default(size_t row, app_effective *e) {
    const char *open = strrchr(table[row].text, '('), *close = open ? strchr(open, ')') : NULL;
    if (close && !close[1])
        snprintf(e->initially, sizeof e->initially, "%.*s", (int)(close - open - 1), open + 1);
    else if (!table[row].value)
        strcpy(e->initially, "no");
}

static void set_from_environment(app_options *o, int code, const char *variable,
                                 const char *value) {
    for (size_t i = 0; i < ROWS; i++)
        if (table[i].code == code) {
            o->effective[i].value = value;
            o->effective[i].from = APP_FROM_ENVIRONMENT;
            o->effective[i].variable = variable;
        }
}

static app_from came_from(const app_options *o, int code) {
    for (size_t i = 0; i < ROWS; i++)
        if (table[i].code == code)
            return o->effective[i].from;
    return APP_FROM_DEFAULT;
}

static int find_image_folder(app_options *o, pali_error *err) {
    const char *xdg = o->hub.xdg_cache, *home = o->hub.home;
    bool in_xdg = xdg && *xdg == '/'; /* as its specification says */
    if (!in_xdg && (!home || *home != '/'))
        return pali_fail(err, PALI_EARG, "set HOME or XDG_CACHE_HOME",
                         "there is no folder for --cache-images");
    if (asprintf(&o->image_folder, "%s%s/pali/embeddings", in_xdg ? xdg : home,
                 in_xdg ? "" : "/.cache") < 0) {
        o->image_folder = NULL;
        return pali_fail_nomem(err, "reading the options");
    }
    return 0;
}

/* What the options mean together. */
static int settle(app_options *o, pali_error *err) {
    if (settle_words(o, err))
        return PALI_EARG;
    if (o->demo && came_from(o, 'm') == APP_FROM_OPTION)
        return pali_fail(err, PALI_EARG, NULL, "--demo brings its own model: leave out --model");
    const char *model = getenv("PALI_MODEL");
    if (model && *model && came_from(o, 'm') < APP_FROM_ENVIRONMENT)
        set_from_environment(o, 'm', "PALI_MODEL", o->model = model);
    if (o->demo)
        o->model = NULL;
    const char *weights = getenv("PALI_MASK_WEIGHTS");
    if (weights && *weights && came_from(o, OPT_MASK_WEIGHTS) < APP_FROM_ENVIRONMENT)
        set_from_environment(o, OPT_MASK_WEIGHTS, "PALI_MASK_WEIGHTS", o->mask_weights = weights);
    bool needs_model = o->verb ? o->verb->needs_model : !o->resume; /* a kept chat has its own */
    if (needs_model && !o->demo && (!o->model || !*o->model))
        return pali_fail(err, PALI_EARG,
                         "--demo takes the bundled one, -m DIR-or-hub-id any PaliGemma, "
                         "PALI_MODEL sets a default",
                         "no model given");
    if (o->verb && o->verb->has_images && !o->nimages && !o->demo && !o->files_from)
        return pali_fail(err, PALI_EARG, NULL, "no image given");
    if (o->verb && o->resume && o->format > APP_FORMAT_JSONL)
        return pali_fail(err, PALI_EARG, "use --format jsonl",
                         "--resume goes on with lines, and this format is not made of them");
    if (o->verb && o->resume && (!o->output || o->resume_id))
        return pali_fail(err, PALI_EARG, NULL, "--resume goes on with the file of --output");
    if (!o->verb || !(o->verb->takes & APP_TAKES_TILE))
        o->tile = (app_tiling){.cols = 1, .rows = 1};
    const char *no_color = getenv("NO_COLOR");
    if (!o->theme && no_color && *no_color) /* a wish weaker than the file, says no-color.org */
        set_from_environment(o, OPT_THEME, "NO_COLOR", o->theme = "none");
    o->env.term = getenv("TERM");
    o->env.colorterm = getenv("COLORTERM");
    o->env.term_program = getenv("TERM_PROGRAM");
    o->env.tmux = getenv("TMUX");
    o->env.home = getenv("HOME");
    o->env.xdg_state = getenv("XDG_STATE_HOME");
    o->env.hf_endpoint = getenv("HF_ENDPOINT");
    o->env.hf_token = getenv("HF_TOKEN");
    o->env.hf_token_path = getenv("HF_TOKEN_PATH");
    o->env.hf_hub_offline = getenv("HF_HUB_OFFLINE");
    o->hub = (pali_hub_env){
        .hf_hub_cache = getenv("HF_HUB_CACHE"),
        .hf_home = getenv("HF_HOME"),
        .xdg_cache = getenv("XDG_CACHE_HOME"),
        .home = getenv("HOME"),
    };
    return o->cache_images ? find_image_folder(o, err) : 0;
}

/* The table in getopt's terms. The leading '-' hands out words in the order written, so
 * that options may stand before and after IMAGE whatever POSIXLY_CORRECT says. */
static void fill_getopt(struct option longs[ROWS + 1], char shorts[3 + 2 * ROWS]) {
    char *s = stpcpy(shorts, "-:");
    for (size_t i = 0; i < ROWS; i++) {
        if (!table[i].code)
            continue;
        int has = !table[i].value          ? no_argument
                  : *table[i].value == '[' ? optional_argument
                                           : required_argument;
        *longs++ = (struct option){table[i].name, has, NULL, table[i].code};
        if (table[i].code < 256)
            *s++ = (char)table[i].code;
        if (table[i].code < 256 && table[i].value)
            *s++ = ':';
    }
    *longs = (struct option){0};
    *s = '\0';
}

/* From all rows to those that the config file knows. */
static void keep_effective(app_options *o) {
    for (size_t i = 0; i < ROWS; i++)
        if (table[i].code && table[i].group & IN_FILE) {
            app_effective e = o->effective[i];
            e.name = table[i].name;
            describe_default(i, &e);
            o->effective[o->neffective++] = e;
        }
}

int app_options_parse(int argc, char **argv, app_options *out, pali_error *err) {
    *out = (app_options){
        .backend = "auto",
        .quant = PALI_QUANT_AUTO,
        .max_tokens = 256,
        .sampling = {.temperature = 0, .top_k = 0, .top_p = 1, .seed = 0},
        .history = PALI_HISTORY_AUTO,
        .graphics = -2,
        .keys = app_keymap_default(),
        .prompts = calloc((size_t)argc + 1, sizeof *out->prompts),
        .words = calloc((size_t)argc + 1, sizeof *out->words),
        .effective = calloc(ROWS, sizeof *out->effective),
        .texts = calloc((size_t)argc + 1, sizeof *out->texts),
    };
    if (!out->prompts || !out->effective || !out->words || !out->texts)
        return pali_fail_nomem(err, "reading the options");
    struct option longs[ROWS + 1];
    char shorts[3 + 2 * ROWS];
    fill_getopt(longs, shorts);
    bool given[ROWS] = {false};
    optind = 0; /* glibc: start afresh */
    opterr = 0;
    for (;;) {
        /* The word about to be read: inside "-vx" optind stays on it. */
        const char *word = argc > 1 && optind < argc ? argv[optind ? optind : 1] : "";
        int option = getopt_long(argc, argv, shorts, longs, NULL);
        if (option == -1)
            break;
        int rc = take(out, option, word, err);
        if (rc || out->help || out->version)
            return rc;
        for (size_t i = 0; i < ROWS; i++)
            if (table[i].code == option) {
                given[i] = true;
                out->effective[i].value = optarg ? optarg : "yes";
                out->effective[i].from = APP_FROM_OPTION;
            }
    }
    for (; optind < argc; optind++)
        add_word(out, argv[optind], false);
    int rc = check_groups(out->verb, given, err);
    if (!rc)
        rc = read_settings(out, given, err);
    /* The file's language is that of captions. A question is put as it was typed, unless the
     * command line asks for "answer LANG". */
    if (out->verb && !strcmp(out->verb->name, "ask") && came_from(out, OPT_LANG) == APP_FROM_FILE)
        out->lang = NULL;
    if (!rc)
        rc = settle(out, err);
    keep_effective(out);
    return rc;
}

void app_options_close(app_options *o) {
    free(o->prompts);
    free(o->words);
    free(o->texts);
    free(o->effective);
    free(o->image_folder);
    app_settings_close(&o->settings);
    o->prompts = o->words = o->texts = NULL;
    o->effective = NULL;
    o->image_folder = NULL;
}
