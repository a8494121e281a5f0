// SPDX-License-Identifier: Apache-2.0

//go:build !nosim

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// arrived checks that the last stream was img.
func (r *busRig) arrived(img []byte) {
	r.t.Helper()
	padded := append(img[:len(img):len(img)], make([]byte, -len(img)&7)...)
	if n, sum := r.fn.BootSum(); n != int64(len(padded)) || sum != sha256.Sum256(padded) {
		r.t.Errorf("%d bytes arrived, of %d, or others", n, len(padded))
	}
}

// not checks that the last command has not printed text.
func (r *busRig) not(text string) {
	r.t.Helper()
	if all := r.stdout.String() + r.stderr.String(); strings.Contains(all, text) {
		r.t.Errorf("%q in the output:\n%s", text, all)
	}
}

// What is wrong with the files is found before the host is locked out, or, in a
// pipe, gives the host back what it had.
func TestRecoverBadImage(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.daemon()
	good, other := file(t, testBFB(t, reg.BlueField3, 10_000)), testBFB(t, reg.BlueField2, 10_000)
	for _, c := range []struct {
		code int
		text string
		args []string
	}{
		{exitFailed, "no such file", []string{"/nonexistent/image"}},
		{exitFailed, "is a directory", []string{t.TempDir()}},
		{exitFailed, "no such file", []string{"-config", "/nonexistent/bf.cfg", good}},
		{exitFailed, "not a regular file", []string{"-rootfs", t.TempDir(), good}},
		{exitRefused, "nothing was touched", []string{file(t, other)}},
		{exitRefused, "", []string{"-sha256", strings.Repeat("0", 64), good}},
	} {
		r.want(r.run(t.Context(), append([]string{"recover"}, c.args...)...), c.code, c.text)
		r.not("stays locked out")
		if sets := n.sets(); sets != nil {
			t.Errorf("%q has set %q", c.args, sets)
		}
		noState(t)
	}
	r.stdin = bytes.NewReader(other)
	r.want(r.run(t.Context(), "recover", "-"), exitRefused, "the host's access is enabled again")
	r.not("stays locked out")
	if got := strings.Join(n.sets(), " "); got != "locked enabled" {
		t.Errorf("set: %s", got)
	}
	noState(t)
	if b, _ := r.fn.BootSum(); b != 0 {
		t.Errorf("%d bytes were sent", b)
	}
}

// What a DPU that nobody follows any more does, nobody knows.
func TestRecoverGivenUpRShim(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	const installing = "INFO[MISC]: hm"
	r.cfg.FailAfter, r.cfg.FailLine = "Installing OS", installing // and there it stays
	r.daemon()
	done := r.releaseAt(installing)
	r.want(r.run(t.Context(), "recover", file(t, testBFB(t, reg.BlueField3, 300_000))), exitGivenUp, "was given up", "the host stays locked out")
	<-done
	r.not("rshim0 is ready")
	n.want(t, "locked")
	r.want(r.run(t.Context(), "recover", "-restore"), exitOK)
	n.want(t, "enabled")
}

// Only the push of the interrupted recovery is joined.
func TestRecoverOtherPush(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.cfg.DrainRate = 200_000 // time enough for two other recoveries
	r.daemon()
	a, b := testBFB(t, reg.BlueField3, 2<<20), testBFB(t, reg.BlueField3, 300_000)
	img := file(t, a)

	// Of standard input, nobody knows what it is.
	r.killed(img)
	r.stdin = bytes.NewReader(b)
	r.want(r.run(t.Context(), "recover", "-"), exitDevice, "the host stays locked out")
	r.not("has gone on meanwhile")
	// With another configuration it is another push.
	r.want(r.run(t.Context(), "recover", "-config", file(t, []byte("x=y\n")), img), exitDevice, "the host stays locked out")
	r.not("has gone on meanwhile")
	r.want(r.run(t.Context(), "push", "-follow"), exitOK, "rshim0 is ready")
	r.stdin = bytes.NewReader(b)
	r.want(r.run(t.Context(), "recover", "-"), exitOK, "rshim0 is ready")
	r.arrived(b)
	n.want(t, "enabled")

	// Somebody has pushed since.
	r.killed(img)
	r.want(r.run(t.Context(), "push", "-follow"), exitOK)
	r.want(r.run(t.Context(), "push", file(t, b)), exitOK)
	r.arrived(b)
	r.want(r.run(t.Context(), "recover", "-dry-run", img), exitOK, "push:    push "+img)
	r.want(r.run(t.Context(), "recover", img), exitOK, "rshim0 is ready")
	r.not("has gone on meanwhile")
	r.arrived(a)
	n.want(t, "enabled")
	noState(t)
}

