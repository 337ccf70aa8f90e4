/* test_image.c - decoding against Pillow, and what is said about files that are not right.
 *
 * tests/data/image/ is made by tests/reference/image.py: some 170 small files in every
 * form that pali reads, and in decode.golden what Pillow 11.3 makes of each
 * (profile and EXIF applied, converted to RGB). Everything but HEIC and AVIF must
 * equal it byte for byte. Those that stb_image reads are made by image_stb.py. */
#include "core/image.h"
#include "core/image_formats.h"
#include "tests/test.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER TEST_DATA "image/"

#ifdef PALI_HEIF
#define READS "pali reads PNG, JPEG, WebP, HEIC, AVIF, BMP, GIF, PNM, TGA, PSD and HDR"
#else
#define READS "pali reads PNG, JPEG, WebP, BMP, GIF, PNM, TGA, PSD and HDR"
#endif

/* --- pixels ------------------------------------------------------------------------ */

/* Converters from YCbCr round differently. Seen: mean 0.18 and at most 3, of 255. What a bug gives:
 * chroma not interpolated 4.9, channels swapped 56, not turned upright 92 (means of these files).
 * Profiles are applied by two versions of Little CMS. */
static const struct {
    const char *name;
    int most;
    double mean;
} lossy_bounds[] = {
    /* libheif repeats chroma samples where libavif interpolates: seen 106 and 4.1. */
    {"420.avif", 110, 4.5},
    {"", 4, 0.25},
};

static int compare(const char *name, const pali_image *got, const uint8_t *want) {
    size_t n = (size_t)got->width * (size_t)got->height * 3, first = n;
    int most = 0, bound = 0;
    double sum = 0, mean = 0;
    for (size_t i = 0; i < n; i++) {
        int d = abs(got->rgb[i] - want[i]);
        sum += d;
        most = d > most ? d : most;
        first = d && first == n ? i : first;
    }
    if (strstr(name, ".avif") || strstr(name, ".heic"))
        for (size_t i = 0; !bound; i++)
            if (!*lossy_bounds[i].name || !strcmp(lossy_bounds[i].name, name)) {
                bound = lossy_bounds[i].most;
                mean = lossy_bounds[i].mean;
            }
    if (most <= bound && sum <= mean * (double)n)
        return 0;
    print_error("%s: differs from Pillow by %.3f on average, at most %d, first at pixel %zu "
                "channel %zu (%d, Pillow %d)\n",
                name, sum / (double)n, most, first / 3, first % 3, got->rgb[first], want[first]);
    return 1;
}

static void compare_with(const char *list, int at_least) {
    FILE *golden = fopen(list, "rb");
    assert_non_null(golden);
    char name[64], path[128];
    int w, h, files = 0, bad = 0;
    while (fscanf(golden, "%63s %d %d", name, &w, &h) == 3) {
        assert_int_equal(fgetc(golden), '\n');
        size_t n = (size_t)w * (size_t)h * 3;
        uint8_t *want = malloc(n);
        assert_non_null(want);
        assert_int_equal(fread(want, 1, n, golden), n);
        files++;
#ifndef PALI_HEIF
        if (strstr(name, ".avif") || strstr(name, ".heic")) {
            free(want);
            continue;
        }
#endif
        snprintf(path, sizeof path, FOLDER "%s", name);
        pali_error err = {0};
        pali_image image;
        int rc = pali_image_open(path, &image, &err);
        if (rc != 0) {
            print_error("%s (%s)\n", err.what, err.hint);
            bad++;
        } else if (image.width != w || image.height != h) {
            print_error("%s: %d x %d, Pillow %d x %d\n", name, image.width, image.height, w, h);
            bad++;
        } else {
            bad += compare(name, &image, want);
        }
        pali_image_close(&image);
        free(want);
    }
    fclose(golden);
    assert_true(files >= at_least);
    assert_int_equal(bad, 0);
}

static void image_equals_pillow(void **state) {
    (void)state;
    compare_with(FOLDER "decode.golden", 181);
}

static void image_by_stb_equals_what_was_written(void **state) {
    (void)state;
    compare_with(FOLDER "decode_stb.golden", 19);
}

/* --- files that are not right ----------------------------------------------------------- */

typedef struct {
    uint8_t *p;
    size_t n;
} blob;

static blob load(const char *name) {
    char path[128];
    snprintf(path, sizeof path, FOLDER "%s", name);
    pali_error err = {0};
    blob b;
    assert_ok(pali_image_read_file(path, &b.p, &b.n, &err), err);
    return b;
}

