// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// Scratchpad 3 carries commands to a debug agent on the DPU: with the highest
// bit the word is the DPU's, which clears it when it has answered in
// scratchpads 1 and 6. Source: rshim_regs.h, bfdump() in rshim_cmdmode.c.
const (
	dpuOwns          uint64 = 1 << 63
	debugCommandMask uint64 = 0xf << 59
	debugNone        uint64 = 0
	debugDump        uint64 = 1 // as reg.DebugCommand

	dumpPatience = 10 * time.Second // for one answer
	dumpPoll     = time.Millisecond
	dumpMost     = 1 << 20 // bytes
)

// dump copies the agent's dump to stdout and returns the exit code.
func (m *cmdmode) dump(ctx context.Context) int {
	err := m.copyDump(ctx)
	fmt.Fprint(m.out, "\nbfdump completed\n")
	switch {
	case err == nil, errors.Is(err, context.Canceled): // by Ctrl+C, as the text says
		return 0
	case errors.Is(err, os.ErrDeadlineExceeded):
		return exitRshimTimeout
	}
	m.failed(err)
	return codeOf(err)
}

func (m *cmdmode) copyDump(ctx context.Context) (err error) {
	c, err := m.chip(ctx)
	if err != nil {
		fmt.Fprint(m.out, "Timeout\n") // for want of an answer
		return err
	}
	defer func() {
		// Scratchpad 6 is the NIC's reset handshake too, so that it must not
		// keep data. The agent is told if it was cut short.
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if ctx.Err() != nil {
			if sp3, serr := c.readAt(tidy, c.regs.Scratchpad3); serr == nil && !reg.Bad(sp3) {
				err = errors.Join(err, c.writeAt(tidy, c.regs.Scratchpad3, debugWord(sp3, debugNone)))
			}
		}
		err = errors.Join(err, c.writeAt(tidy, c.regs.Scratchpad6, 0))
	}()

	// The first command takes the agent back to the beginning.
	sp3, err := m.debugAnswer(ctx, c)
	if err == nil {
		sp3, err = m.debugCommand(ctx, c, sp3, debugNone)
	}
	if err != nil {
		return err
	}
	fmt.Fprint(m.out, "Use Ctrl+C to stop it at any time...\n\n")
	for n := 0; n < dumpMost; {
		if sp3, err = m.debugCommand(ctx, c, sp3, debugDump); err != nil {
			return err
		}
		var data []byte
		for _, a := range []reg.Addr{c.regs.Scratchpad1, c.regs.Scratchpad6} {
			v, err := c.readAt(ctx, a)
			if err != nil {
				return err
			}
			data = binary.LittleEndian.AppendUint64(data, v)
		}
		if _, err := m.e.stdout.Write(data); err != nil {
			return err
		}
		n += len(data)
		if uint64(reg.DebugCommand(sp3)) != debugDump {
			break // that was all
		}
	}
	return nil
}

func debugWord(sp3, command uint64) uint64 { return sp3&^debugCommandMask | command<<59 | dpuOwns }

// debugCommand gives a command and returns scratchpad 3 with the answer.
func (m *cmdmode) debugCommand(ctx context.Context, c *chipRegs, sp3, command uint64) (uint64, error) {
	if err := c.writeAt(ctx, c.regs.Scratchpad3, debugWord(sp3, command)); err != nil {
		fmt.Fprint(m.out, "Failed to write SP3\n")
		return 0, err
	}
	return m.debugAnswer(ctx, c)
}

// debugAnswer waits until scratchpad 3 is not the DPU's.
func (m *cmdmode) debugAnswer(ctx context.Context, c *chipRegs) (uint64, error) {
	for end := time.Now().Add(dumpPatience); ; {
		sp3, err := c.readAt(ctx, c.regs.Scratchpad3)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err == nil && reg.Bad(sp3):
			err = fmt.Errorf("%w: scratchpad 3 is %#x", errNoRshim, sp3)
		case err == nil && sp3&dpuOwns == 0:
			return sp3, nil
		case err == nil && time.Now().After(end):
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			fmt.Fprint(m.out, "Timeout\n")
			return 0, err
		}
		select {
		case <-time.After(dumpPoll):
		case <-ctx.Done():
		}
	}
}
