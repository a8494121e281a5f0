// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

const initPackage = "github.com/bluefield-go/bmc-rshim/internal/vmtest/cmd/guestinit"

// moduleRoot returns the directory of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("vmtest: not in a Go module")
	}
	return filepath.Dir(mod), nil
}

// trackSources reads every directory of the module. "go test" notes what a test opens and takes a result from its
// cache only while that is unchanged; of the packages that we compile for the guest it would know nothing.
func trackSources(root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) { // someone else's temporary file
			return nil
		}
		return err
	})
}

// build compiles init, the commands and the tests, and writes down what the guest shall do with them.
func (l *launch) build(ctx context.Context) error {
	select {
	case buildMu <- struct{}{}:
		defer func() { <-buildMu }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, d := range []string{"bin", "out"} {
		if err := os.Mkdir(l.path(d), 0o755); err != nil {
			return err
		}
	}
	if err := l.goTool(ctx, false, "build", "-ldflags=-s -w", "-o", l.path("init"), initPackage); err != nil {
		return err
	}
	for _, cmd := range l.job.Cmds {
		name := l.path("bin", defaultTo(cmd.Name, path.Base(cmd.Path)))
		if err := l.goTool(ctx, cmd.Cgo, "build", "-trimpath", "-ldflags=-s -w", "-tags", cmd.Tags, "-o", name, cmd.Path); err != nil {
			return err
		}
	}
	for i, p := range l.job.Tests {
		name := strconv.Itoa(i) + "-" + path.Base(p.Path) + ".test"
		if err := l.goTool(ctx, p.Cgo, "test", "-c", "-tags", p.Tags, "-o", l.path("bin", name), p.Path); err != nil {
			return err
		}
		if _, err := os.Stat(l.path("bin", name)); err != nil {
			return fmt.Errorf("vmtest: %s has no tests", p.Path)
		}
		dir, err := l.packageDir(p)
		if err != nil {
			return err
		}
		timeout := defaultTo(p.Timeout, 2*time.Minute)
		args := []string{"-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + timeout.String()}
		l.guest.Runs = append(l.guest.Runs, guest.Run{
			Path:    guest.Dir + "/bin/" + name,
			Args:    append(args, p.Args...),
			Dir:     dir,
			Timeout: timeout + 5*time.Second, // the test binary's own timeout comes first
		})
	}
	l.guest.Lane = string(l.machine.Lane)
	l.guest.Now = time.Now()
	l.guest.Seed = make([]byte, 64)
	rand.Read(l.guest.Seed)
	l.guest.Deadline = l.machine.Deadline
	l.guest.Env = l.job.Env
	return nil
}

// packageDir is the package's directory in the guest: tests run in it, for the sake of testdata.
func (l *launch) packageDir(p Package) (string, error) {
	rel := path.Clean(p.Path)
	if !filepath.IsLocal(rel) {
		return "", fmt.Errorf("vmtest: %s: give the package's path from the module's root, as in ./rshim", p.Path)
	}
	if l.machine.Lane == UML {
		return filepath.Join(l.root, rel), nil
	}
	return path.Join(guest.Dir, "src", rel), nil
}

func (l *launch) goTool(ctx context.Context, cgo bool, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = l.root
	cmd.Env = append(os.Environ(), "GOOS=linux")
	switch {
	case l.machine.Lane == AST2600:
		cmd.Env = append(cmd.Env, "GOARCH=arm", "GOARM=7", "CGO_ENABLED=0")
	case cgo:
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	default:
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
