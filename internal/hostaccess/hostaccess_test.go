// SPDX-License-Identifier: Apache-2.0

package hostaccess

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool is a Tool whose ncsi-oem is a shell script. It writes its arguments to
// the file args beside it.
func tool(t *testing.T, script string) *Tool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ncsi-oem")
	text := "#!/bin/sh\necho \"$*\" >>" + filepath.Dir(path) + "/args\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Tool{Path: path, Args: []string{"-if", "eth0"}, Timeout: time.Minute}
}

func (t *Tool) calls(tb testing.TB) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(t.Path), "args"))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func TestGet(t *testing.T) {
	for name, c := range map[string]struct {
		script              string
		persistent, runtime string
		err                 error
		text                string
	}{
		"both":         {`echo '{"command":"get","persistent":"enabled","runtime":"locked","exit_code":0}'`, Enabled, Locked, nil, ""},
		"indented":     {`printf '{\n  "package": 0,\n  "persistent": "disabled",\n  "runtime_error": "unavailable"\n}\n'`, Disabled, Unknown, nil, ""},
		"unknown word": {`echo '{"persistent":"upside down","runtime":"locked"}'`, Unknown, Locked, nil, ""},
		"nothing":      {`true`, Unknown, Unknown, ErrAnswer, "no object"},
		"empty":        {`echo '{}'`, Unknown, Unknown, ErrAnswer, "no persistent access"},
		"no JSON":      {`echo enabled`, Unknown, Unknown, ErrAnswer, "makes no sense"},
		"refused":      {`echo '{"error":"the DPU does not trust this BMC","exit_code":4}'; exit 4`, Unknown, Unknown, ErrRefused, "does not trust this BMC"},
		"silent":       {`echo "ncsi-oem: no answer" >&2; exit 5`, Unknown, Unknown, os.ErrDeadlineExceeded, "no answer"},
		"no device":    {`printf '\033[2Jno\nsuch device' >&2; exit 6`, Unknown, Unknown, ErrNoNIC, " [2Jno"},
		"odd code":     {`exit 77`, Unknown, Unknown, nil, "ended with code 77"},
		"killed":       {`kill -9 $$`, Unknown, Unknown, nil, "ended with code -1"},
		"endless":      {`yes '{"persistent":"enabled"}' | head -c 1000000`, Unknown, Unknown, ErrAnswer, "more than an object"},
	} {
		t.Run(name, func(t *testing.T) {
			x := tool(t, c.script)
			p, r, err := x.Get(t.Context())
			if p != c.persistent || r != c.runtime {
				t.Errorf("got %s, %s", p, r)
			}
			if c.text == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.text) || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("control characters in %q", err)
			}
			if got := x.calls(t); got != "-json -if eth0 get\n" {
				t.Errorf("called with %q", got)
			}
		})
	}
}

func TestSet(t *testing.T) {
	x := tool(t, `echo '{}'`)
	for _, err := range []error{
		x.SetPersistent(t.Context(), Disabled), x.SetPersistent(t.Context(), Locked),
		x.SetRuntime(t.Context(), Locked), x.SetRuntime(t.Context(), Enabled),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	for _, err := range []error{
		x.SetPersistent(t.Context(), Unknown), x.SetPersistent(t.Context(), "-yes"),
		x.SetRuntime(t.Context(), Disabled), x.SetRuntime(t.Context(), ""),
	} {
		var op *OpError
		if !errors.As(err, &op) {
			t.Errorf("error %v", err)
		}
	}
	const want = "-json -if eth0 set disabled -yes\n-json -if eth0 set locked\n" +
		"-json -if eth0 runtime set locked\n-json -if eth0 runtime set enabled\n"
	if got := x.calls(t); got != want {
		t.Errorf("calls:\n%s", got)
	}
}

// Firmware that cannot be asked has done it by its own word; that is success.
func TestNotReadBack(t *testing.T) {
	x := tool(t, `echo '{"runtime":"locked","takes_effect":"now","read_back":false,"exit_code":0}'`)
	if err := x.SetRuntime(t.Context(), Locked); err != nil {
		t.Error(err)
	}
}

// One that hangs is ended, even if a child of it holds on to its output.
func TestHangs(t *testing.T) {
	x := tool(t, `sleep 300 & sleep 300`)
	x.Timeout = 300 * time.Millisecond
	if _, _, err := x.Get(t.Context()); !errors.Is(err, ErrTimeout) {
		t.Errorf("error %v", err)
	}
	x.Timeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	time.AfterFunc(300*time.Millisecond, stop)
	if _, _, err := x.Get(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestNoTool(t *testing.T) {
	x := &Tool{Path: filepath.Join(t.TempDir(), "none")}
	if _, _, err := x.Get(t.Context()); !errors.Is(err, ErrNoTool) {
		t.Errorf("error %v", err)
	}
}

func TestParseJSON(t *testing.T) {
	f, err := parseJSON([]byte(` {"a":{"b":[1,{"c":"x\u00e9\n\"\/\ud800"}],"d":null},"e":-1.5e+3,"f":{},"g":[]} `))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"a.b.0": "1", "a.b.1.c": "xé\n\"/\ufffd", "a.d": "null", "e": "-1.5e+3"} {
		if f[k] != want {
			t.Errorf("%s is %q", k, f[k])
		}
	}
	if len(f) != 4 {
		t.Errorf("fields: %v", f)
	}
	for _, bad := range []string{
		"", " ", "[]", `"x"`, "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a":1}x`, `{"a":nope}`, `{"a":-}`, `{"a":inf}`,
		`{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\`, `{"a":"` + "\xff" + `"}`, `{a:1}`, `{"a" 1}`, `{"a":[1 2]}`,
		`{"a":1,"a":2}`, strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20),
		`{"a":[` + strings.Repeat("1,", 300) + "1]}",
	} {
		if f, err := parseJSON([]byte(bad)); !errors.Is(err, errJSON) {
			t.Errorf("%q: %v, %v", bad, f, err)
		}
	}
}

// Strings are what encoding/json has them for.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{
		`{"persistent":"enabled","runtime":"locked","package":0}`, `{"a":{"b":[1,"x\u00e9"]}}`, `{"e":-1.5e+3}`, `{"a":"\ud83d\ude00"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseJSON(b)
		if err != nil {
			return
		}
		var want map[string]any
		if json.Unmarshal(b, &want) != nil {
			return // numbers such as 01
		}
		for k, v := range want {
			if s, ok := v.(string); ok && !strings.Contains(k, ".") && !strings.Contains(string(b), `\u`) && got[k] != s {
				t.Fatalf("%q: %q is %q, want %q", b, k, got[k], s)
			}
		}
	})
}
