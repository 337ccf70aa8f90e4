#!/bin/sh
# Runs each fuzzer for a number of seconds over its seed corpus tests/fuzz/corpus/NAME.
#   tests/fuzz/run.sh SECONDS build/fuzz/fuzz_NAME...
# New inputs stay in build/fuzz/corpus; a crash is kept there and shown. No input may take 10 s.
# The fuzzer's clock goes on while the machine computes for others, so an input that it found
# slow is tried again alone, by processor time. FUZZ_SEED: the same random numbers every time.
seconds=$1
shift
bad=0
is_quick() { # fuzzer, its log
    slow=$(sed -n 's/.*Test unit written to //p' "$2" | tail -n 1)
    for try in 1 2 3; do
        [ -f "$slow" ] && (ulimit -t 10 && exec "$1" -timeout=3600 "$slow") >/dev/null 2>&1 && return 0
    done
    return 1
}
for f in "$@"; do
    name=${f##*/fuzz_}
    log=build/fuzz/$name.log
    mkdir -p "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name"
    "$f" -max_total_time="$seconds" -timeout=10 -timeout_exitcode=70 -rss_limit_mb=4096 -max_len=65536 \
        -verbosity=0 -print_final_stats=0 ${FUZZ_SEED:+-seed="$FUZZ_SEED"} \
        -artifact_prefix="build/fuzz/crash-$name-" \
        "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1
    status=$?
    if [ $status -eq 70 ] && is_quick "$f" "$log"; then
        echo "fuzz $name: ok as far as it came: the machine was slow"
    elif [ $status -ne 0 ]; then
        echo "fuzz $name: FAILED" >&2
        tail -n 40 "$log" >&2
        bad=1
    else
        echo "fuzz $name: ok"
    fi
done
exit $bad
