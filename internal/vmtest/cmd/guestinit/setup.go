// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// mountBasics is what init needs to talk at all.
func mountBasics() error {
	return errors.Join(
		mount("proc", "/proc", "proc", 0, ""),
		mount("sysfs", "/sys", "sysfs", 0, ""),
		mount("devtmpfs", "/dev", "devtmpfs", 0, ""),
	)
}

func setUp(job *guest.Job) error {
	if time.Until(job.Now) > 0 {
		tv := unix.NsecToTimeval(job.Now.UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			return fmt.Errorf("settimeofday: %w", err)
		}
	}
	if err := seed(job.Seed); err != nil {
		return fmt.Errorf("random numbers: %w", err)
	}
	for _, m := range job.Modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	if job.HostRoot {
		if err := enterHostRoot(); err != nil {
			return err
		}
	}
	err := errors.Join(
		mount("devpts", "/dev/pts", "devpts", 0, "mode=620,ptmxmode=666"),
		mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777"),
		mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"),
		mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		os.MkdirAll("/var/tmp", 0o755),
		os.MkdirAll("/root", 0o700),
		os.MkdirAll(guest.Out, 0o755),
	)
	if err != nil {
		return err
	}
	os.Symlink("/run", "/var/run") // where there is none
	for i, m := range job.Mounts {
		var flags uintptr
		if m.ReadOnly {
			flags = unix.MS_RDONLY
		}
		var err error
		if m.Overlay {
			err = mountOverlay(m, fmt.Sprintf("/run/overlay%d", i))
		} else {
			err = mount("host", m.Guest, "hostfs", flags, m.Host)
		}
		if err != nil {
			return err
		}
	}
	for name, target := range job.Links {
		if err := link(name, target); err != nil {
			return err
		}
	}
	if err := installBusybox(); err != nil {
		return err
	}
	return errors.Join(loopbackUp(), unix.Sethostname([]byte("bmc-"+job.Lane)))
}

// seed hands the kernel random bytes that it may trust (random(4),
// RNDADDENTROPY), without which getrandom waits for ever.
func seed(random []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := binary.NativeEndian.AppendUint32(nil, uint32(8*len(random))) // struct rand_pool_info
	b = binary.NativeEndian.AppendUint32(b, uint32(len(random)))
	b = append(b, random...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return errno
	}
	return nil
}

// enterHostRoot makes the host's own tree the root. It is mounted read-only below an overlay whose upper side is
// RAM: everything can be written to, nothing reaches the host.
func enterHostRoot() error {
	if err := errors.Join(
		mount("host", "/lower", "hostfs", unix.MS_RDONLY, "/"),
		mount("tmpfs", "/upper", "tmpfs", 0, ""),
		os.Mkdir("/upper/data", 0o755),
		os.Mkdir("/upper/work", 0o755),
	); err != nil {
		return err
	}
	if err := mount("root", "/new", "overlay", 0, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work"); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := mount(dir, "/new"+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	return errors.Join(
		os.Chdir("/new"),
		unix.Mount(".", "/", "", unix.MS_MOVE, ""),
		unix.Chroot("."),
		os.Chdir("/"),
	)
}

// mountOverlay mounts a directory of the host so that what is written to it ends up in dir, which is RAM.
func mountOverlay(m guest.Mount, dir string) error {
	return errors.Join(
		mount("host", dir+"/lower", "hostfs", unix.MS_RDONLY, m.Host),
		os.Mkdir(dir+"/upper", 0o755),
		os.Mkdir(dir+"/work", 0o755),
		mount("root", m.Guest, "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work"),
	)
}

// link makes name a symbolic link, in place of whatever is there.
func link(name, target string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(target, name)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", filepath.Base(path), err)
	}
	return nil
}

// installBusybox links busybox's commands into /bin where the initramfs has brought it.
func installBusybox() error {
	if _, err := os.Stat("/bin/sh"); err == nil {
		return nil
	}
	if out, err := exec.Command("/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
		return fmt.Errorf("busybox --install: %w: %s", err, out)
	}
	return nil
}

// loopbackUp sets lo up; the kernel gives it its addresses.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
