// SPDX-License-Identifier: Apache-2.0

package netpeer_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/bluefield-go/bmc-rshim/sim/netpeer"
)

// Frames and their answers, of 192.168.100.1 and fe80::1 at 00:1a:ca:ff:ff:02.
var exchanges = []struct{ name, frame, answer string }{
	{
		"ARP",
		"ffffffffffff001acaffff0208060001080006040001001acaffff02c0a86401000000000000c0a86402",
		"001acaffff02001acaffff0108060001080006040002001acaffff01c0a86402001acaffff02c0a86401",
	},
	{
		"ping",
		"001acaffff01001acaffff020800450000211234000040011f54c0a86401c0a864020800f8260007000170696e6721",
		"001acaffff02001acaffff010800450000211234000040011f54c0a86402c0a86401000000270007000170696e6721",
	},
	{
		"neighbour solicitation",
		"3333ff000002001acaffff0286dd6000000000203afffe800000000000000000000000000001ff0200000000000000000001ff0000028700b27b00000000fe8000000000000000000000000000020101001acaffff02",
		"001acaffff02001acaffff0186dd6000000000203afffe800000000000000000000000000002fe8000000000000000000000000000018800500060000000fe8000000000000000000000000000020201001acaffff01",
	},
	{
		"duplicate address detection",
		"3333ff000002001acaffff0286dd6000000000183aff00000000000000000000000000000000ff0200000000000000000001ff00000287007c2300000000fe800000000000000000000000000002",
		"001acaffff02001acaffff0186dd6000000000203afffe800000000000000000000000000002ff02000000000000000000000000000188008f7e20000000fe8000000000000000000000000000020201001acaffff01",
	},
	{
		"ping over IPv6",
		"001acaffff01001acaffff0286dd60000000000d3a40fe800000000000000000000000000001fe800000000000000000000000000002800082da0007000170696e6721",
		"001acaffff02001acaffff0186dd60000000000d3a40fe800000000000000000000000000002fe800000000000000000000000000001810081da0007000170696e6721",
	},
}

func decode(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask returns the answer to a frame, nil without one.
func ask(t testing.TB, e *netpeer.Echo, frame []byte) []byte {
	t.Helper()
	was := slices.Clone(frame)
	if n, err := e.Write(frame); n != len(frame) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if !bytes.Equal(frame, was) {
		t.Fatal("Write changes the frame")
	}
	e.Close() // so that Read does not wait; what it chooses is left to chance
	var p [2000]byte
	for range 100 {
		if n, err := e.Read(p[:]); err == nil {
			return p[:n]
		}
	}
	return nil
}

func TestAnswers(t *testing.T) {
	for _, x := range exchanges {
		frame, want := decode(t, x.frame), decode(t, x.answer)
		if got := ask(t, netpeer.New(netpeer.Options{}), frame); !bytes.Equal(got, want) {
			t.Errorf("%s: % x, want % x", x.name, got, want)
		}
		// Padding is no part of it.
		if got := ask(t, netpeer.New(netpeer.Options{}), append(frame, make([]byte, 18)...)); !bytes.Equal(got, want) {
			t.Errorf("%s, padded: % x, want % x", x.name, got, want)
		}
		for n := range len(frame) {
			if got := ask(t, netpeer.New(netpeer.Options{}), frame[:n]); got != nil {
				t.Errorf("%s: answers the first %d bytes", x.name, n)
			}
		}
		// To somebody else.
		frame[0] ^= 0x12
		frame[0] &^= 1
		if got := ask(t, netpeer.New(netpeer.Options{}), frame); got != nil {
			t.Errorf("%s: answers what is to % x", x.name, frame[:6])
		}
	}
}

// TestChecksums damages each bit of what has a checksum.
func TestChecksums(t *testing.T) {
	for _, x := range exchanges[1:] {
		frame := decode(t, x.frame)
		from := 14
		if x.name != "ping" {
			from = 14 + 8 // IPv6's own header has none, but for its addresses
		}
		for i := from * 8; i < len(frame)*8; i++ {
			bad := slices.Clone(frame)
			bad[i/8] ^= 1 << (i % 8)
			if got := ask(t, netpeer.New(netpeer.Options{}), bad); got != nil {
				t.Errorf("%s: answers with bit %d wrong", x.name, i)
			}
		}
	}
}

func TestReadWaitsAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := netpeer.New(netpeer.Options{})
		sizes, end := make(chan int, 1000), make(chan error, 1)
		go func() {
			for {
				n, err := e.Read(make([]byte, 30))
				if err != nil {
					end <- err
					return
				}
				sizes <- n
			}
		}()
		synctest.Wait()
		ping := decode(t, exchanges[1].frame)
		e.Write(ping)
		if n := <-sizes; n != 30 {
			t.Errorf("%d bytes in 30", n)
		}
		e.Close()
		e.Close()
		if err := <-end; err != io.EOF {
			t.Errorf("Read: %v", err)
		}
		if _, err := e.Write(ping); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		e = netpeer.New(netpeer.Options{})
		for range 1000 { // nobody reads
			e.Write(ping)
		}
	})
}

// FuzzAnswer: whatever comes, an answer goes back to whom it came from, and is
// not itself one that is answered.
func FuzzAnswer(f *testing.F) {
	for _, x := range exchanges {
		f.Add(decode(f, x.frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		got := ask(t, netpeer.New(netpeer.Options{}), frame)
		if got == nil {
			return
		}
		if !bytes.Equal(got[:6], frame[6:12]) || len(got) > len(frame)+8 {
			t.Errorf("answer % x", got)
		}
		copy(got, frame[:6])
		if again := ask(t, netpeer.New(netpeer.Options{}), got); again != nil {
			t.Errorf("the answer is answered with % x", again)
		}
	})
}
