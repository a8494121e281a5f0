// SPDX-License-Identifier: Apache-2.0

package tap_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

var (
	hostMAC = [6]byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x02}
	dpuMAC  = [6]byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x01}
	hostIP  = netip.MustParseAddr("192.168.100.1")
	dpuIP   = netip.MustParseAddr("192.168.100.2")
)

// patience is for what happens at once.
const patience = time.Minute

func open(t testing.TB, o tap.Options) *tap.Interface {
	t.Helper()
	guest.Require(t)
	i, err := tap.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

func TestKernelOpen(t *testing.T) {
	i := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC, Addresses: []netip.Prefix{
		netip.MustParsePrefix("192.168.100.1/30"), netip.MustParsePrefix("fd00:100::1/64"), netip.MustParsePrefix("fe80::1/64"),
	}})
	ni, err := net.InterfaceByName("tmfifo_net0")
	if err != nil {
		t.Fatal(err)
	}
	if i.Name() != "tmfifo_net0" || ni.HardwareAddr.String() != "00:1a:ca:ff:ff:02" || ni.MTU != 1500 ||
		ni.Flags&(net.FlagUp|net.FlagRunning|net.FlagBroadcast) != net.FlagUp|net.FlagRunning|net.FlagBroadcast {
		t.Errorf("%s: %+v", i.Name(), ni)
	}
	addrs, err := ni.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"192.168.100.1/30", "fd00:100::1/64", "fe80::1/64"} {
		if !slices.ContainsFunc(addrs, func(a net.Addr) bool { return a.String() == want }) {
			t.Errorf("%v lacks %s", addrs, want)
		}
	}

	other := open(t, tap.Options{Name: "other%d", MTU: 9000})
	if ni, err = net.InterfaceByName("other0"); err != nil {
		t.Fatal(err)
	}
	if addrs, _ := ni.Addrs(); other.Name() != "other0" || ni.MTU != 9000 ||
		slices.ContainsFunc(addrs, func(a net.Addr) bool { return a.(*net.IPNet).IP.To4() != nil }) {
		t.Errorf("%s: %+v, %v", other.Name(), ni, addrs)
	}
}

// With an error there is no interface left.
func TestKernelOpenRefused(t *testing.T) {
	guest.Require(t)
	for name, c := range map[string]struct {
		o    tap.Options
		want error
	}{
		"bad name": {tap.Options{Name: "a/b"}, unix.EINVAL},
		"bad MTU":  {tap.Options{Name: "bad0", MTU: 1 << 20}, unix.EINVAL},
		"bad MAC":  {tap.Options{Name: "bad0", MAC: [6]byte{1}}, unix.EADDRNOTAVAIL},
		"bad address": {tap.Options{Name: "bad0", Addresses: []netip.Prefix{netip.MustParsePrefix("ff02::1/64")}},
			unix.EADDRNOTAVAIL},
		"no namespace": {tap.Options{Name: "bad0", Netns: "/dev/null"}, unix.EINVAL},
		"no driver":    {tap.Options{Name: "bad0", DevPath: "/dev/null"}, unix.ENOTTY},
	} {
		i, err := tap.Open(c.o)
		if err == nil {
			i.Close()
		}
		if !errors.Is(err, c.want) || errors.Is(err, tap.ErrTaken) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, err := net.InterfaceByName(c.o.Name); err == nil {
			t.Errorf("%s: there is an interface", name)
		}
	}
}

func TestKernelTaken(t *testing.T) {
	first := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC})
	for _, name := range []string{"tmfifo_net0", "lo"} {
		if i, err := tap.Open(tap.Options{Name: name, MAC: dpuMAC}); !errors.Is(err, tap.ErrTaken) {
			i.Close()
			t.Errorf("%s: %v, want ErrTaken", name, err)
		}
	}
	if ni, err := net.InterfaceByName("tmfifo_net0"); err != nil || ni.HardwareAddr.String() != net.HardwareAddr(hostMAC[:]).String() {
		t.Errorf("the first one is now %+v, %v", ni, err)
	}
	first.Close()
	open(t, tap.Options{Name: "tmfifo_net0"})
}

