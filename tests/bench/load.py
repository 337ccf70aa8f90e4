#!/usr/bin/env python3
"""Opening a model and its first token: every form and precision of pali, and transformers beside them.

    load.py DIR [--rounds 1] [--cold] [--only TEXT] [--through CMD] [--pali build/pali]        (make bench MODEL=DIR)

DIR is a bfloat16 model; the forms of tests/bench/make_forms.py beside it are taken too. Every run is a process of its
own; rounds go through all of them in turn. Told are the median and, of several rounds, the least and the most: seconds
to open, of the picture and of a prompt of 260 tokens, milliseconds a token (pali: the mean of 7; transformers: the
median of 8, after one whole turn that is not counted), and the most memory that was resident. Then, by the medians: the
four times added up, how many times as fast that is as transformers, and the share of transformers' memory. pali beside
transformers in the number format of the file, but for --math f32, which is beside float32; an .npz, which transformers
does not read, beside the bfloat16 file; quantised weights beside those that they were made from. --cold empties the page
cache before each run (as root only; other programs feel it); else what a first, uncounted read of the file left there.
--through: put before every command. transformers runs when this Python has it (hf_time.py) and memory suffices; what
it is compared with is left open where not.
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
    """(name, how it is run, folder, options, memory over the size of the files, whom to compare it with or None)."""
    d = a.dir.rstrip("/")
    beside = {"f32": "transformers f32, float32", "f16": "transformers f16, float16"}
    forms = [("bf16", d), *((f, f"{d}-{f}") for f in ("f32", "f16", "npz", "int8", "nf4"))]
    for form, folder in forms:
        if not os.path.isdir(folder):
            continue
        peer = beside.get(form, "transformers bf16, bfloat16")
        yield f"{form}, as stored", time_pali, folder, ["-q", "none"], 1.1, peer
        if form == "bf16":
            exact = ["-q", "none", "--math", "f32"]
            yield f"{form}, --math f32", time_pali, folder, exact, 1.1, "transformers bf16, float32"
        if form in ("bf16", "f32", "f16", "npz"):
            yield f"{form}, -q int8", time_pali, folder, ["-q", "int8"], 1.1, peer
            yield f"{form}, -q nf4", time_pali, folder, ["-q", "nf4"], 1.1, peer
    if not importlib.util.find_spec("torch") or not importlib.util.find_spec("transformers"):
        print("transformers: not here (pip install torch transformers)")
        return
    for form, dtype, times in (("bf16", "bfloat16", 1.2), ("bf16", "float32", 3), ("f32", "float32", 1.6), ("f16", "float16", 1.2)):
        folder = dict(forms)[form]
        if os.path.isdir(folder):
            yield f"transformers {form}, {dtype}", time_transformers, folder, ["--dtype", dtype], times, None


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
    seen, peers, warm = {}, {}, None
    for _ in range(a.rounds):
        for name, how, folder, options, times, peer in contenders(a):
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
            peers[name] = peer
            seen.setdefault(name, []).append(how(a, folder, options))
            print("  ran", name, *(f"{x:.2f}" for x in seen[name][-1]), file=sys.stderr, flush=True)
    table(a, seen, peers)


def table(a, seen, peers):
    print(f"{'cold' if a.cold else 'warm':28s}" + "".join(f"{h:>22s}" for h in
          ("open, s", "picture, s", "prompt, s", "a token, ms", "peak, GB"))
          + f"{'all, s':>9s}{'as fast':>9s}{'memory':>8s}")  # fmt: skip
    middle = {name: [statistics.median(v) for v in zip(*runs)] for name, runs in seen.items()}
    whole = {name: m[0] + m[1] + m[2] + m[3] / 1e3 for name, m in middle.items()}
    for name, runs in seen.items():
        cells = []
        for values in zip(*runs):
            cell = f"{statistics.median(values):.2f}"
            cells.append(cell if len(values) == 1 else f"{cell} ({min(values):.2f}..{max(values):.2f})")
        line = f"{name:28s}" + "".join(f"{c:>22s}" for c in cells) + f"{whole[name]:9.2f}"
        peer = peers[name]
        if peer in seen:
            line += f"{whole[peer] / whole[name]:8.2f}x{middle[name][4] / middle[peer][4]:8.2f}"
        print(line)


if __name__ == "__main__":
    main()
