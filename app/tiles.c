/* tiles.c - see tiles.h.
 *
 * Two lines, left and right of an edge, are aligned by dynamic programming: the end of the left one
 * with the beginning of the right one. Letters that agree count for it, wrong and missing ones
 * against it, and a few at the very edge may be left out at little cost. The cut is then made in the
 * middle of what agrees, where letters are farthest from both edges. Bytes are compared, and cuts
 * made only where a character begins in both lines.                                               */
#include "app/tiles.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOKS = 512,         /* rows and columns that are looked at */
    TURN = 48,           /* of brightness, of 255 */
    WIDEST = 64,         /* pixels of a stroke or of the gap between two */
    TURNS_OF_TEXT = 200, /* fewer are no text to speak of */
    REACH = 64,          /* bytes of a line that are looked at beside an edge */
    LINES = 128,         /* of a text that are aligned; more are only put together */
    COMMON = 16,         /* most lines that two tiles one above the other share */
    EDGE = 6,            /* bytes at an edge that may be left out */
    MATCH = 2,
    WRONG = -3,
    LEFT_OUT = -1,
    ENOUGH = 3 * MATCH, /* less agreement than this is chance */
};

/* --- where ---------------------------------------------------------------------------- */

static bool parse_side(const char **s, int *out) {
    int v = 0;
    const char *start = *s;
    while (**s >= '0' && **s <= '9' && v <= APP_TILES_MAX)
        v = 10 * v + (*(*s)++ - '0');
    *out = v;
    return *s > start && v >= 1 && v <= APP_TILES_MAX;
}

bool app_tiling_parse(const char *s, app_tiling *out) {
    *out = (app_tiling){0};
    if (!strcmp(s, "auto"))
        return true;
    *out = (app_tiling){.cols = 1, .rows = 1};
    return !strcmp(s, "none") ||
           (parse_side(&s, &out->cols) && *s++ == 'x' && parse_side(&s, &out->rows) && !*s);
}

/* Side of n tiles that cover `whole`, a share of each overlapping. */
static double tile_side(int whole, int n, double overlap) {
    return whole / (n - (n - 1) * overlap);
}

/* Adds the distances between turning points of brightness along one line of n pixels, `step` bytes
 * apart, to counts. A turn is one by at least TURN: noise and soft shading make none. */
static void look_along(const uint8_t *p, size_t step, int n, uint32_t counts[WIDEST + 1]) {
    int peak = -1, at = 0, last = -1, direction = 0;
    for (int i = 0; i < n; i++, p += step) {
        int light = (p[0] + 2 * p[1] + p[2]) / 4;
        if (!i)
            peak = light;
        if (direction >= 0 ? light > peak : light < peak) {
            peak = light; /* farther the same way */
            at = i;
        } else if (direction >= 0 ? peak - light >= TURN : light - peak >= TURN) {
            if (last >= 0 && at - last <= WIDEST)
                counts[at - last]++;
            last = at;
            direction = direction >= 0 ? -1 : 1;
            peak = light;
            at = i;
        }
    }
}

static double finest_third(const uint32_t counts[WIDEST + 1]) {
    uint64_t total = 0, sum = 0;
    for (int i = 1; i <= WIDEST; i++)
        total += counts[i];
    if (total < TURNS_OF_TEXT)
        return 0;
    int i = 0;
    while (3 * sum < total)
        sum += counts[++i];
    return i;
}

app_tiles_detail app_tiles_look(const uint8_t *rgb, int width, int height) {
    uint32_t across[WIDEST + 1] = {0}, down[WIDEST + 1] = {0};
    size_t row = 3 * (size_t)width;
    int rows = height < LOOKS ? height : LOOKS, columns = width < LOOKS ? width : LOOKS;
    for (int i = 0; i < rows; i++)
        look_along(rgb + row * (size_t)((int64_t)height * i / rows), 3, width, across);
    for (int i = 0; i < columns; i++)
        look_along(rgb + 3 * (size_t)((int64_t)width * i / columns), row, height, down);
    return (app_tiles_detail){finest_third(across), finest_third(down)};
}

