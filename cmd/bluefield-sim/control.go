// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
	"github.com/bluefield-go/bmc-rshim/sim/usbdev"
)

// control carries out commands on the DPUs. Each is a line: a name, the number
// of a DPU, and arguments. Each is answered by a line: "ok", what was asked
// for, or "error" and why.
type control []*device

// action is a command whose arguments have been read. It returns what was
// asked for, if anything was.
type action func(ctx context.Context, d *device) (string, error)

// command is one command. Its arguments are those after the DPU's number.
type command struct {
	name, args, what string
	read             func(a *args) action
}

// quiet makes an action of something that has nothing to tell.
func quiet(do func(f *usbdev.Function)) action {
	return func(_ context.Context, d *device) (string, error) {
		do(d.Function)
		return "", nil
	}
}

// plain is a command without arguments and answer.
func plain(do func(f *usbdev.Function)) func(*args) action {
	return func(*args) action { return quiet(do) }
}

var commands = []command{
	{"unplug", "", "pull the USB cable", plain((*usbdev.Function).Unplug)},
	{"plug", "", "plug it in again", plain((*usbdev.Function).Plug)},
	{"port-reset", "", "reset the USB port", plain((*usbdev.Function).Reset)},
	{"reset", "", "reset the chip", plain(func(f *usbdev.Function) { f.DPU().Reset() })},
	{"sum", "", "what arrived in the boot FIFO since the last reset into the boot ROM", func(*args) action { return sum }},
	{"state", "", "how the DPU stands, what it counts, and what control messages have set", func(*args) action { return state }},
	{"nak", "EP on|off", "answer everything on an endpoint with NAK", func(a *args) action {
		ep, on := a.endpoint(), a.onOff()
		return quiet(func(f *usbdev.Function) { f.SetNAK(ep, on) })
	}},
	{"stall", "EP", "STALL the next transfer of an endpoint", func(a *args) action {
		ep := a.endpoint()
		return quiet(func(f *usbdev.Function) { f.StallNext(ep) })
	}},
	{"fault", "EP NTH AFTER stall|protocol|unplug|nak [FOR]", "let the NTH transfer fail after so many bytes", func(a *args) action {
		x := usbdev.Fault{Endpoint: a.endpoint(), Nth: int(a.number(31)), After: int(a.number(31))}
		x.Kind = usbdev.Kind(a.oneOf("stall", "protocol", "unplug", "nak"))
		if x.Kind == usbdev.NAK {
			x.For = a.duration()
		}
		return quiet(func(f *usbdev.Function) { f.Inject(x) })
	}},
	{"no-faults", "", "forget faults that have not happened", plain((*usbdev.Function).ClearFaults)},
	{"latency", "DURATION", "of each transfer", func(a *args) action {
		d := a.duration()
		return quiet(func(f *usbdev.Function) { f.SetLatency(d) })
	}},
	{"link-rate", "BYTES/S", "of the USB link", func(a *args) action {
		rate := int64(a.number(63))
		return quiet(func(f *usbdev.Function) { f.SetLinkRate(rate) })
	}},
	{"drain-rate", "BYTES/S", "of the DPU reading its boot FIFO", func(a *args) action {
		rate := int64(a.number(63))
		return quiet(func(f *usbdev.Function) { f.DPU().SetDrainRate(rate) })
	}},
	{"hold", "on|off", "stop reading the boot FIFO", func(a *args) action {
		on := a.onOff()
		return quiet(func(f *usbdev.Function) { f.DPU().HoldDrain(on) })
	}},
	{"pause", "AFTER DURATION", "stop reading the boot FIFO for a while after so many bytes", func(a *args) action {
		after, span := int64(a.number(63)), a.duration()
		return quiet(func(f *usbdev.Function) { f.DPU().PauseDrain(after, span) })
	}},
	{"low-speed", "TIMES", "come up at low speed so many times", func(a *args) action {
		n := int(a.number(31))
		return quiet(func(f *usbdev.Function) { f.SetLowSpeed(n) })
	}},
	{"bad", "VALUE DURATION", "let all registers read as VALUE for a while", func(a *args) action {
		value, span := a.number(64), a.duration()
		return quiet(func(f *usbdev.Function) { f.DPU().BadAll(value, span) })
	}},
	{"read", "CHANNEL OFFSET", "a register, as another driver does", func(a *args) action {
		r := a.register()
		return func(_ context.Context, d *device) (string, error) {
			return fmt.Sprintf("value=%#x", d.DPU().ReadReg(r, 8)), nil
		}
	}},
	{"write", "CHANNEL OFFSET VALUE", "a register, as another driver does", func(a *args) action {
		r, v := a.register(), a.number(64)
		return quiet(func(f *usbdev.Function) { f.DPU().WriteReg(r, 8, v) })
	}},
	{"tm-hold", "on|off", "stop reading the TMFIFO", func(a *args) action {
		on := a.onOff()
		return quiet(func(f *usbdev.Function) { f.DPU().HoldTM(on) })
	}},
	{"console-hold", "on|off", "stop the shell; the DPU's driver takes 1024 messages, then it loses what is typed", func(a *args) action {
		on := a.onOff()
		return quiet(func(f *usbdev.Function) { f.DPU().HoldConsole(on) })
	}},
	{"tm-noise", "WORDS", "send so many words of garbage over the TMFIFO", func(a *args) action {
		n := int(a.number(20))
		return quiet(func(f *usbdev.Function) { f.DPU().NoiseTM(n) })
	}},
	{"tm-half", "begin|end", "send the beginning of a message, whose rest never comes, or an end without a beginning", func(a *args) action {
		end := a.oneOf("begin", "end") == 1
		return quiet(func(f *usbdev.Function) { f.DPU().HalfTM(end) })
	}},
	{"log", "LINE", "let the DPU log a line", func(a *args) action {
		line := a.rest()
		return func(ctx context.Context, d *device) (string, error) {
			d.DPU().Log(ctx, line)
			return "", nil
		}
	}},
	{"host", "start|start-force|stop|kill|deaf|hear|force|drop|undrop|state", "the host's driver: start it (with -F), end it as SIGTERM does or by a crash, let it ignore requests or not, FORCE_CMD 1, DROP_MODE 1 or 0; tells how it stands", readHost},
}

