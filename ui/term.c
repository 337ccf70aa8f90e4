/* term.c - bringing the terminal up, asking it what it is, and always putting it back.
 *
 * Two ways out. In order: ui_term_close, through curses. Not in order: a crash handler that
 * may call nothing but write, tcsetattr and raise, so what it writes is one fixed string. It
 * then hands the signal to whoever handled it before (by default, death and a core file).     */
#include "ui/term.h"

#include "ui/keys.h"
#include "ui/text.h"

#include <ncurses.h>
#include <term.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* term.h's short names for capabilities stand in the way. */
#undef lines
#undef columns
#undef newline

/* Synchronized output, attributes, paste, mouse, cursor keys, scroll region, cursor, kitty
 * pictures, alternate screen: all off. */
static const char restore[] = "\033[?2026l\033[0m\033[?2004l\033[?1002l\033[?1000l\033[?1006l"
                              "\033[?1l\033>\033[r\033[?25h\033[?1049l";
static const char modes_on[] = "\033[?2004h";
static const char modes_off[] = "\033[?2004l";
static const char mouse_on[] = "\033[?1000h\033[?1002h\033[?1006h";
static const char mouse_off[] = "\033[?1002l\033[?1000l\033[?1006l";

static struct {
    bool up;
    SCREEN *screen;
    struct termios before;
    int pipe[2];
    bool mouse;
    int reply_cell_w, reply_cell_h;
} term = {.pipe = {-1, -1}};

/* --- small things ------------------------------------------------------------------------ */

static const char *const graphics_names[] = {
    [UI_GRAPHICS_NONE] = "none",       [UI_GRAPHICS_ASCII] = "ascii",
    [UI_GRAPHICS_SYMBOLS] = "symbols", [UI_GRAPHICS_SIXEL] = "sixel",
    [UI_GRAPHICS_ITERM2] = "iterm2",   [UI_GRAPHICS_KITTY] = "kitty",
};

const char *ui_graphics_name(ui_graphics g) {
    return graphics_names[g];
}

