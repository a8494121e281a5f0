// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
	"golang.org/x/sys/unix"
)

// TestDBus uses the daemon through the message bus alone: a dbus-daemon with
// the policy that is shipped.
func TestDBus(t *testing.T) {
	umlOnly(t)
	r := newDPUs(t, "-host", "owner", "-stage-scale", "0.1")
	b := r.busDaemon()
	for _, sub := range []struct {
		name string
		do   func(b *busRig)
	}{
		{"force", (*busRig).forceAll},
		{"push from a pipe", (*busRig).pushPipe},
		{"walk", (*busRig).walkAll},
		{"nobody", (*busRig).lookAsNobody},
		{"force by NVIDIA's name", (*busRig).forceNvidia},
		{"update from a file", (*busRig).updateFile},
		{"update by a download", (*busRig).updateDownload},
		{"console", (*busRig).typeAndRead},
	} {
		if !t.Run(sub.name, func(t *testing.T) {
			b.rig = r.in(t)
			defer func() { b.rig = r }()
			sub.do(b)
		}) {
			return // what follows stands on it
		}
	}
}

// walkAll goes from the root to every node, as busctl and OpenBMC's mapper do.
func (b *busRig) walkAll() {
	b.named(busUpdater, busConsole, busNvidia)
	for name, want := range map[string][]string{
		busOwn: {string(busManagerAt) + " " + busOwn + ".Manager", string(busRshim0At) + " " + busDevice},
		busUpdater: {
			string(busDPUOSAt) + " xyz.openbmc_project.Software.Update",
			string(busDPUOSAt) + " xyz.openbmc_project.Software.Version",
		},
		busConsole: {string(busConsoleAt) + " xyz.openbmc_project.Console.Access"},
		busNvidia:  {string(busNvidiaAt) + " com.nvidia.BF.Rshim"},
	} {
		found := b.walk(name, "/")
		for _, w := range want {
			if !slices.Contains(found, w) {
				b.t.Errorf("%s has no %s, but %q", name, w, found)
			}
		}
	}
}

// walk returns the objects at and under a node, once with each interface.
func (b *busRig) walk(name string, at godbus.ObjectPath) (found []string) {
	b.t.Helper()
	text := b.must(name, at, "org.freedesktop.DBus.Introspectable.Introspect")[0].(string)
	var node introspect.Node
	if err := xml.Unmarshal([]byte(text), &node); err != nil {
		b.t.Fatalf("%s: %v\n%s", at, err, text)
	}
	for _, i := range node.Interfaces {
		found = append(found, string(at)+" "+i.Name)
	}
	for _, child := range node.Children {
		found = append(found, b.walk(name, godbus.ObjectPath(strings.TrimSuffix(string(at), "/")+"/"+child.Name))...)
	}
	return found
}

// forceAll takes the RShim from a host that answers, and not from one that does
// not.
func (b *busRig) forceAll() {
	b.becomes(busOwn, busRshim0At, busDevice, "State", "Contended")
	b.agree()
	image := b.open(small(b.t))
	b.fails(busCommonErr+"Unavailable", busOwn, busRshim0At, busDevice+".PushBoot", godbus.UnixFD(image.Fd()), map[string]godbus.Variant{})
	b.control("host 0 deaf")
	b.fails(busCommonErr+"Timeout", busOwn, busRshim0At, busDevice+".Force", uint32(1000))
	b.control("host 0 hear")

	b.forget()
	if got := b.must(busOwn, busRshim0At, busDevice+".Force", uint32(60_000))[0]; lastWord(got) != "Granted" {
		b.t.Errorf("Force: %v", got)
	}
	b.host("dropped")
	b.drop("0")
	b.until("signals of the change", func() bool {
		states := b.said(busRshim0At, "State")
		return len(states) > 0 && states[len(states)-1] == "Attached"
	})
	if got := b.must(busOwn, busRshim0At, busDevice+".Force", uint32(0))[0]; lastWord(got) != "NotNeeded" {
		b.t.Errorf("Force of what is ours: %v", got)
	}
	b.stage("ready")
	b.agree()
}

// forceNvidia does the same as NVIDIA's firmware does.
func (b *busRig) forceNvidia() {
	const iface = "com.nvidia.BF.Rshim"
	b.hostForces()
	b.becomes(busNvidia, busNvidiaAt, iface, "State", "Disabled")
	b.becomes(busOwn, busRshim0At, busDevice, "State", "Contended")
	b.must(busNvidia, busNvidiaAt, busProperties+".Set", iface, "State", godbus.MakeVariant(iface+".State.Forced"))
	b.host("dropped")
	b.becomes(busNvidia, busNvidiaAt, iface, "State", "Enabled")
	b.becomes(busOwn, busRshim0At, busDevice, "State", "Attached")
}