app_tiling app_tiling_choose(app_tiling want, int width, int height, int model_size,
                             app_tiles_detail detail) {
    app_tiling t = want;
    /* In the tile of a small model stand few letters, and a third of them is too few to recognise. */
    bool small = model_size < 168;
    t.overlap = small ? 0.4 : 0.33;
    if (!want.cols)
        t.cols = t.rows = 1;
    if (!want.cols && !small) {
        /* The largest tile; not smaller than the square, for what is not there cannot be seen. */
        double across = fmax(detail.across / 1.5, 1) * model_size;
        double down = fmax(detail.down / 1.5, 1) * model_size;
        double wide, high; /* how many times too large a tile is */
        while (wide = detail.across > 0 ? tile_side(width, t.cols, t.overlap) / across : 0,
               high = detail.down > 0 ? tile_side(height, t.rows, t.overlap) / down : 0,
               (wide > 1 || high > 1) &&
                   (t.cols + (wide >= high)) * (t.rows + (wide < high)) <= APP_TILES_MAX) {
            t.cols += wide >= high;
            t.rows += wide < high;
        }
    }
    if (t.cols > width)
        t.cols = width;
    if (t.rows > height)
        t.rows = height;
    return t;
}

/* Place number i of n along a side. */
static void place(int whole, int n, double overlap, int i, int *from, int *size) {
    *size = (int)ceil(tile_side(whole, n, overlap)); /* not less: no pixel may lie between two */
    if (*size > whole)
        *size = whole;
    *from = n > 1 ? (int)((double)(whole - *size) * i / (n - 1) + 0.5) : 0;
}

app_tile app_tile_at(app_tiling t, int width, int height, int i) {
    app_tile tile;
    place(width, t.cols, t.overlap, i % t.cols, &tile.x, &tile.width);
    place(height, t.rows, t.overlap, i / t.cols, &tile.y, &tile.height);
    return tile;
}

/* --- texts as lines ------------------------------------------------------------------- */

typedef struct {
    char **line; /* owned strings, none empty */
    size_t n;
} lines;

static void lines_close(lines *t) {
    for (size_t i = 0; i < t->n; i++)
        free(t->line[i]);
    free(t->line);
    *t = (lines){0};
}

/* Appends a string that it takes over; NULL is memory that ran out. */
static int append(lines *t, char *s) {
    char **more = s ? reallocarray(t->line, t->n + 1, sizeof *more) : NULL;
    if (!more) {
        free(s);
        return PALI_ENOMEM;
    }
    t->line = more;
    t->line[t->n++] = s;
    return 0;
}

static const char blanks[] = " \t\r";

static int lines_split(const char *text, lines *out) {
    int rc = 0;
    while (*text && !rc) {
        size_t n = strcspn(text, "\n"), from = strspn(text, blanks), to = n;
        while (to > from && strchr(blanks, text[to - 1]))
            to--;
        if (to > from)
            rc = append(out, strndup(text + from, to - from));
        text += n + (text[n] == '\n');
    }
    return rc;
}

/* --- left and right ------------------------------------------------------------------- */

typedef struct {
    int score;      /* 0: they do not agree */
    size_t left_to; /* the line joined is left[0..left_to) right[right_from..] */
    size_t right_from;
} seam;

static bool begins_character(char c) {
    return ((unsigned char)c & 0xC0) != 0x80;
}

