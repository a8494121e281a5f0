// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// bootUML starts User-Mode Linux. Its initramfs is only init and the job: programs and files stay where they are on
// the host, and the guest reads them there.
func bootUML(ctx context.Context, l *launch) (*machineProcess, error) {
	kernel, err := umlKernel(ctx, l.job.Log)
	if err != nil {
		return nil, err
	}
	g := &l.guest
	g.HostRoot = true
	g.Mounts = []guest.Mount{
		{Host: l.dir, Guest: guest.Dir, ReadOnly: true},
		{Host: defaultTo(l.machine.Out, l.path("out")), Guest: guest.Out},
	}
	// The guest has a /tmp of its own, which must not hide the module and its testdata.
	if strings.HasPrefix(l.root, "/tmp/") || strings.HasPrefix(l.root, "/run/") {
		g.Mounts = append(g.Mounts, guest.Mount{Host: l.root, Guest: l.root, Overlay: true})
	}
	g.Links = make(map[string]string)
	for name, host := range l.job.Files {
		host, err := filepath.Abs(host)
		if err != nil {
			return nil, err
		}
		dir := "/run/vmtest/" + strconv.Itoa(len(g.Links))
		g.Mounts = append(g.Mounts, guest.Mount{Host: filepath.Dir(host), Guest: dir, ReadOnly: true})
		g.Links[name] = filepath.Join(dir, filepath.Base(host))
	}
	initrd := newInitramfs()
	if err := initrd.job(l.path("init"), *g); err != nil {
		return nil, err
	}
	if err := initrd.write(l.path("initrd")); err != nil {
		return nil, err
	}
	args := []string{
		"mem=" + strconv.Itoa(l.machine.MemoryMiB) + "M",
		"initrd=" + l.path("initrd"),
		"con=null", "con0=null,fd:1", "ssl=null", "ssl0=null,fd:3",
		"panic=-1", "dummy.numdummies=0",
	}
	tmp, err := memoryDir(l)
	if err != nil {
		return nil, err
	}
	return startMachine(kernel, append(args, l.machine.KernelArgs...), "TMPDIR="+tmp)
}

// memoryDir picks where the guest's memory lives, a file: in RAM if it fits there. Containers often have a /dev/shm
// of 64 MB, and User-Mode Linux dies of a bus error when that is full.
func memoryDir(l *launch) (string, error) {
	need := uint64(l.machine.MemoryMiB) << 20
	for _, dir := range []string{"/dev/shm", l.dir} {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err == nil && st.Bavail*uint64(st.Bsize) > need+need/4 {
			return dir, nil
		}
	}
	return "", fmt.Errorf("vmtest: no room for %d MiB of guest memory in /dev/shm or %s", l.machine.MemoryMiB, os.TempDir())
}
