// SPDX-License-Identifier: Apache-2.0

package usbip_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
	"github.com/bluefield-go/bmc-rshim/sim/usbip"
)

// kernel is a fake vhci_hcd: the other end of a session.
type kernel struct {
	t    *testing.T
	conn net.Conn
	f    *usbdev.Function
	end  chan error
	stop context.CancelFunc
}

// attach runs a DPU without firmware and serves one enumeration of it.
func attach(t *testing.T, o usbdev.Options) *kernel {
	t.Helper()
	f := usbdev.New(bluefield.New(bluefield.Config{NoFirmware: true}), o)
	ran := make(chan struct{})
	go func() { defer close(ran); f.Run(t.Context()) }()
	ours, theirs := net.Pipe()
	st, _ := f.State()
	ctx, stop := context.WithCancel(t.Context())
	k := &kernel{t: t, conn: ours, f: f, end: make(chan error, 1), stop: stop}
	go func() { k.end <- usbip.Serve(ctx, theirs, f, st) }()
	t.Cleanup(func() {
		stop()
		ours.Close()
		<-ran
	})
	return k
}

func (k *kernel) send(words []uint32, setup [8]byte, data []byte) {
	k.t.Helper()
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	b = append(b, make([]byte, 40-len(b))...)
	b = append(append(b, setup[:]...), data...)
	if _, err := k.conn.Write(b); err != nil {
		k.t.Fatal(err)
	}
}

// submit sends a CMD_SUBMIT: OUT with data, or IN of n bytes.
func (k *kernel) submit(seq uint32, ep uint8, setup [8]byte, data []byte, n int) {
	k.t.Helper()
	in := uint32(0)
	if data == nil {
		in = 1
	} else {
		n = len(data)
	}
	k.send([]uint32{1, seq, 65537, in, uint32(ep), 0, uint32(n)}, setup, data)
}

func (k *kernel) unlink(seq, victim uint32) {
	k.t.Helper()
	k.send([]uint32{2, seq, 65537, 0, 0, victim}, [8]byte{}, nil)
}

// want reads a reply and checks it.
func (k *kernel) want(command, seq uint32, status int32, actual int, in bool) (data []byte) {
	k.t.Helper()
	var h [48]byte
	if _, err := io.ReadFull(k.conn, h[:]); err != nil {
		k.t.Fatal(err)
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(h[4*i:]) }
	if word(0) != command || word(1) != seq || int32(word(5)) != status || int(word(6)) != actual {
		k.t.Errorf("reply %d seq %d status %d actual %d; want %d, %d, %d, %d",
			word(0), word(1), int32(word(5)), word(6), command, seq, status, actual)
	}
	if in {
		data = make([]byte, word(6))
		if _, err := io.ReadFull(k.conn, data); err != nil {
			k.t.Fatal(err)
		}
	}
	return data
}

const (
	retSubmit = 3
	retUnlink = 4
)

func TestEnumerate(t *testing.T) {
	for _, low := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			k := attach(t, usbdev.Options{LowSpeed: low})
			k.submit(1, 0, [8]byte{0x80, 6, 0, 1, 0, 0, 64}, nil, 64)
			dev := k.want(retSubmit, 1, 0, 18, true)
			packet0 := byte(64)
			if low == 1 {
				packet0 = 8
			}
			if dev[7] != packet0 || binary.LittleEndian.Uint16(dev[8:]) != reg.USBVendor || binary.LittleEndian.Uint16(dev[10:]) != reg.USBProductBlueField3 {
				t.Errorf("device descriptor % x", dev)
			}
			k.submit(2, 0, [8]byte{0x80, 6, 0, 2, 0, 0, 9}, nil, 9)
			conf := k.want(retSubmit, 2, 0, 9, true)
			total := int(conf[2]) | int(conf[3])<<8
			k.submit(3, 0, [8]byte{0x80, 6, 0, 2, 0, 0, byte(total)}, nil, total)
			conf = k.want(retSubmit, 3, 0, total, true)
			if conf[4] != 2 {
				t.Errorf("configuration % x", conf)
			}
			for at := 0; at < len(conf); at += int(conf[at]) {
				if conf[at] == 0 {
					t.Fatalf("configuration % x", conf)
				}
			}
			for i, n := range []int{4, 14, 56, 16} {
				k.submit(4, 0, [8]byte{0x80, 6, byte(i), 3, 0, 0, 255}, nil, 255)
				k.want(retSubmit, 4, 0, n, true)
			}
			k.submit(5, 0, [8]byte{0x80, 6, 9, 3, 0, 0, 255}, nil, 255)
			k.want(retSubmit, 5, -32, 0, true)
			k.submit(6, 0, [8]byte{0, 9, 1}, []byte{}, 0)
			k.want(retSubmit, 6, 0, 0, false)
			k.submit(7, 0, [8]byte{0x80, 0, 0, 0, 0, 0, 2}, nil, 2)
			k.want(retSubmit, 7, 0, 2, true)
			k.submit(8, 0, [8]byte{0x01, 11}, []byte{}, 0)
			k.want(retSubmit, 8, 0, 0, false)
		})
	}
}

func TestRegisterOverWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{})
		k.submit(1, 0, [8]byte{0x42, 0, 0x00, 0x13, 0x40, 0x0c, 8}, []byte{1, 2, 3, 4, 5, 6, 7, 8}, 0)
		k.want(retSubmit, 1, 0, 8, false)
		k.submit(2, 0, [8]byte{0xc2, 0, 0x00, 0x13, 0x40, 0x0c, 8}, nil, 8)
		if got := k.want(retSubmit, 2, 0, 8, true); !bytes.Equal(got, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
			t.Errorf("read back % x", got)
		}
		if v := k.f.DPU().ReadReg(k.f.DPU().Map().Scratchpad1, 8); v != 0x0807060504030201 {
			t.Errorf("scratchpad 1 is %#x", v)
		}
	})
}

// A partly consumed OUT transfer that is unlinked gives its exact count first.
func TestUnlinkPartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{})
		k.f.DPU().HoldDrain(true)
		p := bytes.Repeat([]byte("0123456789abcdef"), 1024)
		k.submit(1, 1, [8]byte{}, p[:8000], 0)
		k.want(retSubmit, 1, 0, 8000, false)
		k.submit(2, 1, [8]byte{}, make([]byte, 9000), 0)
		k.submit(3, 1, [8]byte{}, make([]byte, 100), 0)
		synctest.Wait()
		k.unlink(4, 3)
		k.want(retSubmit, 3, -104, 0, false)
		k.want(retUnlink, 4, -104, 0, false)
		k.unlink(5, 2)
		k.want(retSubmit, 2, -104, 0, false) // no packet of it fits
		k.want(retUnlink, 5, -104, 0, false)
		k.f.DPU().HoldDrain(false)
		synctest.Wait()
		k.f.DPU().HoldDrain(true)
		k.submit(6, 1, [8]byte{}, p[:9000], 0)
		synctest.Wait()
		k.unlink(7, 6)
		k.want(retSubmit, 6, -104, 8192, false)
		k.want(retUnlink, 7, -104, 0, false)
		k.unlink(8, 6) // ended long ago
		k.want(retUnlink, 8, 0, 0, false)
		all := append(p[:8000:8000], p[:8192]...)
		if n, sum := k.f.BootSum(); n != int64(len(all)) || sum != sha256.Sum256(all) {
			t.Errorf("%d bytes arrived, want %d", n, len(all))
		}
	})
}

func TestStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{})
		k.f.Inject(usbdev.Fault{Endpoint: 1, After: 512, Kind: usbdev.Stall})
		k.submit(1, 1, [8]byte{}, make([]byte, 1000), 0)
		k.want(retSubmit, 1, -32, 512, false)
		k.submit(2, 0, [8]byte{0x82, 0, 0, 0, 1, 0, 2}, nil, 2)
		if got := k.want(retSubmit, 2, 0, 2, true); got[0] != 1 {
			t.Error("GET_STATUS does not tell of the halt")
		}
		k.submit(3, 0, [8]byte{0x02, 1, 0, 0, 1}, []byte{}, 0)
		k.want(retSubmit, 3, 0, 0, false)
		// What is queued behind a failure gets time to be unlinked.
		k.f.Inject(usbdev.Fault{Endpoint: 1, After: 512, Kind: usbdev.Protocol})
		k.submit(4, 1, [8]byte{}, make([]byte, 1000), 0)
		k.submit(5, 1, [8]byte{}, make([]byte, 1000), 0)
		k.want(retSubmit, 4, -71, 512, false)
		time.Sleep(10 * time.Millisecond)
		k.unlink(6, 5)
		k.want(retSubmit, 5, -104, 0, false)
		k.want(retUnlink, 6, -104, 0, false)
		k.f.QueueIn(0x81, make([]byte, 512))
		k.submit(7, 1, [8]byte{}, nil, 100)
		k.want(retSubmit, 7, -75, 0, true)
		k.submit(8, 9, [8]byte{}, nil, 100)
		k.want(retSubmit, 8, -32, 0, true)
	})
}

