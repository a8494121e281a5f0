#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what building and testing need on Debian 12, and gets the test machines' kernels into the cache.
# Harmless to repeat, and quick when all is there. Go comes from elsewhere, Go modules come by themselves.
#
#   scripts/setup.sh              packages (as root) and kernels
#   scripts/setup.sh packages     packages only
#   scripts/setup.sh kernels      kernels only, as the user who runs the tests

set -eu
cd "$(dirname "$0")/.."

# User-Mode Linux: a kernel built from Debian's source
uml="linux-source-6.1 gcc libc6-dev make flex bison bc patch xz-utils"
# AST2600: QEMU with Debian's armhf kernel, its device tree patched
ast2600="qemu-system-arm device-tree-compiler"
# the libusb backend (cgo)
libusb="libusb-1.0-0-dev pkg-config"
# programs that tests run
tests="git ca-certificates curl dbus-daemon iproute2 iputils-ping iperf3 dropbear-bin openssh-client picocom screen minicom"

packages() {
	missing=
	for p in $uml $ast2600 $libusb $tests; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) in
		installed) ;;
		*) missing="$missing $p" ;;
		esac
	done
	if [ -z "$missing" ]; then
		echo "setup: all packages are installed"
		return
	fi
	echo "setup: installing$missing"
	if [ "$(id -u)" != 0 ]; then
		echo "setup: that takes root: sudo $0 packages" >&2
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	# The lists may be old or absent; an update may meet a mirror that is being updated itself.
	# shellcheck disable=SC2086
	install() { apt-get install -y --no-install-recommends $missing; }
	if ! install; then
		apt-get update || { sleep 10; apt-get update; } || true
		install
	fi
}

kernels() {
	for lane in uml ast2600; do
		echo "setup: the kernel of the $lane machine"
		go run ./internal/vmtest/cmd/vmrun $lane
	done
}

case ${1:-all} in
all) packages; kernels ;;
packages) packages ;;
kernels) kernels ;;
*) echo "usage: $0 [packages|kernels]" >&2; exit 2 ;;
esac
