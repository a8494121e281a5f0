// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/bootlog"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// The chip's boot log is a buffer of 1 KiB whose writers stop when it is full.
// It is read as it grows, and emptied when it is half full, so that no line is
// lost however much a boot writes.
const (
	logFast      = 200 * time.Millisecond // between looks while lines come
	logSlow      = 2 * time.Second        // otherwise
	logBusy      = 2 * time.Minute        // lines still are expected after the last one
	logEmpty     = reg.LogWords / 2       // words from which on the buffer is emptied
	semaphoreTry = 10 * time.Millisecond
	semaphoreMax = 3 * time.Second
	logKept      = 64 << 10              // bytes of decoded lines
	logRefresh   = 25 * time.Millisecond // that a reader waits for newer lines
	logFresh     = time.Second           // that a push without a reset does
)

var errSemaphore = errors.New("log semaphore was held for too long")

// LogLine is one line of the boot log.
type LogLine struct {
	Seq   int64 // 0, 1, 2, ... since the device was first seen
	Time  time.Time
	Level slog.Level // Info, Warn, or Error for what is worse
	Text  string     // as misc shows it, without the newline: " INFO[BL2]: start"
}

// logStore keeps the last lines of the boot log.
type logStore struct {
	mu      sync.Mutex
	changed chan struct{}
	lines   []LogLine
	bytes   int
	next    int64 // Seq of the next line
	boot    int64 // Seq of the first line of the current boot
	shown   int64 // lines before were read with CLEAR_ON_READ

	index int  // words of the chip's buffer that have been read
	old   bool // what is in it has been logged before
}

// restart begins the log of a new boot.
func (l *logStore) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.boot, l.index, l.old = l.next, 0, false
}

// succeed takes note that somebody had the RShim before us who did not give it
// back: most likely a daemon of ours, before a restart. It has logged what is in
// the chip's buffer by now, unless that has been read by us before.
func (l *logStore) succeed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.old = l.next == 0
}

func (l *logStore) add(entries []bootlog.Entry) (added []LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, e := range entries {
		for text := range strings.Lines(e.String()) {
			text = strings.TrimSuffix(text, "\n")
			added = append(added, LogLine{Seq: l.next, Time: now, Level: levelOf(e), Text: text})
			l.next++
			l.bytes += len(text)
		}
	}
	l.lines = append(l.lines, added...)
	old := 0
	for ; l.bytes > logKept; old++ {
		l.bytes -= len(l.lines[old].Text)
	}
	l.lines = slices.Delete(l.lines, 0, old)
	close(l.changed)
	l.changed = make(chan struct{})
	return added
}

// since returns the lines from seq on that are still kept.
func (l *logStore) since(seq int64) []LogLine {
	for i, line := range l.lines {
		if line.Seq >= seq {
			return append([]LogLine(nil), l.lines[i:]...)
		}
	}
	return nil
}

// Log returns the lines from seq on that are still kept (64 KiB of them), the
// seq to go on with, and a channel that is closed when there are more.
func (d *Device) Log(seq int64) (lines []LogLine, next int64, more <-chan struct{}) {
	d.logs.mu.Lock()
	defer d.logs.mu.Unlock()
	return d.logs.since(seq), d.logs.next, d.logs.changed
}

// bootLog returns the lines that misc shows: those of the current boot, with
// clear without those that have been shown so.
func (d *Device) bootLog(clear bool) []LogLine {
	d.logs.mu.Lock()
	defer d.logs.mu.Unlock()
	from := d.logs.boot
	if clear {
		from = max(from, d.logs.shown)
		d.logs.shown = d.logs.next
	}
	return d.logs.since(from)
}

// refreshLog reads the chip's buffer now, so that what the chip has written so
// far is in the log when it returns: unless that is a lot, over a slow bus, or
// the chip does not answer, within limit. What is late is there for the next
// reader.
func (d *Device) refreshLog(ctx context.Context, limit time.Duration) {
	d.mu.Lock()
	s, state := d.sess, d.state
	d.mu.Unlock()
	if state != Attached {
		return // nobody follows it
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan struct{})
	select {
	case s.drain <- done:
		select {
		case <-done:
		case <-ctx.Done():
		case <-s.over:
		}
	case <-ctx.Done():
	case <-s.over:
	}
}

