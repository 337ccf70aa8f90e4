#!/usr/bin/env python3
"""How well pali reads pages, whole and in tiles.

Draws pages of lower-case words, dark on light, K times as many letters across and down as the miniature model reads at
once (--letters in each of --lines), in pixels K times its square; so the letters have the same size in every page, and a page
squeezed into the square has letters K times too small. Each is read with every --tile; a row of the table is K, a
column is a tiling: character error rate (edits over characters, line ends as characters) over all pages, and tiles a
page for auto. Made with Python 3.11, numpy 2.4.6, Pillow 11.3.0 (both versions only change the letters' pixels).

    tests/reference/ocr_tiles.py --pali build/pali --out build/ocr-tiles [-m MODEL] [--pages 20]
"""
import argparse
import json
import os
import subprocess
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = ["/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf"]
TILINGS = ["none", "2x2", "3x3", "auto"]
WORDS = ("able back cold data east face game hand idea jump keep land main name open page queue road side tree unit "
         "view wall year zero apple black chair dream earth fruit green house juice knife lemon mouse night ocean "
         "paper river stone table uncle voice water young 7 12 305 42 1984 66 8 2025").split()


def page(rng, k, side, letters, nlines):
    """(picture, text) of k * side pixels."""
    width = k * side
    size = int(width / (k * letters) / 0.56)        # an average letter of these fonts is .56 of the size
    font = ImageFont.truetype(FONTS[rng.integers(len(FONTS))], size)
    paper, ink = int(rng.integers(215, 256)), int(rng.integers(0, 60))
    im = Image.new("RGB", (width, width), (paper,) * 3)
    d = ImageDraw.Draw(im)
    lines, step = [], width / (k * nlines + 0.5)
    for i in range(k * nlines):
        line = ""
        while True:
            more = (line + " " + WORDS[rng.integers(len(WORDS))]).strip()
            if font.getlength(more) > 0.92 * width:
                break
            line = more
            if rng.random() < 0.12:
                break
        if not line:
            continue
        d.text((0.04 * width, (i + 0.3) * step), line, font=font, fill=(ink,) * 3)
        lines.append(line)
    return im, "\n".join(lines)


def edits(a, b):
    x, y = np.array([ord(c) for c in a], int), np.array([ord(c) for c in b], int)
    steps = np.arange(len(b) + 1)
    row = steps
    for i, c in enumerate(x, 1):
        new = np.concatenate(([i], np.minimum(row[1:] + 1, row[:-1] + (y != c))))
        row = np.minimum.accumulate(new - steps) + steps
    return int(row[-1])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--pali", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("-m", "--model", help="without it the bundled one")
    ap.add_argument("--side", type=int, default=112, help="of the model's square")
    ap.add_argument("--letters", type=int, default=8)
    ap.add_argument("--lines", type=int, default=2)
    ap.add_argument("--pages", type=int, default=20)
    ap.add_argument("--most", type=int, default=3, help="largest K")
    ap.add_argument("--seed", type=int, default=4711)
    ap.add_argument("--show", type=int, default=0, help="print so many readings")
    a = ap.parse_args()
    model = ["-m", a.model] if a.model else ["--demo"]
    print("| letters x lines | " + " | ".join(TILINGS) + " |\n|" + "---|" * (len(TILINGS) + 1))
    for k in range(1, a.most + 1):
        folder = os.path.join(a.out, f"k{k}")
        os.makedirs(folder, exist_ok=True)
        truth = {}
        for i in range(a.pages):
            im, text = page(np.random.default_rng([a.seed, k, i]), k, a.side, a.letters, a.lines)
            name = os.path.join(folder, f"{i:03d}.png")
            im.save(name)
            truth[name] = text
        cells = []
        for tiling in TILINGS:
            run = subprocess.run([a.pali, "ocr", "--json", "--tile", tiling, *model, *truth], stdout=subprocess.PIPE,
                                 check=True, text=True)
            wrong = total = tokens = 0
            for n, line in enumerate(run.stdout.splitlines()):
                answer = json.loads(line)
                want, got = truth[answer["image"]], answer["text"].strip()
                wrong += edits(want, got)
                total += len(want)
                tokens += answer["timings"]["prefix_tokens"]
                if n < a.show:
                    print(f"{tiling} {answer['image']}\n{want}\n--\n{got}\n", file=sys.stderr)
            each = tokens / a.pages / (answer["timings"]["prefix_tokens"] if tiling == "none" else one)
            if tiling == "none":
                one = answer["timings"]["prefix_tokens"]
            cells.append(f"{wrong / total:.3f}" + (f" ({each:.1f} tiles)" if tiling == "auto" else ""))
        print(f"| {k * a.letters} x {k * a.lines} | " + " | ".join(cells) + " |", flush=True)


main()