// An interface of the administrator, as "ip tuntap add" makes it, is used, and
// stays.
func TestKernelPersistent(t *testing.T) {
	guest.Require(t)
	persist := func(on int) {
		t.Helper()
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		r, _ := unix.NewIfreq("tmfifo_net0")
		r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, on); err != nil {
			t.Fatal(err)
		}
	}
	persist(1)
	defer persist(0)
	for range 2 {
		i := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC, Addresses: []netip.Prefix{
			netip.MustParsePrefix("192.168.100.1/30"), netip.MustParsePrefix("fd00:100::1/64")}})
		i.Close()
		ni, err := net.InterfaceByName("tmfifo_net0")
		if err != nil || ni.HardwareAddr.String() != net.HardwareAddr(hostMAC[:]).String() {
			t.Errorf("after Close: %+v, %v", ni, err)
		}
	}
}

func TestKernelClose(t *testing.T) {
	i := open(t, tap.Options{Name: "tmfifo_net0"})
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := i.Read(make([]byte, 2000)); err != nil {
				ended <- err
				return
			}
		}
	}()
	time.Sleep(50 * time.Millisecond) // usually it waits by then
	if err := i.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := net.InterfaceByName("tmfifo_net0"); err == nil {
		t.Error("the interface is still there")
	}
	select {
	case err := <-ended:
		if err != os.ErrClosed {
			t.Errorf("Read: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Read does not end")
	}
	if _, err := i.Write(make([]byte, 60)); err != os.ErrClosed {
		t.Errorf("Write: %v", err)
	}
	if err := i.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// Somebody deletes the interface.
func TestKernelDeleted(t *testing.T) {
	for _, before := range []bool{false, true} { // the Read
		i := open(t, tap.Options{Name: "tmfifo_net0"})
		if before {
			deleteLink(t, "tmfifo_net0")
		}
		ended := make(chan error, 1)
		go func() {
			for {
				if _, err := i.Read(make([]byte, 2000)); err != nil {
					ended <- err
					return
				}
			}
		}()
		if !before {
			time.Sleep(50 * time.Millisecond)
			deleteLink(t, "tmfifo_net0")
		}
		select {
		case err := <-ended:
			if !errors.Is(err, tap.ErrGone) {
				t.Errorf("Read: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Read does not end")
		}
		if _, err := i.Write(make([]byte, 60)); !errors.Is(err, unix.EBADFD) {
			t.Errorf("Write: %v", err)
		}
		i.Close()
	}
	open(t, tap.Options{Name: "tmfifo_net0"})
}

// Writes fail while the interface is down, and work again when it is up.
func TestKernelDown(t *testing.T) {
	i := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC, Addresses: []netip.Prefix{netip.PrefixFrom(hostIP, 30)}})
	setUp(t, "tmfifo_net0", false)
	for range 3 {
		if _, err := i.Write(arpRequest()); !errors.Is(err, unix.EIO) {
			t.Errorf("down: %v", err)
		}
	}
	setUp(t, "tmfifo_net0", true)
	if _, err := i.Write(make([]byte, 13)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("half a header: %v", err)
	}
	exchangeARP(t, i)
}

// What goes wrong with descriptors, goroutines or threads shows in many cycles.
func TestKernelCycles(t *testing.T) {
	guest.Require(t)
	count := func(dir string) int {
		d, err := os.ReadDir("/proc/self/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	var fds, goroutines int
	for n := range 40 {
		i := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC, Addresses: []netip.Prefix{netip.PrefixFrom(hostIP, 30)}})
		exchangeARP(t, i)
		if err := i.Close(); err != nil {
			t.Fatalf("cycle %d: %v", n, err)
		}
		for _, bad := range []tap.Options{{Name: "lo"}, {Name: "bad0", MTU: 1 << 20}, {Name: "bad0", Netns: "/dev/null"}} {
			if _, err := tap.Open(bad); err == nil {
				t.Fatalf("cycle %d: no error", n)
			}
		}
		if n == 0 {
			fds, goroutines = count("fd"), runtime.NumGoroutine()
		}
	}
	if n := count("fd"); n != fds {
		t.Errorf("%d descriptors, %d after the first cycle", n, fds)
	}
	// The last goroutine that visited a namespace may be about to end.
	if n := runtime.NumGoroutine(); n > goroutines+1 {
		t.Errorf("%d goroutines, %d after the first cycle", n, goroutines)
	}

	const idle = 24
	before := count("task")
	for range idle {
		i := open(t, tap.Options{Name: "idle%d"})
		go func() {
			for {
				if _, err := i.Read(make([]byte, 2000)); err != nil {
					return
				}
			}
		}()
	}
	time.Sleep(50 * time.Millisecond)
	if after := count("task"); after-before >= idle/2 {
		t.Errorf("%d threads before, %d with %d idle interfaces", before, after, idle)
	}
}
