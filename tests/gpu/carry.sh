#!/bin/sh
# make gpu-carry ARCH=sm_90: everything that check.sh and bench.sh run on a device, without what
# debuggers read, and the libraries it needs beyond those of any system, in build/carry-<ARCH>.
# For a machine that has a card and Python, but not the packages to build pali: bring the tree
# with that folder, and run the two scripts there.
#   tests/gpu/carry.sh ARCH FOLDER-OF-DEVICE-PROGRAMS FOLDER-OF-BENCH_CUDA
cd "$(dirname "$0")/../.." || exit 1
to=build/carry-$1
rm -rf "$to"
mkdir -p "$to/tests/gpu" "$to/lib" || exit 1
for f in "$2"/tests/gpu/test_cuda_* "$2"/tests/gpu/bench_read "$2"/tests/gpu/bench_kernels "$3/tests/gpu/bench_cuda"; do
    case $f in *.o | *.d) continue ;; esac
    strip -o "$to/tests/gpu/$(basename "$f")" "$f" || exit 1
done
strip --strip-unneeded -o "$to/pali-cuda.so" "$2/pali-cuda.so" || exit 1
ldd "$to"/tests/gpu/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' | while read -r lib; do
    cp -L "$lib" "$to/lib/" || exit 1
done || exit 1
du -sh "$to"
