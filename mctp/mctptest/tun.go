// SPDX-License-Identifier: Apache-2.0

package mctptest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp"
)

// tunPrefix goes before each packet of a TUN interface: flags, and the protocol
// in network order (ETH_P_MCTP).
var tunPrefix = [4]byte{0, 0, 0x00, 0xfa}

// TUN is a network interface whose other end is this program. It is gone when
// it is closed.
type TUN struct {
	f    *os.File
	name string
}

// NewTUN makes an interface, which the test's end closes.
func NewTUN(t testing.TB, name string) *TUN {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(unix.IFF_TUN)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		t.Fatal(err)
	}
	i := &TUN{os.NewFile(uintptr(fd), name), r.Name()}
	t.Cleanup(func() { i.Close() })
	return i
}

// Name returns the interface's name.
func (i *TUN) Name() string { return i.name }

// Receive returns the next MCTP packet that the kernel sends, and an error when
// the interface is closed.
func (i *TUN) Receive() (mctp.Packet, error) {
	buf := make([]byte, 2048)
	for {
		n, err := i.f.Read(buf)
		if err != nil {
			return mctp.Packet{}, err
		}
		if n < len(tunPrefix) || [4]byte(buf) != tunPrefix {
			continue // IPv6 wants to know its neighbours
		}
		if p, err := mctp.ParsePacket(buf[len(tunPrefix):n]); err == nil {
			return p, nil
		}
	}
}

// Send has the kernel receive a packet.
func (i *TUN) Send(p mctp.Packet) error {
	_, err := i.f.Write(mctp.AppendPacket(tunPrefix[:len(tunPrefix):len(tunPrefix)], p))
	return err
}

// SendMessage has the kernel receive a message, in packets of BaselineUnit.
func (i *TUN) SendMessage(m mctp.Message) error {
	for p := range m.Packets(0, 0) {
		if err := i.Send(p); err != nil {
			return err
		}
	}
	return nil
}

// ReceiveMessage returns the next message that the kernel sends.
func (i *TUN) ReceiveMessage() (mctp.Message, error) {
	var a mctp.Assembler
	for {
		p, err := i.Receive()
		if err != nil {
			return mctp.Message{}, err
		}
		if m, ok, _ := a.Add(p); ok {
			return m, nil
		}
	}
}

// Serve is the endpoint eid until the interface is closed. It calls answer with
// the body of each request, type first, and sends what that returns back,
// unless it is nil.
func (i *TUN) Serve(eid mctp.EID, answer func(body []byte) []byte) {
	for {
		m, err := i.ReceiveMessage()
		if err != nil {
			return
		}
		if m.Dest != eid || !m.TO {
			continue
		}
		if body := answer(m.Body); body != nil {
			i.SendMessage(mctp.Message{Dest: m.Src, Src: eid, Tag: m.Tag, Body: body})
		}
	}
}

// Close removes the interface, and ends what waits for it.
func (i *TUN) Close() error { return i.f.Close() }
