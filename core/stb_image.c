/* stb_image.c - the one unit that compiles stb_image.
 *
 * Only its JPEG decoder is used. Its other readers are left out: they differ from
 * Pillow (16-bit grey, 16-bit BMP, GIF background) and trust the file more than pali
 * does. Everything in it is static, so nothing clashes with a libstb that happens to
 * be linked.
 *
 * Asserts are off: each one guards a state that bytes from outside may reach, and
 * the code around it handles it or fails. Its memory is zeroed, because damaged data
 * can make it use what it never set; the Makefile makes its overflows wrap.     */
#include "core/image_formats.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_MAX_DIMENSIONS PALI_IMAGE_MAX_SIDE
#define STBI_MALLOC(n)      calloc(1, n)
#define STBI_REALLOC(p, n)  realloc(p, n)
#define STBI_FREE(p)        free(p)
#define STBI_ASSERT(x)      ((void)0)
#include <stb_image.h>

uint8_t *pali_stb_jpeg(const uint8_t *bytes, size_t n, int *width, int *height, const char **why) {
    *why = "file too large";
    if (n > INT_MAX)
        return NULL;
    int channels;
    stbi__g_failure_reason = NULL; /* remembered for ever, and failures do not always set it */
    uint8_t *rgb = stbi_load_from_memory(bytes, (int)n, width, height, &channels, 3);
    if (rgb)
        return rgb;
    const char *reason = stbi_failure_reason();
    *why = reason ? reason : "broken data";
    /* It does not know the type when there is no memory for its look at the first bytes,
     * which the caller has seen already. */
    if (!strcmp(*why, "unknown image type"))
        *why = PALI_STB_NOMEM;
    return NULL;
}