/* Decoding must fail with that code and that sentence, and leave nothing behind. */
static void expect(const void *bytes, size_t n, int code, const char *what) {
    pali_error err = {0};
    pali_image image = {.width = 1, .height = 1};
    /* A copy of exactly n bytes, so that the sanitizer sees a read behind the end. */
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    int rc = pali_image_decode(copy, n, "x", &image, &err);
    free(copy);
    assert_string_equal(err.what, what);
    assert_int_equal(rc, code);
    assert_null(image.rgb);
    assert_int_equal(image.width, 0);
    if (code != PALI_EIO)
        assert_true(strlen(err.hint) > 0);
}

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Makes the checksum of the chunk at p right again. */
static void seal(uint8_t *p) {
    size_t n = pali_be32(p) + 4;
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        c ^= p[4 + i];
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    }
    put32(p + 4 + n, ~c);
}

static void image_names_other_formats(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *format;
    } others[] = {
#define OTHER(bytes, format) {bytes, sizeof bytes - 1, format}
#ifndef PALI_HEIF
        OTHER("\0\0\0\x18"
              "ftypheic\0\0\0\0",
              "HEIC"),
        OTHER("\0\0\0\x18"
              "ftypmif1\0\0\0\0",
              "HEIC"),
        OTHER("\0\0\0\x18"
              "ftypavif\0\0\0\0",
              "AVIF"),
#endif
        OTHER("\0\0\0\x18"
              "ftypisom\0\0\0\0",
              "a video (MP4)"),
        OTHER("II*\0\x08\0\0\0", "TIFF"),
        OTHER("MM\0*\0\0\0\x08", "TIFF"),
        OTHER("%PDF-1.7", "PDF"),
        OTHER("%!PS-Adobe", "PostScript"),
        OTHER("\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        OTHER("\xff\x0a\x01\x02", "JPEG XL"),
        OTHER("\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        OTHER("\0\0\1\0\1\0", "ICO"),
        OTHER("\x53\x80\xf6\x34", "Softimage PIC"),
        OTHER("qoif\0\0", "QOI"),
        OTHER("v/1\x01\2\0", "OpenEXR"),
        OTHER("P7\nWIDTH 3", "PAM or PFM"),
        OTHER("<!DOCTYPE html><html><svg>", "a web page (HTML)"),
        OTHER("<html lang=\"en\"><head>", "a web page (HTML)"),
        OTHER("<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG"),
        OTHER("\xef\xbb\xbf <?xml version=\"1.0\"?>\n<!-- x -->\n<svg width=\"3\"/>", "SVG"),
#undef OTHER
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char what[100];
        snprintf(what, sizeof what, "x: %s, not a format pali reads", others[i].format);
        expect(others[i].bytes, others[i].n, PALI_EUNSUPPORTED, what);
    }
    pali_error err = {0};
    pali_image image;
    pali_image_decode((const uint8_t *)"%PDF-1.7", 8, "page.pdf", &image, &err);
    assert_string_equal(err.what, "page.pdf: PDF, not a format pali reads");
    assert_string_equal(err.hint,
                        "convert a page to PNG: pdftoppm -png -r 150 -f 1 -l 1 FILE page");
}

static void image_refuses_what_is_no_picture(void **state) {
    (void)state;
    static const char what[] = "x: not a picture that pali recognises";
    expect("hello, world", 12, PALI_EFORMAT, what);
    expect("<?xml version=\"1.0\"?><note/>", 28, PALI_EFORMAT, what);
    expect("\x89PN", 3, PALI_EFORMAT, what);
    expect("P", 1, PALI_EFORMAT, what);
    expect("P5", 2, PALI_EFORMAT, what);
    expect("P55 1 1 255 x", 13, PALI_EFORMAT, what);
    expect("\xff\xd8", 2, PALI_EFORMAT, what);
    expect("", 0, PALI_EFORMAT, "x: empty, no picture in it");
}

static void png_says_what_is_wrong(void **state) {
    (void)state;
    blob b = load("rgb8.png");
    uint8_t *header = b.p + 8, *data = b.p + 33;
    expect(b.p, b.n - 1, PALI_EFORMAT, "x: the PNG ends too early; the file was cut short");
    expect(b.p, b.n - 12, PALI_EFORMAT, "x: the PNG ends too early; the file was cut short");
    expect(b.p, 60, PALI_EFORMAT, "x: the PNG ends too early; the file was cut short");
    expect(b.p, 8, PALI_EFORMAT, "x: the PNG ends too early; the file was cut short");

    data[8 + pali_be32(data)] ^= 1;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: a checksum does not match its data");
    data[8] ^= 1;
    seal(data);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: the compressed data is broken");
    data[8] ^= 1;
    seal(data);

    header[8 + 8] = 3;
    seal(header);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: the header describes no known kind of picture");
    header[8 + 8] = 8;
    put32(header + 12, 10);
    seal(header);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: too little picture data");
    put32(header + 8, 16000);
    put32(header + 12, 16000);
    seal(header);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: too little picture data");
    put32(header + 8, 0);
    seal(header);
    expect(b.p, b.n, PALI_EFORMAT, "x: the PNG has no pixels (0 x 16000)");
    put32(header + 8, 70000);
    seal(header);
    expect(b.p, b.n, PALI_ELIMIT, "x: 70000 x 16000 pixels; pali takes at most 65535 a side");
    put32(header + 8, 65535);
    put32(header + 12, 17000);
    seal(header);
    expect(b.p, b.n, PALI_ELIMIT, "x: 65535 x 17000 pixels; pali takes at most 1073 million");
    put32(header + 8, 11);
    put32(header + 12, 9);
    seal(header);

    memcpy(data + 4, "tEXt", 4);
    seal(data);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: no picture data in it");
    memcpy(data + 4, "IHDR", 4);
    seal(data);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: it must start with its only header");
    free(b.p);

    /* Bytes behind the picture's: a few are ignored, many might take for ever. */
    b = load("pieces.png");
    size_t rest = 2 << 20;
    blob c = {calloc(b.n + 12 + rest, 1), b.n + 12 + rest};
    assert_non_null(c.p);
    memcpy(c.p, b.p, b.n - 12);
    data = c.p + b.n - 12;
    memcpy(data + 4, "IDAT", 4);
    memcpy(c.p + c.n - 12, b.p + b.n - 12, 12);
    put32(data, (uint32_t)rest);
    seal(data);
    expect(c.p, c.n, PALI_EFORMAT, "x: damaged PNG: far too much picture data");
    memcpy(data + 4, "teXt", 4);
    pali_error err = {0};
    pali_image image;
    assert_ok(pali_image_decode(c.p, c.n, "x", &image, &err), err);
    pali_image_close(&image);
    free(b.p);
    free(c.p);

    b = load("palette8.png");
    memcpy(b.p + 33 + 4, "tEXt", 4);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: its palette is missing");
    memcpy(b.p + 33 + 4, "PLTE", 4);
    b.p[33 + 8] ^= 1;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged PNG: a checksum does not match its data");
    free(b.p);

    /* 1 x 1 grey, its row in a stored block: filter 5. */
    static const uint8_t row[] = {0x78, 1, 1, 2, 0, 0xfd, 0xff, 5, 9, 0, 21, 0, 15};
    b = load("tiny_1x1.png");
    c = (blob){malloc(b.n + sizeof row), 0};
    assert_non_null(c.p);
    memcpy(c.p, b.p, 33);
    put32(c.p + 33, sizeof row);
    memcpy(c.p + 37, "IDAT", 4);
    memcpy(c.p + 41, row, sizeof row);
    seal(c.p + 33);
    c.n = 41 + sizeof row + 4 + 12;
    memcpy(c.p + c.n - 12, b.p + b.n - 12, 12);
    expect(c.p, c.n, PALI_EFORMAT, "x: damaged PNG: a row uses a filter that does not exist");
    free(b.p);
    free(c.p);
}

static uint8_t *find(blob b, const char *what, size_t n) {
    uint8_t *p = memmem(b.p, b.n, what, n);
    assert_non_null(p);
    return p;
}

static void jpeg_says_what_is_wrong(void **state) {
    (void)state;
    blob b = load("420.jpg");
    uint8_t *frame = find(b, "\xff\xc0", 2), *scan = find(b, "\xff\xda", 2);
    static const char cut[] = "x: the JPEG ends too early; the file was cut short";
    expect(b.p, b.n - 1, PALI_EFORMAT, cut);
    expect(b.p, b.n - 2, PALI_EFORMAT, cut);
    expect(b.p, b.n / 2, PALI_EFORMAT, cut);
    expect(b.p, 4, PALI_EFORMAT, cut);

    frame[1] = 0xc9;
    expect(b.p, b.n, PALI_EUNSUPPORTED, "x: an arithmetic-coded JPEG, which pali does not read");
    frame[1] = 0xc3;
    expect(b.p, b.n, PALI_EUNSUPPORTED,
           "x: a lossless or hierarchical JPEG, which pali does not read");
    frame[1] = 0xc0;
    frame[4] = 12;
    expect(b.p, b.n, PALI_EUNSUPPORTED,
           "x: a JPEG with 12 bits a sample, which pali does not read");
    frame[4] = 8;
    frame[9] = 4;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged JPEG: its frame header is wrong");
    frame[9] = 3;
    uint8_t size[4];
    memcpy(size, frame + 5, 4);
    memset(frame + 5, 0, 2);
    expect(b.p, b.n, PALI_EFORMAT, "x: the JPEG has no pixels (43 x 0)");
    memset(frame + 5, 0xff, 4);
    expect(b.p, b.n, PALI_ELIMIT, "x: 65535 x 65535 pixels; pali takes at most 1073 million");
    memcpy(frame + 5, size, 4);
    frame[3] = 0;
    frame[2] = 0;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged JPEG: a segment has no length");
    frame[3] = 17;

    static const char tables[] = "x: damaged JPEG: its tables are wrong or missing";
    uint8_t *codes = find(b, "\xff\xc4", 2), *steps = find(b, "\xff\xdb", 2);
    codes[5] = 250;
    codes[6] = 250;
    expect(b.p, b.n, PALI_EFORMAT, tables);
    codes[5] = 0;
    codes[6] = 1;
    steps[1] = 0xfe;
    expect(b.p, b.n, PALI_EFORMAT, tables);
    steps[1] = 0xdb;
    steps[4] = 9;
    expect(b.p, b.n, PALI_EFORMAT, tables);
    steps[4] = 0;
    scan[5] = 99; /* a component that is not in the frame */
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged JPEG: its components do not fit together");
    scan[5] = 1;

    for (int i = 14; i < 40; i++) /* nothing but ones: no table has that code */
        scan[i] = i % 2 ? 0 : 0xff;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged JPEG: its compressed data is broken");
    scan[1] = 0xfe; /* a comment; the end marker then comes first */
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged JPEG: no picture data in it");
    free(b.p);

    /* Six hundred passes over nothing. */
    b = load("grey_progressive.jpg");
    scan = find(b, "\xff\xda", 2);
    size_t head = (size_t)(scan - b.p), one = 2 + pali_be16(scan + 2);
    blob c = {malloc(head + 600 * one + 2), head};
    assert_non_null(c.p);
    memcpy(c.p, b.p, head);
    for (int i = 0; i < 600; i++, c.n += one)
        memcpy(c.p + c.n, scan, one);
    memcpy(c.p + c.n, "\xff\xd9", 2);
    expect(c.p, c.n + 2, PALI_ELIMIT,
           "x: the JPEG builds up its picture in 600 passes, too many to decode");
    free(b.p);
    free(c.p);
}

static void bmp_says_what_is_wrong(void **state) {
    (void)state;
    blob b = load("rgb24.bmp");
    static const char cut[] = "x: the BMP ends too early; the file was cut short";
    expect(b.p, b.n - 4, PALI_EFORMAT, cut); /* the last row has 3 bytes of padding */
    expect(b.p, 30, PALI_EFORMAT, cut);
    expect(b.p, 20, PALI_EFORMAT, cut);
    b.p[14] = 41;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged BMP: its header has an unknown length");
    b.p[14] = 40;
    b.p[28] = 2;
    expect(b.p, b.n, PALI_EUNSUPPORTED, "x: a BMP of a bit depth that pali does not read");
    b.p[28] = 24;
    b.p[30] = 4;
    expect(b.p, b.n, PALI_EUNSUPPORTED, "x: a BMP of a compression that pali does not read");
    b.p[30] = 0;
    b.p[18] = 0;
    expect(b.p, b.n, PALI_EFORMAT, "x: the BMP has no pixels (0 x 9)");
    b.p[20] = 2;
    expect(b.p, b.n, PALI_ELIMIT, "x: 131072 x 9 pixels; pali takes at most 65535 a side");
    b.p[20] = 0;
    memset(b.p + 22, 0, 4);
    b.p[25] = 0x80; /* a height of -2^31 */
    expect(b.p, b.n, PALI_EFORMAT, "x: the BMP has no pixels (0 x 2147483648)");
    free(b.p);

    b = load("rgb16_565.bmp");
    b.p[54 + 1] = 0x15;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged BMP: its colour masks make no sense");
    free(b.p);
    b = load("palette8.bmp");
    b.p[48] = 2;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged BMP: its palette is too large");
    free(b.p);
    b = load("rle8.bmp");
    expect(b.p, b.n - 20, PALI_EFORMAT, cut);
    free(b.p);
}

static void gif_says_what_is_wrong(void **state) {
    (void)state;
    blob b = load("plain4.gif");
    static const char cut[] = "x: the GIF ends too early; the file was cut short";
    uint8_t *picture = b.p + 13 + 48 + 9; /* behind the palette and the comment */
    assert_int_equal(*picture, ',');
    expect(b.p, b.n - 20, PALI_EFORMAT, cut);
    expect(b.p, 40, PALI_EFORMAT, cut);
    expect(b.p, 10, PALI_EFORMAT, cut);
    expect(b.p, (size_t)(picture - b.p) + 5, PALI_EFORMAT, cut);
    *picture = ';';
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged GIF: no picture in it");
    *picture = ',';
    picture[10] = 12;
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged GIF: its codes have an impossible length");
    picture[10] = 4;
    picture[5] = 0;
    expect(b.p, b.n, PALI_EFORMAT, "x: the GIF has no pixels (0 x 9)");
    picture[5] = 11;
    memset(b.p + 6, 0xff, 4);
    expect(b.p, b.n, PALI_ELIMIT, "x: 65535 x 65535 pixels; pali takes at most 268 million");
    memset(b.p + 6, 8, 1);
    memset(b.p + 7, 0, 3);
    memset(picture + 1, 0xff, 2); /* the picture starts at x = 65535 */
    expect(b.p, b.n, PALI_ELIMIT, "x: 65546 x 9 pixels; pali takes at most 65535 a side");
    free(b.p);
}

static void gif_refuses_impossible_codes(void **state) {
    (void)state;
    /* 2 x 1, 2-bit indices: clear (4), then 7, which nothing has defined: 111 100. */
    static const uint8_t undefined[] = "GIF89a\2\0\1\0\0\0\0,\0\0\0\0\2\0\1\0\0\2\1\x3c\0;";
    expect(undefined, sizeof undefined - 1, PALI_EFORMAT,
           "x: damaged GIF: the compressed data is broken");
    /* clear (4), then 6, the code about to be defined, with nothing before it: 110 100. */
    static const uint8_t first[] = "GIF89a\2\0\1\0\0\0\0,\0\0\0\0\2\0\1\0\0\2\1\x34\0;";
    expect(first, sizeof first - 1, PALI_EFORMAT, "x: damaged GIF: the compressed data is broken");
    /* clear (4), then end (5): 101 100. */
    static const uint8_t nothing[] = "GIF89a\2\0\1\0\0\0\0,\0\0\0\0\2\0\1\0\0\2\1\x2c\0;";
    expect(nothing, sizeof nothing - 1, PALI_EFORMAT,
           "x: the GIF ends too early; the file was cut short");
}

static void pnm_says_what_is_wrong(void **state) {
    (void)state;
#define PNM(text, code, what) expect(text, sizeof text - 1, code, what)
    static const char cut[] = "x: the PNM ends too early; the file was cut short";
    PNM("P5 2", PALI_EFORMAT, cut);
    PNM("P5 2 2 255 abc", PALI_EFORMAT, cut);
    PNM("P6 1 1 65535 abcde", PALI_EFORMAT, cut);
    PNM("P4 9 1 a", PALI_EFORMAT, cut);
    PNM("P1 2 2 1 0 1", PALI_EFORMAT, cut);
    PNM("P2 2 2 9 1 0 1", PALI_EFORMAT, cut);
    PNM("P5 2 # no end", PALI_EFORMAT, cut);
    PNM("P5 x 2 255 abcd", PALI_EFORMAT, "x: damaged PNM: its header is not made of numbers");
    PNM("P5 -2 2 255 abcd", PALI_EFORMAT, "x: damaged PNM: its header is not made of numbers");
    PNM("P5 12345678901 2 255 ", PALI_EFORMAT, "x: damaged PNM: its header is not made of numbers");
    PNM("P5 2 2 0 abcd", PALI_EFORMAT, "x: damaged PNM: its maximum is not between 1 and 65535");
    PNM("P5 2 2 65536 abcd", PALI_EFORMAT,
        "x: damaged PNM: its maximum is not between 1 and 65535");
    PNM("P2 1 1 9 10", PALI_EFORMAT,
        "x: damaged PNM: a sample that is no number up to its maximum");
    PNM("P3 1 1 9 1 2 -3", PALI_EFORMAT,
        "x: damaged PNM: a sample that is no number up to its maximum");
    PNM("P1 2 1 1 2", PALI_EFORMAT, "x: damaged PNM: a digit that is neither 0 nor 1");
    PNM("P5 0 2 255 ", PALI_EFORMAT, "x: the PNM has no pixels (0 x 2)");
    PNM("P5 9999999999 9999999999 255 ", PALI_ELIMIT,
        "x: 9999999999 x 9999999999 pixels; pali takes at most 65535 a side");
    PNM("P4 60000 60000 ", PALI_ELIMIT, "x: 60000 x 60000 pixels; pali takes at most 268 million");
#undef PNM
}

static void webp_says_what_is_wrong(void **state) {
    (void)state;
    blob b = load("lossless.webp");
    memset(b.p + 30, 0xff, 40);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged WebP: its compressed data is broken");
    free(b.p);
    b = load("exif6.webp"); /* VP8X: the sides less one in three bytes each */
    memset(b.p + 24, 0xff, 6);
    expect(b.p, b.n, PALI_EFORMAT, "x: damaged WebP: its parts do not fit together");
    free(b.p);
    b = load("lossy.webp");
    expect(b.p, b.n - 1, PALI_EFORMAT, "x: the WebP ends too early; the file was cut short");
    free(b.p);
}

/* What is said of a file with another byte at `at`. */
static void expect_changed(const char *name, size_t at, uint8_t value, int code, const char *what) {
    blob b = load(name);
    b.p[at] = value;
    expect(b.p, b.n, code, what);
    free(b.p);
}

static void what_stb_would_misread_is_refused(void **state) {
    (void)state;
    blob b;
    expect_changed("palette8.tga", 3, 1, PALI_EUNSUPPORTED,
                   "x: a TGA whose palette does not begin at its entry 0");
    expect_changed("rgb24.tga", 12, 12, PALI_EFORMAT,
                   "x: the TGA ends too early; the file was cut short");
    expect_changed("rgb24.tga", 17, 0x40, PALI_EFORMAT, "x: not a picture that pali recognises");
    expect_changed("rgb24.tga", 16, 23, PALI_EFORMAT, "x: not a picture that pali recognises");
    expect_changed("rgb24.tga", 12, 0, PALI_EFORMAT, "x: not a picture that pali recognises");
    expect_changed("rgb24.tga", 13, 0xff, PALI_EFORMAT,
                   "x: the TGA ends too early; the file was cut short");
    expect_changed("rgb8.psd", 5, 2, PALI_EUNSUPPORTED, "x: a large Photoshop document (PSB)");
    expect_changed("rgb8.psd", 25, 4, PALI_EUNSUPPORTED, "x: a Photoshop file that is not RGB");
    expect_changed("rgb8.psd", 23, 32, PALI_EUNSUPPORTED,
                   "x: a Photoshop file of neither 8 nor 16 bits");
    expect_changed("rgb8.psd", 13, 1, PALI_EFORMAT, "x: damaged PSD: fewer than three channels");
    expect_changed("rgb8.psd", 26, 0x80, PALI_EFORMAT,
                   "x: the PSD ends too early; the file was cut short");
    for (size_t i = 0; i < 2; i++) { /* behind the sections: 16 bits packed, a kind unknown */
        b = load(i ? "rgb16.psd" : "rgb8.psd");
        size_t at = b.n - 2 - (size_t)(i ? 2 : 1) * 3 * 11 * 9;
        b.p[at + 1] = i ? 1 : 2;
        expect(b.p, b.n, PALI_EUNSUPPORTED, "x: a Photoshop file packed in a way that is not read");
        free(b.p);
    }
    static const char two[] = "#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\0\n-Y 8 +X 8\n\2\2\0\10\0"
                              "\n\n-Y 1 +X 1\n....";
    expect(two, sizeof two - 1, PALI_EFORMAT,
           "x: damaged Radiance HDR: no size that is read (-Y ... +X ...)");
    expect_changed("rgb8.psd", 21, 0, PALI_EFORMAT, "x: the PSD has no pixels (0 x 9)");
    expect_changed("rgb8.psd", 18, 0x7f, PALI_ELIMIT,
                   "x: 2130706443 x 9 pixels; pali takes at most 65535 a side");
    expect_changed("flat.hdr", 37, 'x', PALI_EFORMAT,
                   "x: damaged Radiance HDR: no size that is read (-Y ... +X ...)");
    expect_changed("packed.hdr", 73, 0, PALI_EFORMAT,
                   "x: damaged Radiance HDR: a run of a wrong length");
    expect_changed("packed.hdr", 72, 12, PALI_EFORMAT,
                   "x: damaged Radiance HDR: a row of another length");
    b = load("flat.hdr");
    memset(b.p + 46, 1, 3);
    expect(b.p, b.n, PALI_EUNSUPPORTED, "x: a Radiance HDR with runs of whole pixels");
    free(b.p);
}

/* Cut at any byte, where stb_image would go on with zeros. */
static void what_stb_would_fill_up_is_refused(void **state) {
    (void)state;
    static const char *const names[] = {"rgb24.tga",        "rgb24_down.tga",    "rgba32_rle.tga",
                                        "rgb16.tga",        "grey8_rle.tga",     "rgb8.psd",
                                        "palette8_rle.tga", "rgb8_packed.psd",   "rgb16.psd",
                                        "palette8.tga",     "flat.hdr",

                                        "packed.hdr",       "rgb24_mirrored.tga"};
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        blob b = load(names[f]);
        for (size_t n = 0; n < b.n; n++) {
            uint8_t *copy = malloc(n ? n : 1);
            assert_non_null(copy);
            memcpy(copy, b.p, n);
            pali_error err = {0};
            pali_image image;
            if (pali_image_decode(copy, n, names[f], &image, &err) == 0)
                fail_msg("%s: %zu of %zu bytes are taken for a picture", names[f], n, b.n);
            assert_true(!image.rgb && err.what[0]);
            free(copy);
        }
        free(b.p);
    }
}