/* How the end of left goes over into the beginning of right. */
static seam find_seam(const char *left, const char *right) {
    enum {
        DIAGONAL,
        UP,
        ASIDE,
        START
    };
    size_t nl = strlen(left), nr = strlen(right), skipped = nl > REACH ? nl - REACH : 0;
    const char *a = left + skipped, *b = right;
    int n = (int)(nl - skipped), m = nr > REACH ? REACH : (int)nr;
    /* score[i][j]: of the best alignment that ends before a[i] and b[j]. It begins anywhere in a,
     * and at most EDGE bytes into b; it ends at most EDGE bytes before the end of a. */
    static const int impossible = -1000000;
    int above[REACH + 1], here[REACH + 1], best = 0, best_i = 0, best_j = 0;
    unsigned char way[REACH + 1][REACH + 1];
    for (int i = 0; i <= n; i++) {
        for (int j = 0; j <= m; j++) {
            here[j] = j <= EDGE ? j * LEFT_OUT : impossible;
            way[i][j] = START;
            if (i && j) {
                int s = above[j - 1] + (a[i - 1] == b[j - 1] ? MATCH : WRONG);
                if (s > here[j]) {
                    here[j] = s;
                    way[i][j] = DIAGONAL;
                }
            }
            if (i && above[j] + WRONG > here[j]) {
                here[j] = above[j] + WRONG;
                way[i][j] = UP;
            }
            if (j && here[j - 1] + WRONG > here[j]) {
                here[j] = here[j - 1] + WRONG;
                way[i][j] = ASIDE;
            }
            int end = here[j] + (n - i) * LEFT_OUT;
            if (n - i <= EDGE && end > best) {
                best = end;
                best_i = i;
                best_j = j;
            }
        }
        memcpy(above, here, sizeof above);
    }
    /* Short lines that stand wholly in the overlap may be one or two letters. */
    int whole = MATCH * (n < m ? n : m);
    if (best < (whole < ENOUGH ? whole : ENOUGH) || !best)
        return (seam){0};
    /* Back along it, to the agreement nearest its middle. */
    seam s = {.score = best, .left_to = nl, .right_from = (size_t)best_j};
    int first = best_j;
    for (int i = best_i, j = best_j; way[i][j] != START;) {
        int w = way[i][j];
        i -= w != ASIDE;
        j -= w != UP;
        first = j;
    }
    int middle = (first + best_j) / 2, nearest = REACH + 1;
    for (int i = best_i, j = best_j; way[i][j] != START;) {
        int w = way[i][j];
        i -= w != ASIDE;
        j -= w != UP;
        int off = j > middle ? j - middle : middle - j;
        if (w == DIAGONAL && a[i] == b[j] && begins_character(a[i]) && off < nearest) {
            nearest = off;
            s.left_to = skipped + (size_t)i;
            s.right_from = (size_t)j;
        }
    }
    return s;
}

/* left and right as one line; s NULL: beside each other. */
static char *join_line(const char *left, const char *right, const seam *s) {
    char *out;
    int n = s ? asprintf(&out, "%.*s%s", (int)s->left_to, left, right + s->right_from)
              : asprintf(&out, "%s %s", left, right);
    return n < 0 ? NULL : out;
}

/* Lines left[i0..i1) and right[j0..j1), none of which agree: beside each other when they are as
 * many, else below each other. */
static int join_strangers(const lines *left, size_t i0, size_t i1, const lines *right, size_t j0,
                          size_t j1, lines *out) {
    int rc = 0;
    bool beside = i1 - i0 == j1 - j0;
    for (size_t k = 0; beside && !rc && i0 + k < i1; k++)
        rc = append(out, join_line(left->line[i0 + k], right->line[j0 + k], NULL));
    for (size_t i = i0; !beside && !rc && i < i1; i++)
        rc = append(out, strdup(left->line[i]));
    for (size_t j = j0; !beside && !rc && j < j1; j++)
        rc = append(out, strdup(right->line[j]));
    return rc;
}

/* The text of two tiles side by side: the pairs of lines, in order, that agree most in all. */
static int join_beside(const lines *left, const lines *right, lines *out) {
    size_t n = left->n, m = right->n, i = 0, j = 0;
    if (n > LINES || m > LINES)
        return join_strangers(left, 0, n, right, 0, m, out);
    seam(*seams)[LINES] = calloc(n + 1, sizeof *seams);
    int(*total)[LINES + 1] = calloc(n + 1, sizeof *total); /* of lines from [i] and [j] on */
    int rc = seams && total ? 0 : PALI_ENOMEM;
    for (size_t a = n; !rc && a-- > 0;)
        for (size_t b = m; b-- > 0;) {
            seams[a][b] = find_seam(left->line[a], right->line[b]);
            int with = seams[a][b].score ? seams[a][b].score + total[a + 1][b + 1] : 0;
            int most = total[a + 1][b] > total[a][b + 1] ? total[a + 1][b] : total[a][b + 1];
            total[a][b] = with > most ? with : most;
        }
    size_t i0 = 0, j0 = 0; /* begin of the lines without a partner */
    while (!rc && i < n && j < m) {
        if (total[i][j] == total[i + 1][j]) {
            i++;
        } else if (total[i][j] == total[i][j + 1]) {
            j++;
        } else {
            rc = join_strangers(left, i0, i, right, j0, j, out);
            if (!rc)
                rc = append(out, join_line(left->line[i], right->line[j], &seams[i][j]));
            i0 = ++i;
            j0 = ++j;
        }
    }
    if (!rc)
        rc = join_strangers(left, i0, n, right, j0, m, out);
    free(seams);
    free(total);
    return rc;
}

