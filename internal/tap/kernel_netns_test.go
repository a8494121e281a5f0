// SPDX-License-Identifier: Apache-2.0

package tap_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// newNetns makes a network namespace and returns its file, and what calls a
// function in it.
func newNetns(t *testing.T) (path string, in func(func())) {
	t.Helper()
	calls, path, ready := make(chan func()), "", make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		path = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range calls {
			f()
			ready <- nil
		}
		close(ready)
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(calls); <-ready })
	return path, func(f func()) { calls <- f; <-ready }
}

func TestKernelNetns(t *testing.T) {
	guest.Require(t)
	path, in := newNetns(t)
	there, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	// The same name here and there.
	here := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC})
	i := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC, Netns: path, Addresses: []netip.Prefix{
		netip.PrefixFrom(hostIP, 30), netip.MustParsePrefix("fd00:100::1/64")}})
	exchangeARP(t, i)
	var addrs []net.Addr
	in(func() {
		ni, nerr := net.InterfaceByName("tmfifo_net0")
		if err = nerr; err == nil {
			addrs, err = ni.Addrs()
		}
	})
	if err != nil || len(addrs) < 2 || addrs[0].String() != "192.168.100.1/30" {
		t.Errorf("there: %v, %v", addrs, err)
	}
	// No thread but the test's stays there.
	links, _ := filepath.Glob("/proc/self/task/*/ns/net")
	n := 0
	for _, l := range links {
		if ns, _ := os.Readlink(l); ns == there {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of %d threads are in the namespace", n, len(links))
	}
	i.Close()
	in(func() { _, err = net.InterfaceByName("tmfifo_net0") })
	if err == nil {
		t.Error("there after Close")
	}
	if _, err := net.InterfaceByName(here.Name()); err != nil {
		t.Errorf("here: %v", err)
	}
}

// setUp is "ip link set NAME up|down".
func setUp(t *testing.T, name string, up bool) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	r, _ := unix.NewIfreq(name)
	if up {
		r.SetUint16(unix.IFF_UP)
	}
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		t.Fatal(err)
	}
}

// deleteLink is "ip link delete NAME".
func deleteLink(t *testing.T, name string) {
	t.Helper()
	ni, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(m[0:], uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], unix.RTM_DELLINK)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(m[unix.SizeofNlMsghdr+4:], uint32(ni.Index))
	if err := unix.Sendto(s, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	n, err := unix.Read(s, p)
	if err != nil || n < unix.SizeofNlMsghdr+4 {
		t.Fatalf("answer to RTM_DELLINK: %d bytes, %v", n, err)
	}
	if errno := int32(binary.NativeEndian.Uint32(p[unix.SizeofNlMsghdr:])); errno != 0 {
		t.Fatalf("RTM_DELLINK: %v", unix.Errno(-errno))
	}
}
