// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bluefield-go/bmc-rshim/i2c"
	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/ncsi/netlink"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// Exit codes. They are an interface: scripts branch on them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnsupported = 3
	exitUntrusted   = 4
	exitTimeout     = 5 // as bmc-rshim's
	exitDevice      = 6 // as bmc-rshim's
	exitUnavailable = 7
	exitUnconfirmed = 8
	exitPermission  = 9
	exitNotTaken    = 10
	exitUnknown     = 11
	exitSeveral     = 12
	exitInterrupted = 130
)

// outcomes are the exit codes, what they mean, which errors lead to them, and
// what to do then, unless advices knows better. An error has the first code that
// fits, so that what is worse stands further up. What says that it is a timeout
// is os.ErrDeadlineExceeded.
var outcomes = []struct {
	code   int
	means  string
	errs   []error
	advice string
}{
	{exitOK, "done", nil, ""},
	{exitFailed, "failed: anything without a code of its own", nil, ""},
	{exitUsage, "wrong command line", nil, ""},
	{
		exitUnknown, "it is not known whether the setting was taken",
		[]error{oem.ErrOutcomeUnknown}, "look with ncsi-oem get, and set again",
	},
	{
		exitInterrupted, "interrupted by a signal",
		[]error{context.Canceled}, "",
	},
	{
		exitNotTaken, "what was read back is not what was set",
		[]error{oem.ErrNotTaken}, "somebody else may have set it at the same time, or the firmware keeps it from changing, or it reports the state in force until the DPU reboots: reboot it, and look again with ncsi-oem get",
	},
	{
		exitUnavailable, "run-time access is not available, as while the persistent state is disabled",
		[]error{oem.ErrUnavailable}, "ncsi-oem get shows the persistent state; if that is disabled, set it and reboot the DPU",
	},
	{
		exitUnsupported, "the firmware does not know the command, or (some firmware answers alike) does not trust this BMC",
		[]error{oem.ErrUnsupported}, "the DPU's firmware may be too old, or its configuration may not trust the BMC",
	},
	{
		exitUntrusted, "the DPU does not trust this BMC",
		[]error{oem.ErrUntrusted}, "the DPU's configuration must trust the BMC first",
	},
	{
		exitTimeout, "no answer in time",
		[]error{os.ErrDeadlineExceeded}, "check that the DPU has power and is the one meant; -v shows what was sent, -package asks another package, -timeout waits longer",
	},
	{
		exitPermission, "not permitted",
		[]error{os.ErrPermission}, "run it as root",
	},
	{
		exitDevice, "no such device, or it cannot be used",
		[]error{
			netlink.ErrNoDevice, netlink.ErrNoFamily, netlink.ErrDown, afmctp.ErrNoMCTP, afmctp.ErrNoRoute,
			i2c.ErrNoBus, i2c.ErrNoQueue, i2c.ErrInUse, i2c.ErrNoAck,
		},
		"ncsi-oem packages lists what can be reached",
	},
	{exitUnconfirmed, "not confirmed; nothing was changed", nil, ""},
	{exitSeveral, "there are several devices, and none was chosen; nothing was changed", nil, ""},
}

// advices are what to do about errors that have an advice of their own. That of
// an empty text has it in itself.
var advices = []struct {
	err    error
	advice string
}{
	{afmctp.ErrBusy, "other programs have left requests to it without an answer: try again in ten seconds"},
	{afmctp.ErrNoMCTP, "-i2c does without, on a bus with a slave-mqueue"},
	{afmctp.ErrNoRoute, ""},
	{i2c.ErrNoBus, ""},
	{i2c.ErrNoQueue, ""},
	{i2c.ErrInUse, "end that program, or have another address: -i2c BUS:ADDR:OWN"},
	{i2c.ErrNoAck, "check bus and address, and that the DPU has power"},
}

// exitCodes is the table for people.
func exitCodes() string {
	var b strings.Builder
	b.WriteString("exit codes:\n")
	for code := range exitInterrupted + 1 {
		for _, o := range outcomes {
			if o.code == code {
				fmt.Fprintf(&b, "  %-4d %s\n", code, o.means)
			}
		}
	}
	return b.String()
}

// exitError is an error that has decided on the exit code, and whose text says
// already what to do.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitWith(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

func usageError(format string, args ...any) error {
	return exitWith(exitUsage, format+"; ncsi-oem -h shows the usage", args...)
}

// outcome returns the exit code that tells of err, and what to do about it.
func outcome(err error) (code int, advice string) {
	if err == nil {
		return exitOK, ""
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code, ""
	}
	code = exitFailed
	for _, o := range outcomes {
		if slices.ContainsFunc(o.errs, func(e error) bool { return is(err, e) }) {
			code, advice = o.code, o.advice
			break
		}
	}
	for _, a := range advices {
		if (code == exitFailed || code == exitDevice) && errors.Is(err, a.err) {
			return code, a.advice
		}
	}
	return code, advice
}

// is is errors.Is, for timeouts of all kinds.
func is(err, target error) bool {
	return errors.Is(err, target) || target == os.ErrDeadlineExceeded && oem.IsTimeout(err)
}
