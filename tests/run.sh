#!/bin/sh
# Runs every test program of one build folder and adds up what they printed.
#   tests/run.sh build/release [name-part]
# EMULATOR is what runs programs for another processor, if they are. Each program speaks
# TAP (cmocka). A program that dies without a verdict, or takes longer than TEST_TIMEOUT seconds, counts as one failure. (The slowest
# takes two minutes; the limit is for one that hangs, not for a slow machine.) Prints "N passed, N failed, N skipped" last; status 1 on any failure.
set -u
folder=$1
only=${2:-}
export CMOCKA_MESSAGE_OUTPUT=TAP
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
export PALI_CONFIG= # not the config file of whoever runs this
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/tests/lsan.supp:print_suppressions=0}
passed=0 failed=0 skipped=0
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
for t in $(find "$folder/tests" -type f -perm -u+x -name "test_*" | sort); do
    case $t in *"$only"*) ;; *) continue ;; esac
    timeout "${TEST_TIMEOUT:-1800}" ${EMULATOR:-} "$t" >"$out" 2>&1
    status=$?
    # cmocka prints a skipped test as "not ok N # SKIP name".
    s=$(grep -cE '^(not )?ok [0-9]+ # SKIP' "$out")
    p=$(grep -E '^ok ' "$out" | grep -cvE '^ok [0-9]+ # SKIP')
    f=$(grep -E '^not ok ' "$out" | grep -cvE '^not ok [0-9]+ # SKIP')
    if [ $status -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
        echo "-- $t ended with status $status" >>"$out"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$f" -gt 0 ]; then
        echo "FAIL $t ($p passed, $f failed)"
        grep -v '^ok ' "$out" | tail -n 60
    else
        echo "ok   $t ($p passed${s:+, $s skipped})"
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