int ui_graphics_parse(const char *name) {
    if (!strcmp(name, "auto"))
        return -2;
    for (int i = 0; i < (int)(sizeof graphics_names / sizeof *graphics_names); i++)
        if (!strcmp(name, graphics_names[i]))
            return i;
    return -1;
}

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int ui_term_write(const char *bytes, size_t n) {
    while (n) {
        ssize_t k = write(STDOUT_FILENO, bytes, n);
        if (k > 0) {
            bytes += k;
            n -= (size_t)k;
        } else if (k < 0 && errno == EAGAIN) {
            struct pollfd p = {STDOUT_FILENO, POLLOUT, 0};
            poll(&p, 1, 1000);
        } else if (k == 0 || errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

/* --- signals --------------------------------------------------------------------------------- */

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
static const int noted[] = {SIGWINCH, SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGCONT};
enum {
    FATAL = sizeof fatal / sizeof *fatal,
    NOTED = sizeof noted / sizeof *noted
};
static struct sigaction before_fatal[FATAL], before_noted[NOTED];
static char crash_stack[64 * 1024];

static void on_crash(int sig) {
    if (term.up) {
        term.up = false;
        const char *s = restore;
        size_t n = sizeof restore - 1;
        while (n) {
            ssize_t k = write(STDOUT_FILENO, s, n);
            if (k <= 0)
                break;
            s += k;
            n -= (size_t)k;
        }
        tcsetattr(STDIN_FILENO, TCSANOW, &term.before);
    }
    for (size_t i = 0; i < FATAL; i++)
        if (fatal[i] == sig)
            sigaction(sig, &before_fatal[i], NULL);
    raise(sig);
}

static void on_noted(int sig) {
    int saved = errno;
    unsigned char c = (unsigned char)sig;
    if (write(term.pipe[1], &c, 1) < 0)
        c = 0; /* a full pipe holds news enough */
    errno = saved;
}

static void catch_signals(void) {
    stack_t stack = {.ss_sp = crash_stack, .ss_size = sizeof crash_stack};
    sigaltstack(&stack, NULL);
    struct sigaction a = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < FATAL; i++)
        sigaction(fatal[i], &a, &before_fatal[i]);
    struct sigaction b = {.sa_handler = on_noted, .sa_flags = SA_RESTART};
    sigemptyset(&b.sa_mask);
    for (size_t i = 0; i < NOTED; i++)
        sigaction(noted[i], &b, &before_noted[i]);
}

static void release_signals(void) {
    for (size_t i = 0; i < FATAL; i++)
        sigaction(fatal[i], &before_fatal[i], NULL);
    for (size_t i = 0; i < NOTED; i++)
        sigaction(noted[i], &before_noted[i], NULL);
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
}

int ui_term_signal_fd(void) {
    return term.pipe[0];
}

int ui_term_signal(void) {
    unsigned char c;
    return read(term.pipe[0], &c, 1) == 1 ? c : 0;
}

/* --- asking the terminal ------------------------------------------------------------------------ */

typedef struct {
    bool da1, sixel, kitty, sync, true_colours;
} replies;

static bool has(const char *s, size_t n, const char *part) {
    return memmem(s, n, part, strlen(part)) != NULL;
}

/* Does the parameter list of a DA1 reply (ESC [ ? a;b;c c) hold 4? */
static bool da1_has_sixel(const char *s, size_t n) {
    for (size_t i = 3; i < n; i++)
        if ((s[i - 1] == ';' || s[i - 1] == '?') && s[i] == '4' &&
            (s[i + 1] == ';' || s[i + 1] == 'c'))
            return true;
    return false;
}

/* ESC ] 11 ; rgb:RRRR/GGGG/BBBB: dark when its luminance is below a half. */
static bool background_is_dark(const char *s) {
    static const double weight[] = {0.299, 0.587, 0.114};
    char digits[3][5];
    if (sscanf(s, "%4[0-9a-fA-F]/%4[0-9a-fA-F]/%4[0-9a-fA-F]", digits[0], digits[1], digits[2]) !=
        3)
        return true;
    double luminance = 0;
    for (int i = 0; i < 3; i++)
        luminance += weight[i] * (double)strtoul(digits[i], NULL, 16) /
                     (double)((1u << (4 * strlen(digits[i]))) - 1);
    return luminance < 0.5;
}

/* The answer to DECRQSS (ESC P 1 $ r attributes m): is the background still the one that was set?
 * A terminal without true colours tells the palette's nearest, or none. Between the numbers
 * stand colons or semicolons, and xterm leaves one empty: 48:2::1:2:3. */
static bool keeps_true_colours(const char *s) {
    char list[256];
    size_t n = 0;
    for (; *s && n < sizeof list - 1; s++)
        list[n++] = *s == ';' ? ':' : *s;
    list[n] = 0;
    const char *at = strstr(list, "48:2:");
    return at && strstr(at + 4, ":1:2:3");
}

static void take_reply(const ui_event *e, replies *r, ui_term_caps *caps) {
    const char *s = e->text;
    size_t n = e->n;
    char copy[256];
    size_t m = n < sizeof copy ? n : sizeof copy - 1;
    memcpy(copy, s, m);
    copy[m] = 0;
    int a, b;
    char tail;
    if (n > 3 && s[1] == '[' && s[2] == '?' && s[n - 1] == 'c') {
        r->da1 = true;
        r->sixel |= da1_has_sixel(s, n);
    } else if (s[1] == '_' && has(s, n, "G") && has(s, n, ";OK")) {
        r->kitty = true;
    } else if (s[1] == 'P' && s[2] == '>' && s[3] == '|') {
        size_t end = strcspn(copy + 4, "\033\007");
        copy[4 + end] = 0;
        ui_text_clean(UI_TEXT_LINE, copy + 4, caps->name, sizeof caps->name);
    } else if (n > 5 && !memcmp(s, "\033P1$r", 5)) {
        r->true_colours = keeps_true_colours(copy + 5);
    } else if (has(s, n, "?2026;") && s[n - 1] == 'y') {
        r->sync = has(s, n, "?2026;1") || has(s, n, "?2026;2");
    } else if (sscanf(copy, "\033[6;%d;%d%c", &a, &b, &tail) == 3 && tail == 't') {
        term.reply_cell_h = a;
        term.reply_cell_w = b;
    } else if (n > 9 && !memcmp(s, "\033]11;rgb:", 9)) {
        caps->dark = background_is_dark(copy + 9);
    }
}

/* Keeps what is not a reply for the event loop. */
static void keep(const ui_event *e, char **early, size_t *nearly) {
    static const char begin[] = "\033[200~", end[] = "\033[201~";
    bool paste = e->type == UI_EV_PASTE;
    if (!paste && e->type != UI_EV_BYTES && e->type != UI_EV_KEY)
        return;
    char *s = realloc(*early, *nearly + e->n + sizeof begin + sizeof end);
    if (!s)
        return;
    *early = s;
    s += *nearly;
    if (paste)
        s = (char *)memcpy(s, begin, sizeof begin - 1) + sizeof begin - 1;
    s = (char *)memcpy(s, e->text, e->n) + e->n;
    if (paste)
        s = (char *)memcpy(s, end, sizeof end - 1) + sizeof end - 1;
    *nearly = (size_t)(s - *early);
}

/* Writes queries that end with DA1, which every terminal answers, and reads until it does. */
static void ask(const char *query, int ms, replies *r, ui_term_caps *caps, char **early,
                size_t *nearly) {
    ui_keys *k = ui_keys_open();
    if (!k || ui_term_write(query, strlen(query))) {
        ui_keys_close(k);
        return;
    }
    long until = now_ms() + ms;
    r->da1 = false;
    while (!r->da1) {
        struct pollfd p = {STDIN_FILENO, POLLIN, 0};
        char buf[4096];
        long left = until - now_ms();
        if (poll(&p, 1, left > 0 ? (int)left : 0) <= 0) {
            if (left > 0)
                continue;
            break; /* only now: what came while this program stood still is not late */
        }
        ssize_t n = read(STDIN_FILENO, buf, sizeof buf);
        if (n <= 0 || ui_keys_feed(k, buf, (size_t)n, now_ms()))
            break;
        ui_event e;
        while (ui_keys_next(k, now_ms(), &e)) {
            if (e.type == UI_EV_REPLY)
                take_reply(&e, r, caps);
            else
                keep(&e, early, nearly);
        }
    }
    ui_event e; /* what was held back for want of its end */
    while (ui_keys_next(k, now_ms() + 10000, &e))
        if (e.type != UI_EV_REPLY)
            keep(&e, early, nearly);
    ui_keys_close(k);
}

static bool begins(const char *s, const char *with) {
    return s && !strncmp(s, with, strlen(with));
}

/* What a background of true colour has become. GNU screen hands such strings on to the terminal
 * around it, and older Linux consoles write them out: those are not asked. */
static const char *colour_query(const ui_term_options *o) {
    if (o->no_colour || begins(o->term, "screen") || begins(o->term, "linux"))
        return "";
    return "\033[48;2;1;2;3m\033P$qm\033\\\033[0m";
}

static void probe(const ui_term_options *o, ui_term_caps *caps, replies *all, char **early,
                  size_t *nearly) {
    replies r = {0};
    int ms = o->probe_ms ? o->probe_ms : 1000;
    char query[128];
    snprintf(query, sizeof query, "\033[>q\033]11;?\033\\\033[?2026$p\033[16t%s\033[c",
             colour_query(o));
    ask(query, ms, &r, caps, early, nearly);
    *all = r;
    caps->multiplexer = o->tmux || begins(o->term, "screen") || begins(o->term, "tmux") ||
                        begins(caps->name, "tmux");
    /* tmux would take the kitty query for a title; a terminal that stays silent stays so. */
    if (r.da1 && !caps->multiplexer)
        ask("\033_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\033\\\033[c", ms, &r, caps, early, nearly);
    caps->sync = r.sync;
    bool utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
    bool iterm2 = begins(caps->name, "iTerm2") || begins(caps->name, "WezTerm") ||
                  (o->term_program && !strcmp(o->term_program, "iTerm.app"));
    caps->graphics = utf8 ? UI_GRAPHICS_SYMBOLS : UI_GRAPHICS_ASCII;
    if (caps->multiplexer)
        return;
    if (r.kitty)
        caps->graphics = UI_GRAPHICS_KITTY;
    else if (iterm2)
        caps->graphics = UI_GRAPHICS_ITERM2;
    else if (r.sixel)
        caps->graphics = UI_GRAPHICS_SIXEL;
}

static ui_colours count_colours(const ui_term_options *o, const ui_term_caps *caps,
                                const replies *r) {
    if (o->no_colour || tigetnum("colors") < 8)
        return UI_COLOURS_MONO;
    /* tmux takes true colours and makes of them what the terminal around it has. */
    static const char *const named[] = {"kitty", "WezTerm", "foot", "ghostty", "iTerm2", "tmux"};
    if (r->true_colours || o->tmux)
        return UI_COLOURS_TRUE;
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (begins(caps->name, named[i]))
            return UI_COLOURS_TRUE;
    if (o->colorterm && (!strcmp(o->colorterm, "truecolor") || !strcmp(o->colorterm, "24bit")))
        return UI_COLOURS_TRUE;
    return tigetnum("colors") >= 256 ? UI_COLOURS_256 : UI_COLOURS_16;
}

/* --- up and down ------------------------------------------------------------------------------------ */

static void read_size(ui_term_caps *caps) {
    struct winsize w = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || !w.ws_row || !w.ws_col) {
        w.ws_row = (unsigned short)(LINES > 0 ? LINES : 24);
        w.ws_col = (unsigned short)(COLS > 0 ? COLS : 80);
    }
    caps->rows = w.ws_row;
    caps->cols = w.ws_col;
    caps->cell_w = w.ws_xpixel / w.ws_col;
    caps->cell_h = w.ws_ypixel / w.ws_row;
    if (caps->cell_w < 2 || caps->cell_h < 2) {
        caps->cell_w = term.reply_cell_w;
        caps->cell_h = term.reply_cell_h;
    }
    if (caps->cell_w < 2 || caps->cell_h < 2 || caps->cell_w > 200 || caps->cell_h > 200)
        caps->cell_w = caps->cell_h = 0;
}

static void modes(bool on) {
    const char *m = on ? modes_on : modes_off;
    ui_term_write(m, strlen(m));
    m = on ? mouse_on : mouse_off;
    if (term.mouse)
        ui_term_write(m, strlen(m));
}

int ui_term_open(const ui_term_options *o, ui_term_caps *caps, char **early, size_t *nearly,
                 char *why, size_t why_size) {
    *caps = (ui_term_caps){.dark = true};
    *early = NULL;
    *nearly = 0;
    const char *name = o->term && *o->term ? o->term : "unknown";
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &term.before)) {
        snprintf(why, why_size, "standard input and output are not a terminal");
        return -1;
    }
    int status;
    if (setupterm(o->term, STDOUT_FILENO, &status) != OK && status != 1) {
        ui_text_clean(UI_TEXT_LINE, name, caps->name, sizeof caps->name);
        snprintf(why, why_size, "%s%s; most terminals work with TERM=xterm-256color",
                 o->term && *o->term ? caps->name : "TERM is not set",
                 o->term && *o->term ? " is not a TERM that this machine knows" : "");
        return -1;
    }
    if (!tigetstr("cup") || tigetstr("cup") == (char *)-1) {
        snprintf(why, why_size, "this terminal (TERM=%s) cannot place its cursor", name);
        return -1;
    }
    if (pipe2(term.pipe, O_CLOEXEC | O_NONBLOCK)) {
        snprintf(why, why_size, "no pipe: %s", strerror(errno));
        return -1;
    }
    term.screen = newterm(o->term, stdout, stdin);
    if (!term.screen) {
        snprintf(why, why_size, "this terminal (TERM=%s) is not known here", name);
        close(term.pipe[0]);
        close(term.pipe[1]);
        return -1;
    }
    raw();
    noecho();
    nonl();
    leaveok(stdscr, FALSE);
    term.up = true;
    term.mouse = o->mouse;
    catch_signals();
    ui_text_clean(UI_TEXT_LINE, name, caps->name, sizeof caps->name);
    replies r;
    probe(o, caps, &r, early, nearly);
    caps->colours = count_colours(o, caps, &r);
    modes(true);
    ui_term_resize(caps);
    return 0;
}

