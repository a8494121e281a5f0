// SPDX-License-Identifier: Apache-2.0

package bootlog

import "fmt"

// Register is a system register of the Arm core that a panic or exception
// recorded.
type Register struct {
	// Encoding is how the MRS instruction names the register: op0, op1, CRn,
	// CRm and op2 in 2, 3, 4, 4 and 3 bits, first field uppermost.
	Encoding uint16
	Value    uint64
}

// In the log a register is named by an MRS instruction that reads it.
const mrs uint64 = 0xd5200000

func encodingOf(instruction uint64) uint16 { return uint16(instruction >> 5) }

func (r Register) instruction() uint64 { return mrs | uint64(r.Encoding)<<5 }

// Sys returns the encoding of a register.
func Sys(op0, op1, crn, crm, op2 uint8) uint16 {
	return uint16(op0&3)<<14 | uint16(op1&7)<<11 | uint16(crn&15)<<7 | uint16(crm&15)<<3 | uint16(op2&7)
}

// Name is the register's name in lower case, as the Arm ARM has it. A register
// that is not in the table gets the name by which an assembler takes it, such
// as s3_0_c15_c1_4 (the C daemon says "unknown").
func (r Register) Name() string {
	for _, s := range sysRegs {
		if Sys(s.op0, s.op1, s.crn, s.crm, s.op2) == r.Encoding {
			return s.name
		}
	}
	e := r.Encoding
	return fmt.Sprintf("s%d_%d_c%d_c%d_%d", e>>14, e>>11&7, e>>7&15, e>>3&15, e&7)
}