/* A PNG, JPEG or WebP cut anywhere is refused; the other formats may lose what comes after their
 * pixels. Either way nothing is read behind the end (the sanitizer looks). */
static void image_refuses_every_prefix(void **state) {
    (void)state;
    static const char *const names[] = {
        "rgba16i.png",   "palette4.png", "exif4.png",    "xmp5.png",      "profile6z.png",
        "420.jpg",       "exif6.jpg",    "rgb.jpg",      "cmyk.jpg",      "restarts.jpg",
        "thumbnail.jpg", "rle4.bmp",     "rgb24_v5.bmp", "local.gif",     "interlaced.gif",
        "comments.ppm",  "dense.pbm",    "raw_15.pgm",   "size_1x1.jpg",  "progressive_444.jpg",
        "p3_exif6.jpg",  "lossy.webp",   "exif6.webp",   "animated.webp", "lossless_alpha.webp"};
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        blob b = load(names[f]);
        bool always =
            strstr(names[f], ".png") || strstr(names[f], ".jpg") || strstr(names[f], ".webp");
        for (size_t n = 0; n<b.n; n += n + 30> b.n || b.n < 600 ? 1 : 7) {
            uint8_t *copy = malloc(n ? n : 1);
            assert_non_null(copy);
            memcpy(copy, b.p, n);
            pali_error err = {0};
            pali_image image;
            int rc = pali_image_decode(copy, n, names[f], &image, &err);
            free(copy);
            if (rc == 0 && always)
                fail_msg("%s: %zu of %zu bytes are taken for a picture", names[f], n, b.n);
            assert_true(rc != 0 || image.rgb);
            assert_true(rc == 0 || (!image.rgb && err.what[0]));
            pali_image_close(&image);
        }
        free(b.p);
    }
}

