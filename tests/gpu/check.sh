#!/bin/sh
# make check-gpu: the backend's tests on a device, built for it; then, where they are
# installed, compute-sanitizer's checkers on the small models, and transformers (PYTHON with
# torch) beside pali on the miniature model and on a 3B of random weights, made here: errors
# of the logits and 64 greedy tokens. Last line: "N passed, N failed, N skipped".
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
for tool in memcheck racecheck; do
    if [ -z "$sanitizer" ]; then skipped=$((skipped + 1)); echo "skip compute-sanitizer $tool: not installed"; continue; fi
    for t in "build/cuda-$arch"/tests/gpu/test_*; do
        case $tool-$t in racecheck-*model) continue ;; esac # the same kernels as the others, for minutes
        step "compute-sanitizer $tool $(basename "$t")" timeout 120 "$sanitizer" --tool "$tool" --error-exitcode 9 "$t"
    done
done
python=${PYTHON:-python3}
if "$python" -c 'import torch, transformers, sentencepiece' 2>/dev/null; then
    dir=build/check-gpu
    rm -rf $dir && mkdir -p $dir
    step "pali --dump on the device" build/pali --backend cuda -m assets/demo --dump $dir -p "caption en" assets/demo/demo.png
    # bf16 activations against float32: a few per cent
    step "against transformers" "$python" tests/reference/compare_dump.py $dir assets/demo assets/demo/demo.png "caption en" --bound 0.08
    # Random weights: tokens may part where two logits are nearly equal, and then the script says
    # how nearly; errors are what counts.
    model=build/random-3b-224
    [ -f $model/config.json ] || step "a random 3B" "$python" tests/bench/make_random_model.py $model --size 224
    rm -rf $dir && mkdir -p $dir
    step "3B: pali --dump on the device" build/pali --backend cuda -m $model --max-tokens 64 --dump $dir -p "caption en" assets/demo/demo.png
    step "3B: against transformers" timeout 240 "$python" tests/reference/compare_dump.py $dir $model assets/demo/demo.png "caption en" --dtype float32 --bound 0.08
    cat build/check-gpu.log
    rm -rf $model
else
    skipped=$((skipped + 1)); echo "skip transformers: $python has no torch and transformers"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ "$passed" -gt 0 ]