// sysRegs holds the AArch64 system registers that firmware dumps in a crash.
// Source: the Arm Architecture Reference Manual for A-profile (DDI 0487),
// where each register tells op0, op1, CRn, CRm and op2 of the MRS that reads it.
//
// The C daemon's table has some encodings twice, and the first name wins: it
// prints hcr_el2 as "har_el2". It lists id_aa64dfr0_el1 under the encoding of
// id_aa64afr0_el1, so that the true one is "unknown" to it. It also writes
// "esselr_el1" for csselr_el1 and "tpidpro_el0" for tpidrro_el0. Here each
// register has its own name, and one entry.
var sysRegs = [...]struct {
	op0, op1, crn, crm, op2 uint8
	name                    string
}{
	// Identification.
	{3, 0, 0, 0, 0, "midr_el1"},
	{3, 0, 0, 0, 5, "mpidr_el1"},
	{3, 0, 0, 0, 6, "revidr_el1"},
	{3, 0, 0, 4, 0, "id_aa64pfr0_el1"},
	{3, 0, 0, 4, 1, "id_aa64pfr1_el1"},
	{3, 0, 0, 5, 0, "id_aa64dfr0_el1"},
	{3, 0, 0, 5, 1, "id_aa64dfr1_el1"},
	{3, 0, 0, 5, 4, "id_aa64afr0_el1"},
	{3, 0, 0, 5, 5, "id_aa64afr1_el1"},
	{3, 0, 0, 6, 0, "id_aa64isar0_el1"},
	{3, 0, 0, 6, 1, "id_aa64isar1_el1"},
	{3, 0, 0, 7, 0, "id_aa64mmfr0_el1"},
	{3, 0, 0, 7, 1, "id_aa64mmfr1_el1"},
	{3, 0, 0, 7, 2, "id_aa64mmfr2_el1"},
	{3, 1, 0, 0, 0, "ccsidr_el1"},
	{3, 1, 0, 0, 1, "clidr_el1"},
	{3, 2, 0, 0, 0, "csselr_el1"},
	{3, 3, 0, 0, 1, "ctr_el0"},
	{3, 3, 0, 0, 7, "dczid_el0"},
	{3, 4, 0, 0, 0, "vpidr_el2"},
	{3, 4, 0, 0, 5, "vmpidr_el2"},

	// Control.
	{3, 0, 1, 0, 0, "sctlr_el1"},
	{3, 4, 1, 0, 0, "sctlr_el2"},
	{3, 6, 1, 0, 0, "sctlr_el3"},
	{3, 0, 1, 0, 1, "actlr_el1"},
	{3, 4, 1, 0, 1, "actlr_el2"},
	{3, 6, 1, 0, 1, "actlr_el3"},
	{3, 0, 1, 0, 2, "cpacr_el1"},
	{3, 4, 1, 1, 0, "hcr_el2"},
	{3, 4, 1, 1, 1, "mdcr_el2"},
	{3, 4, 1, 1, 2, "cptr_el2"},
	{3, 4, 1, 1, 3, "hstr_el2"},
	{3, 4, 1, 1, 7, "hacr_el2"},
	{3, 6, 1, 1, 0, "scr_el3"},
	{3, 6, 1, 1, 2, "cptr_el3"},
	{3, 6, 1, 3, 1, "mdcr_el3"},

	// Address translation and memory attributes.
	{3, 0, 2, 0, 0, "ttbr0_el1"},
	{3, 4, 2, 0, 0, "ttbr0_el2"},
	{3, 6, 2, 0, 0, "ttbr0_el3"},
	{3, 0, 2, 0, 1, "ttbr1_el1"},
	{3, 4, 2, 0, 1, "ttbr1_el2"},
	{3, 0, 2, 0, 2, "tcr_el1"},
	{3, 4, 2, 0, 2, "tcr_el2"},
	{3, 6, 2, 0, 2, "tcr_el3"},
	{3, 4, 2, 1, 0, "vttbr_el2"},
	{3, 4, 2, 1, 2, "vtcr_el2"},
	{3, 4, 3, 0, 0, "dacr32_el2"},
	{3, 0, 7, 4, 0, "par_el1"},
	{3, 0, 10, 2, 0, "mair_el1"},
	{3, 4, 10, 2, 0, "mair_el2"},
	{3, 6, 10, 2, 0, "mair_el3"},
	{3, 0, 10, 3, 0, "amair_el1"},
	{3, 4, 10, 3, 0, "amair_el2"},
	{3, 6, 10, 3, 0, "amair_el3"},

	// Process state, stacks and returns.
	{3, 0, 4, 0, 0, "spsr_el1"},
	{3, 4, 4, 0, 0, "spsr_el2"},
	{3, 6, 4, 0, 0, "spsr_el3"},
	{3, 0, 4, 0, 1, "elr_el1"},
	{3, 4, 4, 0, 1, "elr_el2"},
	{3, 6, 4, 0, 1, "elr_el3"},
	{3, 0, 4, 1, 0, "sp_el0"},
	{3, 4, 4, 1, 0, "sp_el1"},
	{3, 6, 4, 1, 0, "sp_el2"},
	{3, 0, 4, 2, 0, "spsel"},
	{3, 0, 4, 2, 2, "currentel"},
	{3, 3, 4, 2, 0, "nzcv"},
	{3, 3, 4, 2, 1, "daif"},
	{3, 4, 4, 3, 0, "spsr_irq"},
	{3, 4, 4, 3, 1, "spsr_abt"},
	{3, 4, 4, 3, 2, "spsr_und"},
	{3, 4, 4, 3, 3, "spsr_fiq"},
	{3, 3, 4, 4, 0, "fpcr"},
	{3, 3, 4, 4, 1, "fpsr"},
	{3, 4, 5, 3, 0, "fpexc32_el2"},
	{3, 3, 4, 5, 0, "dspsr_el0"},
	{3, 3, 4, 5, 1, "dlr_el0"},

	// Faults.
	{3, 4, 5, 0, 1, "ifsr32_el2"},
	{3, 0, 5, 1, 0, "afsr0_el1"},
	{3, 4, 5, 1, 0, "afsr0_el2"},
	{3, 6, 5, 1, 0, "afsr0_el3"},
	{3, 0, 5, 1, 1, "afsr1_el1"},
	{3, 4, 5, 1, 1, "afsr1_el2"},
	{3, 6, 5, 1, 1, "afsr1_el3"},
	{3, 0, 5, 2, 0, "esr_el1"},
	{3, 4, 5, 2, 0, "esr_el2"},
	{3, 6, 5, 2, 0, "esr_el3"},
	{3, 0, 6, 0, 0, "far_el1"},
	{3, 4, 6, 0, 0, "far_el2"},
	{3, 6, 6, 0, 0, "far_el3"},
	{3, 4, 6, 0, 4, "hpfar_el2"},

	// Vectors and reset.
	{3, 0, 12, 0, 0, "vbar_el1"},
	{3, 4, 12, 0, 0, "vbar_el2"},
	{3, 6, 12, 0, 0, "vbar_el3"},
	{3, 6, 12, 0, 1, "rvbar_el3"},
	{3, 6, 12, 0, 2, "rmr_el3"},
	{3, 0, 12, 1, 0, "isr_el1"},

	// Software threads.
	{3, 0, 13, 0, 1, "contextidr_el1"},
	{3, 0, 13, 0, 4, "tpidr_el1"},
	{3, 3, 13, 0, 2, "tpidr_el0"},
	{3, 3, 13, 0, 3, "tpidrro_el0"},
	{3, 4, 13, 0, 2, "tpidr_el2"},
	{3, 6, 13, 0, 2, "tpidr_el3"},

	// Generic timer.
	{3, 3, 14, 0, 0, "cntfrq_el0"},
	{3, 3, 14, 0, 1, "cntpct_el0"},
	{3, 3, 14, 0, 2, "cntvct_el0"},
	{3, 0, 14, 1, 0, "cntkctl_el1"},
	{3, 3, 14, 2, 1, "cntp_ctl_el0"},
	{3, 3, 14, 2, 2, "cntp_cval_el0"},
	{3, 3, 14, 3, 1, "cntv_ctl_el0"},
	{3, 3, 14, 3, 2, "cntv_cval_el0"},
}
