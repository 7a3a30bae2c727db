#!/usr/bin/env bash
# Installs what is missing, builds, and passes every test. Safe to run again.
#   tests/run.sh [--no-install] [PRESET]      (default preset: release)
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
preset=release
for argument in "$@"; do
  case "$argument" in -*) ;; *) preset=$argument ;; esac
done
"$here/launch/setup.sh" "$@"
cd "$here"
# Two jobs: a rank or a thread of a test of ranks counts as one (PROCESSORS), and the machine the time limit is meant for has two cores.
status=0
ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j "$(nproc)" 2>&1 |
  tee "build/tests-$preset.log" || status=$?
awk '/tests passed, .* tests failed out of/ {
  failed = $(NF - 5); total = $NF; print total - failed " passed, " failed " failed"
}' "build/tests-$preset.log"
exit $status
