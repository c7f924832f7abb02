#!/bin/sh
# SPDX-License-Identifier: MIT
# kernel_build.sh TREE OUTPUT DIRECTORY: compile what belongs to a directory of Linux anew; locks nothing.
set -eu

unset MAKEFLAGS MFLAGS MAKELEVEL # of a make that measures us
rm -rf "${2:?}/$3"
start=$(date +%s%N)
make --silent -j2 -C "$1" O="$2" "$3/" >/dev/null
end=$(date +%s%N)
test -s "$2/$3/built-in.a"
echo "build $((end - start))"