/* --- orientation -------------------------------------------------------------------------- */

static void exif_is_read_within_bounds(void **state) {
    (void)state;
    static const uint8_t little[] = "II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0";
    static const uint8_t big[] = "MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\7\0\0";
    assert_int_equal(pali_exif_orientation(little, sizeof little - 1), 6);
    assert_int_equal(pali_exif_orientation(big, sizeof big - 1), 7);
    for (size_t n = 0; n < sizeof big - 1; n++) {
        uint8_t *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, big, n);
        assert_int_equal(pali_exif_orientation(copy, n), 0);
        free(copy);
    }
    uint8_t far[sizeof big];
    memcpy(far, big, sizeof big);
    memset(far + 4, 0xff, 4); /* the directory lies behind the end */
    assert_int_equal(pali_exif_orientation(far, sizeof far), 0);
    memcpy(far, big, sizeof big);
    memset(far + 8, 0xff, 2); /* 65535 entries */
    assert_int_equal(pali_exif_orientation(far, sizeof far), 7);
    far[18] = 1; /* orientation 263 */
    assert_int_equal(pali_exif_orientation(far, sizeof far), 1);
    far[15] = 2; /* two values */
    assert_int_equal(pali_exif_orientation(far, sizeof far), 0);
}

static void profile_is_read_within_bounds(void **state) {
    (void)state;
#define PROFILE(text) pali_profile_orientation((const uint8_t *)text, sizeof text - 1)
    static const char entry[] = "\nexif\n  26\n49492A0008000000 0100 1201\n0300 01000000\n08000000";
    assert_int_equal(PROFILE(entry), 8);
    for (size_t n = 0; n < sizeof entry - 8; n++)
        assert_int_equal(pali_profile_orientation((const uint8_t *)entry, n), 0);
    assert_int_equal(PROFILE("\n\n\n"), 0);
    assert_int_equal(PROFILE("\n\n\nxyz"), 0);
#undef PROFILE
}

