// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

const (
	umlSourcePackage = "linux-source-6.1"
	umlSourceTar     = "/usr/src/linux-source-6.1.tar.xz"
)

// kernelFiles are the User-Mode Linux configuration, the patches, applied in the order of their names, and the test
// drivers of umlDrivers, which the patches have the kernel build.
//
//go:embed kernel
var kernelFiles embed.FS

// umlDrivers is where the drivers belong in the kernel's tree.
const umlDrivers = "drivers/i2c"

// umlKernel returns the path of the User-Mode Linux kernel, built from Debian's source on first use (minutes).
func umlKernel(ctx context.Context, log io.Writer) (string, error) {
	version, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", umlSourcePackage).Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", umlSourcePackage, err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", version)
	files, err := fs.Glob(kernelFiles, "kernel/*") // in the order of their names
	if err != nil {
		return "", err
	}
	for _, name := range files {
		data, err := kernelFiles.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	dir, err := cached("uml-"+hex.EncodeToString(sum.Sum(nil))[:12], func(dir string) error {
		fmt.Fprintf(log, "vmtest: building the User-Mode Linux kernel %s (once, some minutes) in %s\n", version, dir)
		return buildUML(ctx, dir, files)
	})
	return filepath.Join(dir, "linux"), err
}

// buildUML leaves the kernel as dir/linux and removes the 1.5 GB that it took to make it.
func buildUML(ctx context.Context, dir string, files []string) error {
	b := kernelBuild{ctx: ctx, dir: dir}
	src, obj := filepath.Join(dir, "src"), filepath.Join(dir, "obj")
	fragment, err := kernelFiles.ReadFile("kernel/uml.config")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "fragment"), fragment, 0o644); err != nil {
		return err
	}
	for _, d := range []string{src, obj} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	b.run(nil, "tar", "-xJf", umlSourceTar, "--strip-components=1", "-C", src)
	for _, name := range files {
		data, err := kernelFiles.ReadFile(name)
		if err != nil {
			return err
		}
		switch filepath.Ext(name) {
		case ".patch":
			b.run(data, "patch", "-p1", "-d", src)
		case ".c":
			b.write(filepath.Join(src, umlDrivers, filepath.Base(name)), data)
		}
	}
	kernelMake := []string{"make", "-C", src, "O=" + obj, "ARCH=um", "SUBARCH=x86_64", "-j" + strconv.Itoa(runtime.NumCPU())}
	b.run(nil, append(kernelMake, "KCONFIG_ALLCONFIG="+filepath.Join(dir, "fragment"), "allnoconfig")...)
	if b.err == nil {
		b.err = checkConfig(fragment, filepath.Join(obj, ".config"))
	}
	b.run(nil, append(kernelMake, "linux")...)
	if b.err != nil {
		return b.err
	}
	if err := os.Rename(filepath.Join(obj, "linux"), filepath.Join(dir, "linux")); err != nil {
		return err
	}
	for _, d := range []string{src, obj} {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

// checkConfig fails when the kernel's configuration has dropped a line of the fragment, as it does silently when a
// dependency is missing.
func checkConfig(fragment []byte, path string) error {
	config, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	have := make(map[string]bool)
	for line := range strings.Lines(string(config)) {
		have[line] = true
	}
	var dropped []string
	for line := range strings.Lines(string(fragment)) {
		if strings.HasPrefix(line, "CONFIG_") && !have[line] {
			dropped = append(dropped, strings.TrimSpace(line))
		}
	}
	if dropped != nil {
		return fmt.Errorf("the kernel's configuration drops %s", strings.Join(dropped, " "))
	}
	return nil
}

// kernelBuild runs the steps of a build until the first error.
type kernelBuild struct {
	ctx context.Context
	dir string
	err error
}

func (b *kernelBuild) run(stdin []byte, args ...string) {
	if b.err != nil {
		return
	}
	cmd := exec.CommandContext(b.ctx, "nice", args...)
	cmd.Dir = b.dir
	cmd.Stdin = bytes.NewReader(stdin)
	// Settings of an outer make are none of the kernel's business.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, tail(string(out), 40))
	}
}

func (b *kernelBuild) write(path string, data []byte) {
	if b.err == nil {
		b.err = os.WriteFile(path, data, 0o644)
	}
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}
