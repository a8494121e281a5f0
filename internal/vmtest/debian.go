// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// foreignApt fetches Debian packages of another architecture with an apt state of its own, so that the host's
// configuration and package lists stay untouched and root is not needed.
type foreignApt struct {
	arch string
	dir  string
	etc  []string // options that name the sources
}

// debianSources are the sources of the second attempt: the host's own may lack the architecture.
const debianSources = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
`

// unpackForeign unpacks into dir/root the packages that want names, which may look into the package lists for it.
func unpackForeign(ctx context.Context, arch, dir string, want func(*foreignApt) ([]string, error)) error {
	var err error
	for attempt := range 2 { // an index can be in the middle of an update
		a := &foreignApt{arch: arch, dir: filepath.Join(dir, fmt.Sprintf("apt%d", attempt))}
		if err = a.fetch(ctx, attempt > 0, filepath.Join(dir, "root"), want); err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

func (a *foreignApt) fetch(ctx context.Context, own bool, root string, want func(*foreignApt) ([]string, error)) error {
	defer os.RemoveAll(a.dir)
	for _, d := range []string{"lists/partial", "cache/archives/partial", "debs", "parts"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o644); err != nil {
		return err
	}
	if own {
		list := filepath.Join(a.dir, "sources.list")
		if err := os.WriteFile(list, []byte(debianSources), 0o644); err != nil {
			return err
		}
		a.etc = []string{"-oDir::Etc::SourceList=" + list, "-oDir::Etc::SourceParts=" + filepath.Join(a.dir, "parts")}
	}
	// Sources without the architecture make this fail; whether it was enough, the download tells.
	_, updateErr := a.run(ctx, "apt-get", "update")
	names, err := want(a)
	if err == nil {
		_, err = a.run(ctx, "apt-get", append([]string{"download"}, names...)...)
	}
	if err != nil {
		if updateErr != nil {
			err = fmt.Errorf("%w\nafter: %w", err, updateErr)
		}
		return err
	}
	debs, err := filepath.Glob(filepath.Join(a.dir, "debs", "*.deb"))
	if err != nil {
		return err
	}
	if len(debs) != len(names) {
		return fmt.Errorf("apt-get download: %d files for %d packages", len(debs), len(names))
	}
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb -x %s: %w\n%s", deb, err, out)
		}
	}
	return nil
}

// dependency returns the one package matching pattern that the package name depends on.
func (a *foreignApt) dependency(ctx context.Context, name, pattern string) (string, error) {
	out, err := a.run(ctx, "apt-cache", "depends", name)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`Depends: (` + pattern + `)\n`).FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s depends on no %s:\n%s", name, pattern, out)
	}
	return string(m[1]), nil
}

func (a *foreignApt) run(ctx context.Context, tool string, args ...string) ([]byte, error) {
	opts := append([]string{
		"-oAPT::Architecture=" + a.arch,
		"-oAPT::Architectures=" + a.arch,
		"-oDir::State::Lists=" + filepath.Join(a.dir, "lists"),
		"-oDir::State::status=" + filepath.Join(a.dir, "status"),
		"-oDir::Cache=" + filepath.Join(a.dir, "cache"),
		"-oAcquire::Languages=none",
		"-oAcquire::Retries=2",
		"-oAPT::Sandbox::User=root",
	}, a.etc...)
	cmd := exec.CommandContext(ctx, tool, append(opts, args...)...)
	cmd.Dir = filepath.Join(a.dir, "debs")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s %v: %w\n%s", tool, args, err, tail(string(out), 20))
	}
	return out, nil
}
