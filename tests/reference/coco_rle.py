#!/usr/bin/env python3
"""COCO's run lengths of masks from a formula: tests/data/mask/rle.txt, by pycocotools 2.0.11 and numpy 2.4.6.

    coco_rle.py                 writes it (from the top of the tree)
    coco_rle.py --check FILE    loads what `pali --format coco` wrote, with the masks that --mask-dir wrote beside it:
                                every mask must decode to the file's pixels of 128 and more, and have its box and area

A line is `width height x y w h kind area counts`: in a picture of width x height of zeros the mask lies at (x, y) and
is w x h, its pixels by kind: 0 none, 1 all, 2 a chequerboard, 3 a disc, 4 random ones.
"""
import json
import os
import sys

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO


def pixels(w, h, kind):
    y, x = np.mgrid[:h, :w]
    if kind == 3:
        return (2 * x + 1 - w) ** 2 * h * h + (2 * y + 1 - h) ** 2 * w * w <= w * w * h * h
    if kind == 4:
        return ((x.astype(np.uint32) * 2654435761 + y.astype(np.uint32) * 40503) >> 7 & 3) == 0
    return [np.zeros((h, w), bool), np.ones((h, w), bool), (x + y) % 2 == 1][kind]


def make():
    with open("tests/data/mask/rle.txt", "w") as f:
        for kind in range(5):
            for width, height, x, y, w, h in ((7, 5, 0, 0, 7, 5), (7, 5, 2, 1, 3, 2), (640, 480, 100, 50, 300, 333),
                                              (64, 3000, 0, 0, 64, 3000), (9, 9, 8, 8, 1, 1), (50, 40, 0, 39, 50, 1)):
                m = np.zeros((height, width), np.uint8)
                m[y:y + h, x:x + w] = pixels(w, h, kind)
                counts = rle.encode(np.asfortranarray(m))["counts"].decode()
                if len(counts) < 1500:
                    print(width, height, x, y, w, h, kind, m.sum(), counts, file=f)


def check(path):
    from PIL import Image
    coco = COCO(path)
    for a in coco.dataset["annotations"]:
        box = a["bbox"]
        assert box[2] > 0 and box[3] > 0 and coco.cats[a["category_id"]]["name"] and 0 <= a["score"] <= 1
        if "segmentation" not in a:
            continue
        m = coco.annToMask(a)
        im = coco.imgs[a["image_id"]]
        assert m.shape == (im["height"], im["width"])
        assert m.sum() == a["area"] == rle.area(a["segmentation"])
        want = np.asarray(Image.open(os.path.join(os.path.dirname(path), a["mask_png"]))) >= 128
        assert (m == want).all(), a["mask_png"]
        x, y, w, h = rle.toBbox(a["segmentation"])
        assert x >= box[0] - 1 and y >= box[1] - 1 and x + w <= box[0] + box[2] + 1 and y + h <= box[1] + box[3] + 1
    results = coco.loadRes([dict(image_id=a["image_id"], category_id=a["category_id"], bbox=a["bbox"],
                                 score=a["score"]) for a in coco.dataset["annotations"]])
    print(f"{len(coco.imgs)} images, {len(coco.anns)} annotations, {len(results.anns)} as results: all as the files say")


if __name__ == "__main__":
    check(sys.argv[2]) if sys.argv[1:2] == ["--check"] else make()
