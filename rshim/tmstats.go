// SPDX-License-Identifier: Apache-2.0

package rshim

import "github.com/bluefield-go/bmc-rshim/rshim/tmfifo"

// Traffic counts messages of one kind in one direction; bytes are payload.
type Traffic struct {
	Messages, Bytes               int64 // passed on
	DroppedMessages, DroppedBytes int64
}

func (t *Traffic) pass(n int) { t.add(Traffic{Messages: 1, Bytes: int64(n)}) }
func (t *Traffic) drop(n int) { t.add(Traffic{DroppedMessages: 1, DroppedBytes: int64(n)}) }

func (t *Traffic) add(u Traffic) {
	t.Messages += u.Messages
	t.Bytes += u.Bytes
	t.DroppedMessages += u.DroppedMessages
	t.DroppedBytes += u.DroppedBytes
}

// TMFIFOStats counts what went through a device's TMFIFO since the Device
// exists. What has been passed on to the chip may yet be lost in a reset.
type TMFIFOStats struct {
	Running bool // now: the device is ours

	NetToDPU, NetFromDPU         Traffic
	ConsoleToDPU, ConsoleFromDPU Traffic
	ControlToDPU, ControlFromDPU Traffic // requests and settings of PEER_MAC and the like

	// Decoded tells of all messages from the DPU, and of what was no message.
	Decoded tmfifo.Counts
	Starts  int64 // how often the TMFIFO was begun with anew
	Resyncs int64 // how often, of these, with filling up a message of a previous owner
	Errors  int64 // how often it ended with an error other than the chip's going
}

// TMFIFO returns the counters of the device's TMFIFO.
func (d *Device) TMFIFO() TMFIFOStats {
	d.mux.mu.Lock()
	st := d.mux.stats
	d.mux.mu.Unlock()
	st.ConsoleToDPU.DroppedBytes += d.console.Stats().Dropped
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	st.NetToDPU, st.NetFromDPU, st.Running = d.net.toDPU, d.net.fromDPU, d.net.up
	return st
}

// dropped is t with all that was passed on counted as dropped.
func (t Traffic) dropped() Traffic {
	return Traffic{DroppedMessages: t.Messages + t.DroppedMessages, DroppedBytes: t.Bytes + t.DroppedBytes}
}