// A device that leaves the bus answers what is under way, then hangs up.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{})
		k.f.DPU().HoldDrain(true)
		k.submit(1, 1, [8]byte{}, make([]byte, 9000), 0)
		k.submit(2, 2, [8]byte{}, nil, 8)
		synctest.Wait()
		k.f.Unplug()
		k.want(retSubmit, 1, -108, 8192, false)
		k.want(retSubmit, 2, -108, 0, true)
		if _, err := k.conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the session goes on: %v", err)
		}
		if err := <-k.end; err != nil {
			t.Error(err)
		}
	})
}

func TestStopAnswersAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{})
		k.submit(1, 2, [8]byte{}, nil, 8)
		synctest.Wait()
		k.stop()
		k.want(retSubmit, 1, -104, 0, true)
		if err := <-k.end; err != nil {
			t.Error(err)
		}
	})
}

// A peer that does not read is not waited for.
func TestStopWithDeafPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{})
		k.submit(1, 2, [8]byte{}, nil, 8)
		synctest.Wait()
		begun := time.Now()
		k.stop()
		if err := <-k.end; err != nil || time.Since(begun) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

func TestLowSpeedComesUpAgainAfterPortReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{LowSpeed: 1})
		for seq := range uint32(2) {
			k.submit(seq, 0, [8]byte{0, 9, 1}, []byte{}, 0)
			k.want(retSubmit, seq, 0, 0, false)
		}
		if err := <-k.end; err != nil {
			t.Error(err)
		}
		for st, changed := k.f.State(); ; st, changed = k.f.State() {
			if st.Present && st.Epoch == 2 {
				if st.Speed.String() != "high" {
					t.Errorf("speed %v", st.Speed)
				}
				return
			}
			<-changed
		}
	})
}

func TestRefuses(t *testing.T) {
	for name, words := range map[string][]uint32{
		"command":     {9, 1, 1, 0, 1, 0, 0},
		"reply":       {3, 1, 1, 0, 1, 0, 0},
		"direction":   {1, 1, 1, 2, 1, 0, 0},
		"endpoint":    {1, 1, 1, 0, 16, 0, 0},
		"length":      {1, 1, 1, 0, 1, 0, 0x80000000},
		"isochronous": {1, 1, 1, 0, 1, 0, 8, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := attach(t, usbdev.Options{})
				k.send(words, [8]byte{}, nil)
				if err := <-k.end; err == nil {
					t.Error("accepted")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		k := attach(t, usbdev.Options{})
		k.submit(7, 2, [8]byte{}, nil, 8)
		k.submit(7, 2, [8]byte{}, nil, 8)
		if err := <-k.end; err == nil {
			t.Error("accepted a sequence number twice")
		}
	})
}

// FuzzServe: nothing that a peer sends makes a session crash or hang.
func FuzzServe(f *testing.F) {
	h := func(words ...uint32) (b []byte) {
		for _, w := range words {
			b = binary.BigEndian.AppendUint32(b, w)
		}
		return append(b, make([]byte, 48-len(b))...)
	}
	f.Add(append(h(1, 1, 65537, 0, 1, 0, 8), make([]byte, 8)...))
	f.Add(append(h(1, 1, 65537, 1, 1, 0, 8), h(2, 2, 65537, 0, 0, 1)...))
	f.Add(append(h(1, 1, 65537, 1, 0, 0, 18), h(9)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			k := attach(t, usbdev.Options{})
			go io.Copy(io.Discard, k.conn)
			k.conn.Write(in)
			k.conn.Close()
			<-k.end
		})
	})
}
