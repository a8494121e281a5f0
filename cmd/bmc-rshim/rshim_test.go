// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

func TestRshimOptions(t *testing.T) {
	with := func(change func(*rshimOptions)) *rshimOptions {
		o := &rshimOptions{index: -1, level: 3}
		change(o)
		return o
	}
	for _, c := range []struct {
		args string
		want *rshimOptions
	}{
		{"", with(func(*rshimOptions) {})},
		{"-f", with(func(o *rshimOptions) { o.foreground = true })},
		{"-fn", with(func(o *rshimOptions) { o.foreground, o.noNet = true, true })},
		{"-fl3", with(func(o *rshimOptions) { o.foreground, o.level = true, 3 })},
		{"-l 0", with(func(o *rshimOptions) { o.level = 0 })},
		{"-l9", with(func(o *rshimOptions) { o.level = 4 })},
		{"-l -1", with(func(o *rshimOptions) { o.level = 0 })},
		{"--log-level=4 --force", with(func(o *rshimOptions) { o.level, o.force = 4, true })},
		{"--log 1 --fore", with(func(o *rshimOptions) { o.level, o.foreground = 1, true })},
		{"--dev usb-2-1.7 -i 63", with(func(o *rshimOptions) { o.device, o.index = "usb-2-1.7", 63 })},
		{"-dusb-1.1 -busb -F", with(func(o *rshimOptions) { o.device, o.backend, o.force = "usb-1.1", "usb", true })},
		{"-i -5", with(func(o *rshimOptions) { o.index = -5 })},
		{"word -n - -f", with(func(o *rshimOptions) { o.noNet, o.foreground = true, true })},
		{"-n -- -f", with(func(o *rshimOptions) { o.noNet = true })},

		{"-c", with(func(o *rshimOptions) { o.cmdmode = true })},
		{"-cg", with(func(o *rshimOptions) { o.cmdmode, o.commands = true, []rshimCommand{{letter: 'g'}} })},
		{"-l 4 -c -n -m -i 2 --get-debug", with(func(o *rshimOptions) {
			o.cmdmode, o.index, o.level, o.noNet = true, 2, 4, true
			o.commands = []rshimCommand{{letter: 'm'}, {letter: 'g'}}
		})},
		{"-ci3g", nil}, // no number
		{"-c -i -g", with(func(o *rshimOptions) { o.cmdmode, o.index, o.commands = true, 0, []rshimCommand{{letter: 'g'}} })},
		{"-c -g -i", with(func(o *rshimOptions) { o.cmdmode, o.commands = true, []rshimCommand{{letter: 'g'}} })},
		{"-c -g -i3", with(func(o *rshimOptions) { o.cmdmode, o.index, o.commands = true, 3, []rshimCommand{{letter: 'g'}} })},
		{"-i 1 -c -s 1 --set=0 -s 7", with(func(o *rshimOptions) {
			o.cmdmode, o.index = true, 1
			o.commands = []rshimCommand{{letter: 's', value: 1}, {letter: 's'}, {letter: 's', value: 1}}
		})},
		{"-c -h -p all --get-c BOOT_TIMEOUT", with(func(o *rshimOptions) {
			o.cmdmode = true
			o.commands = []rshimCommand{{letter: 'h'}, {letter: 'p', name: "all"}, {letter: 'p', name: "BOOT_TIMEOUT"}}
		})},
		{"-c -r 0x10110.64 --reg=0x13000c40.32 0x5 -g --index 1", with(func(o *rshimOptions) {
			o.cmdmode, o.index = true, 1
			o.commands = []rshimCommand{
				{letter: 'r', addr: 0x10110, size: 8},
				{letter: 'r', addr: 0x13000c40, size: 4, write: true, value: 5},
				{letter: 'g'},
			}
		})},
		{"-c -r 65808.64 -1", with(func(o *rshimOptions) {
			o.cmdmode = true
			o.commands = []rshimCommand{{letter: 'r', addr: 0x10110, size: 8, write: true, value: ^uint64(0)}}
		})},
	} {
		got, exit := parseRshim(strings.Fields(c.args))
		if c.want == nil {
			if exit == nil {
				t.Errorf("%q: %+v", c.args, got)
			}
			continue
		}
		if exit != nil {
			t.Errorf("%q: %+v", c.args, exit)
		} else if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q:\n%+v, want\n%+v", c.args, got, c.want)
		}
	}

	t.Setenv("POSIXLY_CORRECT", "1")
	if got, _ := parseRshim([]string{"-n", "word", "-f"}); got == nil || got.foreground || !got.noNet {
		t.Errorf("POSIXLY_CORRECT: %+v", got)
	}
}