static void xmp_is_read_within_bounds(void **state) {
    (void)state;
#define XMP(text) pali_xmp_orientation((const uint8_t *)text, sizeof text - 1)
    assert_int_equal(XMP("<a tiff:Orientation=\"8\"/>"), 8);
    assert_int_equal(XMP("<tiff:Orientation>3</tiff:Orientation>"), 3);
    assert_int_equal(XMP("tiff:Orientation tiff:Orientation='5' tiff:Orientation=\"2"), 2);
    assert_int_equal(XMP("tiff:Orientation=\""), 0);
    assert_int_equal(XMP("tiff:Orientation>"), 0);
    assert_int_equal(XMP("tiff:Orientation"), 0);
    assert_int_equal(XMP(""), 0);
#undef XMP
}

/* --- files ------------------------------------------------------------------------------- */

static void expect_open(const char *path, int code, const char *what, const char *hint) {
    pali_error err = {0};
    pali_image image;
    assert_int_equal(pali_image_open(path, &image, &err), code);
    assert_string_equal(err.what, what);
    assert_string_equal(err.hint, hint);
    assert_null(image.rgb);
}

static char folder[] = "/tmp/pali-test-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(in_folder("file"));
    return rmdir(folder);
}

static int make_file(off_t size, mode_t mode) {
    int fd = open(in_folder("file"), O_CREAT | O_TRUNC | O_RDWR, mode);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    return fd;
}

