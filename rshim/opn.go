// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// readOPN reads the part number, which does not change while the chip runs.
// It is empty if it cannot be read.
func (s *session) readOPN(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, opnPatience)
	defer cancel()
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
			return ""
		}
		if err != nil {
			s.d.log.Info("cannot read the part number", "op", "opn", "err", err)
			return ""
		}
		words[i] = uint32(v)
	}
	return reg.OPN(words)
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
