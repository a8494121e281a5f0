// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

var (
	getHostAccess = unhex("0000811900131900")
	enabled       = unhex("00000000" + "0000811900131900" + "00000001")
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// response is a NIC that answers every command with the payload.
func response(payload []byte, change ...func(*ncsi.Packet)) nic {
	return func(p ncsi.Packet) ([]byte, time.Duration) {
		p.Type, p.Payload = p.Type.Response(), payload
		for _, f := range change {
			f(&p)
		}
		b, err := p.Append(nil)
		if err != nil {
			panic(err)
		}
		return b, 0
	}
}

// spoil changes bytes of a NIC's response.
func spoil(n nic, at int, with ...byte) nic {
	return func(p ncsi.Packet) ([]byte, time.Duration) {
		b, after := n(p)
		copy(b[at:], with)
		return b, after
	}
}

func silent(ncsi.Packet) ([]byte, time.Duration) { return nil, 0 }

// machine has an interface eth0 that does NC-SI, with packages 0 and 3.
func machine(n nic) *fakeKernel {
	return &fakeKernel{
		privileged: true,
		interfaces: []net.Interface{
			{Index: 1, Name: "lo", Flags: net.FlagUp},
			{Index: 2, Name: "eth0", Flags: net.FlagUp},
			{Index: 3, Name: "eth1", Flags: net.FlagUp},
			{Index: 4, Name: "eth2"},
		},
		devices: map[int][]Package{
			2: {{ID: 0, Channels: []Channel{{ID: 0}}}, {ID: 3}},
			4: nil,
		},
		nic: n,
	}
}

func TestDo(t *testing.T) {
	frameEnd := append(make([]byte, 10), 1, 2, 3, 4)
	for name, c := range map[string]struct {
		nic  nic
		ch   ncsi.Channel
		with func(*fakeKernel)
		want []byte // nil: an error
		is   error
		text string
		took time.Duration
		kept bool // the kernel, or we, have kept the command from the NIC
	}{
		"answer":          {nic: response(enabled), want: enabled},
		"whole package":   {nic: response(enabled), ch: 0x1f, want: enabled},
		"package 3":       {nic: response(enabled), ch: 0x7f, want: enabled},
		"refusal":         {nic: response(unhex("00037fff")), want: unhex("00037fff")},
		"odd length":      {nic: response(append(enabled, 7)), want: append(enabled, 7)},
		"tail":            {nic: response(enabled), with: func(k *fakeKernel) { k.tail = frameEnd }, want: enabled},
		"no checksum":     {nic: spoil(response(enabled), 32, 0, 0, 0, 0), with: func(k *fakeKernel) { k.tail = frameEnd }, want: enabled},
		"bad checksum":    {nic: spoil(response(enabled), 32, 1), is: ncsi.ErrMalformed, text: "kernel has rejected"},
		"revision":        {nic: spoil(response(enabled), 1, 2), is: ncsi.ErrMalformed, text: "kernel has rejected"},
		"refusal, spoilt": {nic: spoil(response(unhex("00037fff")), 20, 1), is: ncsi.ErrMalformed, text: "checksum"},
		"wrong type":      {nic: response(enabled, func(p *ncsi.Packet) { p.Type = 0x8a }), is: ncsi.ErrMalformed, text: "Get Link Status response as the answer to OEM"},
		"short":           {nic: spoil(response(unhex("00000000")), 6, 0, 2), is: ncsi.ErrMalformed},
		"other package":   {nic: response(enabled, func(p *ncsi.Packet) { p.Channel = 0x60 }), is: ncsi.ErrMalformed, text: "package 3 channel 0 answers for package 0 channel 0"},
		"unknown package": {nic: response(enabled, func(p *ncsi.Packet) { p.Channel = 0xa0 }), is: os.ErrDeadlineExceeded,
			text: "has probably dropped the response", took: 3 * time.Second},
		"silence":   {nic: silent, is: os.ErrDeadlineExceeded, text: "the NIC has not answered for 1s", took: time.Second},
		"wrong IID": {nic: response(enabled, func(p *ncsi.Packet) { p.IID++ }), is: os.ErrDeadlineExceeded, text: "the NIC has not answered", took: time.Second},
		"no privilege": {with: func(k *fakeKernel) { k.privileged = false }, is: os.ErrPermission,
			text: "send command on eth0: permission denied: sending NC-SI commands takes CAP_NET_ADMIN", kept: true},
		"no family":    {with: func(k *fakeKernel) { k.noFamily = true }, is: ErrNoFamily, kept: true},
		"no NC-SI":     {with: func(k *fakeKernel) { delete(k.devices, 2) }, is: ErrNoDevice, text: "does no NC-SI", kept: true},
		"no interface": {with: func(k *fakeKernel) { k.interfaces = nil }, is: ErrNoDevice, text: "there is no network interface", kept: true},
		"down":         {with: func(k *fakeKernel) { k.interfaces[1].Flags = 0 }, is: ErrDown, text: "ip link set eth0 up", kept: true},
		"strange messages": {nic: response(enabled), with: func(k *fakeKernel) {
			k.noise = []netlink.Message{{Header: netlink.Header{Type: familyID, PID: 1, Sequence: 1}, Data: make([]byte, 8)}}
		}, want: enabled},
		"strange error": {nic: response(enabled), with: func(k *fakeKernel) {
			m := netlink.Message{Header: netlink.Header{PID: 1, Sequence: 1}}
			k.noise = []netlink.Message{failure(m, 5)}
		}, want: enabled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := machine(c.nic)
				if c.with != nil {
					c.with(k)
				}
				begin := time.Now()
				got, err := k.transport(Options{}).Do(t.Context(), c.ch, ncsi.OEM, getHostAccess)
				if took := time.Since(begin); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if c.want != nil {
					if err != nil || !bytes.Equal(got, c.want) {
						t.Errorf("got % x, %v, want % x", got, err, c.want)
					}
					if want := append(unhex("00010000500000080000000000000000"), getHostAccess...); !bytes.Equal(k.got[0], want) {
						t.Errorf("the kernel got % x, want % x", k.got[0], want)
					}
					return
				}
				if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("got % x, %v, want %v and %q", got, err, c.is, c.text)
				}
				if oe, ok := errors.AsType[*OpError](err); !ok || oe.Device != "eth0" {
					t.Errorf("%#v is no OpError of eth0", err)
				}
				if oem.IsNotSent(err) != c.kept {
					t.Errorf("%v: not sent: %v, want %v", err, !c.kept, c.kept)
				}
			})
		})
	}
}