// follow reads the boot log for as long as the device is attached.
func (s *session) follow(ctx context.Context) {
	last := time.Now() // when there was something to read
	timer := time.NewTimer(0)
	defer timer.Stop()
	for warned := false; ; {
		var done chan struct{}
		select {
		case done = <-s.drain:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		n, err := s.collect(ctx)
		if n > 0 {
			last = time.Now()
		}
		if err != nil && ctx.Err() == nil && !warned {
			s.d.log.Info("cannot read the boot log", "op", "log", "err", err)
		}
		warned = err != nil
		if done != nil {
			close(done)
		}
		pause := logSlow
		if time.Since(last) < logBusy {
			pause = logFast
		}
		timer.Reset(pause)
	}
}

// collect reads what is new in the chip's buffer; n is how many words. Each line
// gets a record in our own log, with its level. That is once each also when the
// daemon is restarted: to one that finds the keepalive of a daemon before, what
// is in the buffer is old, and its records have level Debug. So have then lines
// that came when there was no daemon, or while a driver had the RShim that died
// with it; misc and ReadLog have them all the same. A daemon that finds a chip as
// its reset has left it, or as a driver that gave it up, or that still had it,
// takes all lines as new.
func (s *session) collect(ctx context.Context) (n int, err error) {
	// A look without the semaphore is all it takes while nothing is new.
	index, err := s.logIndex(ctx)
	if err == nil && index == s.d.logs.index {
		s.d.logs.old = false // nothing is
	}
	if err != nil || index == s.d.logs.index {
		return 0, err
	}
	if err := s.takeSemaphore(ctx); err != nil {
		return 0, err
	}
	// Whatever happens, the chip gets its semaphore back.
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	defer func() {
		err = errors.Join(err, s.set(late, s.regs.Semaphore0, 0))
	}()
	if index, err = s.logIndex(ctx); err != nil {
		return 0, err
	}
	start := s.d.logs.index
	if index < start {
		start = 0 // somebody emptied the buffer
	}
	words, err := s.logWords(ctx, start, index)
	rest := index
	if err == nil && index >= logEmpty {
		rest = 0
	}
	if werr := s.set(late, s.regs.ScratchBufCtl, uint64(rest)); err != nil || werr != nil {
		return 0, errors.Join(err, werr)
	}
	s.d.logs.index = rest
	entries, _ := bootlog.Decode(words)
	lines := s.d.logs.add(entries)
	s.d.heard(entries, len(lines))
	for _, l := range lines {
		if s.d.logs.old {
			l.Level = slog.LevelDebug
		}
		s.d.log.Log(ctx, l.Level, "boot log", "text", strings.TrimSpace(l.Text))
	}
	s.d.logs.old = false
	return len(words), nil
}

// levelOf is the level at which an entry is worth a record of our own log.
func levelOf(e bootlog.Entry) slog.Level {
	switch {
	case e.Type != bootlog.Message || e.Level == bootlog.Err || e.Level == bootlog.Assert:
		return slog.LevelError
	case e.Level == bootlog.Warn:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (s *session) logWords(ctx context.Context, start, end int) ([]uint64, error) {
	if err := s.write(ctx, s.regs.ScratchBufCtl, 8, uint64(start)); err != nil {
		return nil, err
	}
	words := make([]uint64, end-start)
	for i := range words {
		v, err := s.read(ctx, s.regs.ScratchBufDat, 8)
		if err != nil {
			return nil, err
		}
		words[i] = v
	}
	return words, nil
}

// logIndex reads how many words the chip's buffer holds.
func (s *session) logIndex(ctx context.Context) (int, error) {
	v, err := s.read(ctx, s.regs.ScratchBufCtl, 8)
	if err == nil && reg.Bad(v) {
		err = fmt.Errorf("log index reads %#x: %w", v, ErrNotReady)
	}
	if n := int(v & reg.LogIndexMask); n > 1 {
		return n, err
	}
	return 0, err // a single word is no entry
}

// takeSemaphore takes the semaphore that guards the log. The chip's writers hold
// it just long enough to write one entry. When it cannot be had for seconds,
// its holder is dead, or the answer to a read of ours that took it was lost:
// it is released by force, for the next try.
func (s *session) takeSemaphore(ctx context.Context) error {
	for end := time.Now().Add(semaphoreMax); ; {
		// Reading takes it, so that the answer must not be missed.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		v, err := s.read(late, s.regs.Semaphore0, 8)
		cancel()
		switch {
		case err != nil:
			return err
		case v == 0:
			return nil
		case reg.Bad(v):
			return fmt.Errorf("log semaphore reads %#x: %w", v, ErrNotReady)
		case time.Now().After(end):
			return errors.Join(errSemaphore, s.write(ctx, s.regs.Semaphore0, 8, 0))
		}
		if !sleep(ctx, semaphoreTry) {
			return ctx.Err()
		}
	}
}
