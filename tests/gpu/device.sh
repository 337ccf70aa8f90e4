# Sourced by check.sh and bench.sh. Ends the script with one line where there is no device
# or no nvcc; else sets arch ("sm_90") and nvcc.
nvcc=${1:-nvcc}
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -dc 0-9)
if [ -z "$capability" ]; then
    echo "$name: skipped, no CUDA device here"
    exit 0
fi
if ! command -v "$nvcc" >/dev/null; then
    echo "$name: skipped, no nvcc here"
    exit 0
fi
arch=sm_$capability
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | head -n 1