// TestEnd proves that the context and Options.Timeout end the wait before the
// kernel does.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := machine(silent)
		begin := time.Now()
		do := func(ctx context.Context, o Options, is error, took time.Duration) {
			t.Helper()
			_, err := k.transport(o).Do(ctx, 0, ncsi.OEM, getHostAccess)
			if !errors.Is(err, is) || time.Since(begin) != took {
				t.Errorf("%v after %v, want %v after %v", err, time.Since(begin), is, took)
			}
			begin = time.Now()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		do(ctx, Options{}, context.DeadlineExceeded, 200*time.Millisecond)
		do(ctx, Options{}, context.DeadlineExceeded, 0)
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		do(ctx, Options{}, context.Canceled, 300*time.Millisecond)
		do(t.Context(), Options{Timeout: 50 * time.Millisecond}, os.ErrDeadlineExceeded, 50*time.Millisecond)
	})
}

func TestTooLong(t *testing.T) {
	k := machine(response(enabled))
	if _, err := k.transport(Options{}).Do(t.Context(), 0, ncsi.OEM, make([]byte, 2033)); !errors.Is(err, os.ErrInvalid) || k.got != nil {
		t.Errorf("payload of 2033 bytes: %v", err)
	}
	if _, err := k.transport(Options{}).Do(t.Context(), 0, ncsi.OEM, make([]byte, 2032)); err != nil {
		t.Error(err)
	}
}

// TestParallel proves that commands of several goroutines do not mix.
func TestParallel(t *testing.T) {
	tr := machine(func(p ncsi.Packet) ([]byte, time.Duration) { return response(append(make([]byte, 4), p.Payload...))(p) }).transport(Options{})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			got, err := tr.Do(t.Context(), 0, ncsi.OEM, []byte{0, 0, 0x81, byte(i)})
			if want := []byte{0, 0, 0, 0, 0, 0, 0x81, byte(i)}; err != nil || !bytes.Equal(got, want) {
				t.Errorf("got % x, %v, want % x", got, err, want)
			}
		})
	}
	wg.Wait()
}

func TestTrace(t *testing.T) {
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, err := machine(response(enabled)).transport(Options{Logger: log}).Do(t.Context(), 0, ncsi.OEM, getHostAccess); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`device=eth0 channel="package 0 channel 0" data="00 01 00 00 50 00 00 08 00 00 00 00 00 00 00 00 00 00 81 19 00 13 19 00"`,
		`data="00 01 00 01 d0 00 00 10 00 00 00 00 00 00 00 00 00 00 00 00 00 00 81 19 00 13 19 00 00 00 00 01 ff fe 95 c1"`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

// FuzzAnswer feeds what the kernel may answer to a command.
func FuzzAnswer(f *testing.F) {
	add := func(data []byte) {
		e := netlink.NewAttributeEncoder()
		e.Uint32(attrIndex, 2)
		if data != nil {
			e.Bytes(attrData, data)
		}
		b, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(nil)
	add([]byte{})
	packet := ncsi.Packet{IID: 1, Type: ncsi.OEM}
	whole, _ := response(enabled)(packet)
	add(whole)
	add(append(whole, make([]byte, 14)...))
	add(whole[:33])
	refusal, _ := response(unhex("00037fff"))(packet)
	add(refusal)
	f.Fuzz(func(t *testing.T, b []byte) {
		data, err := decodeAnswer([]genetlink.Message{{Data: b}})
		if err != nil || data == nil {
			return
		}
		payload, err := decodeResponse(data, 0, ncsi.OEM)
		if err != nil {
			return
		}
		if len(payload) < 4 || len(payload) > len(data)-ncsi.HeaderSize || data[4] != 0xd0 || data[5]>>5 != 0 {
			t.Errorf("% x is the payload of % x", payload, data)
		}
		// The tail has no say.
		again, err := decodeResponse(slices.Concat(data[:ncsi.HeaderSize], payload, make([]byte, 7)), 0, ncsi.OEM)
		if err != nil || !bytes.Equal(again, payload) {
			t.Errorf("with another tail: % x, %v", again, err)
		}
	})
}
