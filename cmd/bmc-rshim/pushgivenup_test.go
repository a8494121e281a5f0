// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/dbus/client"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// releaseAt gives the RShim up when a line is the last of a push that is not
// over.
func (r *busRig) releaseAt(line string) (done <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := client.Connect(r.t.Context(), r.bus.Address())
		if err != nil {
			r.t.Error(err)
			return
		}
		defer c.Close()
		r.await(line, func() bool {
			p, err := c.LastPush(r.t.Context(), 0)
			return err == nil && !p.Ended() && p.Line == line
		})
		if err := c.Release(r.t.Context(), 0); err != nil {
			r.t.Error(err)
		}
	}()
	return ended
}

// A push whose RShim is given up in the middle of the installation has not
// succeeded, whoever follows it.
func TestBusPushGivenUp(t *testing.T) {
	t.Parallel()
	r := newBusRig(t)
	const installing = "INFO[MISC]: hm"
	r.cfg.FailAfter, r.cfg.FailLine = "Installing OS", installing // and there it stays
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 300_000))
	for _, args := range [][]string{{"push", "-json", img}, {"push", "-json", "-follow"}} {
		if args[2] == "-follow" {
			r.want(r.run(t.Context(), "push", "-force", "-detach", img), exitOK)
		}
		done := r.releaseAt(installing)
		r.want(r.run(t.Context(), args...), exitGivenUp, `"outcome":"streamed","exit_code":8,`, `"ready":false`,
			"the DPU has the image, but ", "the RShim was given up before the DPU was ready", "bmc-rshim force")
		<-done
	}
	r.want(r.run(t.Context(), "status", "-json"), exitOK, `"outcome":"streamed"`, "was given up")

	// Who wants to know of the stream alone has what it wants.
	r.want(r.run(t.Context(), "push", "-json", "-force", "-wait", "streamed", img), exitOK, `"outcome":"streamed","exit_code":0,`)
	r.want(r.run(t.Context(), "push", "-json", "-follow"), exitOK, `"outcome":"streamed","exit_code":0,`)
}

// The same through the device files, of whatever daemon: misc tells.
func TestNodesPushGivenUp(t *testing.T) {
	booting := strings.Replace(miscBF3, "INFO[MISC]: DPU is ready", "INFO[MISC]: Installing OS", 1)
	root, boot := fakeDev(t, "rshim0", booting)
	go func() {
		<-boot
		misc := filepath.Join(root, "rshim0", "misc")
		err := os.WriteFile(misc+"~", []byte(strings.Replace(booting, "DROP_MODE       0", "DROP_MODE       1", 1)), 0o600)
		if err == nil {
			err = os.Rename(misc+"~", misc)
		}
		if err != nil {
			t.Error(err)
		}
	}()
	var out bytes.Buffer
	code := run(t.Context(), []string{"push", "-json", "-dev-root", root, "-no-check", "-"}, strings.NewReader("no BFB"), &out, &out)
	if code != exitGivenUp || !strings.Contains(out.String(), `"outcome":"streamed","exit_code":8,`) {
		t.Errorf("exit code %d\n%s", code, &out)
	}
}
