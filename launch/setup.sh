#!/usr/bin/env bash
# Installs what is missing and builds. Safe to run again: what is there already is not done twice.
#   launch/setup.sh [--no-install] [--program-only] [PRESET]      (default preset: release, with its tests)
# Environment: CMAKE_PREFIX_PATH with a libtorch or LightGBM of your own is used instead of the downloaded one.
set -euo pipefail

# Folders that the caller names are meant from where the caller stands.
absolute() {  # VARIABLE: its folders, separated by : or ;
  local IFS=':;' folder folders=
  for folder in ${!1:-}; do
    case $folder in /* | '') ;; *) folder=$PWD/$folder ;; esac
    folders+=${folders:+:}$folder
  done
  [ -z "$folders" ] || export "$1=$folders"
}
for variable in CMAKE_PREFIX_PATH NCCL_ROOT CUDAToolkit_ROOT; do absolute $variable; done
case ${CUDACXX:-} in /*) ;; */*) export CUDACXX=$PWD/$CUDACXX ;; esac
cd "$(dirname "$0")/.."
mkdir -p build

install=yes
preset=release
targets=()
for argument in "$@"; do
  case "$argument" in
    --no-install) install=no ;;
    --program-only) targets=(--target kuaitrain) ;;
    -*) echo "setup: unknown option $argument; expected --no-install or --program-only" >&2; exit 2 ;;
    *) preset=$argument ;;
  esac
done

say() { printf '== %s\n' "$*" >&2; }
fetch() {  # packages of PyPI into build/wheels
  mkdir -p build/wheels
  python3 -m pip download --quiet --no-deps --only-binary=:all: --dest build/wheels \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux_2_18_x86_64 --platform manylinux2010_x86_64 \
    --python-version 3.11 --implementation cp --abi cp311 --abi none "$@" ||
    { echo "setup: PyPI did not give $* (pip's message is above)" >&2; exit 1; }
}

packages=(g++ cmake ninja-build ccache python3-pip unzip
  openmpi-bin libopenmpi-dev libhdf5-dev libyaml-cpp-dev libgtest-dev libgmock-dev libbenchmark-dev
  libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libxxhash-dev libminizip-dev libfast-float-dev libjs-chart.js shellcheck)
