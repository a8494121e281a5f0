#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Takes the RShim of a simulated BlueField over from its host and boots it from a
# BFB: what "make demo" shows. It needs Go and nothing else: no root, no hardware.
#
#	demo.sh [bf2|bf3]
set -eu
cd "$(dirname "$0")/.."
chip=${1:-bf3}
out=out/demo
mkdir -p bin "$out"

title() { printf '\n== %s\n' "$*"; }

title "Build the daemon with its command line, and a BFB of 32 MiB"
CGO_ENABLED=0 go build -trimpath -o bin/bmc-rshim ./cmd/bmc-rshim
go run ./scripts/mkbfb -chip "${chip#bf}" -o "$out/demo.bfb"
printf 'ubuntu_PASSWORD=demo\n' >"$out/bf.cfg"
ls -l bin/bmc-rshim "$out/demo.bfb" | awk '{ printf "%10d  %s\n", $5, $NF }'

title "A BFB for another chip is refused before anything is touched"
other=2
[ "$chip" = bf2 ] && other=3
go run ./scripts/mkbfb -chip $other -size 1000000 -o "$out/other.bfb"
code=0
bin/bmc-rshim push -simulate "$chip" "$out/other.bfb" || code=$?
echo "exit code $code"
[ $code -eq 3 ]

title "The host has the RShim of another one: nothing is touched unless it is taken over"
code=0
bin/bmc-rshim push -simulate "$chip" -sim-host "$out/demo.bfb" || code=$?
echo "exit code $code"
[ $code -eq 6 ]

title "Take it over by FORCE, push to the simulated $chip over USB at 8 MB/s, and follow it until it is ready"
set -- push -simulate "$chip" -sim-host -force -sim-rate 8000000 -sim-scale 0.4 -status -config "$out/bf.cfg" "$out/demo.bfb"
echo "\$ bmc-rshim $*"
exec bin/bmc-rshim "$@"
