// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// A process that serves CUSE nodes must not open them itself: programs do.
const programEnv = "DEVNODE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		runProgram()
		return
	}
	goleak.VerifyTestMain(m)
}

// runProgram makes the system calls that its input asks for, one a line, on one
// file, and prints what they returned:
//
//	open PATH FLAGS
//	read SIZE
//	write SIZE CHARACTER
//	ioctl CMD NUMBER        a plain number
//	data CMD HEX            an address; prints what stands there afterwards
//	poll EVENTS MS
//	select MS               to read
//	nonblock                sets O_NONBLOCK
//	close
func runProgram() {
	runtime.LockOSThread() // signals come for this thread
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
	fmt.Println(unix.Gettid())
	fd := -1
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		args := strings.Fields(in.Text())
		var n []int
		for _, a := range args {
			v, _ := strconv.ParseUint(a, 0, 32)
			n = append(n, int(v))
		}
		var res any
		var err error
		switch args[0] {
		case "open":
			fd, err = unix.Open(args[1], n[2]|unix.O_NOCTTY, 0)
			res = "open"
		case "read":
			p, k := make([]byte, n[1]), 0
			k, err = unix.Read(fd, p)
			res = fmt.Sprintf("%q", p[:max(k, 0)])
			if k > 100 {
				res = k
			}
		case "write":
			res, err = unix.Write(fd, []byte(strings.Repeat(args[2], n[1])))
		case "ioctl":
			var e unix.Errno
			res, _, e = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(n[1]), uintptr(n[2]))
			err = noError(e)
		case "data":
			p, _ := hex.DecodeString(args[2])
			_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(n[1]), uintptr(unsafe.Pointer(&p[0])))
			res, err = hex.EncodeToString(p), noError(e)
		case "poll":
			fds := []unix.PollFd{{Fd: int32(fd), Events: int16(n[1])}}
			_, err = unix.Poll(fds, n[2])
			res = fmt.Sprintf("%#x", fds[0].Revents)
		case "select":
			var set unix.FdSet
			set.Set(fd)
			tv := unix.NsecToTimeval(int64(n[1]) * 1e6)
			res, err = unix.Select(fd+1, &set, nil, nil, &tv)
		case "nonblock":
			res, err = "nonblock", unix.SetNonblock(fd, true)
		case "close":
			res, err = "closed", unix.Close(fd)
		}
		if err != nil {
			res = unix.ErrnoName(err.(unix.Errno))
		}
		fmt.Println(res)
	}
}

func noError(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// program is a running one. It ends with its input.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	tid int
	in  io.WriteCloser
	out chan string // lines
}

func startProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command("/proc/self/exe"), out: make(chan string)}
	// A preempted goroutine is a signal, which the test wants none of.
	p.cmd.Env = append(os.Environ(), programEnv+"=1", "GODEBUG=asyncpreemptoff=1")
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan bool)
	go func() {
		defer close(read)
		defer close(p.out)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.out <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.in.Close()
		p.cmd.Process.Kill()
		for range p.out {
		}
		<-read
		p.cmd.Wait()
	})
	if p.tid, err = strconv.Atoi(p.result()); err != nil {
		t.Fatal(err)
	}
	return p
}

// start has the program begin a call.
func (p *program) start(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
}

// result is what the call returned.
func (p *program) result() string {
	p.t.Helper()
	select {
	case s, ok := <-p.out:
		if !ok {
			p.t.Fatal("program ended")
		}
		return s
	case <-time.After(60 * time.Second):
		p.t.Fatal("program does not answer")
		return ""
	}
}

// blocks checks that the call does not return for a while.
func (p *program) blocks(d time.Duration) {
	p.t.Helper()
	select {
	case s := <-p.out:
		p.t.Errorf("returned %s", s)
	case <-time.After(d):
	}
}

func (p *program) call(format string, args ...any) string {
	p.t.Helper()
	p.start(format, args...)
	return p.result()
}

func (p *program) want(want, format string, args ...any) {
	p.t.Helper()
	if got := p.call(format, args...); got != want {
		p.t.Errorf(format+": %s, want %s", append(args, got, want)...)
	}
}

// interrupt sends signals until the call in progress, or about to begin,
// returns.
func (p *program) interrupt() string {
	p.t.Helper()
	for range 600 {
		if err := unix.Tgkill(p.cmd.Process.Pid, p.tid, unix.SIGUSR1); err != nil {
			p.t.Fatal(err)
		}
		select {
		case s := <-p.out:
			return s
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.t.Fatal("signals do not end the call")
	return ""
}
