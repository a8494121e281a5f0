// SPDX-License-Identifier: Apache-2.0

package afmctp_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
	"github.com/bluefield-go/bmc-rshim/mctp"
	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/mctp/mctptest"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/ncsitest"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

const (
	bmc mctp.EID = 0x08
	nic mctp.EID = 0x1d

	// timeout is for tests in which it runs out.
	timeout = 200 * time.Millisecond
	// patience is for what happens at once.
	patience = 30 * time.Second
	// minimal is the smallest MTU of an MCTP link: header and BaselineUnit.
	minimal = 68
)

// tun makes a TUN interface that leads to the NIC, in a network.
func tun(t testing.TB, name string, network uint32) *mctptest.TUN {
	t.Helper()
	guest.Require(t)
	i := mctptest.NewTUN(t, name)
	mctptest.Link{Name: name, Network: network, MTU: minimal, Own: bmc, Peers: map[mctp.EID][]byte{nic: nil}}.SetUp(t)
	return i
}

// serve has an interface answer until the test's end.
func serve(t testing.TB, i *mctptest.TUN, answer func([]byte) []byte) {
	var wg sync.WaitGroup
	wg.Go(func() { i.Serve(nic, answer) })
	t.Cleanup(func() {
		i.Close()
		wg.Wait()
	})
}

func TestKernelTUN(t *testing.T) {
	for name, o := range map[string]afmctp.Options{
		"DefaultNetwork": {Peer: nic, Timeout: timeout},
		"Network":        {Network: 1, Peer: nic, Timeout: timeout},
	} {
		t.Run(name, func(t *testing.T) {
			ncsitest.Run(t, func(t *testing.T) *ncsitest.Rig {
				model := simncsi.New(simncsi.Config{})
				serve(t, tun(t, "mctp0", 1), model.Message)
				return &ncsitest.Rig{Transport: afmctp.New(o), NIC: model, Timeout: timeout, HidesAEN: true}
			})
		})
	}
}

// answered is the body of the message that answers a command with a payload.
func answered(t testing.TB, body []byte, payload string) []byte {
	t.Helper()
	command, sum, err := ncsi.Parse(body[1:])
	if err != nil || sum != ncsi.ChecksumOK {
		t.Errorf("command %x: checksum %v, %v", body, sum, err)
	}
	r, err := ncsi.Packet{IID: command.IID, Type: command.Type.Response(), Channel: command.Channel, Payload: []byte(payload)}.Append(body[:1:1])
	if err != nil {
		t.Error(err)
	}
	return r
}

