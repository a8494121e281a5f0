// SPDX-License-Identifier: Apache-2.0

// Guestinit is process 1 of a test machine: it sets the machine up, runs the job's programs one after the other,
// reports over a serial line of its own and switches the machine off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guestinit: not process 1: this program is the init of a test machine")
		os.Exit(2)
	}
	var events *reporter
	if err := mountBasics(); err != nil {
		fmt.Fprintln(os.Stderr, "guestinit:", err)
	} else if events, err = openReporter(); err != nil {
		fmt.Fprintln(os.Stderr, "guestinit:", err)
	} else if err := serve(events); err != nil {
		fmt.Fprintln(os.Stderr, "guestinit:", err)
		events.send(guest.Event{Kind: guest.Failed, Text: err.Error()})
	}
	if events != nil {
		events.drain()
	}
	powerOff()
}

func serve(events *reporter) error {
	data, err := os.ReadFile(guest.JobFile)
	if err != nil {
		return err
	}
	var job guest.Job
	if err := json.Unmarshal(data, &job); err != nil {
		return fmt.Errorf("%s: %w", guest.JobFile, err)
	}
	// A host that died cannot stop the machine, so the machine stops itself.
	time.AfterFunc(job.Deadline, func() {
		events.send(guest.Event{Kind: guest.Failed, Text: fmt.Sprintf("deadline of %v", job.Deadline)})
		powerOff()
	})
	if err := setUp(&job); err != nil {
		return err
	}
	events.send(guest.Event{Kind: guest.Boot, Elapsed: uptime()})
	for i, r := range job.Runs {
		if err := runOne(events, i, r, environ(&job)); err != nil {
			return err
		}
	}
	events.send(guest.Event{Kind: guest.Done, Elapsed: uptime()})
	return nil
}

func environ(job *guest.Job) []string {
	env := []string{
		guest.Env + "=1",
		guest.LaneEnv + "=" + job.Lane,
		"PATH=" + guest.Dir + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"TMPDIR=/tmp",
		"TERM=dumb",
		"LC_ALL=C.UTF-8",
	}
	return append(env, job.Env...)
}

func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// powerOff ends the machine: User-Mode Linux powers off; the AST2600 has nothing that can, so it resets and QEMU,
// told not to reboot, exits.
func powerOff() {
	unix.Sync()
	cmd := unix.LINUX_REBOOT_CMD_POWER_OFF
	if _, err := os.Stat("/proc/device-tree"); err == nil {
		cmd = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := unix.Reboot(cmd); err != nil {
		fmt.Fprintln(os.Stderr, "guestinit: reboot:", err)
	}
	select {}
}
