// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/bluefield"
)

// nic is a NIC behind an ncsi-oem that is a script.
type nic struct{ dir string }

// fakeNIC puts an ncsi-oem in front of the others. It fails where fail, a
// shell's pattern, matches its arguments.
func fakeNIC(t *testing.T, runtime, fail string) nic {
	t.Helper()
	n := nic{filepath.Dir(script(t, "ncsi-oem", `
cd "$(dirname "$0")" || exit 1
echo "$*" >>calls
case "$*" in
`+fail+`) echo '{"error":"the NIC has had enough","exit_code":7}'; exit 7 ;;
*"runtime set "*) eval "echo \${$#}" >runtime ;;
esac
echo "{\"persistent\":\"enabled\",\"runtime\":\"$(cat runtime)\",\"exit_code\":0}"
`))}
	n.set(t, runtime)
	t.Setenv("PATH", n.dir+":"+os.Getenv("PATH"))
	return n
}

func (n nic) set(t *testing.T, runtime string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, "runtime"), []byte(runtime+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n nic) want(t *testing.T, runtime string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "runtime"))
	if got := strings.TrimSpace(string(b)); err != nil || got != runtime {
		t.Errorf("the host's access is %q, want %q: %v", got, runtime, err)
	}
}

// sets are what was set, in order.
func (n nic) sets() (sets []string) {
	b, _ := os.ReadFile(filepath.Join(n.dir, "calls"))
	for line := range strings.Lines(string(b)) {
		if _, to, ok := strings.Cut(strings.TrimSpace(line), "runtime set "); ok {
			sets = append(sets, to)
		}
	}
	return sets
}

func recoverRig(t *testing.T) *busRig {
	t.Setenv("BMC_RSHIM_STATE", filepath.Join(t.TempDir(), "state"))
	r := newBusRig(t)
	r.conf = file(t, []byte("NCSI -if eth0\n"))
	return r
}

func noState(t *testing.T) {
	t.Helper()
	for _, name := range []string{statePath("rshim0"), hostPath()} {
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
}

func TestRecover(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.host = &bluefield.HostOptions{}
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 300_000))

	// First what would be done.
	r.want(r.run(t.Context(), "recover", "-dry-run", img), exitOK,
		"lock:    lock the host out at run time, its access is enabled", "force:   take the RShim over: rshim0 is contended",
		"push:    push "+img+", a good BFB for BlueField-3, 5 images", "restore: set the host's access to enabled")
	noState(t)
	if sets := n.sets(); sets != nil {
		t.Errorf("a dry run has set %q", sets)
	}
	if b, _ := r.fn.BootSum(); b != 0 {
		t.Errorf("a dry run has sent %d bytes", b)
	}
	r.want(r.run(t.Context(), "status"), exitOK, "contended")
	r.want(r.run(t.Context(), "recover", "-dry-run", file(t, testBFB(t, reg.BlueField2, 10_000))), exitRefused, "nothing was touched")

	r.want(r.run(t.Context(), "recover", img), exitOK, "lock:    the host is locked out at run time, it was enabled",
		"force:   rshim0 is ours: its owner has handed it over", "INFO[MISC]: DPU is ready", "push:    rshim0 is ready",
		"restore: the host's access is enabled again")
	n.want(t, "enabled")
	noState(t)
	if got := strings.Join(n.sets(), " "); got != "locked enabled" {
		t.Errorf("set: %s", got)
	}

	// As JSON, and with nothing in the way any more.
	r.want(r.run(t.Context(), "recover", "-json", img), exitOK)
	var steps []string
	var last map[string]any
	for line := range strings.Lines(r.stdout.String()) {
		last = nil
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if last["event"] == "step" {
			steps = append(steps, last["step"].(string)+" "+last["status"].(string))
		}
	}
	if got := strings.Join(steps, ", "); got != "lock done, force skipped, push done, restore done" {
		t.Errorf("steps: %s", got)
	}
	if last["event"] != "result" || last["outcome"] != "recovered" || last["exit_code"] != 0. {
		t.Errorf("the last event is %v", last)
	}
	r.want(r.run(t.Context(), "recover", "-restore"), exitDevice, "nothing to restore")
	r.want(r.run(t.Context(), "recover", "-restore=true"), exitDevice, "nothing to restore")
	r.want(r.run(t.Context(), "recover"), exitUsage, "FILE is missing")
	r.want(r.run(t.Context(), "recover", "-restore=false"), exitUsage, "FILE is missing")
	r.want(r.run(t.Context(), "recover", "-dry-run", "-config", "/nonexistent", img), exitFailed, "/nonexistent: no such file")
	r.want(r.run(t.Context(), "host-access", "get"), exitOK, "Run time     enabled")
	r.want(r.run(t.Context(), "host-access", "-json", "set", "locked"), exitOK, `{"runtime":"locked","persistent":"enabled"}`)
}

