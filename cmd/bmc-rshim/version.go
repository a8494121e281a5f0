// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime/debug"
)

func versionCommand(_ context.Context, e *env, args []string) error {
	fs := flags("version", "", "")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := parse(e, fs, args, 0); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.stdout, fields(func(o *object) { o.text("version", version()) }))
	}
	_, err := fmt.Fprintln(e.stdout, "bmc-rshim", version())
	return err
}

// version is that of the module this program was built of.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
