// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// DefaultInterval is between two looks at the metrics. Prometheus itself looks
// every 15 s or more rarely.
const DefaultInterval = 15 * time.Second

// File keeps metrics in a file.
type File struct {
	Name     string        // of which nobody ever sees a half
	Interval time.Duration // 0: DefaultInterval
	Collect  func(*Text)
	Logger   *slog.Logger // nil: discard

	was []byte // what is in the file
}

// Run writes the file when the metrics have changed, until ctx ends. A file
// that cannot be written is tried again and logged once. At the end the file
// is removed, so that nobody takes the last metrics for those of now.
func (f *File) Run(ctx context.Context) {
	log := f.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	every := f.Interval
	if every == 0 {
		every = DefaultInterval
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	defer os.Remove(f.Name)
	told := false
	for {
		err := f.write()
		if err != nil && !told {
			log.Warn("the metrics are not written", "op", "metrics", "err", err)
		}
		told = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// write writes the file if it would be another one, or has gone.
func (f *File) write() error {
	var t Text
	f.Collect(&t)
	now := t.Bytes()
	if f.was != nil && bytes.Equal(f.was, now) {
		if _, err := os.Lstat(f.Name); err == nil {
			return nil
		}
	}
	f.was = nil
	if err := replace(f.Name, now, 0o644); err != nil {
		return err
	}
	f.was = now
	return nil
}

// replace puts a file in the place of another at once. The new one is not
// forced to the disk: what is lost in a crash is written again. Its name does
// not end in .prom, so that the collector does not read it.
func replace(name string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Chmod(mode); err == nil {
		err = cerr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
