// SPDX-License-Identifier: Apache-2.0

// Package syslog takes a daemon's log to where the system keeps it: to the
// syslog socket, and to systemd's journal over standard error. It is what
// log/syslog is without package net, which a BMC's binary has no room for.
package syslog

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Priority is a severity of syslog(3), as the journal knows it too.
type Priority int

// Priorities that a daemon has a use for.
const (
	Err     Priority = 3
	Warning Priority = 4
	Notice  Priority = 5
	Info    Priority = 6
	Debug   Priority = 7
)

// facility is LOG_USER of syslog(3).
const facility = 1 << 3

const (
	// sendLimit is how long a line may wait for a syslogd that takes none.
	sendLimit = 300 * time.Millisecond
	// deadTime is how long nothing is tried after a line was not taken, so
	// that a stuck syslogd costs the daemon next to nothing.
	deadTime = time.Second
	// maxLine is what is sent of a line at most, in bytes. Source: RFC 5425
	// section 4.3.1 has receivers take 8192; busybox takes fewer and cuts.
	maxLine = 8 << 10
)

// Sockets are where a syslogd listens, on one system or the other.
var sockets = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}

// Writer sends lines to the system's syslogd. A line that is not taken is lost.
type Writer struct {
	tag   string
	paths []string
	now   func() time.Time

	mu   sync.Mutex
	fd   int // -1: not connected
	dead time.Time
}

// New returns a writer of lines that begin with a tag. It connects when it has
// something to say, and again when syslogd was restarted.
func New(tag string) *Writer {
	return &Writer{tag: tag, paths: sockets, now: time.Now, fd: -1}
}

// Write sends a line, without its newline, and reports whether it was taken.
func (w *Writer) Write(p Priority, line string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if now.Before(w.dead) {
		return false
	}
	b := w.record(p, line, now)
	// The first attempt may find that syslogd is another one by now.
	for range 2 {
		if w.fd < 0 {
			w.fd = dial(w.paths)
		}
		if w.fd < 0 {
			break
		}
		if send(w.fd, b) == nil {
			return true
		}
		unix.Close(w.fd)
		w.fd = -1
	}
	w.dead = now.Add(deadTime)
	return false
}

// Close closes the connection.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

// record is a line as syslogd takes it from a local socket. Source: RFC 3164
// section 4.1, without the host's name, as in syslog(3).
func (w *Writer) record(p Priority, line string, now time.Time) []byte {
	b := append([]byte("<"), strconv.Itoa(facility|int(p&7))...)
	b = append(b, '>')
	b = now.AppendFormat(b, time.Stamp)
	b = append(b, " "+w.tag+"["+strconv.Itoa(os.Getpid())+"]: "...)
	line = strings.TrimRight(line, "\n")
	b = append(b, line[:min(len(line), maxLine-len(b)-1)]...)
	return append(b, '\n')
}

// dial connects to the first socket that answers; -1 for none.
func dial(paths []string) int {
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		for _, path := range paths {
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return -1
			}
			limit := unix.NsecToTimeval(int64(sendLimit))
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
			if err == nil {
				err = unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Clean(path)})
			}
			if err == nil {
				return fd
			}
			unix.Close(fd)
		}
	}
	return -1
}

func send(fd int, b []byte) error {
	for {
		err := unix.Sendto(fd, b, unix.MSG_NOSIGNAL, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// Of is the priority of a level of slog: error, warning, info or debug.
func Of(l slog.Level) Priority {
	switch {
	case l >= slog.LevelError:
		return Err
	case l >= slog.LevelWarn:
		return Warning
	case l >= slog.LevelInfo:
		return Info
	}
	return Debug
}
