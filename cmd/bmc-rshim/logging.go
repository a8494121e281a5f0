// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/bluefield-go/bmc-rshim/internal/syslog"
)

// logLevels are the values of -log-level: slog's names, and the numbers of the
// C daemon. What the C daemon tells as a notice is info here, so that both
// names are the same.
var logLevels = map[string]slog.Level{
	"error": slog.LevelError, "1": slog.LevelError,
	"warn": slog.LevelWarn, "2": slog.LevelWarn,
	"notice": slog.LevelInfo, "info": slog.LevelInfo, "3": slog.LevelInfo,
	"debug": slog.LevelDebug, "4": slog.LevelDebug,
	"0": slog.LevelError + 1, // nothing
}

// newLogger makes the daemon's logger of a -log-level.
func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	l, ok := logLevels[level]
	if !ok {
		return nil, fmt.Errorf("-log-level is error, warn, notice, info, debug, or 0 to 4, not %q", level)
	}
	o := &slog.HandlerOptions{Level: l}
	f, ok := w.(*os.File)
	if journal := ok && syslog.IsJournal(f) || !ok && os.Getenv("JOURNAL_STREAM") != ""; !journal {
		return slog.New(slog.NewTextHandler(w, o)), nil
	}
	return slog.New(syslog.NewJournal(w, o)), nil
}
