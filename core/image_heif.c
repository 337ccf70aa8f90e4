/* image_heif.c - HEIC and AVIF, read by libheif where the build found it.
 *
 * Of a file with several pictures the primary one. libheif turns it upright by the
 * container's own marks, so an EXIF orientation in it is not applied a second time.
 * Colours are converted by libheif from YCbCr as the file states; they differ from
 * libavif's (Pillow) within a few steps of 255.                                     */
#include "core/image_formats.h"

#ifdef PALI_HEIF
#include <libheif/heif.h>
#include <stdlib.h>
#include <string.h>

/* The sentences come from libheif and may quote the file. */
static int fail(const pali_image_input *in, struct heif_error e, pali_error *err) {
    switch (e.code) {
    case heif_error_Memory_allocation_error:
        return e.subcode == heif_suberror_Security_limit_exceeded
                   ? pali_image_fail_damaged(in, "HEIF", "it states impossible sizes", err)
                   : pali_fail_nomem(err, "decoding a picture");
    case heif_error_Unsupported_filetype:
    case heif_error_Unsupported_feature:
    case heif_error_Decoder_plugin_error:
        return pali_image_fail_kind(in, "a HEIC or AVIF of a kind that libheif does not decode",
                                    err);
    default:
        return pali_image_fail_damaged(in, "HEIF", e.message ? e.message : "it cannot be decoded",
                                       err);
    }
}

static void read_profile(const struct heif_image_handle *handle, pali_image_notes *notes) {
    size_t n = heif_image_handle_get_raw_color_profile_size(handle);
    uint8_t *bytes = n && n <= 4 << 20 ? malloc(n) : NULL;
    if (bytes && heif_image_handle_get_raw_color_profile(handle, bytes).code == heif_error_Ok)
        pali_image_note_profile(notes, bytes, n);
    free(bytes);
}

static int copy_pixels(const pali_image_input *in, const struct heif_image *image, pali_image *out,
                       pali_error *err) {
    int stride, w = heif_image_get_width(image, heif_channel_interleaved),
                h = heif_image_get_height(image, heif_channel_interleaved);
    const uint8_t *from = heif_image_get_plane_readonly(image, heif_channel_interleaved, &stride);
    if (!from || w < 1 || h < 1 || stride < 3 * w)
        return pali_image_fail_damaged(in, "HEIF", "no pixels came out of it", err);
    int rc = pali_image_alloc(in, "HEIF", (uint64_t)w, (uint64_t)h, out, err);
    for (int y = 0; !rc && y < h; y++)
        memcpy(out->rgb + (size_t)y * (size_t)w * 3, from + (size_t)y * (size_t)stride,
               (size_t)w * 3);
    return rc;
}

int pali_heif_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                   pali_error *err) {
    struct heif_context *context = heif_context_alloc();
    struct heif_image_handle *handle = NULL;
    struct heif_image *image = NULL;
    if (!context)
        return pali_fail_nomem(err, "decoding a picture");
    heif_context_set_maximum_image_size_limit(context, PALI_IMAGE_MAX_SIDE);
    heif_context_set_max_decoding_threads(context, 0);
    int rc = 0;
    struct heif_error e =
        heif_context_read_from_memory_without_copy(context, in->bytes, in->n, NULL);
    if (e.code == heif_error_Ok)
        e = heif_context_get_primary_image_handle(context, &handle);
    if (e.code == heif_error_Ok) {
        int w = heif_image_handle_get_width(handle), h = heif_image_handle_get_height(handle);
        rc = pali_image_check_size(in, "HEIF", w < 0 ? 0 : (uint64_t)w, h < 0 ? 0 : (uint64_t)h,
                                   err);
    }
    if (e.code == heif_error_Ok && !rc)
        e = heif_decode_image(handle, &image, heif_colorspace_RGB, heif_chroma_interleaved_RGB,
                              NULL);
    if (e.code != heif_error_Ok)
        rc = fail(in, e, err);
    else if (!rc)
        rc = copy_pixels(in, image, out, err);
    if (!rc)
        read_profile(handle, notes);
    if (image)
        heif_image_release(image);
    if (handle)
        heif_image_handle_release(handle);
    heif_context_free(context);
    return rc;
}
#endif
