// SPDX-License-Identifier: Apache-2.0

package rshim

// Outcome is how a push has ended: not of its stream alone, but of the boot that
// the stream was for.
type Outcome uint8

// Outcomes of a push. All but OutcomeNone and OutcomePending are final.
const (
	OutcomeNone       Outcome = iota // there was no push
	OutcomePending                   // it streams, or the DPU boots
	OutcomeReady                     // the DPU has installed what it got, and is up
	OutcomeStreamed                  // the DPU has it and boots, and nobody waits any longer; see PushStatus.Err
	OutcomeDPUError                  // the DPU reported an error, see Line
	OutcomeTimeout                   // it took too long at Stage
	OutcomeCancelled                 // by CancelPush
	OutcomeDeviceLost                // the DPU left the bus and did not come back in time
	OutcomeFailed                    // for another reason, see Err
)

func (o Outcome) String() string {
	words := [...]string{"none", "pending", "ready", "streamed", "DPU error", "timeout", "cancelled", "device lost", "failed"}
	if int(o) >= len(words) {
		return words[OutcomeFailed]
	}
	return words[o]
}

// Final reports whether the push has ended.
func (o Outcome) Final() bool { return o > OutcomePending }
