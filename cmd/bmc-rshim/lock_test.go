// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// holdLock makes a copy of the test that takes the lock, says so, and keeps it
// until its standard input ends.
const holdLock = "BMC_RSHIM_TEST_HOLD_LOCK"

func init() {
	path := os.Getenv(holdLock)
	if path == "" {
		return
	}
	if _, err := takeLock(path); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(0) // without letting go, as in a crash
}

// locker runs a process that takes the lock, and returns what it said.
func locker(t *testing.T, path string) (said string, end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holdLock+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { stdin.Close(); cmd.Wait() })
	t.Cleanup(end)
	said, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(said), end
}

// R26: one instance at a time, whatever became of the one before.
func TestR26Lock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rshim.pid")
	mine := fmt.Sprintf("%d\n", os.Getpid())
	content := func() string {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return string(b)
	}

	// Of a daemon that ended some other way, and whose pid was longer.
	if err := os.WriteFile(path, []byte("123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := takeLock(path)
	if err != nil {
		t.Fatalf("a stale file: %v", err)
	}
	if got := content(); got != mine {
		t.Errorf("the file has %q, want %q", got, mine)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}

	// A second one, in this process and in another.
	want := fmt.Sprintf("Another rshim instance is already running (pid %d, %s)", os.Getpid(), path)
	if _, err := takeLock(path); !errors.Is(err, errRunning) || err.Error() != want {
		t.Errorf("a second instance: %v, want %s", err, want)
	}
	if said, _ := locker(t, path); said != want {
		t.Errorf("a second process: %s, want %s", said, want)
	}
	if got := content(); got != mine {
		t.Errorf("after a second instance the file has %q", got)
	}
	if err := l.release(); err != nil {
		t.Fatal(err)
	}
	if got := content(); got != "" {
		t.Errorf("released, and the file is there: %q", got)
	}

	// The holder crashes.
	said, end := locker(t, path)
	if said != "held" {
		t.Fatal(said)
	}
	if _, err := takeLock(path); !errors.Is(err, errRunning) {
		t.Errorf("beside another process: %v", err)
	}
	end()
	if content() == "" {
		t.Fatal("the crash left no file, so that this proves nothing")
	}
	if l, err = takeLock(path); err != nil {
		t.Fatalf("after a crash: %v", err)
	}

	// Somebody removes the file, and another instance makes its own: that one
	// stays.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := takeLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.release(); err != nil || content() != mine {
		t.Errorf("the file of another was removed, %v", err)
	}
	if err := other.release(); err != nil {
		t.Fatal(err)
	}

	// One starts while the other ends: what it has opened is not there any more.
	if l, err = takeLock(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := l.release(); err != nil {
		t.Fatal(err)
	}
	if err := (&lock{f, path}).take(); err != errMoved {
		t.Errorf("locked a file that nobody finds: %v", err)
	}

	// What is no file is left alone.
	target := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(target, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, "/dev/null", t.TempDir(), "/does/not/exist/rshim.pid"} {
		if l, err := takeLock(path); err == nil {
			t.Errorf("took %s", path)
			l.release()
		}
	}
	if b, _ := os.ReadFile(target); string(b) != "x" {
		t.Errorf("what a symlink pointed to is now %q", b)
	}
}

// R26: a thousand starts and stops, eight at a time, and never do two hold it.
func TestR26LockRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rshim.pid")
	var held, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 125 {
				l, err := takeLock(path)
				for errors.Is(err, errRunning) {
					runtime.Gosched()
					l, err = takeLock(path)
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := held.Add(1); n > 1 {
					most.Store(n)
				}
				for range 50 { // others are to try meanwhile
					runtime.Gosched()
				}
				held.Add(-1)
				if err := l.release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() > 1 {
		t.Errorf("%d held it at the same time", most.Load())
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is left: %v", err)
	}
}
