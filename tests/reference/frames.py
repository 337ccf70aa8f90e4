#!/usr/bin/env python3
"""Animated GIFs and their frames as Pillow shows them, for tests/core/test_image_frames.c.

    python tests/reference/frames.py           writes tests/data/frames

NAME.gif, and NAME.rgb: the bytes of convert("RGB") of every frame, one after the other. All are
24 x 18. "keep", "fill", "restore" name what becomes of a frame when its time is over; their later
frames are smaller than the screen and have holes. Made with Pillow 11.3.0.
"""

import os
import random

import PIL.Image
import PIL.ImageDraw

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/frames")
W, H, N = 24, 18, 7


def frame(k, seed):
    """Background of index 0, a few rectangles that move; index 5 is the hole."""
    rng = random.Random(seed + k)
    im = PIL.Image.new("P", (W, H), 0 if k == 0 else 5)
    im.putpalette([20, 30, 40, 220, 40, 40, 40, 220, 40, 40, 40, 220, 200, 200, 60, 1, 2, 3] + [0] * 750)
    d = PIL.ImageDraw.Draw(im)
    for i in range(3):
        x, y = rng.randrange(W - 4), rng.randrange(H - 4)
        d.rectangle([x, y, x + rng.randrange(2, 8), y + rng.randrange(2, 6)], fill=1 + (k + i) % 4)
    return im


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, disposal, seed in (("keep", 1, 10), ("fill", 2, 20), ("restore", 3, 30), ("mixed", [1, 3, 2, 1, 3, 1, 2], 40)):
        frames = [frame(k, seed) for k in range(N)]
        path = os.path.join(OUT, name + ".gif")
        frames[0].save(path, save_all=True, append_images=frames[1:], disposal=disposal, transparency=5,
                       duration=40, loop=0, optimize=False)  # fmt: skip
        im = PIL.Image.open(path)
        assert im.n_frames == N, im.n_frames
        with open(os.path.join(OUT, name + ".rgb"), "wb") as out:
            for k in range(N):
                im.seek(k)
                out.write(im.convert("RGB").tobytes())


if __name__ == "__main__":
    main()