func (b *busRig) open(name string) *os.File {
	b.t.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return f
}

// updateFile pushes as upstream's bmcweb does.
func (b *busRig) updateFile() {
	file := small(b.t)
	f := b.open(file)
	b.forget()
	at := b.must(busUpdater, busDPUOSAt, "xyz.openbmc_project.Software.Update.StartUpdate", godbus.UnixFD(f.Fd()),
		"xyz.openbmc_project.Software.ApplyTime.RequestedApplyTimes.Immediate")[0]
	f.Close() // the daemon has its own
	if at != busUpdateAt {
		b.t.Fatalf("StartUpdate returns %v", at)
	}
	b.ended(busUpdateAt, "Active")
	b.arrived(file)
	if got := b.get(busUpdater, busUpdateAt, "xyz.openbmc_project.Common.Progress", "Status"); lastWord(got) != "Completed" {
		b.t.Errorf("Status %v", got)
	}
	b.agree()
}

// updateDownload pushes as NVIDIA's bmcweb and its download service do: the one
// asks for FilePath and looks whether it is there, the other has curl write to
// it, and the first waits for an object with Activation, which it then drives.
func (b *busRig) updateDownload() {
	const objectManager = "org.freedesktop.DBus.ObjectManager"
	file := small(b.t)
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(file))))
	defer server.Close()
	path, _ := b.get(busUpdater, busDPUOSAt, "xyz.openbmc_project.Common.FilePath", "Path").(string)
	if st, err := os.Stat(path); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		b.t.Fatalf("Path is %q, which is no character device: %v", path, err)
	}
	added := []godbus.MatchOption{
		godbus.WithMatchInterface(objectManager), godbus.WithMatchMember("InterfacesAdded"), godbus.WithMatchObjectPath("/"),
	}
	if err := b.conn.AddMatchSignal(added...); err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = b.conn.RemoveMatchSignal(added...) }()
	b.forget()

	// The DPU reads no more than a part of it until the task is there.
	b.control("hold 0 on")
	curl := start(b.t, "curl", "-sSf", "-o", path, server.URL+"/"+filepath.Base(file))
	b.until("an object with Activation", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.ContainsFunc(b.signals, func(s *godbus.Signal) bool {
			if s.Name != objectManager+".InterfacesAdded" || s.Body[0] != busUpdateAt {
				return false
			}
			_, ok := s.Body[1].(map[string]map[string]godbus.Variant)[busActivation]
			return ok
		})
	})
	b.must(busUpdater, busUpdateAt, busProperties+".Set", busActivation, "RequestedActivation",
		godbus.MakeVariant(busActivation+".RequestedActivations.Active"))
	if got := b.get(busUpdater, busUpdateAt, busActivation, "Activation"); lastWord(got) != "Activating" {
		b.t.Errorf("Activation is %v before the DPU has the image", got)
	}
	b.control("hold 0 off")
	b.ended(busUpdateAt, "Active")
	if code := b.finished(curl); code != 0 {
		b.t.Errorf("curl: exit code %d: %s", code, curl.output())
	}
	b.arrived(file)
	if got := b.get(busUpdater, busUpdateAt, "xyz.openbmc_project.Common.Progress", "Status"); lastWord(got) != "Completed" {
		b.t.Errorf("Status %v", got)
	}
	b.agree()
}

// ended waits for the end of a push, and checks what was said until then.
func (b *busRig) ended(at godbus.ObjectPath, want string) {
	b.t.Helper()
	b.until("Activation "+want, func() bool { return slices.Contains(b.said(at, "Activation"), want) })
	b.mu.Lock()
	defer b.mu.Unlock()
	progress, over, halfway := byte(0), false, false
	for _, s := range b.signals {
		if s.Path != at || s.Name != busProperties+".PropertiesChanged" {
			continue
		}
		if over {
			b.t.Errorf("%v after the end", s.Body)
		}
		changed := s.Body[1].(map[string]godbus.Variant)
		if v, ok := changed["Progress"]; ok && s.Body[0] == busProgress {
			if now := v.Value().(byte); now < progress {
				b.t.Errorf("progress goes from %d to %d", progress, now)
			} else {
				progress = now
			}
			halfway = halfway || progress > 0 && progress < 100
		}
		if v, ok := changed["Activation"]; ok && s.Body[0] == busActivation && lastWord(v.Value()) == want {
			over = true
			if progress != 100 || !halfway {
				b.t.Errorf("%v at %d %%, with progress before: %v", v, progress, halfway)
			}
		}
	}
}

