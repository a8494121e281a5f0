// SPDX-License-Identifier: Apache-2.0

package bluefield

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// netReserve is how many words of the FIFO Linux's driver leaves to the console
// when it sends a frame.
const netReserve = reg.TmFIFODepth / 16

// sending is what is being sent, of which some has been.
type sending struct {
	words   []uint64
	reserve int
	frame   int // the size of the frame that it is, in bytes; or 0
}

// tmRoom returns how many words the FIFO takes if so many are kept free. The
// caller holds mu.
func (d *DPU) tmRoom(reserve int) int {
	return max(0, reg.TmFIFODepth-reserve-len(d.tm.out))
}

// putTM puts words into the FIFO, which has room. The caller holds mu.
func (d *DPU) putTM(words ...uint64) {
	d.tm.out = append(d.tm.out, words...)
	d.tm.outData.ring()
}

// urge queues words that go before all else, as they are. The caller holds mu.
func (s *software) urge(words []uint64) {
	if len(words) > 0 {
		s.urgent = append(s.urgent, words)
		s.wake.ring()
	}
}

// garbage is what a header has in the bytes that nobody has written. The caller
// holds mu.
func (d *DPU) garbage() uint64 {
	if !d.cfg.DirtyHeaders {
		return 0
	}
	d.tm.seed++
	return d.tm.seed * 0x9e3779b97f4a7c15 >> 24
}

