#!/bin/sh
# make bench-gpu: what the device can read, what the products of a step reach of it and with
# which figures of gpu/tune.cu, and the whole model: load, vision, prefill, first token at
# three sizes of image; decode in three forms at three lengths of context; then transformers
# (static cache, compiled) on the same card and weights, where PYTHON has torch. The models
# are made here, random weights of the released sizes (5.9 GB each under build/, needs
# PYTHON with numpy), or MODEL=DIR. Ten minutes at most; all of it is also in
# build/bench-gpu.txt.
cd "$(dirname "$0")/../.." || exit 1
name=bench-gpu
. tests/gpu/device.sh
python=${PYTHON:-python3}
log=build/bench-gpu.txt
make --no-print-directory -s -j"$(nproc)" CUDA=1 NVCC="$nvcc" ARCH="$arch" gpu-benches || exit 1
all() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | head -n 1
    ceiling=$("build/cuda-$arch/tests/gpu/bench_read") || return 1
    echo "read ceiling ${ceiling} GB/s"
    timeout 120 "build/cuda-$arch/tests/gpu/bench_kernels" "$ceiling" || return 1
    for size in 224 448 896; do
        model=${MODEL:-build/random-3b-$size}
        [ -f "$model/config.json" ] ||
            "$python" tests/bench/make_random_model.py "$model" --size $size >/dev/null || return 1
        forms=1
        [ $size != 224 ] || forms=3
        timeout 180 build/release/tests/gpu/bench_cuda build/pali-cuda.so "$model" "$ceiling" $forms || return 1
        if [ $size = 224 ]; then
            if "$python" -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
                timeout 180 "$python" tests/bench/hf_time_gpu.py "$model" || echo "transformers: failed"
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
