/* verbs.c - the table; see verbs.h. */
#include "app/verbs.h"

#include "app/bench.h"
#include "app/configure.h"
#include "app/convert.h"
#include "app/doctor.h"
#include "app/interactive.h"
#include "app/models.h"
#include "app/rank.h"
#include "app/spelling.h"
#include "app/task.h"

#include <string.h>

#define ABOUT_IMAGES                                                                               \
    "IMAGE is a file, a folder of pictures, or - for standard input. The answer about one\n"       \
    "file is printed as it comes; else each picture gives one line: its name, a tab, the\n"        \
    "answer, with line ends written as \\n.\n"

#define ABOUT_OBJECTS                                                                              \
    "IMAGE is a file, a folder of pictures, or - for standard input. Each object found is a\n"     \
    "line: x0,y0 x1,y1 in pixels, a tab, its name; of several pictures the picture's name and\n"   \
    "a tab come first.\n"

/* In the order of --help. */
static const app_verb table[] = {
    {
        .name = "caption",
        .args = "IMAGE...",
        .help = "say in a few words what a picture shows",
        .takes = APP_TAKES_TASK | APP_TAKES_LANG,
        .needs_model = true,
        .max_words = APP_ANY_NUMBER,
        .has_images = true,
        .about = ABOUT_IMAGES,
        .run = app_task_run,
    },
    {
        .name = "describe",
        .args = "IMAGE...",
        .help = "say it at more length",
        .takes = APP_TAKES_TASK | APP_TAKES_LANG,
        .needs_model = true,
        .max_words = APP_ANY_NUMBER,
        .has_images = true,
        .about = ABOUT_IMAGES,
        .run = app_task_run,
    },
    {
        .name = "ocr",
        .args = "IMAGE...",
        .help = "read the text in a picture",
        .takes = APP_TAKES_TASK | APP_TAKES_TILE,
        .needs_model = true,
        .max_words = APP_ANY_NUMBER,
        .has_images = true,
        .about = ABOUT_IMAGES,
        .run = app_task_run,
    },
    {
        .name = "ask",
        .args = "QUESTION IMAGE...",
        .help = "answer a question",
        .about = "The question goes to the model as it is typed; with --lang in the form that the "
                 "models\n"
                 "were trained on first, \"answer LANG QUESTION\".\n" ABOUT_IMAGES,
        .takes = APP_TAKES_TASK | APP_TAKES_LANG,
        .needs_model = true,
        .min_words = 1,
        .max_words = APP_ANY_NUMBER,
        .texts = 1,
        .has_images = true,
        .run = app_task_run,
    },
    {
        .name = "detect",
        .args = "\"A ; B\" IMAGE...",
        .help = "find the boxes of things",
        .takes = APP_TAKES_TASK,
        .needs_model = true,
        .min_words = 1,
        .max_words = APP_ANY_NUMBER,
        .texts = 1,
        .has_images = true,
        .about = ABOUT_OBJECTS,
        .run = app_task_run,
    },
    {
        .name = "segment",
        .args = "\"A ; B\" IMAGE...",
        .help = "find the outlines of things",
        .takes = APP_TAKES_TASK,
        .needs_model = true,
        .min_words = 1,
        .max_words = APP_ANY_NUMBER,
        .texts = 1,
        .has_images = true,
        .about = ABOUT_OBJECTS,
        .run = app_task_run,
    },
    {
        .name = "rank",
        .args = "[TEXT] IMAGE...",
        .help = "which of some texts fits, or which picture",
        .about =
            "  pali rank --text \"a cat\" --text \"a dog\" IMAGE...   the texts, for each picture\n"
            "  pali rank \"a cat on a chair\" IMAGE...              the pictures, for the text\n"
            "\n"
            "Best first, with the mean log-probability of the text's tokens as the answer to\n"
            "\"caption en\" (--prompt for another). --json has the sum and the share too.\n",
        .takes = APP_TAKES_MODEL | APP_TAKES_RANK | APP_TAKES_JSON,
        .needs_model = true,
        .max_words = APP_ANY_NUMBER,
        .run = app_rank_run,
    },
    {
        .name = "chats",
        .args = "",
        .help = "list the chats that were kept",
        .about = "The newest first: the id that `pali --resume` takes, how many turns, the first "
                 "question.\n",
        .run = app_interactive_list,
    },
    {
        .name = "doctor",
        .args = "",
        .help = "what this machine has, and what pali would use of it",
        .about =
            "Tells of processor, memory, graphics cards, driver and terminal, and why a card is\n"
            "not used. With -m, PALI_MODEL or --demo also what the model needs, and whether it "
            "fits.\n",
        .takes = APP_TAKES_MODEL | APP_TAKES_JSON,
        .run = app_doctor_run,
    },
    {
        .name = "config",
        .args = "",
        .help = "show the settings, and where each comes from",
        .about =
            "In the form of the config file, pali/config in XDG_CONFIG_HOME or ~/.config (or the "
            "file\n"
            "that PALI_CONFIG names): `name = value`, a line each, with the long names of "
            "options.\n"
            "An option beats the environment, which beats the file, which beats the default.\n",
        .takes = APP_TAKES_MODEL | APP_TAKES_ASKING | APP_TAKES_ANSWER | APP_TAKES_CHAT |
                 APP_TAKES_LANG | APP_TAKES_TILE,
        .lists_settings = true,
        .run = app_configure_list,
    },
    {
        .name = "bench",
        .args = "",
        .help = "measure how fast a model runs here, and how far that is from the limit",
        .about =
            "Measures the model of -m, PALI_MODEL or --demo, else a random PaliGemma 3B made in\n"
            "memory (7 GB), in every precision, or in that of -q and --math; takes two minutes.\n"
            "Leave the machine alone.\n",
        .takes = APP_TAKES_MODEL | APP_TAKES_JSON,
        .run = app_bench_run,
    },
    {
        .name = "pull",
        .args = "ID[@REV]",
        .help = "bring a model from the Hugging Face hub",
        .about =
            "Into the cache that the hub's own tools use; the folder is printed. A download "
            "that\n"
            "was interrupted goes on. Gated models need their licence accepted on their page and\n"
            "a token: HF_TOKEN, or the file that `hf auth login` writes.\n",
        .takes = APP_TAKES_REVISION,
        .min_words = 1,
        .max_words = 1,
        .run = app_models_pull,
    },
    {
        .name = "models",
        .args = "",
        .help = "list the models that are here",
        .about = "Those in the cache of the Hugging Face hub: id, revision, size, precision, "
                 "generation,\n"
                 "image size, and whether they are complete.\n",
        .takes = APP_TAKES_JSON,
        .run = app_models_list,
    },
    {
        .name = "rm",
        .args = "ID[@REV]",
        .help = "remove a model that is here",
        .about = "From the cache of the Hugging Face hub: all of it, or one revision and the "
                 "files that no\n"
                 "other revision has.\n",
        .takes = APP_TAKES_REVISION | APP_TAKES_YES,
        .min_words = 1,
        .max_words = 1,
        .run = app_models_remove,
    },
    {
        .name = "convert",
        .args = "SRC DST",
        .help = "write a model as a folder like those of the hub",
        .about =
            "SRC is a folder, an id on the hub that was pulled, or an .npz of JAX's. DST is\n"
            "made; it gets config.json, model.safetensors and the small files beside SRC.\n"
            "With -q int8 or nf4 the decoder's weights are quantised (with --quantize-modules\n"
            "all the encoder's too); such a folder opens without that work.\n",
        .takes = APP_TAKES_QUANT,
        .min_words = 2,
        .max_words = 2,
        .run = app_convert_run,
    },
};
enum {
    ROWS = sizeof table / sizeof *table
};

const app_verb *app_verb_at(size_t i) {
    return i < ROWS ? &table[i] : NULL;
}

const app_verb *app_verb_find(const char *name) {
    for (size_t i = 0; i < ROWS; i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

const char *app_verb_meant(const char *word) {
    static const char *const options[] = {"--help", "--version", "--demo"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (!strcmp(word, options[i] + 2))
            return options[i];
    if (strpbrk(word, "./")) /* meant as a file */
        return NULL;
    /* One letter of a short word, two of a long one. */
    int least = strlen(word) < 5 ? 2 : 3;
    const char *best = NULL;
    for (size_t i = 0; i < ROWS; i++) {
        int far = app_spelling_distance(word, table[i].name);
        if (far < least) {
            least = far;
            best = table[i].name;
        }
    }
    return best;
}
