#!/usr/bin/env bash
# Runs a program that was built with the feature `cuda` by tools/build-cuda.sh on GPUs that are none: tools/cuda-stand-in.cpp.
# usage: tools/cuda-stand-in.sh PROGRAM ARGUMENTS
set -euo pipefail
tools=$(cd "$(dirname "$0")" && pwd)
C=${CUDA13:-$HOME/.cache/cuda13}
out=$C/stand-in
mkdir -p "$out"
if [ ! -e "$out/libcuda.so.1" ] || [ -n "$(find "$tools"/*.cpp "$tools"/*.h "$tools"/../engine/src/vit/gpu/cuda/kernels.cu -newer "$out/libcuda.so.1")" ]; then
    g++ -std=c++20 -O2 -fPIC -shared -fvisibility=hidden -pthread -I"$C/cuda/include" "$tools/cuda-stand-in.cpp" -o "$out/libcuda.so.1"
    for name in libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libnvrtc.so.13; do ln -sf libcuda.so.1 "$out/$name"; done
fi
CUDA_LIBRARY_DIRS=$out LD_LIBRARY_PATH=$out${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$@"
