#!/usr/bin/env python3
"""Opening a model and its first token: every form and precision of pali, and transformers beside them.

    load.py DIR [--rounds 1] [--cold] [--only TEXT] [--through CMD] [--pali build/pali]        (make bench MODEL=DIR)

DIR is a bfloat16 model; the forms of tests/bench/make_forms.py beside it are taken too. Every run is a process of its
own; rounds go through all of them in turn. Told are the median and, of several rounds, the least and the most: seconds
to open, of the picture and of a prompt of 260 tokens, milliseconds a token (pali: the mean of 7; transformers: the
median of 8, after one whole turn that is not counted), and the most memory that was resident. --cold empties the page
cache before each run (as root only; other programs feel it); else what a first, uncounted read of the file left there.
--through: put before every command. transformers runs when this Python has it (hf_time.py) and memory suffices.
bitsandbytes is not asked: transformers 4.51.3 refuses it where there is no device but a processor.
"""

import argparse
import importlib.util
import os
import re
import shlex
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def available():
    return int(re.search(r"MemAvailable: +(\d+)", open("/proc/meminfo").read())[1]) * 1024


def weights_of(folder):
    return [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith((".safetensors", ".npz"))]


def run(command, through):
    env = dict(os.environ, OMP_PROC_BIND="true", PALI_CONFIG="")
    p = subprocess.Popen(shlex.split(through) + command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    text = p.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(p.pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(command)}:\n{text}")
    return text, usage.ru_maxrss / 1e6


def time_pali(a, folder, options):
    text, peak = run([a.pali, "-v", "-b", "cpu", "-m", folder, *options, "-n", "8", "-p", "caption en",
                      os.path.join(HERE, "../../assets/demo/demo.png")], a.through)  # fmt: skip
    t = re.search(r"load ([\d.]+) s, picture ([\d.]+) s, question ([\d.]+) s", text)
    answer = re.search(r"answer ([\d.]+) s \((\d+) tokens", text)
    return [*map(float, t.groups()), 1e3 * float(answer[1]) / max(int(answer[2]) - 1, 1), peak]


def time_transformers(a, folder, options):
    text, peak = run([sys.executable, f"{HERE}/hf_time.py", folder, *options, "--reps", "1", "--tokens", "8", "--text", "4"],
                     a.through)  # fmt: skip
    found = [re.search(what + r" +([\d.]+) m?s ", text)[1] for what in ("load", "image", "tokens", "token")]
    return [*map(float, found), peak]


def contenders(a):
    d = a.dir.rstrip("/")
    forms = [("bf16", d), *((f, f"{d}-{f}") for f in ("f32", "f16", "npz", "int8", "nf4"))]
    for form, folder in forms:
        if not os.path.isdir(folder):
            continue
        yield f"{form}, as stored", time_pali, folder, ["-q", "none"], 1.1
        if form == "bf16":
            yield f"{form}, --math f32", time_pali, folder, ["-q", "none", "--math", "f32"], 1.1
        if form in ("bf16", "f32", "f16", "npz"):
            yield f"{form}, -q int8", time_pali, folder, ["-q", "int8"], 1.1
            yield f"{form}, -q nf4", time_pali, folder, ["-q", "nf4"], 1.1
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        yield "transformers bfloat16", time_transformers, d, ["--dtype", "bfloat16"], 1.2
        yield "transformers float32", time_transformers, d, ["--dtype", "float32"], 3
    else:
        print("transformers: not here (pip install torch transformers)")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dir")
    ap.add_argument("--rounds", type=int, default=1)
    ap.add_argument("--cold", action="store_true")
    ap.add_argument("--only", default="", help="those with this in their name")
    ap.add_argument("--through", default="")
    ap.add_argument("--pali", default="build/pali")
    a = ap.parse_args()
    if a.cold and os.geteuid():
        raise SystemExit("--cold: root alone may empty the page cache")
    seen, warm = {}, None
    for _ in range(a.rounds):
        for name, how, folder, options, times in contenders(a):
            if a.only not in name:
                continue
            size = sum(map(os.path.getsize, weights_of(folder)))
            if available() < times * size:
                print(f"{name}: left out, {times * size / 1e9:.0f} GB are needed and {available() / 1e9:.0f} are free")
                continue
            if a.cold:
                os.sync()
                open("/proc/sys/vm/drop_caches", "w").write("3")
            elif folder != warm:
                subprocess.run(["cat", *weights_of(folder)], stdout=subprocess.DEVNULL, check=True)
            warm = folder
            seen.setdefault(name, []).append(how(a, folder, options))
            print("  ran", name, *(f"{x:.2f}" for x in seen[name][-1]), file=sys.stderr, flush=True)
    print(f"{'cold' if a.cold else 'warm':24s}" + "".join(f"{h:>22s}" for h in
          ("open, s", "picture, s", "prompt, s", "a token, ms", "peak, GB")))  # fmt: skip
    for name, runs in seen.items():
        cells = []
        for values in zip(*runs):
            cell = f"{statistics.median(values):.2f}"
            cells.append(cell if len(values) == 1 else f"{cell} ({min(values):.2f}..{max(values):.2f})")
        print(f"{name:24s}" + "".join(f"{c:>22s}" for c in cells))


if __name__ == "__main__":
    main()
