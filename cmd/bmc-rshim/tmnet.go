// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

const (
	// maxFrame is the longest frame that tmfifo_netN carries; the DPU's
	// driver drops what is longer.
	maxFrame = tap.DefaultMTU + tap.Overhead

	// Between tries to make an interface; the first comes soon, for a daemon
	// that is just ending, and each of the others later.
	minNetPause = time.Second
	maxNetPause = time.Minute
)

// netOptions are the daemon's flags about the interfaces tmfifo_netN.
//
// The C daemon runs "ifup tmfifo_netN" for each. Here nothing is run: OpenBMC
// has systemd-networkd, which configures an interface when it appears, and so
// do ifupdown (allow-hotplug) and NetworkManager through udev.
type netOptions struct {
	off       bool
	addresses map[int][]netip.Prefix // by device
}

func (o *netOptions) register(fs *flag.FlagSet) {
	fs.BoolVar(&o.off, "no-net", false, "make no network interfaces tmfifo_netN")
	fs.Func("net-address", "`[N=]ADDRESS/BITS` of the interface tmfifo_netN, N being 0 if not given. Once for IPv4, and as\n"+
		"often as wanted for IPv6. Without any, addresses are left to systemd-networkd or the like", o.addAddress)
}

// addAddress takes a -net-address.
func (o *netOptions) addAddress(value string) error {
	index, prefix := 0, value
	if n, rest, ok := strings.Cut(value, "="); ok {
		i, err := strconv.Atoi(n)
		if err != nil || i < 0 || i >= rshim.MaxDevices {
			return fmt.Errorf("%q is no number of a device, 0 to %d", n, rshim.MaxDevices-1)
		}
		index, prefix = i, rest
	}
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return errors.New("an address is like 192.168.100.1/30, or 1=192.168.101.1/30 for tmfifo_net1")
	}
	a := p.Addr()
	switch {
	case a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		return fmt.Errorf("%v is no address for an interface", a)
	case p == p.Masked() && a.BitLen()-p.Bits() > 1:
		return fmt.Errorf("%v is a network, not an address in it", p)
	}
	for _, have := range o.addresses[index] {
		if have.Addr().Is4() && a.Is4() {
			return fmt.Errorf("tmfifo_net%d has an IPv4 address already, %v", index, have)
		}
	}
	if o.addresses == nil {
		o.addresses = make(map[int][]netip.Prefix)
	}
	o.addresses[index] = append(o.addresses[index], p)
	return nil
}

var errTooLong = fmt.Errorf("it is longer than an MTU of %d allows", tap.DefaultMTU)

// frames is the DPU's end of the network, an rshim.Net.
type frames interface {
	Send(ctx context.Context, frame []byte) error
	Receive(ctx context.Context, p []byte) (int, error)
}

// tmnet is the network interface of a device.
type tmnet struct {
	index     int
	addresses []netip.Prefix
	devPath   string // of the kernel's tun driver
	dpu       frames
	log       *slog.Logger

	open func(tap.Options) (io.ReadWriteCloser, error)
}

// serve has the interface of a device there until ctx ends, as far as it can.
func (o *netOptions) serve(ctx context.Context, d *rshim.Device, devRoot string, log *slog.Logger) {
	if o.off {
		return
	}
	n := tmnet{
		index: d.Index(), addresses: o.addresses[d.Index()], devPath: devRoot + "/net/tun", dpu: d.Net(),
		log:  log.With("device", fmt.Sprintf("rshim%d", d.Index()), "op", "net"),
		open: func(o tap.Options) (io.ReadWriteCloser, error) { return tap.Open(o) },
	}
	n.run(ctx)
}

// options of the interface. The name and the MAC are the C daemon's.
func (n *tmnet) options() tap.Options {
	return tap.Options{
		Name:      fmt.Sprintf("tmfifo_net%d", n.index),
		MAC:       [6]byte{0x00, 0x1a, 0xca, 0xff, 0xff, byte(2 + 2*n.index)},
		Addresses: n.addresses,
		DevPath:   n.devPath,
	}
}

// run makes the interface, and makes it again should it fail or be deleted,
// until ctx ends. Then it is gone.
func (n *tmnet) run(ctx context.Context) {
	pause, told := minNetPause, ""
	for ctx.Err() == nil {
		i, err := n.open(n.options())
		if err == nil {
			n.log.Info("network interface is there", "name", n.options().Name)
			pause, told = minNetPause, ""
			err = n.pump(ctx, i)
		}
		if ctx.Err() != nil {
			return
		}
		if err.Error() != told {
			told = err.Error()
			n.log.Warn("no network interface, trying again from time to time", "err", err, "hint", hint(err))
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, maxNetPause)
	}
}

// hint says what to do.
func hint(err error) string {
	switch {
	case errors.Is(err, tap.ErrNoDriver):
		return "load the module tun, or use -no-net"
	case errors.Is(err, tap.ErrTaken):
		return "see that no other daemon is running, and delete or rename the interface"
	case errors.Is(err, fs.ErrPermission):
		return "the daemon needs CAP_NET_ADMIN and its /dev/net/tun, or -no-net"
	}
	return "use -no-net if there is to be none"
}

// pump carries frames between the interface and the DPU until one of them is
// gone or ctx ends. It closes the interface.
func (n *tmnet) pump(ctx context.Context, i io.ReadWriteCloser) error {
	var toDPU, fromDPU dropped
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return i.Close()
	})
	g.Go(func() error {
		p := make([]byte, maxFrame+1)
		for {
			size, err := i.Read(p)
			if err != nil {
				return err
			}
			if size > maxFrame {
				n.drop(&toDPU, "frame for the DPU dropped", errTooLong)
			} else if err := n.dpu.Send(ctx, p[:size]); err != nil && ctx.Err() == nil {
				n.drop(&toDPU, "frame for the DPU dropped", err)
			}
		}
	})
	g.Go(func() error {
		p := make([]byte, maxFrame+64) // what a DPU may send, and more
		for {
			size, err := n.dpu.Receive(ctx, p)
			if err != nil {
				return err
			}
			if size > maxFrame {
				n.drop(&fromDPU, "frame of the DPU dropped", errTooLong)
			} else if _, err := i.Write(p[:size]); err != nil && ctx.Err() == nil {
				n.drop(&fromDPU, "frame of the DPU dropped; is the interface up?", err)
			}
		}
	})
	err := g.Wait()
	if toDPU+fromDPU > 0 {
		n.log.Info("frames dropped at the network interface", "to_dpu", int64(toDPU), "from_dpu", int64(fromDPU))
	}
	return err
}

// dropped counts the frames of a direction.
type dropped int64

// drop counts a frame and tells of the first.
func (n *tmnet) drop(count *dropped, text string, err error) {
	*count++
	if *count == 1 {
		n.log.Warn(text, "err", err)
	}
}
