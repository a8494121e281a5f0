// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// ast2600Cache names the cache's entry; count it up when fetchAST2600 changes.
const ast2600Cache = "ast2600-1"

// ast2600Modules are always loaded. The rest of what this project needs is built into Debian's kernel.
var ast2600Modules = []string{"cuse", "tun", "vhci-hcd"}

// ast2600Files are the parts of the machine that come from Debian.
type ast2600Files struct {
	kernel, dtb, modules, busybox string
}

// ast2600Kernel returns Debian's armhf kernel and busybox, fetched on first use.
func ast2600Kernel(ctx context.Context, log io.Writer) (*ast2600Files, error) {
	dir, err := cached(ast2600Cache, func(dir string) error {
		fmt.Fprintf(log, "vmtest: fetching Debian's armhf kernel (once, 44 MB) into %s\n", dir)
		return unpackForeign(ctx, "armhf", dir, func(a *foreignApt) ([]string, error) {
			kernel, err := a.dependency(ctx, "linux-image-armmp", `linux-image-6\.1\.0-\d+-armmp`)
			return []string{kernel, "busybox-static"}, err
		})
	})
	if err != nil {
		return nil, err
	}
	var files ast2600Files
	for pattern, dest := range map[string]*string{
		"boot/vmlinuz-*-armmp":                         &files.kernel,
		"usr/lib/linux-image-*/aspeed-ast2600-evb.dtb": &files.dtb,
		"lib/modules/*/kernel":                         &files.modules,
		"bin/busybox":                                  &files.busybox,
	} {
		found, err := filepath.Glob(filepath.Join(dir, "root", pattern))
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("vmtest: %d files match %s in %s; remove it to fetch it again", len(found), pattern, dir)
		}
		*dest = found[0]
	}
	return &files, nil
}

// bootAST2600 starts QEMU's AST2600 evaluation board. The initramfs is the whole root.
func bootAST2600(ctx context.Context, l *launch) (*machineProcess, error) {
	files, err := ast2600Kernel(ctx, l.job.Log)
	if err != nil {
		return nil, err
	}
	dtb, err := l.deviceTree(ctx, files.dtb)
	if err != nil {
		return nil, err
	}
	if err := l.ast2600Root(files); err != nil {
		return nil, err
	}
	args := []string{
		"-M", "ast2600-evb", "-accel", "tcg,thread=multi", "-no-reboot", "-display", "none", "-monitor", "none",
		"-kernel", files.kernel, "-dtb", dtb, "-initrd", l.path("initrd"),
		"-append", strings.Join(append([]string{"console=ttyS4,115200n8", "panic=-1"}, l.machine.KernelArgs...), " "),
		"-serial", "stdio", "-serial", "file:/dev/fd/3",
	}
	if l.machine.MemoryMiB != 0 {
		args = append(args, "-m", strconv.Itoa(l.machine.MemoryMiB)+"M")
	}
	if nic := l.machine.NIC; nic != nil {
		args = append(args, nic.args()...)
	} else if !slices.ContainsFunc(l.machine.QEMUArgs, func(a string) bool { return a == "-net" || a == "-nic" }) {
		args = append(args, "-nic", "none")
	}
	return startMachine("qemu-system-arm", append(args, l.machine.QEMUArgs...))
}

// args is the part of QEMU's command line that makes the cable, and the third serial line.
func (n *NIC) args() []string {
	args := []string{
		"-netdev", "dgram,id=cable,local.type=unix,local.path=" + comma(n.Board) + ",remote.type=unix,remote.path=" + comma(n.Address),
		"-net", "nic,netdev=cable,model=ftgmac100",
	}
	if n.Control != "" {
		args = append(args, "-chardev", "socket,id=control,path="+comma(n.Control), "-serial", "chardev:control")
	}
	return args
}

// comma escapes a file's name for QEMU's lists of options.
func comma(name string) string { return strings.ReplaceAll(name, ",", ",,") }

// edits gives the first Ethernet port's cable to NC-SI instead of a PHY, and switches off the other ports, which have
// PHYs that QEMU lacks.
func (n *NIC) edits() [][]string {
	const port = "/ahb/ftgmac@1e660000"
	return [][]string{
		{"DTB", port, "use-ncsi"},
		{"-d", "DTB", port, "phy-handle", "phy-mode"},
		{"-t", "s", "DTB", "/ahb/ftgmac@1e680000", "status", "disabled"},
		{"-t", "s", "DTB", "/ahb/ftgmac@1e670000", "status", "disabled"},
		{"-t", "s", "DTB", "/ahb/ftgmac@1e690000", "status", "disabled"},
		{"-t", "s", "DTB", "/ahb/apb/serial@1e78d000", "status", "okay"},
	}
}

// deviceTree returns a copy of the board's device tree with the machine's edits. The first UART, which the board
// leaves off, carries the guest's events; the console is the fifth, as on every AST2600.
func (l *launch) deviceTree(ctx context.Context, dtb string) (string, error) {
	data, err := os.ReadFile(dtb)
	if err != nil {
		return "", err
	}
	name := l.path("board.dtb")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return "", err
	}
	edits := [][]string{{"-t", "s", "DTB", "/ahb/apb/serial@1e783000", "status", "okay"}}
	if nic := l.machine.NIC; nic != nil {
		edits = append(edits, nic.edits()...)
	}
	for _, edit := range append(edits, l.machine.DeviceTree...) {
		args := slices.Clone(edit)
		if i := slices.Index(args, "DTB"); i >= 0 {
			args[i] = name
		}
		if out, err := exec.CommandContext(ctx, "fdtput", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("fdtput %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return name, nil
}

// ast2600Root writes the initramfs: init, busybox, modules, programs, files, and the packages' testdata.
func (l *launch) ast2600Root(files *ast2600Files) error {
	tree, err := openModules(files.modules)
	if err != nil {
		return err
	}
	names := append(slices.Clone(ast2600Modules), l.machine.Modules...)
	if l.machine.NIC != nil {
		names = append(names, "ftgmac100")
	}
	modules, err := tree.loadOrder(names...)
	if err != nil {
		return err
	}
	r := newInitramfs()
	for _, host := range modules {
		name := "/lib/modules/" + filepath.Base(host)
		if err := r.file(name, host); err != nil {
			return err
		}
		l.guest.Modules = append(l.guest.Modules, name)
	}
	if err := r.file("bin/busybox", files.busybox); err != nil {
		return err
	}
	if err := r.tree(guest.Dir+"/bin", l.path("bin")); err != nil {
		return err
	}
	for i, p := range l.job.Tests {
		dir := l.guest.Runs[i].Dir
		r.mkdir(dir)
		if err := r.tree(path.Join(dir, "testdata"), filepath.Join(l.root, p.Path, "testdata")); err != nil {
			return err
		}
	}
	for name, host := range l.job.Files {
		if err := r.file(name, host); err != nil {
			return err
		}
	}
	r.bytes("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
	r.bytes("etc/group", []byte("root:x:0:\n"), 0o644)
	r.bytes("etc/hosts", []byte("127.0.0.1 localhost\n"), 0o644)
	if err := r.job(l.path("init"), l.guest); err != nil {
		return err
	}
	return r.write(l.path("initrd"))
}
