// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local)

func testWriter(path string) *Writer {
	w := New("rshim")
	w.paths, w.now = []string{path + ".none", path}, func() time.Time { return noon }
	return w
}

func TestWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := testWriter(path)
	defer w.Close()
	if w.Write(Notice, "x") {
		t.Fatal("a line was taken by nobody")
	}
	listen := func() *net.UnixConn {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	read := func(c *net.UnixConn) string {
		b := make([]byte, 16<<10)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	c := listen()
	if w.Write(Notice, "x") {
		t.Fatal("tried again at once, after nobody was there")
	}
	noonAt := noon
	w.now = func() time.Time { return noonAt }
	noonAt = noonAt.Add(2 * time.Second)
	want := func(pri int, text string) string {
		return fmt.Sprintf("<%d>Nov  1 12:00:%02d rshim[%d]: %s\n", pri, noonAt.Second(), os.Getpid(), text)
	}
	if !w.Write(Notice, "rshim0 attached\n") {
		t.Fatal("not taken")
	}
	if got := read(c); got != want(13, "rshim0 attached") {
		t.Errorf("got %q", got)
	}
	// Another syslogd.
	c.Close()
	os.Remove(path)
	c = listen()
	defer c.Close()
	if !w.Write(Err, "boot failed") {
		t.Fatal("not taken by a new syslogd")
	}
	if got := read(c); got != want(11, "boot failed") {
		t.Errorf("got %q", got)
	}
	w.Write(Debug, strings.Repeat("x", 3*maxLine))
	if got := read(c); len(got) != maxLine || !strings.HasSuffix(got, "x\n") {
		t.Errorf("a long line has %d bytes", len(got))
	}
}

// Some have a stream.
func TestWriterStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := testWriter(path)
	defer w.Close()
	if !w.Write(Warning, "a") || !w.Write(Warning, "b") {
		t.Fatal("not taken")
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	var got []byte
	for bytes.Count(got, []byte("\n")) < 2 {
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, b[:n]...)
	}
	if !bytes.HasPrefix(got, []byte("<12>Nov  1 12:00:00 rshim[")) {
		t.Errorf("got %q", got)
	}
}

// A syslogd that reads nothing holds the daemon up once a second, shortly.
func TestWriterStuck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := testWriter(path)
	defer w.Close()
	refused := 0
	for range 5000 {
		if !w.Write(Info, "x") {
			refused++
		}
	}
	if refused == 0 {
		t.Error("5000 lines fit into a socket")
	}
}

func TestIsJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{
		"":                                     false,
		"1:2":                                  false,
		"8:abc":                                false,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
	} {
		t.Setenv("JOURNAL_STREAM", value)
		if got := IsJournal(w); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v", value, got)
		}
	}
}

func TestJournal(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(NewJournal(&b, &slog.HandlerOptions{Level: slog.LevelDebug})).With("device", "rshim0")
	log.Error("e")
	log.Warn("w")
	log.Info("two\nlines", "level", 7)
	log.WithGroup("g").Debug("d", "time", 1)
	const want = "<3>msg=e device=rshim0\n<4>msg=w device=rshim0\n<6>msg=\"two\\nlines\" device=rshim0\n<7>msg=d device=rshim0 g.time=1\n"
	if got := b.String(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}