// What was done is not done again, even by another daemon, unless somebody has
// pushed since.
func TestRecoverDone(t *testing.T) {
	n := fakeNIC(t, "enabled", `*"set enabled"`)
	r := recoverRig(t)
	stop := r.daemon()
	a := testBFB(t, reg.BlueField3, 300_000)
	img := file(t, a)
	r.want(r.run(t.Context(), "recover", img), exitHost, "push:    rshim0 is ready")
	r.want(r.run(t.Context(), "recover", img), exitHost, "push:    rshim0 was ready with this image before")
	stop()
	r.daemon()
	r.want(r.run(t.Context(), "recover", "-dry-run", img), exitOK, "nothing: rshim0 was ready", "restore: set the host's access to enabled")
	r.not("lock:")
	n.set(t, "enabled")
	r.want(r.run(t.Context(), "recover", img), exitOK, "rshim0 was ready with this image before", "as it was")
	if b, _ := r.fn.BootSum(); b != 0 {
		t.Errorf("%d bytes were sent again", b)
	}
	noState(t)

	r.want(r.run(t.Context(), "recover", img), exitHost, "push:    rshim0 is ready")
	r.want(r.run(t.Context(), "push", file(t, testBFB(t, reg.BlueField3, 200_000))), exitOK)
	r.want(r.run(t.Context(), "recover", img), exitHost, "push:    rshim0 is ready")
	r.arrived(a)

	// With nothing to give back, it is a rescue of its own.
	if err := removeState(hostPath()); err != nil {
		t.Fatal(err)
	}
	n.set(t, "enabled")
	r.want(r.run(t.Context(), "recover", img), exitHost, "push:    rshim0 is ready")
}

// What somebody has decided about the host after a recovery that failed is not
// undone by the next one.
func TestRecoverDecided(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.cfg.FailAfter, r.cfg.FailLine = "Installing OS", "INFO[MISC]: CRITICAL ERROR: no disk"
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 300_000))
	r.want(r.run(t.Context(), "recover", img), exitDPU, "the host stays locked out")
	r.want(r.run(t.Context(), "host-access", "set", "locked"), exitOK)
	r.want(r.run(t.Context(), "recover", img), exitDPU, "locked out already, and stays so", "the DPU's reset may have let it in")
	r.want(r.run(t.Context(), "host-access", "set", "enabled"), exitOK)
	r.want(r.run(t.Context(), "recover", img), exitDPU, "locked out at run time, it was enabled")
	r.want(r.run(t.Context(), "recover", "-restore"), exitOK, "the host's access is enabled again")
	n.want(t, "enabled")
	noState(t)
}

// A bus that is restarted does not keep the host from its access.
func TestRecoverBusLost(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.cfg.DrainRate = 500_000
	r.daemon()
	go func() {
		r.await("the stream", func() bool { return strings.Contains(r.stdout.String(), `"phase":"streaming"`) })
		r.bus.Restart()
	}()
	r.want(r.run(t.Context(), "recover", "-json", file(t, testBFB(t, reg.BlueField3, 4<<20))), exitOK,
		"the connection to the daemon is lost", "the host's access is enabled again", `"outcome":"recovered"`)
	n.want(t, "enabled")
	noState(t)
}

// -restore needs no daemon and no device, and no good state of one.
func TestRecoverRestoreAlone(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.cfg.FailAfter, r.cfg.FailLine = "Installing OS", "INFO[MISC]: CRITICAL ERROR: no disk"
	stop := r.daemon()
	r.want(r.run(t.Context(), "recover", file(t, testBFB(t, reg.BlueField3, 300_000))), exitDPU, "the host stays locked out")
	n.want(t, "locked")
	stop()
	r.want(r.run(t.Context(), "recover", "-restore", "-conf", file(t, nil)), exitHost, "was not restored", "bmc-rshim host-access set enabled")
	write(t, statePath("rshim0"), "nonsense")
	r.want(r.run(t.Context(), "recover", "-restore", "-dry-run", "-conf", r.conf), exitOK, "set the host's access to enabled")
	n.want(t, "locked")
	r.want(r.run(t.Context(), "recover", "-restore", "-conf", r.conf, "-device", "rshim0"), exitOK, "the host's access is enabled again")
	n.want(t, "enabled")
	noState(t)
	r.want(r.run(t.Context(), "recover", "-restore", "-conf", r.conf, "-device", "../rshim0"), exitDevice, "no device")
}

