#!/usr/bin/env bash
# Installs what is missing, builds, and runs the main job on two ranks: training and evaluation of configs/ncf.yaml
# on the default data set. Safe to run again: a finished run shows its result and trains no further.
#   launch/quickstart.sh [--no-install] [key.path=value ...]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

setup=(--program-only)
job=()
for argument in "$@"; do
  case "$argument" in
    --no-install) setup+=("$argument") ;;
    *) job+=("$argument") ;;
  esac
done
"$here/launch/setup.sh" "${setup[@]}" release

# Open MPI refuses to start as root unless told twice; in a container root is the usual user.
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
cd "$here"
set -x
exec mpirun --oversubscribe -np 2 build/release/kuaitrain "${job[@]}"