void ui_term_close(void) {
    if (!term.up)
        return;
    term.up = false;
    modes(false);
    endwin();
    ui_term_write(restore, sizeof restore - 1);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &term.before);
    delscreen(term.screen);
    release_signals();
    close(term.pipe[0]);
    close(term.pipe[1]);
    term.pipe[0] = term.pipe[1] = -1;
}

void ui_term_resize(ui_term_caps *caps) {
    read_size(caps);
    resize_term(caps->rows, caps->cols);
    /* What a resized terminal kept of the old screen is its own affair: assume nothing. */
    ui_term_repaint();
}

void ui_term_repaint(void) {
    clearok(curscr, TRUE);
}

void ui_term_suspend(ui_term_caps *caps) {
    modes(false);
    endwin();
    ui_term_write(restore, sizeof restore - 1);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &term.before);
    struct sigaction stop = {.sa_handler = SIG_DFL}, ours;
    sigemptyset(&stop.sa_mask);
    sigaction(SIGTSTP, &stop, &ours);
    kill(0, SIGTSTP);
    sigaction(SIGTSTP, &ours, NULL);
    ui_term_resume(caps);
}

void ui_term_resume(ui_term_caps *caps) {
    reset_prog_mode();
    ui_term_resize(caps);
    clearok(curscr, TRUE);
    refresh();
    modes(true);
}

/* --- clipboard ------------------------------------------------------------------------------------------ */

int ui_term_copy(const char *text, size_t n, char *why, size_t why_size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    enum {
        MOST = 100000
    }; /* xterm and others cut longer ones */
    if (n > MOST) {
        snprintf(why, why_size, "the text is longer than terminals take (%d bytes); use /save",
                 MOST);
        return -1;
    }
    char *out = malloc(4 * (n / 3 + 1) + 16), *p = out;
    if (!out) {
        snprintf(why, why_size, "out of memory");
        return -1;
    }
    p += sprintf(p, "\033]52;c;");
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)(unsigned char)text[i] << 16;
        if (i + 1 < n)
            v |= (unsigned)(unsigned char)text[i + 1] << 8;
        if (i + 2 < n)
            v |= (unsigned char)text[i + 2];
        *p++ = digits[v >> 18];
        *p++ = digits[v >> 12 & 63];
        *p++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *p++ = i + 2 < n ? digits[v & 63] : '=';
    }
    p += sprintf(p, "\033\\");
    int rc = ui_term_write(out, (size_t)(p - out));
    free(out);
    if (rc)
        snprintf(why, why_size, "the terminal does not take output: %s", strerror(errno));
    return rc;
}