// atEnd calls itself where what is read ends.
type atEnd func()

func (f atEnd) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// A host that was locked out before is so afterwards, although the DPU's reset
// gives it its access. How to let it in is said: it may be that a recovery has
// locked it out of which nothing is known any more.
func TestRecoverLockedBefore(t *testing.T) {
	n := fakeNIC(t, "locked", "never")
	r := recoverRig(t)
	r.daemon()
	r.stdin = io.MultiReader(bytes.NewReader(testBFB(t, reg.BlueField3, 300_000)), atEnd(func() { n.set(t, "enabled") }))
	r.want(r.run(t.Context(), "recover", "-"), exitOK, "locked out already, and stays so", "bmc-rshim host-access set enabled",
		"restore: the host's access is locked again")
	n.want(t, "locked")
	noState(t)
}

// Without NC-SI, or with a NIC that does not do it, the rescue goes on.
func TestRecoverNoLock(t *testing.T) {
	t.Setenv("BMC_RSHIM_STATE", filepath.Join(t.TempDir(), "state"))
	r := newBusRig(t)
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 300_000))
	r.want(r.run(t.Context(), "recover", img), exitOK, "the host cannot be locked out: there is no way to the NIC",
		"rshim0 is ours already", "rshim0 is ready", "the host's access was not changed")
	noState(t)

	n := fakeNIC(t, "enabled", `*"set locked"`)
	q := recoverRig(t)
	q.daemon()
	q.want(q.run(t.Context(), "recover", img), exitOK, "the host is not locked out: ", "the NIC has had enough", "rshim0 is ready")
	n.want(t, "enabled")
	noState(t)
}

// What cannot be given back is an error of its own, and can be tried again.
func TestRecoverNoRestore(t *testing.T) {
	n := fakeNIC(t, "enabled", `*"set enabled"`)
	r := recoverRig(t)
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 300_000))
	r.want(r.run(t.Context(), "recover", "-json", img), exitHost, "rshim0 is ready", "was not restored",
		"bmc-rshim recover -restore", "bmc-rshim host-access set enabled", `"exit_code":7`)
	n.want(t, "locked")
	r.want(r.run(t.Context(), "recover", "-restore"), exitHost)
	n.set(t, "enabled") // somebody else has
	r.want(r.run(t.Context(), "recover", "-restore"), exitOK, "as it was")
	noState(t)
}

// killed runs a recovery that is killed in the middle of the stream.
func (r *busRig) killed(args ...string) {
	r.t.Helper()
	cmd := child(r.t, "main", append([]string{"recover", "-json", "-bus", r.bus.Address()}, args...)...)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.await("the child's stream", func() bool { return strings.Contains(out.String(), `"phase":"streaming"`) })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// An interrupted recovery goes on where it was.
func TestRecoverInterrupted(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.cfg.DrainRate = 300_000
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 3<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		r.await("the stream", func() bool { return strings.Contains(r.stdout.String(), `"phase":"streaming"`) })
		cancel()
	}()
	r.want(r.run(ctx, "recover", "-json", img), exitInterrupted, "the host stays locked out", `"outcome":"interrupted"`)
	n.want(t, "locked")
	r.want(r.run(t.Context(), "recover", "-dry-run", img), exitOK, "an interrupted recovery goes on", "locked out already", "set the host's access to enabled")

	// One that is killed leaves the push to the daemon.
	r.killed(img)
	r.want(r.run(t.Context(), "recover", "-dry-run", img), exitOK, "join the push of "+img+", which goes on")
	r.want(r.run(t.Context(), "recover", "-restore", "-dry-run"), exitOK, "restore: set the host's access to enabled")
	if out := r.stdout.String(); strings.Contains(out, "lock:") || strings.Contains(out, "force:") {
		t.Errorf("-restore does more:\n%s", out)
	}
	r.want(r.run(t.Context(), "recover", img), exitOK, "an interrupted recovery goes on", "locked out already, by the recovery",
		"has gone on meanwhile", "rshim0 is ready", "the host's access is enabled again")
	n.want(t, "enabled")
	noState(t)
}