/* --- above and below ------------------------------------------------------------------ */

/* Share of two lines that agrees, 0 to 100: 100 minus the edits in percent of the longer. */
static int agreement(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    n = n > REACH ? REACH : n;
    m = m > REACH ? REACH : m;
    size_t row[REACH + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t least = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            least = row[j] + 1 < least ? row[j] + 1 : least;
            row[j] = row[j - 1] + 1 < least ? row[j - 1] + 1 : least;
        }
    }
    size_t longer = n > m ? n : m;
    return longer ? (int)(100 - 100 * row[m] / longer) : 100;
}

/* The text of two tiles one above the other: the last lines of the upper one that are the first of the
 * lower one come once. Beyond them either may have one more line, cut by its edge, that the other has whole. */
static int join_below(const lines *upper, const lines *lower, lines *out) {
    enum {
        SAME = 60 /* percent */
    };
    size_t most = upper->n < lower->n ? upper->n : lower->n;
    size_t same = 0, upper_cut = 0, lower_cut = 0;
    int best = 0;
    most = most > COMMON ? COMMON : most;
    for (size_t u = 0; u <= 1; u++)
        for (size_t d = 0; d <= 1; d++)
            for (size_t k = 1; k <= most && u + k <= upper->n && d + k <= lower->n; k++) {
                int sum = 0;
                for (size_t i = 0; i < k && sum >= 0; i++) {
                    int part = agreement(upper->line[upper->n - u - k + i], lower->line[d + i]);
                    sum = part < SAME ? -1 : sum + part;
                }
                sum -= 30 * (int)(u + d); /* in doubt nothing was cut */
                if (sum > best) {
                    best = sum;
                    same = k;
                    upper_cut = u;
                    lower_cut = d;
                }
            }
    int rc = 0;
    size_t upper_own = upper->n - upper_cut - same;
    for (size_t i = 0; !rc && i < upper_own; i++)
        rc = append(out, strdup(upper->line[i]));
    for (size_t i = 0; !rc && i < same; i++) {
        const char *u = upper->line[upper_own + i], *d = lower->line[lower_cut + i];
        /* The one farther from its edge; a line cut off has fewer letters. */
        bool take_upper = 2 * i + 1 == same ? strlen(u) >= strlen(d) : 2 * i < same;
        rc = append(out, strdup(take_upper ? u : d));
    }
    for (size_t i = lower_cut + same; !rc && i < lower->n; i++)
        rc = append(out, strdup(lower->line[i]));
    return rc;
}

/* --- all of it ------------------------------------------------------------------------ */

/* *all becomes *all joined with *next by `join`; closes *next. */
static int add_text(lines *all, lines *next, int (*join)(const lines *, const lines *, lines *)) {
    lines joined = {0};
    int rc = join(all, next, &joined);
    lines_close(all);
    lines_close(next);
    *all = joined;
    return rc;
}

int app_tiles_join(const char *const *texts, app_tiling t, char **out, pali_error *err) {
    lines page = {0};
    int rc = 0;
    for (int c = 0; c < t.cols && !rc; c++) {
        lines column = {0};
        for (int r = 0; r < t.rows && !rc; r++) {
            lines tile = {0};
            rc = lines_split(texts[r * t.cols + c], &tile);
            if (rc)
                lines_close(&tile);
            else
                rc = add_text(&column, &tile, join_below);
        }
        if (rc)
            lines_close(&column);
        else
            rc = add_text(&page, &column, join_beside);
    }
    size_t n = 0, length = 1;
    for (size_t i = 0; i < page.n; i++)
        length += strlen(page.line[i]) + 1;
    *out = rc ? NULL : malloc(length);
    if (*out) {
        for (size_t i = 0; i < page.n; i++)
            n += (size_t)sprintf(*out + n, "%s%s", i ? "\n" : "", page.line[i]);
        (*out)[n] = '\0';
    }
    lines_close(&page);
    return *out ? 0 : pali_fail_nomem(err, "joining the texts of the tiles");
}
