#!/usr/bin/env python3
"""Times PaliGemma in transformers on the CPU: the same work `pali` is timed on.

    OMP_PROC_BIND=true hf_time.py MODEL [--dtype bfloat16|float32|float16] [--threads 2]
                       [--text 32] [--tokens 16] [--reps 5]

One image (random pixels), a prefix of image + --text ids, --tokens decode steps.
Without OMP_PROC_BIND some kernels keep all threads of a process on one core. Prints
the median and the range of --reps runs after one that is thrown away. Weights are
converted to --dtype at load. Attention is the library's default (SDPA): the fastest,
and for PaliGemma 1 the same mathematics as eager.
"""

import argparse
import os
import resource
import statistics
import time

import torch
import transformers
from transformers import DynamicCache, PaliGemmaForConditionalGeneration


def show(what, seconds, per=1, unit="s"):
    scale = {"s": 1, "ms": 1e3}[unit] / per
    s = [x * scale for x in seconds]
    print(f"{what:24s} {statistics.median(s):9.3f} {unit}   ({min(s):.3f} .. {max(s):.3f}, {len(s)} runs)", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--dtype", choices=("bfloat16", "float32", "float16"), default="bfloat16")
    ap.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--text", type=int, default=32)
    ap.add_argument("--tokens", type=int, default=16)
    ap.add_argument("--reps", type=int, default=5)
    a = ap.parse_args()
    if os.environ.get("OMP_PROC_BIND") != "true":
        raise SystemExit("set OMP_PROC_BIND=true")
    torch.set_num_threads(a.threads)
    transformers.logging.set_verbosity_error()

    start = time.perf_counter()
    model = PaliGemmaForConditionalGeneration.from_pretrained(
        a.model, torch_dtype=getattr(torch, a.dtype), attn_implementation=a.attention).eval()  # fmt: skip
    load = time.perf_counter() - start
    c = model.config
    n = (c.vision_config.image_size // c.vision_config.patch_size) ** 2
    S, T = c.vision_config.image_size, n + a.text
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {a.dtype}, {a.attention}, {a.threads} threads")
    show("load", [load])

    torch.manual_seed(0)
    pixels = torch.rand(1, 3, S, S).to(model.dtype) * 2 - 1
    ids = torch.cat([torch.full((1, n), c.image_token_index), torch.randint(300, min(200000, c.image_token_index), (1, a.text))], 1)
    encode, prefill, decode = [], [], []
    with torch.inference_mode():
        for rep in range(a.reps + 1):
            t0 = time.perf_counter()
            features = model.get_image_features(pixels)
            t1 = time.perf_counter()
            x = model.get_input_embeddings()(ids)
            x[:, :n] = features
            cache = DynamicCache()
            mask = torch.zeros(1, 1, T, T, dtype=model.dtype)
            out = model(inputs_embeds=x, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = out.logits[0, -1].argmax()
            t2 = time.perf_counter()
            steps = []
            for i in range(a.tokens):
                s = time.perf_counter()
                mask = torch.zeros(1, 1, 1, T + i + 1, dtype=model.dtype)
                out = model(input_ids=token.view(1, 1), attention_mask=mask, past_key_values=cache, use_cache=True,
                            cache_position=torch.tensor([T + i]))  # fmt: skip
                token = out.logits[0, -1].argmax()
                steps.append(time.perf_counter() - s)
            if rep:
                encode.append(t1 - t0)
                prefill.append(t2 - t1)
                decode += steps
    show("encode one image", encode)
    show(f"prefill {T} tokens", prefill)
    show("decode one token", decode, unit="ms")
    print(f"peak resident memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1048576:.2f} GiB")


if __name__ == "__main__":
    main()
