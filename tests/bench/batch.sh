#!/bin/sh
# Pictures a second: one `pali caption FOLDER` against one process a picture. Prints both, three times, and whether the
# answers are the same.
#   tests/bench/batch.sh FOLDER [pali options, --demo by default]
pali=${PALI:-build/pali}
folder=$1
shift
[ $# -gt 0 ] || set -- --demo
out=$(mktemp -d) || exit 1
trap 'rm -r "$out"' EXIT
now() { date +%s.%N; }
tell() { echo "$1 $2 $3 $4" | awk '{printf "%-24s %d pictures in %.2f s: %.1f a second\n", $1, $4, $3 - $2, $4 / ($3 - $2)}'; }
for round in 1 2 3; do
    start=$(now)
    "$pali" caption "$@" --files-from - <<LIST >"$out/all"
$(find "$folder" -maxdepth 1 -type f | LC_ALL=C sort)
LIST
    n=$(wc -l <"$out/all")
    tell one-process "$start" "$(now)" "$n"
    start=$(now)
    cut -f1 "$out/all" | while read -r name; do "$pali" caption "$@" "$name"; done >"$out/each"
    tell a-process-a-picture "$start" "$(now)" "$n"
done
cut -f2 "$out/all" | cmp - "$out/each" && echo "the answers are the same"