static void image_open_says_what_the_system_refused(void **state) {
    (void)state;
    expect_open("no/such.png", PALI_EIO, "no/such.png: cannot open: No such file or directory",
                "check the path");
    expect_open("tests", PALI_EIO, "tests: a directory, not a picture", "name one picture in it");
    char what[128];
    close(make_file(0, 0600));
    snprintf(what, sizeof what, "%s: empty, no picture in it", in_folder("file"));
    expect_open(in_folder("file"), PALI_EFORMAT, what, READS);
    close(make_file((off_t)PALI_IMAGE_MAX_BYTES + 1, 0600));
    snprintf(what, sizeof what, "%s: larger than 512 MB, the most pali reads", in_folder("file"));
    expect_open(in_folder("file"), PALI_ELIMIT, what, "save the picture smaller, or as JPEG");
    unlink(in_folder("file"));
}

static void image_open_says_that_a_file_is_locked(void **state) {
    (void)state;
    enum {
        NOBODY = 65534
    };
    bool root = geteuid() == 0; /* to whom nothing is locked */
    if (root && seteuid(NOBODY) != 0)
        skip();
    if (root)
        assert_int_equal(seteuid(0), 0);
    close(make_file(10, 0));
    char what[128];
    snprintf(what, sizeof what, "%s: cannot open: Permission denied", in_folder("file"));
    assert_true(!root || seteuid(NOBODY) == 0);
    pali_error err = {0};
    pali_image image;
    int rc = pali_image_open(in_folder("file"), &image, &err);
    assert_true(!root || seteuid(0) == 0);
    assert_int_equal(rc, PALI_EIO);
    assert_string_equal(err.what, what);
    assert_string_equal(err.hint, "check who may read the file");
    unlink(in_folder("file"));
}