// What the C daemon prints, and the exit status.
func TestRshimOutput(t *testing.T) {
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"-v", 0, "rshim 2.8.2\n", ""},
		{"-f --version -x", 0, "rshim 2.8.2\n", ""},
		{"-c -s 1 -v", 0, "rshim 2.8.2\n", ""},
		{"-h", 0, rshimHelp, ""},
		{"--he", 0, rshimHelp, ""},
		{"-c --help", 0, cmdmodeHelp, ""},
		{"-ch", 0, cmdmodeHelp, ""},
		{"-h -c", 0, rshimHelp, ""},
		{"-c", 0, "", ""},
		{"-x", 234, "", "Invalid option: -x\n"},
		{"-fo", 234, "", "Invalid option: -o\n"},
		{"-g -c", 234, "", "Invalid option: -g\n"},
		{"-b", 234, "", "Invalid option: -b\n"},
		{"--backend", 234, "", "Invalid option: -b\n"},
		{"--help=x", 234, "", "Invalid option: -h\n"},
		{"--nothing", 234, "", "Invalid option\n"},
		{"--fo", 234, "", "Invalid option\n"}, // foreground or force
		{"--=x", 234, "", "Invalid option\n"},
		{"-i 64", 234, "", "Index exceeds max value 63\n"},
		{"-c -i 64 -g", 234, "", "Index exceeds max value 63\n"},
		{"-i x", 234, "", "Invalid index: x\n"},
		{"-l x", 234, "", "Invalid log level: x\n"},
		{"-c -x", 234, "", "rshim: invalid option -- 'x'\n"},
		{"-c -r", 234, "", "rshim: option requires an argument -- 'r'\n"},
		{"-c --get", 234, "", "rshim: option '--get' is ambiguous; possibilities: '--get-debug' '--get-config'\n"},
		{"-c --nope", 234, "", "rshim: unrecognized option '--nope'\n"},
		{"-c -r 0x10110", 234, "", "rshim: a register is ADDRESS.32 or ADDRESS.64, not \"0x10110\"\n"},
		{"-c -r x.64", 234, "", "rshim: \"x\" is no address of a register\n"},
		{"-c -r 0x100000000.64", 234, "", "rshim: \"0x100000000\" is no address of a register\n"},
		{"-c -r 0x10110.16", 234, "", "rshim: a register is ADDRESS.32 or ADDRESS.64, not \"0x10110.16\"\n"},
		{"-c -r 0x10110.64 y", 234, "", "rshim: \"y\" is no value of a register\n"},
		{"-c -s on", 234, "", "rshim: --set-debug takes 0 or 1, not \"on\"\n"},
		{"-f -b pcie", 1, "", "rshim: no backend \"pcie\": this rshim is the one of a BMC, which reaches its DPU over USB alone (-b usb)\n"},
		{"-b pcie-lf", 1, "", "rshim: no backend \"pcie-lf\": this rshim is the one of a BMC, which reaches its DPU over USB alone (-b usb)\n"},
		{"-b USB", 1, "", "rshim: no backend \"USB\": this rshim is the one of a BMC, which reaches its DPU over USB alone (-b usb)\n"},
		{"-d pcie-04:00.2", 1, "", "rshim: no device \"pcie-04:00.2\": this rshim is the one of a BMC, which reaches its DPU over USB alone (-d usb-2-1.7)\n"},
	} {
		var stdout, stderr bytes.Buffer
		e := &env{stdout: &stdout, stderr: &stderr, place: func(*daemonOptions) { t.Fatalf("%q: it would run", c.args) }}
		code := rshimMain(t.Context(), e, strings.Fields(c.args))
		if code != c.code || stdout.String() != c.stdout || stderr.String() != c.stderr {
			t.Errorf("%q: exit status %d, want %d\nstdout:\n%s\nstderr:\n%s", c.args, code, c.code, &stdout, &stderr)
		}
	}
}

