#!/bin/sh
# What `make check` and CI run: the layer rule, both builds, all tests plain and under
# ASan + UBSan, the ARM kernels in an emulator, a short fuzz of every parser, the CUDA sources through nvcc. Last line: "N passed, N failed, N skipped".
cd "$(dirname "$0")/.." || exit 1
export FUZZ_SEED="${FUZZ_SEED:-1}" # the same random numbers for everybody; make fuzz draws others
jobs=$(nproc)
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0
step() { # name, command...: one pass or fail; status 77 is a skip
    name=$1
    shift
    "$@"
    case $? in
    0) passed=$((passed + 1)); echo "ok   $name" ;;
    77) skipped=$((skipped + 1)); echo "skip $name" ;;
    *) failed=$((failed + 1)); echo "FAIL $name" ;;
    esac
}
suite() { # name, make arguments...: adds up the suite's own counts
    name=$1
    shift
    echo "== $name"
    make --no-print-directory -j"$jobs" "$@" >"$log" 2>&1
    status=$?
    grep -vE '^(gcc|g\+\+|cc|c\+\+|clang) ' "$log"
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
    [ -n "$line" ] || line="0 passed, 1 failed, 0 skipped"
    set -- $line
    passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
    [ $status -eq 0 ] || [ "$3" -gt 0 ] || failed=$((failed + 1))
}
step "layers" tests/layers.sh
suite "plain" test
suite "address and undefined-behaviour sanitizers" ASAN=1 test
suite "64-bit ARM kernels, emulated" ARM_TESTS="cpu_kernels cpu_quant" check-arm
step "fuzz, ${FUZZ_SECONDS:-5} s a parser" make --no-print-directory -s -j"$jobs" fuzz SECONDS="${FUZZ_SECONDS:-5}"
step "nvcc gate" tests/nvcc.sh
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
