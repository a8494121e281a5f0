// SPDX-License-Identifier: Apache-2.0

package tap_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/tap"
)

func ethernet(typ uint16, payload ...[]byte) []byte {
	head := binary.BigEndian.AppendUint16(append(hostMAC[:], dpuMAC[:]...), typ)
	return append(head, bytes.Join(payload, nil)...)
}

// arpRequest asks in the DPU's name for the host's MAC.
func arpRequest() []byte {
	return ethernet(unix.ETH_P_ARP, []byte{0, 1, 8, 0, 6, 4, 0, 1}, dpuMAC[:], dpuIP.AsSlice(), make([]byte, 6), hostIP.AsSlice())
}

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// ping is an echo request of the DPU with a payload of n bytes, n being even.
func ping(n int) []byte {
	icmp := append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 7}, bytes.Repeat([]byte{0x5a, 1}, n/2)...)
	binary.BigEndian.PutUint16(icmp[2:], sum(icmp))
	ip := append([]byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0}, append(dpuIP.AsSlice(), hostIP.AsSlice()...)...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(icmp)))
	binary.BigEndian.PutUint16(ip[10:], sum(ip))
	return ethernet(unix.ETH_P_IP, ip, icmp)
}

// await reads frames until one is wanted, for whatever else the kernel sends.
func await(t *testing.T, i *tap.Interface, want func(frame []byte) bool) []byte {
	t.Helper()
	timeout := time.AfterFunc(patience, func() { i.Close() })
	defer timeout.Stop()
	p := make([]byte, 2000)
	for {
		n, err := i.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		if want(p[:n]) {
			return p[:n]
		}
	}
}

func write(t *testing.T, i *tap.Interface, frame []byte) {
	t.Helper()
	if n, err := i.Write(frame); n != len(frame) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
}

func isType(typ uint16) func([]byte) bool {
	return func(f []byte) bool { return len(f) >= 14 && binary.BigEndian.Uint16(f[12:]) == typ }
}

// exchangeARP asks for the host's MAC and gets it.
func exchangeARP(t *testing.T, i *tap.Interface) {
	t.Helper()
	write(t, i, arpRequest())
	got := await(t, i, func(f []byte) bool { return isType(unix.ETH_P_ARP)(f) && f[21] == 2 })
	want := slices.Concat(dpuMAC[:], hostMAC[:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, hostMAC[:], hostIP.AsSlice(), dpuMAC[:], dpuIP.AsSlice())
	if !bytes.Equal(got, want) {
		t.Fatalf("ARP reply % x,\nwant % x", got, want)
	}
}

func TestKernelPing(t *testing.T) {
	i := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC, Addresses: []netip.Prefix{netip.PrefixFrom(hostIP, 30)}})
	exchangeARP(t, i)
	for _, n := range []int{0, 56, tap.DefaultMTU - 28} {
		echo := ping(n)
		write(t, i, echo)
		got := await(t, i, func(f []byte) bool {
			return isType(unix.ETH_P_IP)(f) && len(f) > 34 && f[23] == 1 && f[34] == 0
		})
		if len(got) != len(echo) || !bytes.Equal(got[:12], append(dpuMAC[:], hostMAC[:]...)) || !bytes.Equal(got[38:], echo[38:]) {
			t.Errorf("answer to a ping of %d: % x", n, got)
		}
	}
}

// A program of the host talks to the DPU, which this test plays.
func TestKernelUDP(t *testing.T) {
	i := open(t, tap.Options{Name: "tmfifo_net0", MAC: hostMAC, Addresses: []netip.Prefix{netip.PrefixFrom(hostIP, 30)}})
	c, err := net.Dial("udp4", dpuIP.String()+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello, DPU")); err != nil {
		t.Fatal(err)
	}
	request := await(t, i, isType(unix.ETH_P_ARP))
	if request[21] != 1 || !bytes.Equal(request[38:42], dpuIP.AsSlice()) || !bytes.Equal(request[6:12], hostMAC[:]) {
		t.Fatalf("ARP request % x", request)
	}
	write(t, i, ethernet(unix.ETH_P_ARP, []byte{0, 1, 8, 0, 6, 4, 0, 2}, dpuMAC[:], dpuIP.AsSlice(), hostMAC[:], hostIP.AsSlice()))
	got := await(t, i, func(f []byte) bool { return isType(unix.ETH_P_IP)(f) && len(f) > 42 && f[23] == 17 })
	if string(got[42:]) != "hello, DPU" {
		t.Fatalf("datagram % x", got)
	}
	// The same back, with what stands for the sender and the receiver swapped.
	back := slices.Concat(got[6:12], got[:6], got[12:26], got[30:34], got[26:30], got[36:38], got[34:36], got[38:])
	write(t, i, back)
	c.SetReadDeadline(time.Now().Add(patience))
	p := make([]byte, 100)
	if n, err := c.Read(p); err != nil || string(p[:n]) != "hello, DPU" {
		t.Errorf("echo: %q, %v", p[:n], err)
	}
}

func TestKernelTwo(t *testing.T) {
	taps := make([]*tap.Interface, 2)
	for n := range taps {
		mac := hostMAC
		mac[5] += byte(2 * n)
		taps[n] = open(t, tap.Options{Name: fmt.Sprint("tmfifo_net", n), MAC: mac})
		if ni, err := net.InterfaceByName(taps[n].Name()); err != nil || ni.HardwareAddr.String() != net.HardwareAddr(mac[:]).String() {
			t.Errorf("%+v, %v", ni, err)
		}
	}
	// What is sent on one comes out of it, not of the other.
	s := packetSocket(t)
	for n := range taps {
		ni, err := net.InterfaceByName(fmt.Sprint("tmfifo_net", n))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := unix.Sendto(s, ethernet(0x88b5, []byte{byte(n)}), 0, &unix.SockaddrLinklayer{Ifindex: ni.Index}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n, i := range taps {
		for range 3 {
			if got := await(t, i, isType(0x88b5)); len(got) != 15 || got[14] != byte(n) {
				t.Errorf("from tmfifo_net%d: % x", n, got)
			}
		}
	}
}

// A frame longer than the buffer is cut, which its length tells.
func TestKernelLongFrame(t *testing.T) {
	i := open(t, tap.Options{Name: "tmfifo_net0", MTU: 4000})
	ni, err := net.InterfaceByName("tmfifo_net0")
	if err != nil {
		t.Fatal(err)
	}
	s := packetSocket(t)
	for _, n := range []int{1999, 2000, 2001, 4014, 100} {
		frame := append(ethernet(0x88b5), make([]byte, n-14)...)
		if err := unix.Sendto(s, frame, 0, &unix.SockaddrLinklayer{Ifindex: ni.Index}); err != nil {
			t.Fatal(err)
		}
		if got := await(t, i, isType(0x88b5)); len(got) != min(n, 2000) {
			t.Errorf("%d bytes of %d", len(got), n)
		}
	}
}

func packetSocket(t *testing.T) int {
	t.Helper()
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s) })
	return s
}
