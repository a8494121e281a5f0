// SPDX-License-Identifier: Apache-2.0

// Package sdnotify tells systemd, or whatever speaks its protocol, how the
// service is: ready, reloading, stopping, and alive. Source: sd_notify(3),
// sd_watchdog_enabled(3).
package sdnotify

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sendLimit is how long a message may wait for a supervisor that does not
// take it.
const sendLimit = 300 * time.Millisecond

// Notifier talks to the service's supervisor. A nil one talks to nobody, so
// that callers need not know whether there is one.
type Notifier struct {
	to       string // of NOTIFY_SOCKET
	interval time.Duration
}

// FromEnv returns the notifier that the environment asks for, nil for none.
// What asks for it is taken out of the environment, so that a process which
// this one starts does not speak for the service.
func FromEnv() *Notifier {
	to, usec, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	if len(to) < 2 || to[0] != '/' && to[0] != '@' { // other kinds, such as vsock:, are no service's
		return nil
	}
	n := &Notifier{to: to}
	if us, err := strconv.ParseInt(usec, 10, 64); err == nil && us > 0 && us < 1<<53 &&
		(pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.interval = time.Duration(us) * time.Microsecond
	}
	return n
}

// Interval is the time within which the supervisor wants to hear Alive, 0 if it
// does not.
func (n *Notifier) Interval() time.Duration {
	if n == nil {
		return 0
	}
	return n.interval
}

// Ready tells that the service serves: after its start, and after Reloading.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", statusLine(status)) }

// Status tells what the service does, in words for people.
func (n *Notifier) Status(status string) error { return n.send(statusLine(status)) }

// Reloading tells that the service reads its configuration again; Ready ends
// that.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return n.send("RELOADING=1")
	}
	return n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping tells that the service ends.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Alive tells that the service is not stuck.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// statusLine is one line, whatever the text.
func statusLine(status string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, status)
}

// send sends one datagram. A socket of its own for each costs little, and
// outlives nothing.
func (n *Notifier) send(lines ...string) error {
	if n == nil {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(sendLimit))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	// A name that begins with @ is an abstract one, for unix.SockaddrUnix too.
	for {
		err = unix.Sendto(fd, []byte(strings.Join(lines, "\n")), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: n.to})
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("notify %s: %w", n.to, err)
	}
	return nil
}