func sum(_ context.Context, d *device) (string, error) {
	n, sum := d.BootSum()
	return fmt.Sprintf("bytes=%d sha256=%x", n, sum), nil
}

func state(_ context.Context, d *device) (string, error) {
	st, _ := d.State()
	full, unready := d.DPU().BootLost()
	return fmt.Sprintf("stage=%v present=%t epoch=%d speed=%v overflow=%d swallowed=%d log-lost=%d %s",
		d.DPU().Stage(), st.Present, st.Epoch, st.Speed, full, unready, d.DPU().LogLost(), tmfifo(d.DPU())), nil
}

// tmfifo is the TMFIFO's part of the state.
func tmfifo(d *bluefield.DPU) string {
	s := d.TM()
	return fmt.Sprintf("console-in=%d console-out=%d console-in-lost=%d console-out-lost=%d "+
		"frames-in=%d frames-out=%d frames-in-lost=%d frames-out-lost=%d "+
		"control=%d skipped=%d bad=%d tm-overflow=%d mac=%v pxe-id=%#08x vlan=%d,%d",
		s.ConsoleIn, s.ConsoleOut, s.ConsoleInLost, s.ConsoleOutLost,
		s.FramesIn, s.FramesOut, s.FramesInLost, s.FramesOutLost,
		s.Control, s.Skipped, s.Bad, d.TMOverflow(), net.HardwareAddr(s.MAC[:]), s.PXEID, s.VLAN[0], s.VLAN[1])
}

// do carries out one command line.
func (c control) do(ctx context.Context, line string) (reply string, err error) {
	a := &args{left: strings.Fields(line)}
	name := a.next()
	if name == "help" {
		var b strings.Builder
		for _, cmd := range commands {
			fmt.Fprintf(&b, "%s N %s: %s\n", cmd.name, cmd.args, cmd.what)
		}
		return b.String() + "ok", nil
	}
	i := slices.IndexFunc(commands, func(x command) bool { return x.name == name })
	if i < 0 {
		return "", fmt.Errorf("no such command: %q", name)
	}
	n := a.number(31)
	if a.err == nil && n >= uint64(len(c)) {
		a.err = fmt.Errorf("no DPU %d", n)
	}
	act := commands[i].read(a)
	if len(a.left) > 0 {
		a.fail(errors.New("too many arguments"))
	}
	if a.err != nil {
		return "", a.err
	}
	if reply, err = act(ctx, c[n]); err != nil {
		return "", err
	} else if reply == "" {
		return "ok", nil
	}
	return fmt.Sprintf("%s dev=%d %s", name, n, reply), nil
}

// serve takes commands from r until it ends, and answers on w.
func (c control) serve(ctx context.Context, r io.Reader, w io.Writer) {
	for s := bufio.NewScanner(r); s.Scan(); {
		if strings.TrimSpace(s.Text()) == "" {
			continue
		}
		reply, err := c.do(ctx, s.Text())
		if err != nil {
			reply = "error " + strconv.Quote(err.Error())
		}
		if _, err := fmt.Fprintln(w, reply); err != nil {
			return
		}
	}
}

// listen serves connections until l is closed.
func (c control) listen(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			c.serve(ctx, conn, conn)
		}()
	}
}
