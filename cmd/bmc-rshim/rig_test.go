// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// rig runs commands on a simulated DPU, in a bubble where time is virtual.
type rig struct {
	t              *testing.T
	cfg            bluefield.Config
	before         func(*usbdev.Function) // the DPU runs
	stdin          io.Reader
	fn             *usbdev.Function // of the last command
	stdout, stderr bytes.Buffer
}

// bubble runs f with a rig for each generation that has everything.
func bubble(t *testing.T, f func(r *rig, g reg.Generation)) {
	for _, g := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
		t.Run(g.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f(&rig{t: t, cfg: bluefield.Config{Generation: g, Revision: 1, OPN: "900-9D3B6-00CV-A"}}, g)
			})
		})
	}
}

// run runs a command with -simulate and returns its exit code.
func (r *rig) run(ctx context.Context, args ...string) int {
	r.t.Helper()
	r.stdout.Reset()
	r.stderr.Reset()
	e := &env{stdin: r.stdin, stdout: &r.stdout, stderr: &r.stderr, simulate: func(simFlags) (*usbBus, error) {
		r.fn = usbdev.New(bluefield.New(r.cfg), usbdev.Options{})
		if r.before != nil {
			r.before(r.fn)
		}
		return plug(r.fn), nil
	}}
	args = append([]string{args[0], "-simulate", "bf3"}, args[1:]...)
	return runIn(ctx, e, args)
}

// host gives the simulated DPU a host whose driver has the RShim.
func (r *rig) host(o bluefield.HostOptions) {
	o.Attached = true
	r.before = func(fn *usbdev.Function) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = bluefield.NewHost(fn.DPU(), o).Run(ctx)
		}()
		r.t.Cleanup(func() { cancel(); <-done })
	}
}

// want checks an exit code, and that what was printed contains texts.
func (r *rig) want(got, want int, texts ...string) {
	r.t.Helper()
	all := r.stdout.String() + r.stderr.String()
	if got != want {
		r.t.Errorf("exit code %d, want %d", got, want)
	}
	for _, text := range texts {
		if !strings.Contains(all, text) {
			r.t.Errorf("no %q in the output", text)
		}
	}
	if r.t.Failed() {
		r.t.Fatalf("output:\n%s", all)
	}
}

// arrived checks that exactly stream, padded to whole words, has arrived.
func (r *rig) arrived(stream []byte) {
	r.t.Helper()
	padded := append(stream[:len(stream):len(stream)], make([]byte, -len(stream)&7)...)
	if n, sum := r.fn.BootSum(); n != int64(len(padded)) || sum != sha256.Sum256(padded) {
		r.t.Errorf("%d bytes arrived, sum %x; want %d, %x", n, sum, len(padded), sha256.Sum256(padded))
	}
}

// testBFB makes a BFB for a generation with a kernel of size bytes.
func testBFB(t testing.TB, g reg.Generation, size int) []byte {
	t.Helper()
	v := bfb.VersionOf(g)
	return chain(t,
		part{bfb.IDBL2R, v, 1000}, part{bfb.IDBL2, v, 3001}, part{bfb.IDBL33, v, 5000},
		part{bfb.IDImage, 0, size}, part{bfb.IDInitramfs, 0, 1003})
}

type part struct {
	id      bfb.ID
	version uint8
	size    int
}

func chain(t testing.TB, parts ...part) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	var ps []bfb.Part
	for _, p := range parts {
		b := make([]byte, p.size)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		ps = append(ps, bfb.Part{ID: p.id, Version: p.version, Data: bytes.NewReader(b)})
	}
	var b bytes.Buffer
	if err := bfb.Write(&b, ps...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// file writes a temporary file.
func file(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), fmt.Sprintf("%d.bin", len(data)))
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
