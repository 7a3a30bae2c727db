#!/usr/bin/env bash
# launch/setup.sh in a fresh clone whose path has a blank, with a libtorch, a LightGBM, a toolkit and an NCCL of the caller's
# own that are named from where the caller stands. Programs that would install or build are stand-ins.
#   setup_paths.sh SETUP.sh
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/a clone/launch" "$work/bin" "$work/here/torch/lib" "$work/here/lightgbm/lib" "$work/a clone/build/test-tools" "$work/here/toolkit/bin" "$work/here/nccl/include"
cp "$1" "$work/a clone/launch/setup.sh"
touch "$work/here/torch/lib/libtorch_cuda.so" "$work/here/lightgbm/lib/lib_lightgbm.so" "$work/a clone/build/test-tools/complete" "$work/here/nccl/include/nccl.h"
printf '#!/bin/sh\n' >"$work/here/toolkit/bin/nvcc"
printf '#!/bin/sh\nprintf "install ok installed"\n' >"$work/bin/dpkg-query"
# shellcheck disable=SC2016  # the script expands them
printf '#!/bin/sh\necho "$PWD $CMAKE_PREFIX_PATH $CUDAToolkit_ROOT $NCCL_ROOT $*" >>"%s/log"\n' "$work" >"$work/bin/cmake"
printf '#!/bin/sh\nexit 0\n' >"$work/bin/python3"
chmod +x "$work"/bin/* "$work/here/toolkit/bin/nvcc"
cd "$work/here"
PATH=$work/bin:/usr/bin:/bin CMAKE_PREFIX_PATH=torch:lightgbm CUDAToolkit_ROOT=toolkit NCCL_ROOT=nccl CUDACXX='' \
  "../a clone/launch/setup.sh" --no-install --program-only gpu
own="$work/here/torch:$work/here/lightgbm $work/here/toolkit $work/here/nccl"
diff "$work/log" - <<EOF
$work/a clone $own --preset gpu
$work/a clone $own --build build/gpu --target kuaitrain
EOF
[ -e "$work/a clone/build/configure-gpu.log" ]