/* The size of a device or a pipe is not known before; the limit must hold all the same. */
static void image_read_stops_at_the_limit(void **state) {
    (void)state;
    expect_open("/dev/zero", PALI_ELIMIT, "/dev/zero: larger than 512 MB, the most pali reads",
                "save the picture smaller, or as JPEG");
}

/* Opens "-" with n bytes waiting on standard input. */
static int open_from_stdin(const void *bytes, size_t n, pali_image *image, pali_error *err) {
    int pipes[2], saved = dup(STDIN_FILENO);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(write(pipes[1], bytes, n), n);
    close(pipes[1]);
    assert_true(dup2(pipes[0], STDIN_FILENO) >= 0);
    close(pipes[0]);
    int rc = pali_image_open("-", image, err);
    if (saved >= 0) {
        dup2(saved, STDIN_FILENO);
        close(saved);
    }
    return rc;
}

static void image_open_reads_standard_input(void **state) {
    (void)state;
    blob b = load("exif6.png");
    pali_error err = {0};
    pali_image image;
    assert_ok(open_from_stdin(b.p, b.n, &image, &err), err);
    assert_int_equal(image.width, 4);
    assert_int_equal(image.height, 5);
    pali_image_close(&image);
    free(b.p);

    assert_int_equal(open_from_stdin("", 0, &image, &err), PALI_EFORMAT);
    assert_string_equal(err.what, "standard input: empty, no picture in it");
    err = (pali_error){0};
    assert_int_equal(open_from_stdin("hello", 5, &image, &err), PALI_EFORMAT);
    assert_string_equal(err.what, "standard input: not a picture that pali recognises");
}

