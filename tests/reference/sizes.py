"""Decoders with the head counts and widths of every released PaliGemma, thin otherwise.

    python tests/reference/sizes.py       (Python 3.11, torch==2.8.0, transformers==4.51.3, numpy)

writes tests/data/sizes/logits.golden: for each size a line with its name, then a line of float32
logits for the last position of a prefix whose tokens all see each other, and for each of two tokens
after it, as transformers computes them (eager attention, float32).

Two layers, a small vocabulary and MLP; D, heads, head size and the scale of q.k are the real ones.
The weights are made by a formula that tests/core/test_sizes.c repeats: numbers that bfloat16
holds exactly, from a hash of the tensor's number and the element's.
"""

import os

import numpy as np
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GemmaConfig, GemmaForCausalLM

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "sizes")
V, F, LAYERS = 64, 96, 2
PREFIX, STEPS = [2, 17, 40, 5, 63, 9, 30], [11, 50]
# name: D, query heads, key-value heads, head size, query_pre_attn_scalar (0: Gemma 1)
SIZES = {
    "pg1-3b": (2048, 8, 1, 256, 0),
    "pg2-3b": (2304, 8, 4, 256, 256),
    "pg2-10b": (3584, 16, 8, 256, 256),
    "pg2-28b": (4608, 32, 16, 128, 144),
}


def tensor(number, rows, cols, scale):
    x = np.arange(rows * cols, dtype=np.uint64) * 0x9E3779B1 + np.uint64(number * 0x85EBCA77)
    x = (x & 0xFFFFFFFF).astype(np.uint32)
    x ^= x >> 15
    x *= np.uint32(0x2C1B3C6D)
    x ^= x >> 12
    v = (2.0 * (x >> 25).astype(np.float64) - 127) / 128 * scale
    return torch.tensor(v.reshape(rows, cols).astype(np.float32))


def scale_of(cols):
    """The power of two at or below 2 / sqrt(cols)."""
    return 2.0 ** np.floor(1 - 0.5 * np.log2(cols))


def build(D, H, K, E, scalar):
    common = dict(vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=LAYERS, num_attention_heads=H, num_key_value_heads=K,
                  head_dim=E, rms_norm_eps=1e-6, rope_theta=10000.0, max_position_embeddings=8192, attn_implementation="eager",
                  tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh", hidden_act="gelu_pytorch_tanh")
    if scalar:
        model = Gemma2ForCausalLM(Gemma2Config(query_pre_attn_scalar=scalar, sliding_window=4096, **common))
    else:
        model = GemmaForCausalLM(GemmaConfig(**common))
    model.eval().float()
    number = 0

    def put(parameter, rows, cols, scale):
        nonlocal number
        number += 1
        parameter.data = tensor(number, rows, cols, scale).reshape(parameter.shape)

    def norm(module):
        put(module.weight, 1, D, 0.25)

    put(model.model.embed_tokens.weight, V, D, scale_of(D))
    for layer in model.model.layers:
        norm(layer.input_layernorm)
        if scalar:
            norm(layer.post_attention_layernorm)
            norm(layer.pre_feedforward_layernorm)
            norm(layer.post_feedforward_layernorm)
        else:
            norm(layer.post_attention_layernorm)
        a, m = layer.self_attn, layer.mlp
        put(a.q_proj.weight, H * E, D, scale_of(D))
        put(a.k_proj.weight, K * E, D, scale_of(D))
        put(a.v_proj.weight, K * E, D, scale_of(D))
        put(a.o_proj.weight, D, H * E, scale_of(H * E))
        put(m.gate_proj.weight, F, D, scale_of(D))
        put(m.up_proj.weight, F, D, scale_of(D))
        put(m.down_proj.weight, D, F, scale_of(F))
    norm(model.model.norm)
    model.tie_weights()
    return model


def logits(model, ids):
    """Of the last position; the prefix sees all of itself, each later token what came before."""
    n = len(ids)
    sees = np.tril(np.ones((n, n), bool))
    sees[: len(PREFIX), : len(PREFIX)] = True
    mask = torch.tensor(np.where(sees, 0.0, np.finfo(np.float32).min), dtype=torch.float32)[None, None]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0, -1].numpy()


os.makedirs(OUT, exist_ok=True)
with open(os.path.join(OUT, "logits.golden"), "w") as f:
    for name, size in SIZES.items():
        model = build(*size)
        f.write(name + "\n")
        for steps in range(len(STEPS) + 1):
            row = logits(model, PREFIX + STEPS[:steps])
            f.write(" ".join("%.9g" % v for v in row) + "\n")
        print(name, "logits", row.min(), "to", row.max())
