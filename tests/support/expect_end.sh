#!/bin/sh
# Runs a command and checks how it ends.
#   expect_end.sh CODE COUNT PATTERN COMMAND...
# CODE is the exit code; COUNT is how many lines of its output (stdout and stderr) match the extended
# regular expression PATTERN: a number, or + for at least one.
code=$1 count=$2 pattern=$3
shift 3
output=$("$@" 2>&1)
got=$?
printf '%s\n' "$output"
lines=$(printf '%s\n' "$output" | grep -E -c -e "$pattern")
if [ "$count" = + ] && [ "$lines" -gt 0 ]; then count=$lines; fi
if [ "$got" -ne "$code" ] || [ "$lines" != "$count" ]; then
  echo "FAILED: exit code $got, expected $code; $lines lines match, expected $count: $pattern"
  exit 1
fi