// -restore gives up.
func TestRecoverGivenUp(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.cfg.FailAfter, r.cfg.FailLine = "Installing OS", "INFO[MISC]: CRITICAL ERROR: no disk"
	r.daemon()
	r.want(r.run(t.Context(), "recover", "-q", file(t, testBFB(t, reg.BlueField3, 300_000))), exitDPU, "no disk", "the host stays locked out")
	if out := r.stdout.String(); out != "" {
		t.Errorf("-q, and yet %q", out)
	}
	n.want(t, "locked")
	r.want(r.run(t.Context(), "recover", "-restore"), exitOK, "the host's access is enabled again")
	n.want(t, "enabled")
	noState(t)
}

// Without D-Bus, the device itself is enough.
func TestRecoverLocal(t *testing.T) {
	t.Setenv("BMC_RSHIM_STATE", t.TempDir())
	bubble(t, func(r *rig, g reg.Generation) {
		r.host(bluefield.HostOptions{})
		r.want(r.run(r.t.Context(), "recover", file(r.t, testBFB(r.t, g, 300_000))), exitOK,
			"cannot be locked out", "its owner has handed it over", "rshim0 is ready")
		r.host(bluefield.HostOptions{Deaf: true})
		began := time.Now()
		r.want(r.run(r.t.Context(), "recover", file(r.t, testBFB(r.t, g, 300_000))), exitTimeout, "does not answer")
		if took := time.Since(began); took > time.Minute {
			r.t.Errorf("took %v", took)
		}
	})
}

func TestRecoverState(t *testing.T) {
	t.Setenv("BMC_RSHIM_STATE", filepath.Join(t.TempDir(), "a", "b"))
	name := statePath("rshim0")
	if s, there, err := loadState(name); there || err != nil {
		t.Errorf("got %+v, %t, %v", s, there, err)
	}
	want := recoverState{Image: "/a b\n\"c\" 7 8", Push: "/x/1", Started: -5, Done: true}
	if err := want.save(name); err != nil {
		t.Fatal(err)
	}
	if got, there, err := loadState(name); err != nil || !there || got != want {
		t.Errorf("got %+v, %t, %v", got, there, err)
	}
	for _, was := range []string{"enabled", "locked"} {
		if err := saveHost(was); err != nil {
			t.Fatal(err)
		}
		if got, err := loadHost(); err != nil || got != was {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if got := statePaths(); len(got) != 1 || got[0] != name {
		t.Errorf("states of devices: %q", got)
	}
	for _, bad := range []string{
		"", "x", "bmc-rshim recover 2\n", stateTitle + "\nhost enabled\n",
		stateTitle + "\nstarted \"x\"\n", stateTitle + "\ndone \"perhaps\"\n", stateTitle + "\n\x00\n",
	} {
		write(t, name, bad)
		if s, _, err := loadState(name); !errors.Is(err, errState) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%q: %+v, %v", bad, s, err)
		}
	}
	for _, bad := range []string{"", "x", stateTitle, stateTitle + "\nhost \"maybe\"\n"} {
		write(t, hostPath(), bad)
		if was, err := loadHost(); !errors.Is(err, errState) || !strings.Contains(err.Error(), hostPath()) {
			t.Errorf("%q: %q, %v", bad, was, err)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
