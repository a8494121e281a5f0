// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNetns calls f on a thread that is in the network namespace of a file; "" is
// the process's own.
func inNetns(path string, f func() error) error {
	if path == "" {
		return f()
	}
	there, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(there)
	done := make(chan error)
	go func() { done <- visit(there, path, f) }()
	return <-done
}

// visit calls f in a namespace. It is called on a goroutine of its own: should
// there be no way back, the thread ends with it.
func visit(there int, path string, f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return &os.PathError{Op: "open", Path: "/proc/thread-self/ns/net", Err: err}
	}
	defer unix.Close(home)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return &os.PathError{Op: "setns", Path: path, Err: err}
	}
	err = f()
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
