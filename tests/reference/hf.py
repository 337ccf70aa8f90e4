"""Loading a model folder and running it in transformers with the meaning pali gives it."""

import glob
import os

import torch
from safetensors.torch import load_file
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration


def old_name(name):
    """Tensor name of a newer library -> the one released files and this version use."""
    if name.startswith("model.language_model."):
        return "language_model.model." + name[len("model.language_model.") :]
    return name[len("model.") :] if name.startswith("model.") else name


def load(path, dtype=torch.float32, attention="eager"):
    """The model in path. Eager by default: SDPA leaves Gemma 2's attention soft-cap out."""
    kw = dict(torch_dtype=dtype, attn_implementation=attention)
    try:
        model = PaliGemmaForConditionalGeneration.from_pretrained(path, output_loading_info=True, **kw)
        model, info = model
        if not info["missing_keys"]:
            return model.eval()
    except (OSError, RuntimeError):
        pass
    weights = {}
    for file in sorted(glob.glob(os.path.join(path, "*.safetensors"))):
        weights.update({old_name(k): v for k, v in load_file(file).items()})
    config = PaliGemmaConfig.from_pretrained(path)
    return PaliGemmaForConditionalGeneration.from_pretrained(None, config=config, state_dict=weights, **kw).eval()


def forward(model, ids, mask, start, cache=None, images=None, keep=0):
    """ids at positions start.. under an additive mask [rows][columns]; logits of the last
    keep of them (0: all) in float32."""
    out = model(
        input_ids=torch.tensor([ids]),
        pixel_values=images,
        attention_mask=mask[None, None].to(model.dtype),
        cache_position=torch.arange(start, start + len(ids)),
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep,
    )
    return out.logits[0].float()


def error(a, b):
    """max |a - b| / max |b|, the measure of every comparison."""
    return float(abs(a - b).max() / abs(b).max())
