// SPDX-License-Identifier: Apache-2.0

// Package vmtest runs Go tests in machines with a Linux kernel of their own, without hardware and without root.
//
// There are two kinds of machine. UML is User-Mode Linux: it boots in a fraction of a second and sees the host's own
// tree through an overlay, so that the host's programs run in it. AST2600 is QEMU's model of the BMC this project is
// for, with Debian's stock armhf kernel and programs built for GOARCH=arm.
//
// The host builds each package's test binary, boots the machine, and turns every test of the guest into a subtest of
// its own. A guest that dies, hangs, panics, or ends without a verdict is a failure.
//
// Kernels are built or fetched on first use and kept in $BMC_RSHIM_CACHE, by default the user's cache directory. The
// race detector does not run in UML, whose processes have 39-bit addresses, nor on arm.
package vmtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// Lane is a kind of machine.
type Lane string

// The lanes.
const (
	UML     Lane = "uml"
	AST2600 Lane = "ast2600"
)

// Machine describes a machine; only Lane must be set.
type Machine struct {
	Lane       Lane
	MemoryMiB  int           // 0: 512 for UML, the board's 1024 for AST2600
	KernelArgs []string      // more of the kernel's command line
	Deadline   time.Duration // boot to power-off; 0: 5 minutes for UML, 10 for AST2600
	Out        string        // UML: a directory of the host that the guest sees as guest.Out; "": nothing is kept

	Modules    []string   // AST2600: kernel modules beyond cuse, tun and vhci-hcd, without their dependencies
	DeviceTree [][]string // AST2600: arguments of fdtput, one edit each; the name of the tree is put in for "DTB"
	QEMUArgs   []string   // AST2600: more of QEMU's command line
	NIC        *NIC       // AST2600: what is on the board's NC-SI cable; nil: the board has no network
}

// NIC is a network controller beside the BMC, which the host simulates. The guest's driver and its NC-SI are the
// real ones; every Ethernet frame of the board's first port goes to the simulator, and back.
type NIC struct {
	Address string // the simulator's unix datagram socket, one frame each
	Board   string // the board's own, which QEMU makes: where the simulator sends frames to
	Control string // the simulator's unix stream socket; the guest has its other end as ControlPort. "": there is none
}

// ControlPort is the guest's serial line to NIC.Control, by which tests tell the simulator what to do.
const ControlPort = "/dev/ttyS1"

// Job is what a machine shall run.
type Job struct {
	Tests []Package
	Cmds  []Cmd
	Files map[string]string // absolute path in the guest -> file of the host
	Env   []string          // more of the tests' environment
	Log   io.Writer         // the tests' output as it comes, and what takes long; nil discards
}

// Cmd is a command that is built and put on the guest's PATH.
type Cmd struct {
	Path string // as for "go build", from the module's root: "./cmd/bmc-rshim"
	Name string // "": the last element of Path
	Tags string // build tags
	Cgo  bool   // UML: build with cgo
}

// Package is a package whose tests run in the machine.
type Package struct {
	Path    string        // as for "go test", from the module's root: "./internal/cuse"
	Tags    string        // build tags
	Cgo     bool          // UML: build with cgo
	Args    []string      // of the test binary: "-test.run=X"
	Timeout time.Duration // 0: 2 minutes
}

// buildMu makes the machines of one test binary build one after the other: two linkers at once help nobody.
var buildMu = make(chan struct{}, 1)

// Prepare gets the lane's kernel into the cache, which takes minutes the first time. Execute does so by itself.
func Prepare(ctx context.Context, lane Lane, log io.Writer) error {
	var err error
	switch lane {
	case UML:
		_, err = umlKernel(ctx, log)
	case AST2600:
		_, err = ast2600Kernel(ctx, log)
	default:
		err = fmt.Errorf("vmtest: no such lane: %q", lane)
	}
	return err
}

// Execute runs the job in the machine. The error says why the machine or the build failed; how the tests went is in
// the Result, which holds what is known even when there is an error.
func Execute(ctx context.Context, m Machine, job Job) (*Result, error) {
	if job.Log == nil {
		job.Log = io.Discard
	}
	var boot func(context.Context, *launch) (*machineProcess, error)
	switch m.Lane {
	case UML:
		boot = bootUML
		m.MemoryMiB = defaultTo(m.MemoryMiB, 512)
		m.Deadline = defaultTo(m.Deadline, 5*time.Minute)
	case AST2600:
		boot = bootAST2600
		m.Deadline = defaultTo(m.Deadline, 10*time.Minute)
	default:
		return &Result{}, fmt.Errorf("vmtest: no such lane: %q", m.Lane)
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return &Result{}, err
	}
	if err := trackSources(root); err != nil {
		return &Result{}, err
	}
	dir, err := os.MkdirTemp("", "vmtest")
	if err != nil {
		return &Result{}, err
	}
	defer os.RemoveAll(dir)

	l := &launch{machine: m, job: job, root: root, dir: dir}
	if err := l.build(ctx); err != nil {
		return &Result{}, err
	}
	res := newResult(job.Tests)
	p, err := boot(ctx, l)
	if err != nil {
		return res, err
	}
	return res, res.follow(ctx, p, m.Deadline, job.Log)
}

// launch is one start of a machine: what was built for it and where.
type launch struct {
	machine Machine
	job     Job
	root    string // the module's directory
	dir     string // bin, out and the machine's own files
	guest   guest.Job
}

func (l *launch) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

func defaultTo[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
