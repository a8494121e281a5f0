// SPDX-License-Identifier: Apache-2.0

package rshim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

// miscPatience bounds what reading misc waits for a chip that does not answer.
const miscPatience = 2 * time.Second

// Misc returns the text of /dev/rshimN/misc. Programs in the field pick it
// apart by line, column and word: neither order nor wording may change, and no
// line may be added. Registers that cannot be read count as 0.
// Source: reference behaviour of rshim 2.8.2 (rshim_fuse.c).
func (d *Device) Misc(ctx context.Context) string {
	d.mu.Lock()
	set, s, state, name, opn := d.set, d.sess, d.state, d.name, "N/A"
	if s != nil && s.opn != "" {
		opn = s.opn
	}
	d.mu.Unlock()
	var peer func() tmfifo.Peer
	switch set.displayLevel {
	case 1:
		peer = d.askPeer(ctx) // who answers while registers are read
	case 2:
		d.refreshLog(ctx, logRefresh)
	}
	ctx, cancel := context.WithTimeout(ctx, miscPatience)
	defer cancel()

	var t strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&t, "%-16s"+format+"\n", append([]any{key}, args...)...)
	}
	read := func(a reg.Addr) uint64 {
		v, err := s.read(ctx, a, 8)
		if err != nil {
			return 0
		}
		return v
	}
	bf3 := s != nil && s.gen == reg.BlueField3

	line("DISPLAY_LEVEL", "%d (0:basic, 1:advanced, 2:log)", set.displayLevel)
	var mode uint64
	if s != nil {
		mode = read(s.regs.BootControl) & reg.BootModeMask
	}
	if bf3 {
		line("BF_MODE", "%v", reg.BFModeOf(read(s.regs.Scratchpad2)))
	}
	line("BOOT_MODE", "%d (0:rshim, 1:emmc, 2:emmc-boot-swap)", mode)
	line("BOOT_TIMEOUT", "%d (seconds)", int(set.bootTimeout.Seconds()))
	line("USB_TIMEOUT", "%d (seconds)", int(set.usbTimeout.Seconds()))
	line("DROP_MODE", "%d (0:normal, 1:drop)", bit(state != Attached && state != Rebooting && state != Gone && state != Probing))
	line("SW_RESET", "0 (1: reset)")
	line("DEV_NAME", "%s", name)
	if s != nil {
		line("DEV_INFO", "%v(Rev %d)", s.gen, s.b.Revision())
		if s.gen >= reg.BlueField2 {
			line("OPN_STR", "%s", opn)
		}
	}
	if bf3 {
		line("UP_TIME", "%d(s)", read(s.regs.Uptime)/reg.UptimeHz)
		line("SECURE_NIC_MODE", "%d (0:no, 1:yes)", bit(state == Locked))
	}
	line("FORCE_CMD", "%d (1: send Force command)", bit(state == Requesting))

	switch set.displayLevel {
	case 1:
		line("BOOT_RESET_SKIP", "%d (1: skip)", bit(set.bootResetSkip))
		p := peer()
		line("PEER_MAC", "%s (rw)", strings.ReplaceAll(fmt.Sprintf("% x", p.MAC), " ", ":"))
		line("PXE_ID", "0x%08x (rw)", p.PXEID)
		line("VLAN_ID", "%d %d (rw)", p.VLAN[0], p.VLAN[1])
		line("CLEAR_ON_READ", "%d (0:no, 1:yes)", bit(set.clearOnRead))
	case 2:
		t.WriteString("---------------------------------------\n" +
			"             Log Messages\n" +
			"---------------------------------------\n")
		for _, l := range d.bootLog(set.clearOnRead) {
			t.WriteString(l.Text + "\n")
		}
	}
	return t.String()
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
