#!/usr/bin/env python3
"""Writes a bfloat16 model again in the other forms that pali opens, for tests/bench/load.py.

    make_forms.py DIR [--pali build/pali]

Beside DIR: DIR-f32 and DIR-f16 (safetensors, the same weights), DIR-npz (as JAX stores them), DIR-int8 and DIR-nf4
(what `pali convert -q` writes). Those that are there stay. A 3B model of 5.9 GB takes 30 GB more. Needs numpy; streams,
with 1 GB of memory.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
import jax  # noqa: E402

CHUNK = 1 << 24  # elements


def read_header(path):
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        return json.loads(f.read(n)), 8 + n


def widened(bits, dtype):
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    return wide if dtype == "F32" else wide.astype(np.float16)


def write_safetensors(source, to, dtype):
    header, at = read_header(source)
    header.pop("__metadata__", None)
    tensors = sorted(header.items(), key=lambda t: t[1]["data_offsets"])
    data = np.memmap(source, np.uint16, "r", offset=at)
    width, new, end = {"F32": 4, "F16": 2}[dtype], {"__metadata__": {"format": "pt"}}, 0
    for name, t in tensors:
        assert t["dtype"] == "BF16", f"{name} is {t['dtype']}, not BF16"
        n = int(np.prod(t["shape"])) * width
        new[name] = dict(dtype=dtype, shape=t["shape"], data_offsets=[end, end + n])
        end += n
    text = json.dumps(new, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(to, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _, t in tensors:
            a, b = (x // 2 for x in t["data_offsets"])
            for i in range(a, b, CHUNK):
                out.write(widened(data[i : min(i + CHUNK, b)], dtype).tobytes())


def write_npz(source, to, config):
    header, at = read_header(source)
    header.pop("__metadata__", None)
    data = np.memmap(source, np.uint16, "r", offset=at)
    tensors = {n: data[t["data_offsets"][0] // 2 : t["data_offsets"][1] // 2].reshape(t["shape"]) for n, t in header.items()}
    with tempfile.TemporaryDirectory(dir=os.path.dirname(to)) as scratch:

        class numpy_on_disk:  # what stacks layers must not hold all of them in memory
            count = 0

            @classmethod
            def stack(cls, arrays, axis=0):
                shape = list(arrays[0].shape)
                shape.insert(axis, len(arrays))
                cls.count += 1
                out = np.memmap(f"{scratch}/{cls.count}", np.uint16, "w+", shape=tuple(shape))
                for i, a in enumerate(arrays):
                    np.moveaxis(out, axis, 0)[i] = a
                return out

        jax.np = numpy_on_disk
        arrays = jax.arrays(tensors, config)
        with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED, allowZip64=True) as z:
            for name, a in arrays.items():
                with z.open(f"params/{name}.npy", "w", force_zip64=True) as f:
                    np.lib.format.write_array_header_1_0(f, dict(descr="|V2", fortran_order=False, shape=a.shape))
                    for part in a if a.nbytes > CHUNK else [a]:
                        f.write(np.ascontiguousarray(part).tobytes())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dir")
    ap.add_argument("--pali", default="build/pali")
    a = ap.parse_args()
    source = os.path.join(a.dir.rstrip("/"), "model.safetensors")
    for form in "f32", "f16", "npz", "int8", "nf4":
        to = f"{a.dir.rstrip('/')}-{form}"
        if os.path.exists(to):
            continue
        print(to, flush=True)
        part = to + ".part"
        shutil.rmtree(part, ignore_errors=True)
        if form in ("int8", "nf4"):
            subprocess.run([a.pali, "convert", "-q", form, a.dir, part], check=True)
        else:
            os.makedirs(part)
            for name in os.listdir(a.dir):
                if name.endswith((".json", ".model")) and not (form == "npz" and name == "config.json"):
                    shutil.copy(os.path.join(a.dir, name), part)
        if form == "npz":
            with open(os.path.join(a.dir, "config.json")) as f:
                write_npz(source, os.path.join(part, "model.npz"), json.load(f))
        elif form in ("f32", "f16"):
            write_safetensors(source, os.path.join(part, "model.safetensors"), form.upper())
        os.rename(part, to)


if __name__ == "__main__":
    main()