static void image_takes_no_error_struct(void **state) {
    (void)state;
    pali_image image;
    assert_int_equal(pali_image_open("no/such.png", &image, NULL), PALI_EIO);
    assert_int_equal(pali_image_decode((const uint8_t *)"GIF89a", 6, "x", &image, NULL),
                     PALI_EFORMAT);
    pali_image_close(&image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_equals_pillow),
        cmocka_unit_test(image_by_stb_equals_what_was_written),
        cmocka_unit_test(what_stb_would_misread_is_refused),
        cmocka_unit_test(what_stb_would_fill_up_is_refused),
        cmocka_unit_test(image_names_other_formats),
        cmocka_unit_test(image_refuses_what_is_no_picture),
        cmocka_unit_test(png_says_what_is_wrong),
        cmocka_unit_test(jpeg_says_what_is_wrong),
        cmocka_unit_test(bmp_says_what_is_wrong),
        cmocka_unit_test(gif_says_what_is_wrong),
        cmocka_unit_test(gif_refuses_impossible_codes),
        cmocka_unit_test(pnm_says_what_is_wrong),
        cmocka_unit_test(webp_says_what_is_wrong),
        cmocka_unit_test(image_refuses_every_prefix),
        cmocka_unit_test(exif_is_read_within_bounds),
        cmocka_unit_test(profile_is_read_within_bounds),
        cmocka_unit_test(xmp_is_read_within_bounds),
        cmocka_unit_test(image_open_says_what_the_system_refused),
        cmocka_unit_test(image_open_says_that_a_file_is_locked),
        cmocka_unit_test(image_read_stops_at_the_limit),
        cmocka_unit_test(image_open_reads_standard_input),
        cmocka_unit_test(image_takes_no_error_struct),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
