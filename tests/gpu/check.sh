#!/bin/sh
# make check-gpu: the backend's tests on a device, built for it; then, where they are
# installed, compute-sanitizer's three checkers on the small models, and transformers
# (PYTHON with torch) beside pali on the miniature model. Last line: "N passed, N failed,
# N skipped".
cd "$(dirname "$0")/../.." || exit 1
name=check-gpu
. tests/gpu/device.sh
passed=0 failed=0 skipped=0
step() { # name, command...
    what=$1
    shift
    if "$@" >build/check-gpu.log 2>&1; then passed=$((passed + 1)); echo "ok   $what"
    else failed=$((failed + 1)); echo "FAIL $what"; tail -n 40 build/check-gpu.log; fi
}
make --no-print-directory -s -j"$(nproc)" CUDA=1 NVCC="$nvcc" ARCH="$arch" gpu-tests || exit 1
tests/run.sh "build/cuda-$arch" | tee build/check-gpu.log
set -- $(tail -n 1 build/check-gpu.log)
passed=$1 failed=$3 skipped=$5
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
for tool in memcheck racecheck initcheck; do
    if [ -z "$sanitizer" ]; then skipped=$((skipped + 1)); echo "skip compute-sanitizer $tool: not installed"; continue; fi
    for t in "build/cuda-$arch"/tests/gpu/test_*; do
        step "compute-sanitizer $tool $(basename "$t")" "$sanitizer" --tool "$tool" --error-exitcode 9 "$t"
    done
done
python=${PYTHON:-python3}
if "$python" -c 'import torch, transformers, sentencepiece' 2>/dev/null; then
    dir=build/check-gpu
    rm -rf $dir && mkdir -p $dir
    step "pali --dump on the device" build/pali --backend cuda -m assets/demo --dump $dir -p "caption en" assets/demo/demo.png
    # bf16 activations against float32: a few per cent
    step "against transformers" "$python" tests/reference/compare_dump.py $dir assets/demo assets/demo/demo.png "caption en" --bound 0.08
else
    skipped=$((skipped + 1)); echo "skip transformers: $python has no torch and transformers"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ "$passed" -gt 0 ]
