// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime/debug"
)

func versionCommand(_ context.Context, e *env, args []string) error {
	if err := parse(e, flags("version", "", ""), args, 0); err != nil {
		return err
	}
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	_, err := fmt.Fprintln(e.stdout, "bmc-rshim", version)
	return err
}