# What the tests read our files with: pages, exports, schemas.
[ ${#targets[@]} -gt 0 ] || packages+=(python3-venv python3-numpy python3-pandas python3-jsonschema chromium)
missing=()
for package in "${packages[@]}"; do
  case "$package" in
    python3-pip) python3 -m pip --version >/dev/null 2>&1 && continue ;;
  esac
  state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$state" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ $install = no ]; then
    echo "setup: missing Debian packages: ${missing[*]}" >&2
    echo "setup: install them, or run again without --no-install" >&2
    exit 2
  fi
  say "installing Debian packages: ${missing[*]}"
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
fi

# libtorch is the CPU half of the PyPI wheel, and the two small CUDA libraries its libtorch_cpu.so asks for;
# preset gpu adds the other half.
library=libtorch_cpu.so
complete=build/libtorch/complete
if [ "$preset" = gpu ]; then
  library=libtorch_cuda.so
  complete=build/libtorch/complete-gpu
fi
own() {  # NAME LIBRARY: whether CMAKE_PREFIX_PATH has it, in a folder of its own or one of Python packages
  local IFS=':;' folder
  for folder in ${CMAKE_PREFIX_PATH:-}; do
    [ -e "$folder/lib/$2" ] || [ -e "$folder/$1/lib/$2" ] && return 0
  done
  return 1
}
if ! own torch $library && [ ! -e $complete ]; then
  if [ $install = no ]; then
    echo "setup: no $library in CMAKE_PREFIX_PATH or build/libtorch" >&2
    echo "setup: set CMAKE_PREFIX_PATH, or run again without --no-install" >&2
    exit 2
  fi
  say "fetching libtorch 2.15.0 (0.5 GB, once)"
  rm -rf build/wheels
  fetch torch==2.15.0 nvidia-cuda-runtime==13.2.86 nvidia-cuda-cupti==13.2.86
  rm -rf build/libtorch
  mkdir -p build/libtorch
  unzip -q build/wheels/torch-*.whl 'torch/include/*' torch/lib/libtorch_cpu.so torch/lib/libc10.so \
    'torch/lib/libgomp*' 'torch/lib/libgfortran*' -d build/libtorch
  unzip -q build/wheels/nvidia_cuda_runtime-*.whl '*/libcudart.so*' -d build/libtorch
  unzip -q build/wheels/nvidia_cuda_cupti-*.whl '*/libcupti.so*' -d build/libtorch
  if [ "$preset" = gpu ]; then
    unzip -q build/wheels/torch-*.whl torch/lib/libtorch_cuda.so torch/lib/libtorch_cuda_linalg.so \
      torch/lib/libtorch_nvshmem.so torch/lib/libc10_cuda.so -d build/libtorch
  fi
  rm -rf build/wheels
  touch build/libtorch/complete $complete
fi

# What finds trees (models/trees/lightgbm.h): the library of PyPI's wheel.
if ! own lightgbm lib_lightgbm.so && [ ! -e build/lightgbm/lib/lib_lightgbm.so ]; then
  if [ $install = no ]; then
    echo "setup: no lib_lightgbm.so in CMAKE_PREFIX_PATH or build/lightgbm" >&2
    echo "setup: set CMAKE_PREFIX_PATH, or run again without --no-install" >&2
    exit 2
  fi
  say "fetching LightGBM 4.7.0 (4 MB, once)"
  fetch lightgbm==4.7.0
  unzip -qo build/wheels/lightgbm-*.whl lightgbm/lib/lib_lightgbm.so -d build
  rm -rf build/wheels
fi

# nvcc, where the machine has none, and NCCL, which toolkits come without: those that libtorch's wheel was built with.
own_nvcc() {
  [ -n "${CUDACXX:-}" ] || [ -x "${CUDAToolkit_ROOT:-}/bin/nvcc" ] || command -v nvcc >/dev/null
}
own_nccl() {
  local IFS=':;' folder nvcc
  nvcc=$(command -v "${CUDACXX:-nvcc}" || true)
  for folder in ${NCCL_ROOT:-} ${CMAKE_PREFIX_PATH:-} ${CUDAToolkit_ROOT:-} ${nvcc%/bin/nvcc} /usr/local /usr; do
    [ -e "$folder/include/nccl.h" ] || [ -e "$folder/nvidia/nccl/include/nccl.h" ] && return 0
  done
  return 1
}
need() {  # NAME WHERE-ELSE FOLDER PART PACKAGE...: the files of nvidia/PART of the packages, in build/FOLDER
  local name=$1 where=$2 folder=build/$3 part=$4 wheel
  shift 4
  [ ! -e "$folder" ] || return 0
  if [ $install = no ]; then
    echo "setup: no $name in $where or $folder" >&2
    echo "setup: name one, or run again without --no-install" >&2
    exit 2
  fi
  say "fetching $name from PyPI (0.2 GB, once)"
  rm -rf build/wheels "$folder.part"
  fetch "$@"
  for wheel in build/wheels/*.whl; do unzip -q "$wheel" "nvidia/$part/*" -d "$folder.part"; done
  rm -rf build/wheels
  # What CMake looks for and wheels do not have: names without a version, lib64, the right to execute.
  if [ -e "$folder.part/nvidia/$part/bin/nvcc" ]; then
    chmod a+x "$folder.part/nvidia/$part"/{,nvvm/}bin/*
    ln -s lib "$folder.part/nvidia/$part/lib64"
    ln -s libcudart.so.13 "$folder.part/nvidia/$part/lib/libcudart.so"
  fi
  mv "$folder.part/nvidia/$part" "$folder"
  rm -rf "$folder.part"
}
if [ "$preset" = gpu ]; then
  own_nvcc || need "CUDA toolkit" "PATH, CUDAToolkit_ROOT, CUDACXX" cuda-toolkit cu13 \
    nvidia-cuda-{nvcc,crt,cccl,runtime}==13.2.86 nvidia-nvvm==13.2.86
  own_nccl || need NCCL "NCCL_ROOT, the CUDA toolkit, /usr/local, /usr" nccl nccl nvidia-nccl-cu13==2.30.7
fi

# The readers of event files and exports, for the tests; Debian's python3, which has the packages above.
tools=(tensorboard==2.21.0 safetensors==0.6.2)
if [ ${#targets[@]} = 0 ] && [ "$(cat build/test-tools/complete 2>/dev/null)" != "${tools[*]}" ]; then
  if [ $install = no ]; then
    echo "setup: no build/test-tools; run again without --no-install" >&2
    exit 2
  fi
  say "fetching ${tools[*]} from PyPI (20 MB, once)"
  /usr/bin/python3 -m venv --clear --system-site-packages build/test-tools
  build/test-tools/bin/pip install --quiet "${tools[@]}"
  echo "${tools[*]}" >build/test-tools/complete
fi

say "building preset $preset"
if [ ! -e "build/$preset/build.ninja" ]; then cmake --preset "$preset" >"build/configure-$preset.log" 2>&1 ||
  { cat "build/configure-$preset.log" >&2; exit 1; }; fi
cmake --build "build/$preset" "${targets[@]}"
