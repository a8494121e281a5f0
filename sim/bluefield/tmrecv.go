// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"
	"encoding/binary"
)

// Limits of the DPU's software for what it receives, in bytes of payload.
const (
	maxFrame   = 1500 + 14 + 4 // Linux drops frames that are longer
	maxInput   = 4096          // Linux takes what is beyond it in a console message for headers
	uefiPacket = 1536          // UEFI takes the payload of messages of this size and more for headers
	inputDescs = 1024          // console messages that Linux keeps for its reader
)

// receiver takes messages apart as Linux's driver does: it never loses step,
// whatever comes, but takes any words for a header when it expects one.
type receiver struct {
	typ  byte
	left int // bytes of payload that are still to come
	drop bool
	buf  []byte
}

// got is a message that is complete.
type got struct {
	typ     byte
	payload []byte
}

// feed takes words, and returns the messages that they complete. The caller
// holds mu.
func (d *DPU) feed(s *software, words []uint64) (msgs []got) {
	r := &s.rx
	for _, w := range words {
		if r.left == 0 {
			d.header(s, w)
			continue
		}
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], w)
		n := min(len(b), r.left)
		if !r.drop {
			r.buf = append(r.buf, b[:n]...)
		}
		if r.left -= n; r.left == 0 && !r.drop {
			msgs = append(msgs, got{r.typ, r.buf})
			r.buf = nil
		}
	}
	return msgs
}

// header takes the first word of a message. The caller holds mu.
func (d *DPU) header(s *software, w uint64) {
	typ, size := byte(w), int(w>>8&0xff)<<8|int(w>>16&0xff)
	st := &d.tm.state
	switch {
	case size == 0:
		if !d.control(s, w) {
			st.Skipped++
		}
		return
	case s.phase < phaseLinux && size >= uefiPacket:
		st.Bad++
		return
	}
	r := receiver{typ: typ, left: size}
	switch {
	case typ == typeNet:
		if r.drop = size > maxFrame; r.drop {
			st.Bad++
			st.FramesInLost++
		}
	case s.phase < phaseLinux:
		if r.drop = typ != typeConsole; r.drop {
			st.Bad++
		}
	default: // Linux has the rest for console messages
		r.typ, r.left = typeConsole, min(size, maxInput)
		if typ != typeConsole || size > maxInput {
			st.Bad++
		}
	}
	s.rx = r
}

// receive reads the TMFIFO, when there is software that does, until ctx ends.
func (d *DPU) receive(ctx context.Context, s *software) {
	for {
		d.mu.Lock()
		var msgs []got
		words := d.tm.in
		if d.tm.hold || s.phase < phaseUEFI {
			words = nil
		}
		if len(words) > 0 {
			d.tm.in = nil
			d.tm.inRem.ring()
			msgs = d.feed(s, words)
		}
		linux := s.phase >= phaseLinux
		data := d.tm.inData.wait()
		d.mu.Unlock()
		for _, m := range msgs {
			if m.typ == typeNet {
				d.frameIn(m.payload, linux)
			} else {
				d.consoleIn(ctx, s, m.payload)
			}
		}
		if len(words) > 0 {
			continue
		}
		if !await(ctx, data, 0) {
			return
		}
	}
}

// frameIn passes a frame on to the network. UEFI's interface is not up.
func (d *DPU) frameIn(frame []byte, linux bool) {
	taken := false
	if linux && d.cfg.Net != nil {
		_, err := d.cfg.Net.Write(frame)
		taken = err == nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if taken {
		d.tm.state.FramesIn++
	} else {
		d.tm.state.FramesInLost++
	}
}

// consoleIn passes on what was typed. It waits for a shell that is slow, while
// without a reader Linux's driver loses what it has no place for.
func (d *DPU) consoleIn(ctx context.Context, s *software, p []byte) {
	for {
		d.mu.Lock()
		full := len(s.input) >= inputDescs
		switch {
		case s.phase < phaseLinux || !d.cfg.Console, full && (s.phase != phaseShell || d.tm.consoleHold):
			d.tm.state.ConsoleInLost += int64(len(p))
			d.mu.Unlock()
			return
		case !full:
			s.input = append(s.input, p)
			d.tm.state.ConsoleIn += int64(len(p))
			s.typed.ring()
			d.mu.Unlock()
			return
		}
		room, changed := s.inTaken.wait(), s.changed.wait()
		d.mu.Unlock()
		select {
		case <-room:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// readTyped waits for what was typed, by messages; nil when ctx has ended.
func (d *DPU) readTyped(ctx context.Context, s *software) []byte {
	for {
		d.mu.Lock()
		if len(s.input) > 0 && !d.tm.consoleHold {
			p := s.input[0]
			s.input = s.input[1:]
			s.inTaken.ring()
			d.mu.Unlock()
			return p
		}
		typed, changed := s.typed.wait(), s.changed.wait()
		d.mu.Unlock()
		select {
		case <-typed:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
