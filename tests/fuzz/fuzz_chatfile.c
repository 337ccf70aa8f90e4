/* fuzz_chatfile.c - a chat file of arbitrary bytes: it is read or refused, gone on with, and
 * what is added then is there when it is read again, behind all that was there before.    */
#include "app/chatfile.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ID "20260101-000000-1"

static char home[64], dir[128], path[192];

static void clean_up(void) {
    unlink(path);
    char p[192];
    static const char *const folders[] = {"/.local/state/pali/chats", "/.local/state/pali",
                                          "/.local/state", "/.local", ""};
    for (int i = 0; i < 5; i++) {
        snprintf(p, sizeof p, "%s%s", home, folders[i]);
        rmdir(p);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    strcpy(home, "/tmp/pali-fuzz-XXXXXX");
    if (!mkdtemp(home) || chatfile_state_dir(NULL, home, dir, sizeof dir, NULL))
        return -1;
    snprintf(path, sizeof path, "%s/chats/" ID ".jsonl", dir);
    return atexit(clean_up);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
    saved_chat c;
    size_t before = 0;
    if (chatfile_read(dir, ID, &c, NULL) == 0) {
        for (size_t i = 0; i < c.nturns; i++)
            if (!c.turns[i].question || !c.turns[i].answer)
                abort();
        before = c.nturns;
        saved_chat_close(&c);
    }
    chatfile *f;
    if (chatfile_resume(dir, ID, NULL, &f, NULL) ||
        chatfile_turn(f, &(chat_turn){"new", "one", "eos", 64, 48}, NULL))
        abort();
    chatfile_close(f);
    if (chatfile_read(dir, ID, &c, NULL) || c.nturns < 1 ||
        strcmp(c.turns[c.nturns - 1].question, "new"))
        abort();
    /* A last line without its end may have counted, or not; no other turn comes or goes. */
    if (c.nturns != before + 1)
        abort();
    saved_chat_close(&c);
    return 0;
}
