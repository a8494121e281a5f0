// SPDX-License-Identifier: Apache-2.0

package rshim_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// peerLines are the lines of misc about the DPU's software.
func peerLines(t *testing.T, text string) string {
	t.Helper()
	_, after, ok := strings.Cut(text, "BOOT_RESET_SKIP 0 (1: skip)\n")
	lines, _, ok2 := strings.Cut(after, "CLEAR_ON_READ")
	if !ok || !ok2 {
		t.Fatalf("misc is\n%s", text)
	}
	return lines
}

const noPeer = "PEER_MAC        00:00:00:00:00:00 (rw)\nPXE_ID          0x00000000 (rw)\nVLAN_ID         0 0 (rw)\n"

// TestPeer: misc shows what the DPU answers, and sets it.
func TestPeer(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		withSoftware(t, bluefield.Config{Generation: g}, usbdev.Options{Latency: time.Millisecond}, func(r *rig, fn *usbdev.Function, w *wire) {
			r.bus.Plug("1-1", fn)
			d := r.attached(0)
			if err := d.WriteMisc(r.ctx, "DISPLAY_LEVEL 1"); err != nil {
				r.t.Fatal(err)
			}
			read := func() string {
				t.Helper()
				begin := time.Now()
				text := d.Misc(r.ctx)
				if took := time.Since(begin); took > 50*time.Millisecond {
					t.Errorf("misc took %v", took)
				}
				return peerLines(t, text)
			}
			if got, want := read(), "PEER_MAC        00:1a:ca:ff:ff:01 (rw)\nPXE_ID          0x00000000 (rw)\nVLAN_ID         0 0 (rw)\n"; got != want {
				t.Errorf("got\n%s", got)
			}
			for _, tc := range []struct{ command, want string }{
				{"PEER_MAC 02:ab:CD:0:5:6", "PEER_MAC        02:ab:cd:00:05:06 (rw)\n"},
				{"PXE_ID 0x1234abcd", "PXE_ID          0x1234abcd (rw)\n"},
				{"PXE_ID 7\n", "PXE_ID          0x00000007 (rw)\n"},
				{"VLAN_ID 100 4095", "VLAN_ID         100 4095 (rw)\n"},
				{"VLAN_ID 7", "VLAN_ID         7 0 (rw)\n"},
			} {
				if err := d.WriteMisc(r.ctx, tc.command); err != nil {
					t.Errorf("%q: %v", tc.command, err)
				}
				if got := read(); !strings.Contains(got, tc.want) {
					t.Errorf("%q: want %q in\n%s", tc.command, tc.want, got)
				}
			}
			st := fn.DPU().TM()
			if st.MAC != [6]byte{0x02, 0xab, 0xcd, 0, 5, 6} || st.VLAN != [2]uint16{7, 0} {
				t.Errorf("the DPU has %+v", st)
			}
			before := read()
			for _, bad := range []string{
				"PEER_MAC", "PEER_MAC 1:2:3:4:5", "PEER_MAC 1:2:3:4:5:6:7", "PEER_MAC 1:2:3:4:5:100", "PEER_MAC 1:2:3:4:5:g", "PEER_MAC ::::: ",
				"PXE_ID", "PXE_ID x", "PXE_ID 123456789", "VLAN_ID", "VLAN_ID x", "VLAN_ID 4096", "VLAN_ID 1 x", "VLAN_ID -1",
			} {
				if err := d.WriteMisc(r.ctx, bad); !errors.Is(err, rshim.ErrInvalid) {
					t.Errorf("%q: %v", bad, err)
				}
			}
			if after := read(); after != before {
				t.Errorf("after bad commands\n%s", after)
			}
			fn.Unplug()
			r.state(d, rshim.Gone)
			if got := read(); got != noPeer {
				t.Errorf("unplugged:\n%s", got)
			}
			if err := d.WriteMisc(r.ctx, "PXE_ID 1"); !errors.Is(err, rshim.ErrGone) {
				t.Errorf("PXE_ID, unplugged: %v", err)
			}
		})
	})
}

// TestPeerBytes holds the control messages to what the C daemon sends: the MAC
// address as it is, the PXE id little endian, VLANs big endian.
func TestPeerBytes(t *testing.T) {
	withEnd(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
		for command, want := range map[string][][4]byte{
			"PEER_MAC 1:2:3:4:5:6": {{1, 2, 3}, {4, 5, 6}},
			"PXE_ID 0x12345678":    {{0x78, 0x56, 0x34, 0x12}},
			"VLAN_ID 258 3":        {{1, 2, 0, 3}},
		} {
			e.change(func() { e.control = nil })
			if err := d.WriteMisc(r.ctx, command); err != nil {
				t.Errorf("%q: %v", command, err)
			}
			if !e.wait(time.Minute, func() bool { return len(e.control) >= len(want) }) {
				r.t.Fatalf("%q: no control message", command)
			}
			_, _, control := e.got()
			for i, m := range control {
				if m.Args != want[i] {
					t.Errorf("%q: message %d has % x, want % x", command, i, m.Args, want[i])
				}
			}
		}
	})
}