// transmit is what Linux's driver sends, and what is urgent, until ctx ends.
func (d *DPU) transmit(ctx context.Context, s *software) {
	timer := time.NewTimer(netTimeout)
	timer.Stop()
	defer timer.Stop()
	waiting := false
	for {
		d.mu.Lock()
		moved := d.push(s)
		stuck := s.frame != nil || s.cur != nil && s.cur.frame > 0
		wake, room := s.wake.wait(), d.tm.outRem.wait()
		d.mu.Unlock()
		switch {
		case !stuck && waiting:
			timer.Stop()
		case stuck && (moved || !waiting):
			timer.Reset(netTimeout)
		}
		waiting = stuck
		select {
		case <-wake:
		case <-room:
		case <-timer.C:
			d.mu.Lock()
			d.giveUp(s)
			d.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// push sends what there is room for, and reports whether it was anything. The
// caller holds mu.
func (d *DPU) push(s *software) (moved bool) {
	if s.netDead {
		if s.netDead = d.tmRoom(netReserve) == 0; s.netDead && s.frame != nil {
			d.loseFrame(s)
		}
	}
	for {
		if s.cur == nil {
			s.cur = d.nextMessage(s)
		}
		if s.cur == nil {
			return moved
		}
		n := min(len(s.cur.words), d.tmRoom(s.cur.reserve))
		if n == 0 {
			return moved
		}
		moved = true
		d.putTM(s.cur.words[:n]...)
		if s.cur.words = s.cur.words[n:]; len(s.cur.words) == 0 {
			if s.cur.frame > 0 {
				d.tm.state.FramesOut++
			}
			s.cur = nil
		}
	}
}

// nextMessage returns what is to be sent next: console and network in turn. A
// frame needs room to be begun. The caller holds mu.
func (d *DPU) nextMessage(s *software) *sending {
	if len(s.urgent) > 0 {
		words := s.urgent[0]
		s.urgent = s.urgent[1:]
		return &sending{words: words}
	}
	for range 2 {
		s.netTurn = !s.netTurn
		if room := d.tmRoom(1); !s.netTurn && room >= 2 && s.console.n > 0 {
			p := make([]byte, min(s.console.n, 8*(room-1)))
			s.console.get(p)
			s.conRoom.ring()
			d.tm.state.ConsoleOut += int64(len(p))
			return &sending{words: message(typeConsole, p, d.garbage()), reserve: 1}
		}
		if s.netTurn && s.frame != nil && d.tmRoom(netReserve) > 0 {
			m := &sending{words: message(typeNet, s.frame, d.garbage()), reserve: netReserve, frame: len(s.frame)}
			s.frame = nil
			s.taken.ring()
			return m
		}
	}
	return nil
}

// giveUp throws a frame away that the host does not take. If it has been begun,
// zeros follow, as many as it has words. The caller holds mu.
func (d *DPU) giveUp(s *software) {
	s.netDead = true
	switch {
	case s.cur != nil && s.cur.frame > 0:
		d.tm.state.FramesOutLost++
		s.cur = &sending{words: make([]uint64, (s.cur.frame+7)/8), reserve: netReserve}
	case s.frame != nil:
		d.loseFrame(s)
	}
}

func (d *DPU) loseFrame(s *software) {
	d.tm.state.FramesOutLost++
	s.frame = nil
	s.taken.ring()
}

// readNet takes frames from the network until it ends. Without Linux's driver,
// the network has nobody there.
func (d *DPU) readNet(ctx context.Context) {
	buf := make([]byte, 1<<16)
	for {
		n, err := d.cfg.Net.Read(buf)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, io.EOF) {
				d.event("net-ended", "err", err)
			}
			return
		}
		d.frameOut(ctx, append([]byte(nil), buf[:n]...))
	}
}

// frameOut waits until the driver takes a frame, or loses it.
func (d *DPU) frameOut(ctx context.Context, frame []byte) {
	for {
		d.mu.Lock()
		s := d.tm.soft
		if s.phase < phaseLinux || len(frame) == 0 || len(frame) > maxFrame {
			d.tm.state.FramesOutLost++
			d.mu.Unlock()
			return
		}
		if s.frame == nil {
			s.frame = frame
			s.wake.ring()
			d.mu.Unlock()
			return
		}
		taken := s.taken.wait()
		d.mu.Unlock()
		select {
		case <-taken:
		case <-s.gone:
		case <-ctx.Done():
			return
		}
	}
}

// putATF writes as ATF does: in the first second after a reset, while the host
// has probably not found the DPU again, 8 characters a message, then each in
// its own. What finds the FIFO full is lost. The caller holds mu.
func (d *DPU) putATF(s *software, p []byte) {
	for i := range p {
		if s.atf.plain {
			d.putBoot(s, p[i:i+1])
			continue
		}
		s.atf.buf = append(s.atf.buf, p[i])
		s.atf.plain = time.Since(d.resetAt) > time.Second
		if s.atf.plain || len(s.atf.buf) == 8 {
			d.flushATF(s)
		}
	}
}

func (d *DPU) flushATF(s *software) {
	if len(s.atf.buf) > 0 {
		d.putBoot(s, s.atf.buf)
		s.atf.buf = nil
	}
}

// putBoot sends one console message of the firmware, or loses it without room
// for it all. The caller holds mu. UEFI sends one a line.
func (d *DPU) putBoot(s *software, p []byte) {
	m := message(typeConsole, p, 0)
	if s.cur != nil || len(m) > d.tmRoom(0) {
		d.tm.state.ConsoleOutLost += int64(len(p))
		return
	}
	d.putTM(m...)
	d.tm.state.ConsoleOut += int64(len(p))
}

// conSpare is how much of its buffer Linux's driver leaves free.
const conSpare = 8

// putLinux writes as Linux's kernel does: into the driver's buffer, unless
// there is no room for it all. The caller holds mu.
func (d *DPU) putLinux(s *software, p []byte) {
	if len(p)+conSpare > s.console.room() {
		d.tm.state.ConsoleOutLost += int64(len(p))
		return
	}
	s.console.put(p)
	s.wake.ring()
}

// print writes as the shell does: it waits for room. It returns false when ctx
// has ended.
func (d *DPU) print(ctx context.Context, s *software, p []byte) bool {
	for len(p) > 0 {
		d.mu.Lock()
		n := min(len(p), max(0, s.console.room()-conSpare))
		s.console.put(p[:n])
		if n > 0 {
			s.wake.ring()
		}
		room := s.conRoom.wait()
		d.mu.Unlock()
		if p = p[n:]; n == 0 && !await(ctx, room, 0) {
			return false
		}
	}
	return ctx.Err() == nil
}
