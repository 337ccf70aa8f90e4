#!/usr/bin/env python3
"""The learning curve, from what train.py prints: a table for README.md and a small plot.

    curve.py RUN/tower.log RUN/decoder.log RUN/all.log --out curve.png
"""
import argparse
import re

from PIL import Image, ImageDraw, ImageFont

SHOWN = {"tower": ["chars", "number", "shape", "color"],
         "decoder": ["ocr chars", "caption", "detect iou", "segment iou", "count"]}
SHOWN["all"] = SHOWN["decoder"]
NAMES = {"chars": "letters", "number": "reading order", "ocr chars": "ocr: characters", "detect iou": "detect: IoU",
         "segment iou": "segment: IoU"}
INKS = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (90, 90, 90)]


def points(path):
    """-> stage, [(minutes, step, {measure: value})] of the held-out lines"""
    out, stage, step, seconds = [], None, 0, 0
    for line in open(path, errors="replace"):
        m = re.match(r"\d\d:\d\d:\d\d (\w+) (.*)", line)
        if not m:
            continue
        stage, rest = m[1], m[2]
        t = re.match(r"step (\d+) lr x\S+ (\d+) s", rest)
        if t:
            step, seconds = int(t[1]), int(t[2])
        if "held out: " in rest:
            values = re.findall(r"([a-z@.: ]+?) (\d\.\d+)(?:,|$| (?=[a-z]))", rest.split("held out: ")[1])
            out.append((seconds / 60, step, {k.strip(): float(v) for k, v in values}))
    return stage, out


def table(runs):
    for stage, pts in runs:
        print(f"| {stage}: step | minutes | " + " | ".join(NAMES.get(k, k) for k in SHOWN[stage]) + " |")
        print("|---" * (2 + len(SHOWN[stage])) + "|")
        for t, step, v in pts:
            print(f"| {step} | {t:.0f} | " + " | ".join(f"{v[k]:.2f}" if k in v else "" for k in SHOWN[stage]) + " |")
        print()


def plot(runs, path):
    w, h, k, left, top = 300, 220, 2, 34, 24
    im = Image.new("RGB", (w * len(runs) * k, (h + 40) * k), "white")
    d = ImageDraw.Draw(im)
    f = ImageFont.truetype("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", 11 * k)
    for i, (stage, pts) in enumerate(runs):
        x0, y0, x1, y1 = (i * w + left) * k, top * k, (i * w + w - 8) * k, h * k
        end = max(1, max(t for t, _, _ in pts))
        d.rectangle((x0, y0, x1, y1), outline=(150, 150, 150), width=k)
        for v in (0, .25, .5, .75, 1):
            y = y1 - (y1 - y0) * v
            d.line((x0, y, x1, y), fill=(225, 225, 225), width=1)
            d.text((x0 - 5 * k, y), f"{v:g}", font=f, fill=(60, 60, 60), anchor="rm")
        d.text((x0, y0 - 5 * k), stage, font=f, fill=(0, 0, 0), anchor="ls")
        d.text((x1, y1 + 4 * k), f"{end:.0f} minutes", font=f, fill=(60, 60, 60), anchor="ra")
        ly = y1 - 8 * k
        for ink, key in zip(INKS, reversed(SHOWN[stage])):
            line = [(x0 + (x1 - x0) * t / end, y1 - (y1 - y0) * v[key]) for t, _, v in pts if key in v]
            if len(line) > 1:
                d.line(line, fill=ink, width=2 * k, joint="curve")
            d.line((x1 - 112 * k, ly, x1 - 98 * k, ly), fill=ink, width=2 * k)
            d.text((x1 - 94 * k, ly), NAMES.get(key, key), font=f, fill=(0, 0, 0), anchor="lm")
            ly -= 14 * k
    im.resize((im.width // k, im.height // k), Image.LANCZOS).quantize(48).save(path, optimize=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("logs", nargs="+")
    ap.add_argument("--out", default="curve.png")
    a = ap.parse_args()
    runs = []
    for stage, pts in map(points, a.logs):
        if runs and SHOWN[stage] is SHOWN[runs[-1][0]]:        # stage 3 goes on where stage 2 ended
            begun, before = runs[-1][1][-1][:2]
            runs[-1][1].extend((begun + t, f"{before} + {step}", v) for t, step, v in pts)
        elif pts:
            runs.append((stage, pts))
    table(runs)
    plot(runs, a.out)


if __name__ == "__main__":
    main()
