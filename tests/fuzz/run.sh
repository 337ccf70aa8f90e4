#!/bin/sh
# Runs each fuzzer for a number of seconds over its seed corpus tests/fuzz/corpus/NAME.
#   tests/fuzz/run.sh SECONDS build/fuzz/fuzz_NAME...
# New inputs stay in build/fuzz/corpus; a crash is kept there and shown.
seconds=$1
shift
bad=0
for f in "$@"; do
    name=${f##*/fuzz_}
    mkdir -p "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name"
    if ! "$f" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=65536 -verbosity=0 \
        -print_final_stats=0 -artifact_prefix="build/fuzz/crash-$name-" \
        "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
        echo "fuzz $name: FAILED" >&2
        tail -n 40 "build/fuzz/$name.log" >&2
        bad=1
    else
        echo "fuzz $name: ok"
    fi
done
exit $bad