// Nobody is locked out whose access could not be given back; and nothing else
// depends on what is written down.
func TestRecoverNoState(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.daemon()
	a := testBFB(t, reg.BlueField3, 300_000)
	img := file(t, a)
	good := os.Getenv("BMC_RSHIM_STATE")
	t.Setenv("BMC_RSHIM_STATE", img+"/state") // a directory in a file
	r.want(r.run(t.Context(), "recover", img), exitFailed, "cannot be written down", "nothing was touched")
	r.not("stays locked out")
	if sets := n.sets(); sets != nil {
		t.Errorf("set: %q", sets)
	}
	if b, _ := r.fn.BootSum(); b != 0 {
		t.Errorf("%d bytes were sent", b)
	}
	n.set(t, "locked")
	r.want(r.run(t.Context(), "recover", img), exitOK, "an interruption will not be noticed", "rshim0 is ready")

	// It goes away when the host is locked out.
	n.set(t, "enabled")
	t.Setenv("BMC_RSHIM_STATE", good)
	r.stdin = io.MultiReader(bytes.NewReader(a), atEnd(func() {
		if err := errors.Join(os.RemoveAll(good), os.WriteFile(good, nil, 0o600)); err != nil {
			t.Error(err)
		}
	}))
	r.want(r.run(t.Context(), "recover", "-"), exitOK, "an interruption will not be noticed", "the host's access is enabled again")
	n.want(t, "enabled")
}

// A file that makes no sense is named.
func TestRecoverCorrupt(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 300_000))
	if err := saveHost("enabled"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{statePath("rshim0"), hostPath()} {
		write(t, name, "nonsense")
		r.want(r.run(t.Context(), "recover", img), exitFailed, name, "remove the file", "bmc-rshim host-access")
	}
	r.want(r.run(t.Context(), "recover", "-restore"), exitFailed, hostPath(), "remove the file")
	if sets := n.sets(); sets != nil {
		t.Errorf("set: %q", sets)
	}
}

// Recoveries come one after the other, and share what the host had.
func TestRecoverTwo(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.daemon()
	img := file(t, testBFB(t, reg.BlueField3, 300_000))
	done, err := takeTurn()
	if err != nil {
		t.Fatal(err)
	}
	r.want(r.run(t.Context(), "recover", img), exitDevice, "another recovery runs (pid ")
	r.want(r.run(t.Context(), "recover", "-restore"), exitDevice, "another recovery runs (pid ")
	done()
	if sets := n.sets(); sets != nil {
		t.Errorf("set: %q", sets)
	}

	// Another DPU's was interrupted.
	if err := saveHost("enabled"); err != nil {
		t.Fatal(err)
	}
	n.set(t, "locked")
	r.want(r.run(t.Context(), "recover", img), exitOK, "locked out already, by the recovery that was interrupted", "the host's access is enabled again")
	n.want(t, "enabled")
	noState(t)
}

// A lock that was not achieved is not told of.
func TestRecoverNotLocked(t *testing.T) {
	n := fakeNIC(t, "enabled", `*"set locked"`)
	r := recoverRig(t)
	r.cfg.FailAfter, r.cfg.FailLine = "Installing OS", "INFO[MISC]: CRITICAL ERROR: no disk"
	r.daemon()
	r.want(r.run(t.Context(), "recover", file(t, testBFB(t, reg.BlueField3, 300_000))), exitDPU, "the host is not locked out: ")
	r.not("stays locked out")
	n.want(t, "enabled")

	// Nor denied, where the NIC does not say what has come of it.
	fakeNIC(t, "enabled", `*"set locked") echo '*' >mute; exit 7 ;;
$(cat mute 2>/dev/null || echo never)`)
	q := recoverRig(t)
	q.cfg.FailAfter, q.cfg.FailLine = r.cfg.FailAfter, r.cfg.FailLine
	q.daemon()
	q.want(q.run(t.Context(), "recover", file(t, testBFB(t, reg.BlueField3, 300_000))), exitDPU,
		"whether the host is locked out is not known: ", "the host may stay locked out")
}

// A reader of the output that goes away does not leave the host locked out.
func TestRecoverPipe(t *testing.T) {
	n := fakeNIC(t, "enabled", "never")
	r := recoverRig(t)
	r.daemon()
	cmd := child(t, "main", "recover", "-json", "-bus", r.bus.Address(), file(t, testBFB(t, reg.BlueField3, 300_000)))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Error(err)
	}
	out.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends as if the rescue had failed: %v\n%s", err, &stderr)
	}
	n.want(t, "enabled")
	noState(t)
}
