#!/bin/sh
# make bench-gpu: what the device can read, what the products of a step reach of it and with
# which figures of gpu/tune.cu, and the whole model: load, vision, prefill, first token at
# three sizes of image; decode in three forms at three lengths of context; then transformers
# (static cache, compiled) on the same card and weights, where PYTHON has torch. The models
# are made here, random weights of the released sizes (5.9 GB each under build/, needs
# PYTHON with numpy), or MODEL=DIR. Ends within ALL seconds (570); all of it is also in
# build/bench-gpu.txt.
cd "$(dirname "$0")/../.." || exit 1
name=bench-gpu targets=gpu-benches
. tests/gpu/device.sh
log=build/bench-gpu.txt
# Seconds that a step may take: what it is given, or what is left.
within() {
    most=$((${ALL:-570} - ($(date +%s) - started)))
    [ $most -lt "$1" ] || most=$1
    [ $most -gt 5 ] || { echo "no time left"; return 1; }
    shift
    timeout $most "$@"
}
all() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | head -n 1
    ceiling=$(within 60 "$bin/tests/gpu/bench_read") || return 1
    echo "read ceiling ${ceiling} GB/s"
    within 120 "$bin/tests/gpu/bench_kernels" "$ceiling" || return 1
    for size in 224 448 896; do
        model=${MODEL:-build/random-3b-$size}
        [ -f "$model/config.json" ] ||
            within 120 "$python" tests/bench/make_random_model.py "$model" --size $size >/dev/null || return 1
        forms=1
        [ $size != 224 ] || forms=3
        within 180 "$host/tests/gpu/bench_cuda" "$plugin" "$model" "$ceiling" $forms || return 1
        if [ $size = 224 ]; then
            if "$python" -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
                within 180 "$python" tests/bench/hf_time_gpu.py "$model" || echo "transformers: failed"
            else
                echo "transformers: skipped, $python has no torch with CUDA"
            fi
        fi
        [ -z "${MODEL:-}" ] || break
        rm -rf "$model"
    done
}
if all >"$log" 2>&1; then status=0; else status=1; fi
cat "$log"
exit $status
