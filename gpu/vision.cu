/* vision.cu - pixels -> SigLIP encoder -> projector -> image embeddings; the steps of
 * core/cpu/vision.c with products of many rows through gemm.
 *
 * Attention is flash.cu's, or, on chips before compute capability 8.0 and for heads wider than
 * its own, writes the scores of a tile of queries for all heads (64 MB), turns them
 * into probabilities, then mixes values: two products of a batch of heads. Patches are
 * 256, 1024 or 4096 rows of 1152; heads of 72. Bound by the tensor cores and, at 896
 * pixels, by moving scores. Not measured.                                            */
#include "gpu/port.cuh"

#include "gpu/model.h"

#include <math.h>

/* enc.a = attention of enc.qkv, P x 3D with q, k, v side by side. */
static int attend(pali_model *m, pali_error *err) {
    const pali_vision_config *c = &m->w->config.vision;
    int64_t ld = ld8(3 * (int64_t)c->D), lds = ld8(c->P), ldo = ld8(c->D);
    if (m->tune.flash && c->E <= ATTEND_MAX_E) {
        flash_args f = {};
        f.q = m->enc.qkv;
        f.k = half_at(m->enc.qkv, c->D);
        f.v = half_at(m->enc.qkv, 2 * (int64_t)c->D);
        f.ldq = f.ldk = f.ldv = ld;
        f.head_kv = c->E;
        f.rows = f.keys = f.prefix = c->P;
        f.H = f.K = c->H;
        f.E = c->E;
        f.scale = 1.0f / sqrtf((float)c->E);
        f.out = m->enc.a;
        f.ldo = ldo;
        flash_rows(m->half, &f, m->stream);
        return 0;
    }
    int most = (int)(m->score_floats / ((size_t)c->H * (size_t)lds)), rc = 0;
    for (int t = 0; t < c->P && rc == 0; t += most) {
        int rows = c->P - t < most ? c->P - t : most;
        gemm_args s = product(m, rows, c->P, c->E, half_at(m->enc.qkv, t * ld), ld,
                              half_at(m->enc.qkv, c->D), ld, m->scores, lds);
        s.out = GEMM_F32;
        s.scale = 1.0f / sqrtf((float)c->E);
        s.batch = c->H;
        s.stride_a = s.stride_b = c->E;
        s.stride_c = rows * lds;
        gemm_args o =
            product(m, rows, c->E, c->P, m->probs, lds, half_at(m->enc.qkv, 2 * (int64_t)c->D), ld,
                    half_at(m->enc.a, t * ldo), ldo);
        o.b_kn = true;
        o.batch = c->H;
        o.stride_a = rows * lds;
        o.stride_b = o.stride_c = c->E;
        rc = gemm(m->gemm, &s, m->stream, err);
        if (rc)
            break;
        softmax_rows(m->half, m->scores, lds, (int64_t)c->H * rows, c->P, 0, m->probs, lds,
                     m->stream);
        rc = gemm(m->gemm, &o, m->stream, err);
    }
    return rc;
}

static int encode_layer(pali_model *m, const vision_layer *l, pali_error *err) {
    const pali_vision_config *c = &m->w->config.vision;
    int64_t ld = ld8(c->D), ldq = ld8(3 * (int64_t)c->D), ldh = ld8(c->F);
    layer_norm(m->half, m->enc.x, ld, c->P, c->D, c->eps, l->ln1_w, l->ln1_b, m->enc.a, ld,
               m->stream);
    gemm_args qkv = product(m, c->P, 3 * c->D, c->D, m->enc.a, ld, l->qkv, ld, m->enc.qkv, ldq);
    qkv.bias = l->qkv_b;
    int rc = gemm(m->gemm, &qkv, m->stream, err);
    if (!rc)
        rc = attend(m, err);
    if (!rc)
        rc = add_product(m, product(m, c->P, c->D, c->D, m->enc.a, ld, l->o, ld, m->enc.x, ld),
                         l->o_b, err);
    if (rc)
        return rc;
    layer_norm(m->half, m->enc.x, ld, c->P, c->D, c->eps, l->ln2_w, l->ln2_b, m->enc.a, ld,
               m->stream);
    for (int t = 0; t < c->P && rc == 0; t += CHUNK_ROWS) {
        int rows = c->P - t < CHUNK_ROWS ? c->P - t : CHUNK_ROWS;
        gemm_args fc1 =
            product(m, rows, c->F, c->D, half_at(m->enc.a, t * ld), ld, l->fc1, ld, m->enc.h, ldh);
        fc1.bias = l->fc1_b;
        fc1.gelu = true;
        rc = gemm(m->gemm, &fc1, m->stream, err);
        if (!rc)
            rc = add_product(
                m, product(m, rows, c->D, c->F, m->enc.h, ldh, l->fc2, ldh, m->enc.x + t * ld, ld),
                l->fc2_b, err);
    }
    return rc;
}

int vision_encode(pali_model *m, const float *pixels, float *out, pali_error *err) {
    const pali_vision_config *c = &m->w->config.vision;
    int D = m->w->config.text.D;
    int64_t ld = ld8(c->D), ldp = ld8((int64_t)c->channels * c->patch * c->patch);
    int layers = m->trial ? 1 : c->layers, rc = steps_begin(m, PALI_STAGE_ENCODE, layers + 1, err);
    if (!rc && pixels)
        rc = check_cuda(cudaMemcpyAsync(m->enc.pixels, pixels,
                                        (size_t)c->channels * c->S * c->S * sizeof *pixels,
                                        cudaMemcpyHostToDevice, m->stream),
                        "encoding the image", err);
    if (rc)
        return rc;
    /* k runs over the padding as well: zeros on both sides, and 16-byte steps for 588. */
    im2col(m->half, m->enc.pixels, c->S, c->patch, c->channels, m->enc.a, ldp, m->stream);
    rc = check_cuda(cudaMemcpyAsync(m->enc.x, m->position, (size_t)(c->P * ld) * sizeof(float),
                                    cudaMemcpyDeviceToDevice, m->stream),
                    "encoding the image", err);
    if (rc)
        return rc;
    rc = add_product(m,
                     product(m, c->P, c->D, (int)ldp, m->enc.a, ldp, m->patch_w, ldp, m->enc.x, ld),
                     m->patch_b, err);
    for (int i = 0; i < layers && rc == 0; i++) {
        rc = encode_layer(m, &m->vision[i], err);
        if (!rc)
            rc = step_queued(m, err);
    }
    if (rc)
        return rc;
    layer_norm(m->half, m->enc.x, ld, c->P, c->D, c->eps, m->post_ln_w, m->post_ln_b, m->enc.a, ld,
               m->stream);
    gemm_args proj = product(m, c->P, D, c->D, m->enc.a, ld, m->proj_w, ld, out, ld8(D));
    proj.out = GEMM_F32;
    proj.bias = m->proj_b;
    rc = gemm(m->gemm, &proj, m->stream, err);
    if (!rc)
        rc = step_queued(m, err);
    return rc ? rc : steps_drain(m, err);
}
