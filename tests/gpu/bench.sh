#!/bin/sh
# make bench-gpu: what the device can read, and what pali reaches on it. The model is made
# here: a 3B with random weights (5.9 GB under build/, needs PYTHON with numpy), or MODEL=DIR.
cd "$(dirname "$0")/../.." || exit 1
name=bench-gpu
. tests/gpu/device.sh
make --no-print-directory -s -j"$(nproc)" CUDA=1 NVCC="$nvcc" ARCH="$arch" gpu-benches || exit 1
ceiling=$("build/cuda-$arch/tests/gpu/bench_read") || exit 1
echo "read ceiling ${ceiling} GB/s"
for size in 224 448 896; do
    model=${MODEL:-build/random-3b-$size}
    [ -f "$model/config.json" ] ||
        "${PYTHON:-python3}" tests/bench/make_random_model.py "$model" --size $size || exit 1
    build/release/tests/gpu/bench_cuda build/pali-cuda.so "$model" "$ceiling" || exit 1
    [ -z "${MODEL:-}" ] || break
    rm -rf "$model"
done
