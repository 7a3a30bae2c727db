#!/bin/bash
# Runs shellcheck over every shell script of the tree: what a first line says is one.
#   check_scripts.sh SHELLCHECK ROOT
set -euo pipefail
cd "$2"
mapfile -d '' files < <(find . -path ./build -prune -o -path ./.git -prune -o -path ./shared -prune -o -type f -print0)
mapfile -t scripts < <(awk 'FNR == 1 && /^#!.*[\/ ](ba)?sh$/ {print FILENAME} {nextfile}' "${files[@]}")
echo "${#scripts[@]} scripts: ${scripts[*]}"
[ "${#scripts[@]}" -ge 10 ]
"$1" "${scripts[@]}"
