#!/bin/sh
# The arrows of the architecture, checked by reading includes: app -> ui, core;
# gpu -> core/backend.h and what that needs; core and ui include nothing else of ours.
cd "$(dirname "$0")/.." || exit 1
bad=0
complain() { echo "layers: $1 must not include: $2" >&2; bad=1; }
check() { # folder, forbidden pattern
    hits=$(grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($2)" "$1" 2>/dev/null)
    [ -z "$hits" ] || complain "$1" "$hits"
}
check core 'ui/|app/|gpu/|ncurses|curses|readline|chafa|cuda|cublas'
check ui 'core/|app/|gpu/|cuda|cublas'
check gpu 'ui/|app/|tests/|ncurses|readline|chafa|cub/|cooperative_groups|cuda_bf16|cuda_fp16'
# The sandbox's processes are its own, and end themselves.
hits=$(grep -rnE '\b(exit|_exit|abort|printf|puts|perror)\(' core gpu --include='*.c' --include='*.cc' --include='*.cu' --include='*.cuh' |
    grep -vE 'snprintf|vsnprintf|^core/image_sandbox.c:[0-9]+: +_exit')
[ -z "$hits" ] || { echo "layers: core or gpu prints or exits: $hits" >&2; bad=1; }
exit $bad