// TestPeerSilent: a DPU that does not answer costs who asks a second, and
// nobody else anything. Those who ask at the same time ask once.
func TestPeerSilent(t *testing.T) {
	generations(t, func(t *testing.T, g reg.Generation) {
		withEnd(t, bluefield.Config{Generation: g}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
			if err := d.WriteMisc(r.ctx, "DISPLAY_LEVEL 1"); err != nil {
				r.t.Fatal(err)
			}
			var readers sync.WaitGroup
			for range 10 {
				readers.Go(func() {
					begin := time.Now()
					text := d.Misc(r.ctx)
					if took := time.Since(begin); took < time.Second || took > 1010*time.Millisecond {
						t.Errorf("misc took %v", took)
					}
					if got := peerLines(t, text); got != noPeer {
						t.Errorf("got\n%s", got)
					}
				})
				time.Sleep(20 * time.Millisecond)
			}
			// Meanwhile:
			y, x := r.typist(d), r.receiver(d)
			begin := time.Now()
			y.say("x")
			if !e.wait(time.Second, func() bool { return len(e.typed) == 1 }) {
				t.Error("nothing can be typed")
			}
			if err := e.send(r.ctx, tmfifo.Message{Type: tmfifo.Net, Payload: frame(1, 100)}); err != nil || !x.waitFrames(1, time.Second) {
				t.Errorf("no frame: %v", err)
			}
			if err := d.WriteMisc(r.ctx, "BOOT_TIMEOUT 200\nPXE_ID 5"); err != nil {
				t.Error(err)
			}
			if _, err := d.ReadReg(r.ctx, reg.For(g).Scratchpad1, 8); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > 10*time.Millisecond {
				t.Errorf("others took %v", took)
			}
			readers.Wait()
			asked := 0
			_, _, control := e.got()
			for _, m := range control {
				if m.Type == tmfifo.CtrlReq {
					asked++
				}
			}
			if asked != 1 {
				t.Errorf("10 readers asked %d times", asked)
			}

			// An answer wakes them all, at once.
			for range 10 {
				readers.Go(func() {
					begin := time.Now()
					text := d.Misc(r.ctx)
					if took := time.Since(begin); took > 600*time.Millisecond {
						t.Errorf("misc took %v", took)
					}
					want := "PEER_MAC        01:02:03:04:05:06 (rw)\nPXE_ID          0x00000009 (rw)\nVLAN_ID         3 4 (rw)\n"
					if got := peerLines(t, text); got != want {
						t.Errorf("got\n%s", got)
					}
				})
			}
			time.Sleep(500 * time.Millisecond)
			mac := tmfifo.NewMAC([6]byte{1, 2, 3, 4, 5, 6})
			for _, m := range []tmfifo.Message{mac[0], mac[1], tmfifo.NewVLANs([2]uint16{3, 4}), tmfifo.NewPXEID(9)} {
				if err := e.send(r.ctx, m); err != nil {
					r.t.Fatal(err)
				}
			}
			readers.Wait()
			// One that is incomplete counts for what it says, and only once.
			readers.Go(func() {
				text := d.Misc(r.ctx)
				if got := peerLines(t, text); !strings.HasPrefix(got, "PEER_MAC        09:09:09:00:00:00 (rw)\nPXE_ID          0x00000000 ") {
					t.Errorf("got\n%s", got)
				}
			})
			time.Sleep(500 * time.Millisecond)
			if err := e.send(r.ctx, tmfifo.NewMAC([6]byte{9, 9, 9})[0]); err != nil {
				r.t.Fatal(err)
			}
			readers.Wait()
			if got := peerLines(t, d.Misc(r.ctx)); got != noPeer {
				t.Errorf("got\n%s", got)
			}
		})
	})
}

// TestPeerStuck: with a DPU that does not read at all, misc still takes a
// second, a setting fails after one, and neither is sent in bulk later.
func TestPeerStuck(t *testing.T) {
	withEnd(t, bluefield.Config{}, usbdev.Options{}, func(r *rig, fn *usbdev.Function, d *rshim.Device, e *end) {
		if err := d.WriteMisc(r.ctx, "DISPLAY_LEVEL 1"); err != nil {
			r.t.Fatal(err)
		}
		fn.DPU().HoldTM(true)
		y := r.typist(d)
		y.say(strings.Repeat("x", 10_000))
		begin := time.Now()
		d.Misc(r.ctx)
		if took := time.Since(begin); took > 1010*time.Millisecond {
			t.Errorf("misc took %v", took)
		}
		for n := range 50 {
			begin := time.Now()
			err := d.WriteMisc(r.ctx, fmt.Sprintf("PXE_ID %d", n))
			if took := time.Since(begin); took > 1010*time.Millisecond || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("PXE_ID took %v: %v", took, err)
			}
			d.Misc(r.ctx)
		}
		fn.DPU().HoldTM(false)
		time.Sleep(time.Second)
		if typed, _, control := e.got(); len(control) > 4 || len(typed) != 10_000 {
			t.Errorf("%d control messages, %d bytes typed", len(control), len(typed))
		}
		if err := d.WriteMisc(r.ctx, "PXE_ID 77"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		_, _, control := e.got()
		if m := control[len(control)-1]; m.Type != tmfifo.PXEID || binary.LittleEndian.Uint32(m.Args[:]) != 0x77 {
			t.Errorf("%+v", m)
		}
	})
}
