# Sourced by check.sh and bench.sh. Ends the script with one line where there is no device or
# nothing to run on it. Else sets arch ("sm_90") and python, and builds what was asked for
# (targets) for this device alone:
#   bin      folder of the programs that run on the device
#   host     folder of bench_cuda      plugin, pali   "" where there is none
# On a machine without this tree's packages, build/carry-<arch> (make gpu-carry, elsewhere)
# takes the place of building.
nvcc=${1:-nvcc}
python=${PYTHON:-python3}
started=$(date +%s)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -dc 0-9)
if [ -z "$capability" ]; then
    echo "$name: skipped, no CUDA device here"
    exit 0
fi
arch=sm_$capability
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | head -n 1
# The library of products may be there as a Python package only.
if ! ldconfig -p 2>/dev/null | grep -q libcublasLt.so.13 && [ ! -e /usr/local/cuda/lib64/libcublasLt.so.13 ]; then
    cublas=$("$python" -c 'import os, nvidia
print(next(d for p in nvidia.__path__ for d, _, f in os.walk(p) if "libcublasLt.so.13" in f))' 2>/dev/null)
    [ -z "$cublas" ] || export LD_LIBRARY_PATH="$cublas${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
carry=build/carry-$arch
if [ -d "$carry" ]; then
    bin=$carry host=$carry plugin=$carry/pali-cuda.so pali=
    export LD_LIBRARY_PATH="$PWD/$carry/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    echo "$name: taking the programs of $carry, nothing is built"
elif command -v "$nvcc" >/dev/null; then
    bin=build/cuda-$arch host=build/release plugin=build/pali-cuda.so pali=build/pali
    make --no-print-directory -s -j"$(nproc)" CUDA=1 NVCC="$nvcc" ARCH="$arch" $targets || {
        echo "$name: not built; where packages are missing, make gpu-carry ARCH=$arch elsewhere and bring $carry"
        exit 1
    }
    echo "$name: built in $(($(date +%s) - started)) s"
else
    echo "$name: skipped, no nvcc here and no $carry (make gpu-carry)"
    exit 0
fi
