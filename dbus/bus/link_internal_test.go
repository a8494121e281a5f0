// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// pair returns a link and the other end of its socket.
func pair(t *testing.T) (*link, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSocket(fds[0], "pair")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &link{sock: s}, fds[1]
}

// Whatever a bus sends is read to its end without harm.
func FuzzReceive(f *testing.F) {
	for _, m := range []wire.Message{
		{Type: wire.MethodCall, Serial: 1, Path: "/", Member: "M", Body: []any{"x", wire.Vardict("a", byte(1))}},
		{Type: wire.Signal, Serial: 2, Path: "/a", Interface: "a.b", Member: "M", Sender: ":1.5", FDs: 1},
		{Type: wire.Error, Serial: 3, ReplySerial: 1, ErrorName: "a.b"},
	} {
		for _, o := range []wire.Order{binary.LittleEndian, binary.BigEndian} {
			b, err := m.Append(nil, o)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			f.Add(slices.Concat(b, b))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 32<<10 {
			return
		}
		l, other := pair(t)
		n, err := unix.Write(other, b)
		unix.Close(other)
		if n != len(b) || err != nil {
			t.Fatal(n, err)
		}
		for range len(b)/wire.FixedSize + 2 {
			in, err := l.receive()
			if err != nil {
				return
			}
			if in.Message == nil || len(in.fds) != 0 {
				t.Fatalf("%+v", in)
			}
			in.discard()
		}
		t.Fatal("more messages than there can be")
	})
}

func TestSocketNames(t *testing.T) {
	for address, want := range map[string][]string{
		"unix:path=/run/a":                            {"/run/a"},
		"unix:guid=00,path=/run/a":                    {"/run/a"},
		"unix:abstract=/tmp/x,guid=1":                 {"@/tmp/x"},
		"tcp:host=a;unix:path=/a;unix:path=/b%20%2fc": {"/a", "/b /c"},
		"unix:path=/a%2":                              nil,
		"unix:path=/a%":                               nil,
		"unix:path=/a%gg":                             nil,
		"unix:runtime=yes":                            nil,
		"":                                            nil,
	} {
		got, err := socketNames(address)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
	if got := SystemAddress(); got != defaultAddress {
		t.Error(got)
	}
}

func TestClip(t *testing.T) {
	long := string(make([]byte, 8<<10-1))
	for s, want := range map[string]string{"": "", "x": "x", long + "ä": long + "...", long + "a": long + "a", long + "ab": long + "a..."} {
		if got := clip(s); got != want {
			t.Errorf("%d bytes become %d", len(s), len(got))
		}
	}
}

func TestMatchRule(t *testing.T) {
	m := Match{Sender: "a.b", Path: "/a", PathNamespace: "/b", Interface: "c.d", Member: "M", Arg0: "it's"}
	const want = `type='signal',sender='a.b',path='/a',path_namespace='/b',interface='c.d',member='M',arg0='it'\''s'`
	if got := m.rule(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
