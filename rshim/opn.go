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
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
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

// readMem reads 4 bytes of the chip's address space by indirect access.
func (s *session) readMem(ctx context.Context, addr uint64) (uint64, error) {
	level, err := s.read(ctx, s.regs.MasterPrivLevel, 8)
	if err != nil {
		return 0, err
	}
	if err := s.write(ctx, s.regs.MasterPrivLevel, 8, level|1<<s.regs.MemAccLevelBit); err != nil {
		return 0, err
	}
	before, err := s.read(ctx, s.regs.MemAccRspCnt, 8)
	if err != nil {
		return 0, err
	}
	ctl := addr&reg.MemAccAddrMask | reg.MemAccSize4<<reg.MemAccSizeShift | reg.MemAccSend
	if err := s.write(ctx, s.regs.MemAccCtl, 8, ctl); err != nil {
		return 0, err
	}
	for {
		count, err := s.read(ctx, s.regs.MemAccRspCnt, 8)
		if err != nil {
			return 0, fmt.Errorf("indirect read of %#x: %w", addr, err)
		}
		if count != before {
			return s.read(ctx, s.regs.MemAccData, 8)
		}
		if !sleep(ctx, time.Millisecond) {
			return 0, ctx.Err()
		}
	}
}
