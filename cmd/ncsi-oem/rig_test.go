// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/ncsimctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	simncsi "github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// rig is a machine with simulated NICs.
type rig struct {
	interfaces []netlink.Interface
	endpoints  []address
	nics       map[string]*simncsi.NIC // by the flag that chooses them
	fails      map[string]error        // of what happens at an address, by the same

	noNCSI   error // why the kernel lists no interfaces
	stdin    io.Reader
	terminal bool // stdin is one
}

// has returns a rig with one NIC.
func has(flag string, c simncsi.Config) *rig {
	r := &rig{nics: make(map[string]*simncsi.NIC), fails: make(map[string]error)}
	r.add(flag, c)
	return r
}

// add adds a NIC at an address that its flag gives.
func (r *rig) add(flag string, c simncsi.Config) *simncsi.NIC {
	n := simncsi.New(c)
	r.nics[flag] = n
	name, value, _ := strings.Cut(flag, " ")
	switch name {
	case "-if":
		i := netlink.Interface{Name: value, Index: len(r.interfaces) + 2, Up: true}
		for _, id := range append([]int(nil), c.Packages...) {
			i.Packages = append(i.Packages, netlink.Package{ID: id, Channels: []netlink.Channel{
				{ID: 0, Major: 1, Minor: 1, Firmware: "BlueField", LinkStatus: 1, Active: true},
				{ID: 1, Major: 1, Minor: 1, Firmware: "BlueField"},
			}})
		}
		r.interfaces = append(r.interfaces, i)
	case "-mctp":
		a, err := parseMCTP(value)
		if err != nil {
			panic(err)
		}
		r.endpoints = append(r.endpoints, a)
	}
	return n
}

func (r *rig) list(context.Context) ([]netlink.Interface, error) { return r.interfaces, r.noNCSI }

func (r *rig) known(context.Context) ([]address, error) { return r.endpoints, nil }

// open implements env.open.
func (r *rig) open(a address, timeout time.Duration, log *slog.Logger) (oem.Transport, func() error, error) {
	nothing := func() error { return nil }
	if err := r.fails[a.flag()]; err != nil {
		return failing{err}, nothing, nil
	}
	n, ok := r.nics[a.flag()]
	switch {
	case !ok && a.transport == "i2c":
		return nil, nil, &i2c.OpError{Op: "open", Device: fmt.Sprint("/dev/i2c-", a.i2c), Err: i2c.ErrNoBus}
	case !ok && a.transport == "netlink":
		return failing{&netlink.OpError{Op: "send command", Device: a.ifname, Err: netlink.ErrNoDevice}}, nothing, nil
	case a.transport == "netlink":
		return struct{ oem.Transport }{simncsi.NewMemory(n, timeout)}, nothing, nil // the kernel's is not Direct
	}
	return ncsimctp.New(link{n, a.eid}, ncsimctp.Options{Peer: mctp.EID(a.eid), Timeout: timeout, Logger: log}), nothing, nil
}

// link carries NC-SI over MCTP to a NIC, nil for an endpoint that is none.
type link struct {
	nic *simncsi.NIC
	eid uint8
}

func (l link) Exchange(ctx context.Context, body []byte, take func(mctp.Message) bool) error {
	if l.nic != nil {
		r := l.nic.Respond(body[1:])
		select {
		case <-time.After(r.After):
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, p := range r.Packets {
			if take(mctp.Message{Src: mctp.EID(l.eid), Body: append([]byte{byte(mctp.NCSI)}, p...)}) {
				return nil
			}
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// failing is a transport that fails.
type failing struct{ err error }

func (f failing) Do(context.Context, ncsi.Channel, ncsi.Type, []byte) ([]byte, error) {
	return nil, f.err
}

// result is what comes of a command line.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a command line.
func (r *rig) run(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	stdin := r.stdin
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	code := runIn(ctx, &env{
		stdin: stdin, stdout: &stdout, stderr: &stderr,
		isTerminal: func(io.Reader) bool { return r.terminal },
		interfaces: r.list, endpoints: r.known, open: r.open,
	}, args)
	return result{code, stdout.String(), stderr.String()}
}

// nic returns the NIC at a flag's address.
func (r *rig) nic(flag string) *simncsi.NIC {
	n, ok := r.nics[flag]
	if !ok {
		panic(fmt.Sprintf("no NIC at %q", flag))
	}
	return n
}

// inject injects faults into the NIC at a flag's address.
func (r *rig) inject(flag string, faults ...simncsi.Fault) *rig {
	for _, f := range faults {
		if err := r.nic(flag).Inject(f); err != nil {
			panic(err)
		}
	}
	return r
}
