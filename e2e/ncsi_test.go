// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/sim/ncsi"
)

// TestNCSI runs ncsi-oem on the AST2600, on whose NC-SI cable is the model of a NIC. The tests are those of e2e/guest
// that begin with TestNCSI; they reach the model through a serial line.
//
// The model is on the host, and the guest's kernel waits for it for a second, so that on a busy machine any command can
// time out. The tests there take that into account.
func TestNCSI(t *testing.T) {
	vmtest.NeedLane(t, vmtest.AST2600)
	nic := plugNIC(t)
	vmtest.Run(t, vmtest.Machine{Lane: vmtest.AST2600, NIC: nic, Deadline: 12 * time.Minute}, vmtest.Job{
		Tests: []vmtest.Package{{Path: "./e2e/guest", Args: []string{"-test.run=^TestNCSI"}, Timeout: 10 * time.Minute}},
		Cmds:  []vmtest.Cmd{{Path: "./cmd/ncsi-oem"}},
		Env:   []string{"NCSI_CONTROL=" + vmtest.ControlPort},
	})
}

// plugNIC starts the NIC. Its packages are 0, and 3, of which the kernel knows and which it does not list.
func plugNIC(t *testing.T) *vmtest.NIC {
	dir, err := os.MkdirTemp("", "ncsi") // t.TempDir's name is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cable := &vmtest.NIC{
		Address: filepath.Join(dir, "nic"),
		Board:   filepath.Join(dir, "board"),
		Control: filepath.Join(dir, "control"),
	}
	frames, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: cable.Address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	lines, err := net.Listen("unix", cable.Control)
	if err != nil {
		t.Fatal(err)
	}
	nic := simncsi.New(simncsi.Config{Packages: []int{0, 3}})
	board := &net.UnixAddr{Name: cable.Board, Net: "unixgram"}
	var wg sync.WaitGroup
	wg.Go(func() {
		stowaway := &stowaway{frames, board, simncsi.New(simncsi.Config{Packages: []int{6}})}
		if err := nic.ServePackets(t.Context(), stowaway, board); err != nil {
			t.Errorf("the NIC's cable: %v", err)
		}
	})
	wg.Go(func() {
		line, err := lines.Accept()
		if err != nil {
			return // the machine has not started
		}
		defer line.Close()
		simncsi.ServeControl(nic, line) // until the machine ends
	})
	t.Cleanup(func() { // t.Context is done by now
		lines.Close()
		wg.Wait()
		frames.Close()
	})
	return cable
}

// stowaway is the NIC's end of the cable with another NIC on it, of which the kernel does not know: its package 6
// answers OEM commands and no others.
type stowaway struct {
	net.PacketConn
	board net.Addr
	nic   *simncsi.NIC
}

func (s *stowaway) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(b)
		const header = 14
		if err != nil || n < header+ncsi.HeaderSize || binary.BigEndian.Uint16(b[12:]) != ncsi.EtherType ||
			ncsi.Type(b[header+4]) != ncsi.OEM || ncsi.Channel(b[header+5]).Package() != 6 {
			return n, from, err
		}
		for _, f := range s.nic.Frame(b[:n]).Packets {
			s.WriteTo(f, s.board)
		}
	}
}