// pushPipe pushes what comes through a pipe, whose writer is another program.
func (b *busRig) pushPipe() {
	file := small(b.t)
	content, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	cat := exec.Command("cat", file)
	pipe, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cat.Stdout = w
	if err := cat.Start(); err != nil {
		b.t.Fatal(err)
	}
	w.Close()
	b.forget()
	at, _ := b.must(busOwn, busRshim0At, busDevice+".PushBoot", godbus.UnixFD(pipe.Fd()), map[string]godbus.Variant{
		"Name": godbus.MakeVariant("piped"), "Size": godbus.MakeVariant(uint64(len(content))), "SHA256": godbus.MakeVariant(sum[:]),
	})[0].(godbus.ObjectPath)
	pipe.Close()
	b.ended(at, "Active")
	if err := cat.Wait(); err != nil {
		b.t.Errorf("cat: %v", err)
	}
	b.arrived(file)
	for property, want := range map[string]any{
		"Name": "piped", "Device": busRshim0At, "SHA256": fmt.Sprintf("%x", sum), "Error": "",
		"Outcome": busPush + ".Outcomes.Ready", "Origin": busPush + ".Origins.Bus", "Phase": busPush + ".Phases.Ended",
	} {
		if got := b.get(busOwn, at, busPush, property); got != want {
			b.t.Errorf("%s of the push is %v, want %v", property, got, want)
		}
	}
	if got := b.get(busOwn, busRshim0At, busDevice, "Push"); got != at {
		b.t.Errorf("the device's push is %v, not %v", got, at)
	}
}

// typeAndRead has a console whose socket came through D-Bus, beside one that is
// the device file.
func (b *busRig) typeAndRead() {
	b.stage("ready")
	node := b.openConsole()
	node.shell()
	fd := int(b.must(busConsole, busConsoleAt, "xyz.openbmc_project.Console.Access.Connect")[0].(godbus.UnixFD))
	if err := unix.SetNonblock(fd, true); err != nil {
		b.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "console")
	defer f.Close()
	from := node.length()
	if _, err := io.WriteString(f, "echo over the bus\r"); err != nil {
		b.t.Fatal(err)
	}
	var seen strings.Builder
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	for buf := make([]byte, 4096); !strings.Contains(seen.String(), "\r\nover the bus\r\n"); {
		n, err := f.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			b.t.Fatalf("%v after %q", err, seen.String())
		}
	}
	node.await(from, "\r\nover the bus\r\n")
}

// lookAsNobody has another user look, which is allowed, and act, which is not.
func (b *busRig) lookAsNobody() {
	// The commands, where that user can run them.
	found, err := exec.LookPath("bmc-rshim")
	if err != nil {
		b.t.Fatal(err)
	}
	program, err := os.ReadFile(found)
	if err != nil {
		b.t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nobody")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { os.RemoveAll(dir) })
	name, image := filepath.Join(dir, "bmc-rshim"), filepath.Join(dir, "image")
	content, err := os.ReadFile(small(b.t))
	for _, err := range []error{err, os.Chmod(dir, 0o755), os.WriteFile(name, program, 0o755), os.WriteFile(image, content, 0o644)} {
		if err != nil {
			b.t.Fatal(err)
		}
	}
	pushes := b.get(busOwn, busRshim0At, busDevice, "Push")
	before := b.control("host 0 state")
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"status", 0, "attached"},
		{"status -json", 0, `"state":"attached"`},
		{"push " + image, 6, "not permitted"},
		{"force", 6, "not permitted"},
		{"release", 6, "not permitted"},
		{"reset", 6, "not permitted"},
		{"console", 6, "not permitted"},
		{"misc DROP_MODE 1", 6, "not permitted"},
	} {
		cmd := exec.Command(name, strings.Fields(c.args)...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.text) {
			b.t.Errorf("%s as nobody: exit code %d, want %d and %q\n%s", c.args, code, c.code, c.text, out)
		}
	}
	if got := b.get(busOwn, busRshim0At, busDevice, "Push"); got != pushes {
		b.t.Errorf("nobody has pushed: %v", got)
	}
	if got := b.control("host 0 state"); got != before {
		b.t.Errorf("nobody has changed the host from %s to %s", before, got)
	}
	b.becomes(busOwn, busRshim0At, busDevice, "State", "Attached")
}
