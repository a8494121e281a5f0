// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Timing of the part number, which is read when the RShim becomes ours. Nobody
// keeps the ownership up meanwhile, so that what takes long is left for later.
const (
	opnPatience = 500 * time.Millisecond
	opnPause    = 2 * time.Second // before another try,
	opnLater    = 5 * time.Second // which may take so long
	opnTries    = 5
)

// completeOPN reads a part number that could not be read before.
func (s *session) completeOPN(ctx context.Context) {
	for range opnTries {
		if !sleep(ctx, opnPause) {
			return
		}
		opn, err := s.readOPN(ctx, opnLater)
		if err != nil {
			continue
		}
		s.d.update(func() {
			if s.opn == "" { // nobody has written one meanwhile
				s.opn = opn
			}
		})
		return
	}
}

// readOPN reads the part number, which does not change while the chip runs.
func (s *session) readOPN(ctx context.Context, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.opnTurn(ctx); err != nil {
		return "", err
	}
	defer func() { <-s.opnBusy }()
	var words [reg.OPNSize / 4]uint32
	for i := range words {
		var v uint64
		var err error
		switch s.gen {
		case reg.BlueField2:
			v, err = s.readMem(ctx, reg.OPNMemBF2+uint64(4*i))
		case reg.BlueField3:
			v, err = s.read(ctx, reg.Addr{Channel: reg.ChanYU, Offset: reg.OPNOffsetBF3 + uint16(4*i)}, 4)
		default:
			return "", nil
		}
		if err != nil {
			return "", err
		}
		words[i] = uint32(v)
	}
	return reg.OPN(words), nil
}

// opnTurn waits for others that read or write the part number: an indirect
// access is several of registers.
func (s *session) opnTurn(ctx context.Context) error {
	select {
	case s.opnBusy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setOPN writes the part number, of which 16 characters count. It lasts as long
// as the chip's memory of its boot record.
func (d *Device) setOPN(ctx context.Context, opn string) error {
	for _, c := range []byte(opn) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%w: a part number is made of ASCII characters", ErrInvalid)
		}
	}
	s, err := d.owner(ctx)
	if err != nil {
		return err
	}
	if err := s.opnTurn(ctx); err != nil {
		return err
	}
	defer func() { <-s.opnBusy }()
	opn = opn[:min(len(opn), reg.OPNSize)]
	for i, w := range reg.OPNWords(opn) {
		switch s.gen {
		case reg.BlueField2:
			err = s.writeMem(ctx, reg.OPNMemBF2+uint64(4*i), w)
		case reg.BlueField3:
			err = s.write(ctx, reg.Addr{Channel: reg.ChanYU, Offset: reg.OPNOffsetBF3 + uint16(4*i)}, 4, uint64(w))
		default:
			err = ErrNotSupported
		}
		if err != nil {
			return err
		}
	}
	d.update(func() { s.opn = opn })
	return nil
}

// readMem reads 4 bytes of the chip's address space by indirect access.
func (s *session) readMem(ctx context.Context, addr uint64) (uint64, error) {
	if err := s.memAccess(ctx, addr&reg.MemAccAddrMask|reg.MemAccSize4<<reg.MemAccSizeShift|reg.MemAccSend); err != nil {
		return 0, fmt.Errorf("indirect read of %#x: %w", addr, err)
	}
	return s.read(ctx, s.regs.MemAccData, 8)
}

// writeMem writes 4 bytes there.
func (s *session) writeMem(ctx context.Context, addr uint64, v uint32) error {
	err := s.write(ctx, s.regs.MemAccData, 8, uint64(v))
	if err == nil {
		err = s.memAccess(ctx, addr&reg.MemAccAddrMask|reg.MemAccSize4<<reg.MemAccSizeShift|reg.MemAccWrite|reg.MemAccSend)
	}
	if err != nil {
		err = fmt.Errorf("indirect write of %#x: %w", addr, err)
	}
	return err
}

// memAccess has an indirect access carried out, and waits for its end.
func (s *session) memAccess(ctx context.Context, ctl uint64) error {
	ctx, cancel := context.WithTimeout(ctx, memAccessLimit)
	defer cancel()
	level, err := s.read(ctx, s.regs.MasterPrivLevel, 8)
	if err != nil {
		return err
	}
	if err := s.write(ctx, s.regs.MasterPrivLevel, 8, level|1<<s.regs.MemAccLevelBit); err != nil {
		return err
	}
	before, err := s.read(ctx, s.regs.MemAccRspCnt, 8)
	if err != nil {
		return err
	}
	if err := s.write(ctx, s.regs.MemAccCtl, 8, ctl); err != nil {
		return err
	}
	for {
		count, err := s.read(ctx, s.regs.MemAccRspCnt, 8)
		if err != nil || count != before {
			return err
		}
		if !sleep(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}

const memAccessLimit = time.Second
