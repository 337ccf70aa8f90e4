#!/usr/bin/env python3
"""Times PaliGemma in transformers on a graphics card: the peer of `make bench-gpu`.

    hf_time_gpu.py MODEL [--text 32] [--tokens 64] [--device cuda] [--no-compile]

bfloat16, one image of random pixels, a static cache and the forward pass of one token
compiled (mode "reduce-overhead": CUDA graphs), as the library's documentation advises.
Prints the median of the step times after --warm steps, and the time to the first token
(vision, prefill, argmax; not compiled) as the median of 5 after one. --device cpu shows
that the script runs; its figures mean nothing.
"""

import argparse
import statistics
import time

import torch
import transformers
from transformers import PaliGemmaForConditionalGeneration, StaticCache


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--text", type=int, default=32)
    ap.add_argument("--tokens", type=int, default=64)
    ap.add_argument("--warm", type=int, default=8)
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--no-compile", action="store_true")
    a = ap.parse_args()
    transformers.logging.set_verbosity_error()
    dtype = torch.bfloat16
    model = PaliGemmaForConditionalGeneration.from_pretrained(a.model, torch_dtype=dtype).eval().to(a.device)
    c = model.config
    S = c.vision_config.image_size
    n = (S // c.vision_config.patch_size) ** 2
    T = n + a.text
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {a.device}, {S} px, {T} tokens of prefix")
    torch.manual_seed(0)
    pixels = (torch.rand(1, 3, S, S) * 2 - 1).to(a.device, dtype)
    high = min(200000, c.text_config.vocab_size, c.image_token_index)
    words = torch.randint(3, high, (1, a.text))
    ids = torch.cat([torch.full((1, n), c.image_token_index), words], 1).to(a.device)
    text = model.language_model  # the decoder with its head

    def wait():
        if a.device != "cpu":
            torch.cuda.synchronize()

    def first(cache):
        """Every position sees every other: the prefix of a question."""
        image = model.get_image_features(pixels)
        embeds = model.get_input_embeddings()(ids.clamp(max=c.text_config.vocab_size - 1))
        embeds = torch.cat([image.to(dtype), embeds[:, n:]], 1)
        mask = torch.full((1, 1, T, cache.max_cache_len), torch.finfo(dtype).min, dtype=dtype, device=a.device)
        mask[..., :T] = 0
        at = torch.arange(T, device=a.device)
        out = text(inputs_embeds=embeds, attention_mask=mask, position_ids=at[None], past_key_values=cache,
                   cache_position=at, use_cache=True, num_logits_to_keep=1)  # fmt: skip
        return out.logits[:, -1].argmax(-1, keepdim=True)

    def step(token, at, cache, mask):
        out = text(input_ids=token, attention_mask=mask, position_ids=at[None], past_key_values=cache,
                   cache_position=at, use_cache=True)  # fmt: skip
        return out.logits[:, -1].argmax(-1, keepdim=True)

    room = T + a.warm + a.tokens
    run = step if a.no_compile else torch.compile(step, mode="reduce-overhead")
    with torch.inference_mode():
        times = []
        for _ in range(6):
            cache = StaticCache(config=c.text_config, max_batch_size=1, max_cache_len=room, device=a.device, dtype=dtype)
            wait()
            start = time.perf_counter()
            token = first(cache)
            wait()
            times.append(time.perf_counter() - start)
        print(f"transformers first token   {statistics.median(times[1:]) * 1e3:9.3f} ms")
        steps = []
        mask = torch.full((1, 1, 1, room), torch.finfo(dtype).min, dtype=dtype, device=a.device)
        mask[..., :T] = 0
        for i in range(a.warm + a.tokens):
            mask[..., T + i] = 0
            at = torch.tensor([T + i], device=a.device)
            wait()
            start = time.perf_counter()
            token = run(token, at, cache, mask).clone()
            wait()
            steps.append(time.perf_counter() - start)
        ms = statistics.median(steps[a.warm :]) * 1e3
        print(f"transformers decode        {ms:9.3f} ms   {1e3 / ms:.1f} tok/s")


if __name__ == "__main__":
    main()
