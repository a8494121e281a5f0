// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"strings"
)

const completionHelp = `Prints what makes the shell complete bmc-rshim's commands and flags:

  bmc-rshim completion bash >/usr/share/bash-completion/completions/bmc-rshim

`

func completionCommand(_ context.Context, e *env, args []string) error {
	fs := flags("completion", " bash", completionHelp)
	if err := parse(e, fs, args, 1); err != nil {
		return err
	}
	if fs.Arg(0) != "bash" {
		return usageError("completion: there is one for bash, none for %q", fs.Arg(0))
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	_, err := io.WriteString(e.stdout, strings.Replace(bashCompletion, "@COMMANDS@", strings.Join(names, " "), 1))
	return err
}

// bashCompletion asks the program for its flags, so that both are one version.
const bashCompletion = `# bash completion for bmc-rshim

_bmc_rshim_flags() {
	"$1" "$2" -h 2>/dev/null | sed -n 's/^  \(-[a-z0-9-]*\).*/\1/p'
}

_bmc_rshim_devices() {
	local d
	for d in /dev/rshim[0-9]*; do
		[ -d "$d" ] && echo "${d#/dev/}"
	done
}

_bmc_rshim() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W "@COMMANDS@" -- "$cur"))
		return
	fi
	case $prev in
	-device) words=$(_bmc_rshim_devices) ;;
	-wait) words="ready streamed" ;;
	-log-level) words="error warn notice info debug" ;;
	-simulate) words="bf2 bf3" ;;
	-conf|-config|-rootfs|-log|-metrics-file|-pid-file)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-dev-root)
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return ;;
	esac
	if [ -z "$words" ]; then
		case $cur in
		-*) words=$(_bmc_rshim_flags "${COMP_WORDS[0]}" "${COMP_WORDS[1]}") ;;
		*)
			case ${COMP_WORDS[1]} in
			push|recover)
				mapfile -t COMPREPLY < <(compgen -f -- "$cur")
				return ;;
			console) words=$(_bmc_rshim_devices) ;;
			boot-mode) words="rshim emmc emmc-boot-swap emmc-legacy" ;;
			host-access) words="get set enabled locked disabled" ;;
			misc) words="DISPLAY_LEVEL BOOT_MODE BOOT_TIMEOUT USB_TIMEOUT DROP_MODE SW_RESET BOOT_RESET_SKIP CLEAR_ON_READ" ;;
			completion) words=bash ;;
			esac ;;
		esac
	fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}

complete -o filenames -F _bmc_rshim bmc-rshim
`
