"""Models with the modules quantised that transformers quantises, for tests/core/test_quant_modules.c.

    python tests/reference/quant_modules.py     (Python 3.11, torch==2.8.0, transformers==4.51.3, bitsandbytes==0.50.2)

For some models of tests/data/hf (models.py), into tests/data/quant/modules:
    MODEL.txt                  the modules that replace_with_bnb_linear replaces, one a line, sorted; for both kinds
                               the same
    MODEL-KIND_embeds.npy      image 0 after the projector                                   [P][D] float32
    MODEL-KIND_logits.npy      case 0: row 0 after prefill, row i after its golden's token i - 1; every stride-th id
                               (case0_case.npy)                                              [5][V/stride] float32
with KIND int8 and nf4. The list comes from the library's own functions, called as its quantisers call them. The library
then refuses to go on without a device, so the weights of these modules are replaced by what bitsandbytes' plain
operators (quant.py) make of them and back, in float32: quantised weights, unquantised arithmetic, as pali has it.

    --show: how far the same is from the models as stored, and with the decoder's modules alone.
"""

import os
import sys

import numpy as np
import torch
from transformers import BitsAndBytesConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration
from transformers.integrations.bitsandbytes import get_keys_to_not_convert, replace_with_bnb_linear

import hf
import models
import quant

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
KINDS = {
    "int8": dict(load_in_8bit=True),
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
}
STEPS = 4


def replaced(path, kind):
    """Names of the modules that the library would quantise."""
    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(PaliGemmaConfig.from_pretrained(path))
    model.tie_weights()
    plain = {n for n, x in model.named_modules() if type(x) is torch.nn.Linear}
    skip = get_keys_to_not_convert(model)
    model = replace_with_bnb_linear(model, modules_to_not_convert=skip, quantization_config=BitsAndBytesConfig(**KINDS[kind]))
    return sorted(n for n, x in model.named_modules() if n in plain and type(x) is not torch.nn.Linear)


@torch.no_grad()
def run(path, m, kind, names):
    model = models.load(m, models.tensors(m))
    dtype = models.DTYPES[m["dtype"]]  # of the file: the library quantises what it reads
    modules = dict(model.named_modules())
    for name in names:
        w = modules[name].weight
        w.data = quant.values(w.data.to(dtype), kind)
    golden = lambda what: np.load(os.path.join(path, "golden", f"case0_{what}.npy"))
    stride, *images = golden("case").tolist()
    logits, _ = models.golden_run(model, m, images, golden("ids").tolist(), STEPS, golden("tokens"))
    embeds = model.get_image_features(models.pixel_values(m["size"], 0)[None])[0]
    # This version divides by sqrt(D) in there what the decoder multiplies again.
    embeds = (embeds * m["d"] ** 0.5).numpy()
    return embeds.astype(np.float32), logits[:, ::stride].astype(np.float32)


def main():
    out = os.path.join(DATA, "quant", "modules")
    os.makedirs(out, exist_ok=True)
    for name in ("pg1-f32", "pg1-bf16", "pg2-f16"):
        path, m = os.path.join(DATA, "hf", name), models.MODELS[name]
        names = replaced(path, "int8")
        assert names == replaced(path, "nf4")
        with open(os.path.join(out, f"{name}.txt"), "w") as f:
            f.write("".join(n + "\n" for n in names))
        for kind in KINDS:
            embeds, logits = run(path, m, kind, names)
            np.save(os.path.join(out, f"{name}-{kind}_embeds.npy"), embeds)
            np.save(os.path.join(out, f"{name}-{kind}_logits.npy"), logits)
            if "--show" in sys.argv:
                for what, some in ("as stored", []), ("decoder", [n for n in names if "language" in n]):
                    e, l = run(path, m, kind, some)
                    print(f"{name} {kind}, {what}: embeds {hf.error(e, embeds):.1e}, logits {hf.error(l, logits):.1e}")


if __name__ == "__main__":
    main()
