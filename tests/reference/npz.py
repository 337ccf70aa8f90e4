#!/usr/bin/env python3
"""Archives for tests/core/test_npz.c, by NumPy itself: tests/data/npz/{stored,deflated,zip64}.npz, one.npy, and the
seeds of tests/fuzz/corpus/npz. Made with numpy 2.4.6, ml_dtypes 0.5 not needed: a bfloat16 is a two-byte void.

    npz.py            writes them (from the top of the tree)

Values: element k of an array, in C order, is k / 4 - 1 (float32, float16), k * 3 (int64), the upper half of the
float32 k / 4 - 1 (bfloat16).
"""
import io
import shutil
import zipfile

import numpy as np

OUT = "tests/data/npz/"


def count(shape, dtype=np.float32):
    n = int(np.prod(shape, dtype=np.int64))
    return (np.arange(n) / 4 - 1).astype(dtype).reshape(shape)


def bf16(shape):
    return (count(shape).view(np.uint32) >> 16).astype(np.uint16).view("V2").reshape(shape)


ARRAYS = {
    "params/img/kernel": count((2, 3, 4)),
    "half": count((5,), np.float16),
    "brain": bf16((3, 2)),
    "whole": (np.arange(6, dtype=np.int64) * 3).reshape(2, 3),
    "scalar": count(()),
    "empty": count((0, 7)),
    "six": count((1, 2, 1, 3, 2, 2)),
    "turned": np.asfortranarray(count((2, 3, 5))),
    "column": np.asfortranarray(count((4, 1))),
    "big_end": count((3,)).astype(">f4"),
    "noise": np.tile(count((64,)), 8),
}


def main():
    np.savez(OUT + "stored.npz", **ARRAYS)
    np.savez_compressed(OUT + "deflated.npz", **ARRAYS)
    np.save(OUT + "one.npy", count((3, 3)))
    # The extra fields and records of zip64, which otherwise need members beyond 4 GB.
    limit, zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = zipfile.ZIP64_LIMIT, 10, 1
    with zipfile.ZipFile(OUT + "zip64.npz", "w") as z:
        for name in ("half", "scalar", "turned"):
            b = io.BytesIO()
            np.save(b, ARRAYS[name])
            z.writestr(name + ".npy", b.getvalue())
        z.writestr("README", "not an array")
    zipfile.ZIP64_LIMIT = limit
    for name in ("stored.npz", "deflated.npz", "zip64.npz", "one.npy"):
        shutil.copy(OUT + name, "tests/fuzz/corpus/npz/" + name)


if __name__ == "__main__":
    main()
