// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// defaultConf is read if it exists.
const defaultConf = "/etc/rshim.conf"

// loadConf reads a configuration file.
func loadConf(name string) (conf, []remark, error) {
	f, err := os.Open(name)
	if err != nil {
		return newConf(), nil, err
	}
	defer f.Close()
	c, remarks, err := readConf(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return c, remarks, err
}

// reloadConf reads a file that was read before. One that is no longer a file
// might not end, and hold up the end of the daemon.
func reloadConf(name string) (conf, []remark, error) {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return newConf(), nil, fmt.Errorf("%s: not a regular file", name)
	}
	return loadConf(name)
}

// readConf reads the configuration file and logs what there is to say.
func (o *daemonOptions) readConf(log *slog.Logger) (conf, error) {
	name := cmp.Or(o.conf, defaultConf)
	c, remarks, err := loadConf(name)
	if o.conf == "" && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	logRemarks(log, name, remarks)
	o.said = c
	return c, err
}

func logRemarks(log *slog.Logger, name string, remarks []remark) {
	for _, r := range remarks {
		level := slog.LevelInfo
		if r.wrong > 0 {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, fmt.Sprintf("%s:%d: %s", name, r.line, r.text))
	}
}

// checkConf prints what there is to say about the configuration file. The
// error says that something is wrong.
func (o *daemonOptions) checkConf(w io.Writer) error {
	name := cmp.Or(o.conf, defaultConf)
	_, remarks, err := loadConf(name)
	if o.conf == "" && errors.Is(err, fs.ErrNotExist) {
		_, err = fmt.Fprintf(w, "%s: there is none, and needs to be none\n", name)
		return err
	}
	wrong := 0
	for _, r := range remarks {
		wrong += r.wrong
		if r.wrong == 0 {
			r.text = "note: " + r.text
		}
		fmt.Fprintf(w, "%s:%d: %s\n", name, r.line, r.text)
	}
	switch {
	case err != nil:
		return err
	case wrong > 0:
		fmt.Fprintf(w, "%s: %d wrong\n", name, wrong)
		return exitWith(exitFailed, "%s is not right", name)
	}
	_, err = fmt.Fprintf(w, "%s: ok\n", name)
	return err
}

// hangups catches SIGHUP, which would end the daemon.
func hangups() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}

// reload reads the configuration file anew at each signal, until ctx ends.
// Whatever differs from what the file said last is given to the set's devices;
// what does not is left to them, since misc may have changed it meanwhile.
func (o *daemonOptions) reload(ctx context.Context, set *rshim.Set, log *slog.Logger) {
	name := cmp.Or(o.conf, defaultConf)
	for {
		select {
		case <-o.hup:
		case <-ctx.Done():
			return
		}
		_ = o.notify.Reloading()
		o.readAgain(name, set, log)
		_ = o.notify.Ready(describe(set.Devices()))
	}
}

func (o *daemonOptions) readAgain(name string, set *rshim.Set, log *slog.Logger) {
	next, remarks, err := reloadConf(name)
	if err != nil {
		log.Warn("the configuration stays as it is", "op", "reload", "err", err)
		return
	}
	logRemarks(log, name, remarks)
	applied, later := o.said.changes(&next)
	set.Configure(next.options())
	set.Map(next.index, next.blocked)
	for _, key := range later {
		log.Warn(key + " applies at start")
	}
	log.Info("configuration read again", "op", "reload", "file", name, "changed", cmp.Or(strings.Join(applied, " "), "nothing"))
	o.said = next
}
