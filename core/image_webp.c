/* image_webp.c - WebP, read by libwebp; of an animation the first picture.
 *
 * Pixels are libwebp's own RGB, which is also what Pillow shows; alpha is dropped. An
 * animation's first frame may be smaller than the picture: the rest is black, as Pillow
 * has it once the alpha is gone. Chunks are found by libwebp's demuxer; a file that ends
 * early is refused by it or by the decoder.                                         */
#include "core/image_formats.h"

#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>

/* Decodes a frame to its place on the picture; out is there and black. */
static int read_frame(const pali_image_input *in, const WebPIterator *frame, pali_image *out,
                      pali_error *err) {
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) /* another major version of the library */
        return pali_image_fail_kind(in, "a WebP, and the WebP library is not the one of the build",
                                    err);
    if (frame->x_offset < 0 || frame->y_offset < 0 || frame->width < 1 || frame->height < 1 ||
        frame->width > out->width - frame->x_offset ||
        frame->height > out->height - frame->y_offset)
        return pali_image_fail_damaged(in, "WebP", "a frame lies outside of the picture", err);
    size_t stride = (size_t)out->width * 3;
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba =
        out->rgb + (size_t)frame->y_offset * stride + (size_t)frame->x_offset * 3;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = stride * (size_t)(frame->height - 1) + (size_t)frame->width * 3;
    config.options.use_scaling = 0;
    VP8StatusCode status = WebPDecode(frame->fragment.bytes, frame->fragment.size, &config);
    WebPFreeDecBuffer(&config.output);
    if (status == VP8_STATUS_OUT_OF_MEMORY)
        return pali_fail_nomem(err, "decoding a picture");
    if (status == VP8_STATUS_NOT_ENOUGH_DATA || status == VP8_STATUS_SUSPENDED)
        return pali_image_fail_short(in, "WebP", err);
    return status == VP8_STATUS_OK
               ? 0
               : pali_image_fail_damaged(in, "WebP", "its compressed data is broken", err);
}

static void read_notes(WebPDemuxer *demux, pali_image_notes *notes) {
    WebPChunkIterator chunk;
    int turned = 0;
    if (WebPDemuxGetChunk(demux, "EXIF", 1, &chunk)) {
        turned = pali_exif_orientation(chunk.chunk.bytes, chunk.chunk.size);
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    if (!turned && WebPDemuxGetChunk(demux, "XMP ", 1, &chunk)) {
        turned = pali_xmp_orientation(chunk.chunk.bytes, chunk.chunk.size);
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    if (turned)
        notes->orientation = turned;
    if (WebPDemuxGetChunk(demux, "ICCP", 1, &chunk)) {
        pali_image_note_profile(notes, chunk.chunk.bytes, chunk.chunk.size);
        WebPDemuxReleaseChunkIterator(&chunk);
    }
}

static int read_picture(const pali_image_input *in, WebPDemuxer *demux, pali_image *out,
                        pali_image_notes *notes, pali_error *err) {
    WebPIterator frame;
    int rc = pali_image_alloc(in, "WebP", WebPDemuxGetI(demux, WEBP_FF_CANVAS_WIDTH),
                              WebPDemuxGetI(demux, WEBP_FF_CANVAS_HEIGHT), out, err);
    if (rc)
        return rc;
    if (!WebPDemuxGetFrame(demux, 1, &frame))
        return pali_image_fail_damaged(in, "WebP", "no picture in it", err);
    rc = read_frame(in, &frame, out, err);
    WebPDemuxReleaseIterator(&frame);
    if (!rc)
        read_notes(demux, notes);
    return rc;
}

int pali_webp_read(const pali_image_input *in, pali_image *out, pali_image_notes *notes,
                   pali_error *err) {
    WebPData data = {in->bytes, in->n};
    WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
    WebPDemuxer *demux = WebPDemuxPartial(&data, &state);
    int rc;
    if (state == WEBP_DEMUX_DONE && demux)
        rc = read_picture(in, demux, out, notes, err);
    else if (state == WEBP_DEMUX_PARSE_ERROR)
        rc = pali_image_fail_damaged(in, "WebP", "its parts do not fit together", err);
    else
        rc = pali_image_fail_short(in, "WebP", err);
    WebPDemuxDelete(demux);
    return rc;
}
