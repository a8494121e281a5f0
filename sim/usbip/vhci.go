// SPDX-License-Identifier: Apache-2.0

package usbip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// ErrNoPort means that the kernel's virtual host controller has no free port,
// or is not there at all.
var ErrNoPort = errors.New("no free port of vhci_hcd")

// VHCI is a virtual USB host controller of this machine's kernel.
type VHCI struct {
	// Dir is its folder in sysfs; "" is /sys/devices/platform/vhci_hcd.0.
	Dir string
	// Logger tells of attaching and detaching; nil discards.
	Logger *slog.Logger
}

// statusFree is the state of a port that nothing is attached to (VDEV_ST_NULL).
const statusFree = 4

// detachLimit is how long the kernel may take to free a port after its
// connection was closed.
const detachLimit = 10 * time.Second

func (v VHCI) file(name string) string {
	if v.Dir == "" {
		v.Dir = "/sys/devices/platform/vhci_hcd.0"
	}
	return filepath.Join(v.Dir, name)
}

// FreePorts returns the ports for devices up to high speed that are free.
func (v VHCI) FreePorts() (ports []int, err error) {
	b, err := os.ReadFile(v.file("status"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPort, err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "hs" {
			continue
		}
		port, err1 := strconv.Atoi(f[1])
		state, err2 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil && state == statusFree {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// Run keeps f attached to a port: detached while f is off its bus, and
// attached anew, which the kernel enumerates, whenever f is back. It returns
// nil when ctx ends, with the port free or soon to be.
func (v VHCI) Run(ctx context.Context, f *usbdev.Function, port int) error {
	log := v.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for ctx.Err() == nil {
		st, changed := f.State()
		if st.Present {
			if err := v.attach(ctx, f, st, port, log); err != nil && ctx.Err() == nil {
				return err
			}
			// Somebody else may have detached it: that counts as unplugged
			// until it is plugged in again.
			if now, _ := f.State(); now != st {
				continue
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// attach serves one enumeration, from attaching to detaching.
func (v VHCI) attach(ctx context.Context, f *usbdev.Function, st usbdev.State, port int, log *slog.Logger) error {
	if err := v.waitFree(ctx, port); err != nil {
		return err
	}
	kernel, ours, err := socketPair()
	if err != nil {
		return err
	}
	// The device id is told back with every command; ours has no use for it.
	text := fmt.Sprintf("%d %d %d %d", port, kernel.Fd(), 1<<16|(port+1), speed(st.Speed))
	err = os.WriteFile(v.file("attach"), []byte(text), 0)
	kernel.Close() // the kernel holds the socket now
	if err != nil {
		ours.Close()
		return fmt.Errorf("attach to port %d: %w", port, err)
	}
	log.Info("attached", "port", port, "speed", st.Speed.String())
	err = Serve(ctx, ours, f, st)
	log.Info("detached", "port", port)
	return err
}

// waitFree waits for a port that a former attachment may still occupy.
func (v VHCI) waitFree(ctx context.Context, port int) error {
	deadline := time.Now().Add(detachLimit)
	for {
		ports, err := v.FreePorts()
		if err != nil {
			return err
		}
		for _, p := range ports {
			if p == port {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: port %d stays occupied", ErrNoPort, port)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// speed is the kernel's number of a speed (enum usb_device_speed).
func speed(s usb.Speed) int {
	switch s {
	case usb.SpeedLow:
		return 1
	case usb.SpeedFull:
		return 2
	}
	return 3
}

// socketPair returns two connected stream sockets: one whose descriptor is for
// the kernel, and one for us, whose Close ends a Read.
func socketPair() (kernel *os.File, ours io.ReadWriteCloser, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := syscall.SetNonblock(fds[1], true); err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("fcntl", err), syscall.Close(fds[0]), syscall.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "vhci"), os.NewFile(uintptr(fds[1]), "usbip"), nil
}
