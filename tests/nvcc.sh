#!/bin/sh
# The CUDA sources through the real compiler, for the oldest, a usual and the newest target:
# they compile without warnings; no kernel of the decode step or of attention spills registers; the kernels
# that stream weights do it 16 bytes at a time; the plugin links, exports its one function
# and needs neither the driver nor cuBLAS. Status 77 where there is no nvcc.
#   tests/nvcc.sh [nvcc]
cd "$(dirname "$0")/.." || exit 1
nvcc=${1:-$([ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc || echo nvcc)}
if ! command -v "$nvcc" >/dev/null; then
    echo "nvcc gate: skipped, no nvcc here"
    exit 77
fi
decode="gemv attend sample flash" # files of the decode step, and attention of many rows
stream="gemv"        # every kernel in these reads weights
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0
dump=$(dirname "$(command -v "$nvcc")")/cuobjdump
[ -x "$dump" ] || dump=cuobjdump
complain() { echo "nvcc gate: $1" >&2; bad=1; }

for f in gpu/*.cu; do
    name=$(basename "$f" .cu)
    if ! "$nvcc" -std=c++17 -O3 -I. -gencode arch=compute_75,code=sm_75 -gencode arch=compute_90,code=sm_90 \
        -gencode arch=compute_120,code=sm_120 -Xcompiler -fPIC,-Wall -Werror all-warnings -Xptxas -v \
        --keep --keep-dir "$dir" -c -o "$dir/$name.o" "$f" >"$dir/log" 2>&1; then
        complain "$f does not compile:"
        grep -v '^ptxas info' "$dir/log" | head -n 20 >&2
        continue
    fi
    case " $decode " in *" $name "*)
        spills=$(awk '/Compiling entry function/ { kernel = $6 " for " $8 }
            /bytes spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ { print "  " kernel ":" $0 }' "$dir/log")
        [ -z "$spills" ] || complain "$f spills registers:
$spills" ;;
    esac
    case " $stream " in *" $name "*)
        # What the chip will run, where the disassembler is there, else what it is made from.
        if "$dump" -sass -arch sm_90 "$dir/$name.o" >"$dir/$name.sass" 2>/dev/null; then
            narrow=$(awk '/Function :/ { if (kernel && !wide) print "  " kernel; kernel = $3; wide = 0 }
                /LDG\.E\.128/ { wide = 1 }
                END { if (!wide) print "  " (kernel ? kernel : "anything") }' "$dir/$name.sass")
        else
            narrow=$(awk '/\.entry/ { if (kernel && !wide) print "  " kernel; kernel = $3; sub(/\(.*/, "", kernel); wide = 0 }
                /ld\.global[a-zA-Z0-9_.:]*\.v4/ { wide = 1 }
                END { if (!wide) print "  " (kernel ? kernel : "anything") }' "$dir/$name.compute_90.ptx")
        fi
        [ -z "$narrow" ] || complain "$f: no 128-bit load in
$narrow" ;;
    esac
done

[ $bad -eq 0 ] || exit 1
for f in error quant matrix; do
    "${CC:-cc}" -std=c11 -fPIC -I. -D_GNU_SOURCE -c -o "$dir/core_$f.o" "core/$f.c" || bad=1
done
"$nvcc" -shared -cudart static -o "$dir/pali-cuda.so" "$dir"/*.o -ldl || complain "the plugin does not link"
if [ $bad -eq 0 ]; then
    nm -D --defined-only "$dir/pali-cuda.so" | grep -q ' T pali_plugin_entry$' || complain "the plugin lacks pali_plugin_entry"
    needs=$(readelf -d "$dir/pali-cuda.so" | grep NEEDED | grep -E 'cuda|cublas|nv')
    [ -z "$needs" ] || complain "the plugin must open these itself: $needs"
    undefined=$(nm -D --undefined-only "$dir/pali-cuda.so" | grep -E ' (pali_|cu[A-Z]|cuda|cublas)')
    [ -z "$undefined" ] || complain "the plugin does not hold: $undefined"
fi
exit $bad
