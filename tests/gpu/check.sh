#!/bin/sh
# make check-gpu: the backend's tests on a device, built for it; then, where they are
# installed, compute-sanitizer's checkers on the small models, and transformers (PYTHON with
# torch) beside pali on the miniature model and on a 3B of random weights, made here: errors
# of the logits and 64 greedy tokens. Ends within ALL seconds (540), what there is no time for
# is skipped. Last line: "N passed, N failed, N skipped".
cd "$(dirname "$0")/../.." || exit 1
name=check-gpu targets=gpu-tests
. tests/gpu/device.sh
passed=0 failed=0 skipped=0
left() { echo $((${ALL:-540} - ($(date +%s) - started))); }
skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }
step() { # name, seconds at most, command...
    what=$1 most=$2
    shift 2
    [ "$(left)" -lt "$most" ] && most=$(left)
    if [ "$most" -lt 10 ]; then skip "$what" "no time left"; return; fi
    if timeout "$most" "$@" >build/check-gpu.log 2>&1; then passed=$((passed + 1)); echo "ok   $what"
    else failed=$((failed + 1)); echo "FAIL $what"; tail -n 40 build/check-gpu.log; fi
}
TEST_TIMEOUT=180 tests/run.sh "$bin" test_ | tee build/check-gpu.log
set -- $(tail -n 1 build/check-gpu.log)
passed=$1 failed=$3 skipped=$5
transformers=$("$python" -c 'import torch, transformers, sentencepiece; print(transformers.__version__)' 2>/dev/null)
if [ -n "$transformers" ] && [ -n "$pali" ]; then
    dir=build/check-gpu
    rm -rf $dir && mkdir -p $dir
    step "pali --dump on the device" 60 $pali --backend cuda -m assets/demo --dump $dir -p "caption en" assets/demo/demo.png
    # bf16 activations against float32: a few per cent
    step "against transformers" 120 "$python" tests/reference/compare_dump.py $dir assets/demo assets/demo/demo.png "caption en" --bound 0.08
else
    skip transformers "$([ -n "$pali" ] && echo "$python has no torch and transformers" || echo "pali itself is not in $carry")"
fi
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
for tool in memcheck racecheck; do
    if [ -z "$sanitizer" ]; then skip "compute-sanitizer $tool" "not installed"; continue; fi
    for t in "$bin"/tests/gpu/test_cuda_*; do
        case $tool-$t in *.o | *.d) continue ;; racecheck-*model) continue ;; esac # the same kernels as the others, for minutes
        step "compute-sanitizer $tool $(basename "$t")" 120 "$sanitizer" --tool "$tool" --error-exitcode 9 "$t"
    done
done
if [ -n "$transformers" ] && [ -n "$pali" ]; then
    # Random weights: tokens may part where two logits are nearly equal, and then the script says
    # how nearly; errors are what counts.
    model=build/random-3b-224
    [ -f $model/config.json ] || step "a random 3B" 120 "$python" tests/bench/make_random_model.py $model --size 224
    rm -rf $dir && mkdir -p $dir
    step "3B: pali --dump on the device" 60 $pali --backend cuda -m $model --max-tokens 64 --dump $dir -p "caption en" assets/demo/demo.png
    step "3B: against transformers" 240 "$python" tests/reference/compare_dump.py $dir $model assets/demo/demo.png "caption en" --dtype float32 --bound 0.08
    cat build/check-gpu.log
    rm -rf $model
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ "$passed" -gt 0 ]