// -d is for one of several daemons beside each other.
func TestRshimDaemonOptions(t *testing.T) {
	for _, c := range []struct {
		args, pidFile, name string
		index               int // -1: none
		force, noNet        bool
	}{
		{"", "/var/run/rshim.pid", "", -1, false, false},
		{"-F -n -b usb", "/var/run/rshim.pid", "", -1, true, true},
		{"-i 5", "/var/run/rshim.pid", "", 5, false, false},
		{"-d usb-2-1.7 -i 1", "", "usb-2-1.7", 1, false, false},
	} {
		o, exit := parseRshim(strings.Fields(c.args))
		if exit != nil {
			t.Fatal(exit)
		}
		d, err := o.daemon()
		if err != nil {
			t.Fatal(err)
		}
		index := -1
		if d.onlyIndex != nil {
			index = *d.onlyIndex
		}
		if d.pidFile != c.pidFile || d.onlyName != c.name || index != c.index || d.force != c.force || d.net.off != c.noNet || d.devRoot != "/dev" {
			t.Errorf("%q: %+v", c.args, d)
		}
	}
}

func TestRshimLog(t *testing.T) {
	use := func(log *slog.Logger) {
		log = log.With("device", "rshim0")
		log.Info("rshim0 attached", "name", "usb-2-1.7")
		log.Error("boot write failed", "err", errors.New("a b\n\x1b[2J"), "n", 1)
		log.Warn("rshim0: a\nline", slog.Group("g", "x", "1", "y", ""))
		log.WithGroup("h").With("a", 1).Debug("d", "b", true)
	}
	const lines = "rshim0 attached name=usb-2-1.7\n" +
		"boot write failed device=rshim0 err=\"a b\\n\\x1b[2J\" n=1\n" +
		"rshim0: a?line device=rshim0 g.x=1 g.y=\"\"\n" +
		"d device=rshim0 h.a=1 h.b=true\n"
	all := strings.SplitAfter(lines, "\n")
	for level, want := range []string{"", all[1], all[1] + all[2], all[0] + all[1] + all[2], lines} {
		var b bytes.Buffer
		use(slog.New(&plainLog{level: rshimLevels[level], out: toStdout(&b, false)}))
		if got := b.String(); got != want {
			t.Errorf("-l %d:\n%s", level, got)
		}
	}
	var b bytes.Buffer
	use(slog.New(&plainLog{level: slog.LevelDebug, out: toStdout(&b, true)}))
	if want := "<5>" + all[0] + "<3>" + all[1] + "<4>" + all[2] + "<7>" + all[3]; b.String() != want {
		t.Errorf("to the journal:\n%s", &b)
	}
	if isJournal(io.Discard) {
		t.Error("nothing is the journal")
	}
}

// The unit is as tight as the design asks for, and runs rshim as the C daemon's
// does.
func TestRshimUnit(t *testing.T) {
	const unit = "../../packaging/bmc-rshim.service"
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Type=notify", "ExecStart=/usr/sbin/rshim -f $OPTIONS", "EnvironmentFile=-/etc/default/rshim", "Alias=rshim.service",
		"DeviceAllow=/dev/cuse rw", "DeviceAllow=/dev/net/tun rw", "DeviceAllow=char-usb_device rw"} {
		if !strings.Contains(string(b), "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=40", unit).CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