// A message of 221 bytes and its response are cut into four packets each.
func TestKernelFragments(t *testing.T) {
	i := tun(t, "mctp0", 1)
	payload := make([]byte, 200)
	done := make(chan error, 1)
	go func() {
		got, err := afmctp.New(afmctp.Options{Peer: nic, Timeout: patience}).Do(t.Context(), 0, ncsi.OEM, payload)
		if err == nil && string(got) != string(payload) {
			err = errors.New("another payload")
		}
		done <- err
	}()
	var a mctp.Assembler
	var sizes []int
	for {
		p, err := i.Receive()
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(p.Payload))
		m, ok, err := a.Add(p)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			continue
		}
		if m.Dest != nic || m.Src != bmc || !m.TO || m.Type() != mctp.NCSI {
			t.Errorf("%+v", m)
		}
		if !slices.Equal(sizes, []int{64, 64, 64, 29}) {
			t.Errorf("packets of %v bytes", sizes)
		}
		if err := i.SendMessage(mctp.Message{Dest: bmc, Src: nic, Tag: m.Tag, Body: answered(t, m.Body, string(payload))}); err != nil {
			t.Fatal(err)
		}
		break
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKernelNoRoute(t *testing.T) {
	i := tun(t, "mctp0", 1)
	serve(t, i, func(body []byte) []byte { return answered(t, body, "done") })
	try := func(o afmctp.Options) error {
		if o.Timeout == 0 {
			o.Timeout = patience
		}
		_, err := afmctp.New(o).Do(t.Context(), 0, ncsi.OEM, nil)
		return err
	}
	for _, o := range []afmctp.Options{{Peer: 77}, {Network: 1, Peer: 77}, {Network: 9, Peer: nic}, {}} {
		if err := try(o); !errors.Is(err, afmctp.ErrNoRoute) || !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := try(afmctp.Options{Peer: nic}); err != nil {
		t.Errorf("with a route: %v", err)
	}

	// An interface without an address of ours.
	mctptest.NewTUN(t, "mctp1")
	bare := mctptest.Link{Name: "mctp1", Network: 2, Peers: map[mctp.EID][]byte{nic: nil}}
	bare.SetUp(t)
	if err := try(afmctp.Options{Network: 2, Peer: nic}); !errors.Is(err, afmctp.ErrNoRoute) {
		t.Errorf("without an address: %v", err)
	}
	// The kernel does not say that it drops what goes to a link that is down.
	mctptest.Link{Name: "mctp0"}.SetDown(t)
	if err := try(afmctp.Options{Peer: nic, Timeout: timeout}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("link down: %v", err)
	}
}

// Eight requests take all the tags that there are for an endpoint. Those of
// others are not ours to wait for, and they are free again at once when a
// socket is closed.
func TestKernelBusy(t *testing.T) {
	for name, open := range map[string]func(afmctp.Options) oem.Transport{
		"Reserved": func(o afmctp.Options) oem.Transport { return afmctp.New(o) },
		"Plain":    func(o afmctp.Options) oem.Transport { return afmctp.NewPlain(o) },
	} {
		t.Run(name, func(t *testing.T) {
			i := tun(t, "mctp0", 1)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range mctp.Tags {
				wg.Go(func() {
					if _, err := open(afmctp.Options{Peer: nic, Timeout: 10 * patience}).Do(ctx, 0, ncsi.OEM, nil); !errors.Is(err, ctx.Err()) {
						t.Error(err)
					}
				})
			}
			tags := make(map[uint8]bool)
			for range mctp.Tags {
				m, err := i.ReceiveMessage()
				if err != nil {
					t.Fatal(err)
				}
				tags[m.Tag] = true
			}
			if len(tags) != mctp.Tags {
				t.Errorf("tags %v", tags)
			}
			ninth := open(afmctp.Options{Peer: nic, Timeout: patience})
			if _, err := ninth.Do(t.Context(), 0, ncsi.OEM, nil); !errors.Is(err, afmctp.ErrBusy) {
				t.Errorf("ninth request: %v", err)
			}
			cancel()
			wg.Wait()
			serve(t, i, func(body []byte) []byte { return answered(t, body, "done") })
			if _, err := ninth.Do(t.Context(), 0, ncsi.OEM, nil); err != nil {
				t.Errorf("when the others are through: %v", err)
			}
		})
	}
}

// A late response to the request before has the tag of the next one. It is not
// taken for the response, and where tags can be reserved, it does not keep that
// from being found.
func TestKernelLate(t *testing.T) {
	for name, c := range map[string]struct {
		open func(afmctp.Options) oem.Transport
		want error
	}{
		"Reserved": {func(o afmctp.Options) oem.Transport { return afmctp.New(o) }, nil},
		"Plain":    {func(o afmctp.Options) oem.Transport { return afmctp.NewPlain(o) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			i := tun(t, "mctp0", 1)
			var first []byte
			serve(t, i, func(body []byte) []byte {
				if first == nil {
					first = body
					return nil
				}
				aen, _ := ncsi.Packet{Type: ncsi.AEN, Payload: make([]byte, 8)}.Append([]byte{byte(mctp.NCSI)})
				for _, m := range []mctp.Message{
					{Dest: bmc, Src: nic, TO: true, Body: aen},
					{Dest: bmc, Src: nic, Body: answered(t, first, "late")},
				} {
					if err := i.SendMessage(m); err != nil {
						t.Error(err)
					}
				}
				return answered(t, body, "real")
			})
			tr := c.open(afmctp.Options{Peer: nic, Timeout: timeout})
			if got, err := tr.Do(t.Context(), 0, ncsi.OEM, []byte("first")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%q, %v", got, err)
			}
			got, err := tr.Do(t.Context(), 0, ncsi.OEM, []byte("second"))
			for range 20 { // if the machine stood still
				if c.want == nil && errors.Is(err, os.ErrDeadlineExceeded) {
					got, err = tr.Do(t.Context(), 0, ncsi.OEM, []byte("second"))
				}
			}
			if !errors.Is(err, c.want) || err == nil && string(got) != "real" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// The same endpoint IDs in another network are others.
func TestKernelOtherNetwork(t *testing.T) {
	right, wrong := tun(t, "mctp0", 1), tun(t, "mctp1", 2)
	serve(t, right, func(body []byte) []byte {
		for tag := range uint8(mctp.Tags) {
			if err := wrong.SendMessage(mctp.Message{Dest: bmc, Src: nic, Tag: tag, Body: answered(t, body, "wrong")}); err != nil {
				t.Error(err)
			}
		}
		return answered(t, body, "right")
	})
	for range 10 {
		got, err := afmctp.New(afmctp.Options{Network: 1, Peer: nic, Timeout: patience}).Do(t.Context(), 0, ncsi.OEM, nil)
		if err != nil || string(got) != "right" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestKernelPermission(t *testing.T) {
	tun(t, "mctp0", 1)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and end it with this goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&header, &caps[0]); err != nil {
			done <- err
			return
		}
		caps[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &caps[0]); err != nil {
			done <- err
			return
		}
		_, err := afmctp.New(afmctp.Options{Peer: nic}).Do(t.Context(), 0, ncsi.OEM, nil)
		done <- err
	}()
	if err := <-done; !errors.Is(err, os.ErrPermission) || !errors.Is(err, unix.EACCES) {
		t.Errorf("without CAP_NET_RAW: %v", err)
	}
}
