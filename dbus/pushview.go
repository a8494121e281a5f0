// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"errors"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// pushView is the state of a push as it is published.
type pushView struct {
	st      rshim.PushStatus
	phase   string
	outcome string // None unless it has ended
	err     error
	at      time.Time // of the end
}

// view is the state now.
func (p *push) view() (w pushView) {
	w = pushView{phase: "Waiting", outcome: "None"}
	var failed bool
	if p.sent != nil {
		select {
		case <-p.sent:
			failed = p.err != nil
		default:
		}
	}
	defer func() {
		if w.outcome == "Failed" && p.cancelled.Load() {
			w.outcome, w.err = "Cancelled", rshim.ErrCancelled
		}
	}()
	id := p.id.Load()
	if id == 0 {
		if failed {
			w.end("Failed", p.err)
		}
		return w
	}
	var ok bool
	if w.st, ok = p.v.d.PushByID(id); !ok {
		w.end("Failed", rshim.ErrNoPush)
		return w
	}
	switch st := w.st; {
	case st.Outcome.Final():
		w.end(outcomes[st.Outcome], st.Err)
		w.at = st.Ended
		if failed && errors.Is(st.Err, rshim.ErrIncomplete) {
			w.err = p.err // why it ended early
		}
	case st.Phase == rshim.PushDone, st.Phase == rshim.PushFailed:
		w.phase = "Booting"
	default:
		w.phase = title(string(st.Phase))
	}
	return w
}

// outcomes are the words of Outcomes.
var outcomes = map[rshim.Outcome]string{
	rshim.OutcomeReady: "Ready", rshim.OutcomeStreamed: "Streamed", rshim.OutcomeDPUError: "DpuError",
	rshim.OutcomeTimeout: "TimedOut", rshim.OutcomeCancelled: "Cancelled", rshim.OutcomeDeviceLost: "DeviceLost",
	rshim.OutcomeFailed: "Failed",
}

func (w *pushView) end(outcome string, err error) {
	w.phase, w.outcome, w.err, w.at = "Ended", outcome, err, time.Now()
}

func (w *pushView) over() bool { return w.phase == "Ended" }

// good reports whether it came to what it was for: the DPU is up, or has the
// stream where nothing else was asked for.
func (w *pushView) good() bool {
	return w.outcome == "Ready" || w.outcome == "Streamed" && w.err == nil
}

// status and activation are the outcome in OpenBMC's words.
func (w *pushView) status() string {
	switch {
	case !w.over():
		return enum(ifaceProgress, "OperationStatus", "InProgress")
	case w.good():
		return enum(ifaceProgress, "OperationStatus", "Completed")
	case w.outcome == "Cancelled":
		return enum(ifaceProgress, "OperationStatus", "Aborted")
	}
	return enum(ifaceProgress, "OperationStatus", "Failed")
}

func (w *pushView) activation() string {
	switch {
	case !w.over():
		return enum(ifaceActivation, "Activations", "Activating")
	case w.good():
		return enum(ifaceActivation, "Activations", "Active")
	}
	switch errorName(w.err) {
	case errorInvalidImage, errorIncompatible:
		return enum(ifaceActivation, "Activations", "Invalid")
	}
	return enum(ifaceActivation, "Activations", "Failed")
}
