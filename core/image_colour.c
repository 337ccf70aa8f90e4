/* image_colour.c - pixels by a file's colour profile -> sRGB, by Little CMS.
 *
 * The models were trained on pictures from the web, taken for sRGB. A photo of a phone or
 * a screenshot in Display P3 has other numbers for the same colours (its red looks pale
 * when read as sRGB), so an RGB profile is applied: relative colorimetric, as viewers do.
 * transformers does not do this; a picture without a profile or with sRGB's own is left
 * as it is, bit for bit. Profiles of grey and CMYK pictures are not used, and neither is
 * one that is damaged.                                                              */
#include "core/image_formats.h"

#include <lcms2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROFILE_BYTES = 4 << 20, /* larger ones are ignored */
    STEPS = 5,               /* of each channel, when a profile is compared with sRGB */
    SAME = 2,                /* of 255: sRGB profiles differ by as much among themselves */
};

void pali_image_note_profile(pali_image_notes *notes, const uint8_t *bytes, size_t n) {
    if (notes->profile || !n || n > PROFILE_BYTES)
        return;
    notes->profile = malloc(n);
    if (!notes->profile)
        return;
    memcpy(notes->profile, bytes, n);
    notes->profile_bytes = n;
}

/* Whether the transform leaves colours where they are, as sRGB's own profile does. */
static bool changes_colours(cmsHTRANSFORM t) {
    uint8_t in[STEPS * STEPS * STEPS][3], out[STEPS * STEPS * STEPS][3];
    int n = 0;
    for (int r = 0; r < STEPS; r++)
        for (int g = 0; g < STEPS; g++)
            for (int b = 0; b < STEPS; b++, n++)
                for (int c = 0; c < 3; c++)
                    in[n][c] = (uint8_t)((c == 0 ? r : c == 1 ? g : b) * 255 / (STEPS - 1));
    cmsDoTransform(t, in, out, (cmsUInt32Number)n);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < 3; c++)
            if (abs(in[i][c] - out[i][c]) > SAME)
                return true;
    return false;
}

void pali_image_to_srgb(const pali_image_notes *notes, pali_image *image) {
    if (!notes->profile)
        return;
    /* A context of its own: nothing is shared between threads, nothing is printed. */
    cmsContext context = cmsCreateContext(NULL, NULL);
    cmsHPROFILE from =
        cmsOpenProfileFromMemTHR(context, notes->profile, (cmsUInt32Number)notes->profile_bytes);
    cmsHPROFILE to = cmsCreate_sRGBProfileTHR(context);
    cmsHTRANSFORM t = NULL;
    if (from && to && cmsGetColorSpace(from) == cmsSigRgbData)
        t = cmsCreateTransformTHR(context, from, TYPE_RGB_8, to, TYPE_RGB_8,
                                  INTENT_RELATIVE_COLORIMETRIC, 0);
    if (t && changes_colours(t)) {
        size_t row = (size_t)image->width * 3;
        for (int y = 0; y < image->height; y++)
            cmsDoTransform(t, image->rgb + (size_t)y * row, image->rgb + (size_t)y * row,
                           (cmsUInt32Number)image->width);
    }
    if (t)
        cmsDeleteTransform(t);
    if (from)
        cmsCloseProfile(from);
    if (to)
        cmsCloseProfile(to);
    if (context)
        cmsDeleteContext(context);
}
