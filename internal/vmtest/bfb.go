// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// bfbCache names the cache's entry; count it up when buildBFB changes.
const bfbCache = "bfb-2"

// DebianBFB returns a BFB of some 35 MB, made on first use, as a DPU is installed with: Debian's arm64 kernel and an
// initramfs with modules of its own, behind stand-ins for the boot firmware of BlueField-2 and -3.
func DebianBFB(ctx context.Context, log io.Writer) (string, error) {
	dir, err := cached(bfbCache, func(dir string) error {
		fmt.Fprintf(log, "vmtest: making a BFB of Debian's arm64 kernel (once, fetches 60 MB) in %s\n", dir)
		return buildBFB(ctx, dir)
	})
	return filepath.Join(dir, "debian.bfb"), err
}

func buildBFB(ctx context.Context, dir string) error {
	unpacked := filepath.Join(dir, "root")
	defer os.RemoveAll(unpacked)
	err := unpackForeign(ctx, "arm64", dir, func(a *foreignApt) ([]string, error) {
		kernel, err := a.dependency(ctx, "linux-image-arm64", `linux-image-6\.1\.0-\d+-arm64`)
		return []string{kernel}, err
	})
	if err != nil {
		return err
	}
	one := func(pattern string) (string, error) {
		found, err := filepath.Glob(filepath.Join(unpacked, pattern))
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("%d files match %s", len(found), pattern)
		}
		if err != nil {
			return "", err
		}
		return found[0], nil
	}
	kernel, err := one("boot/vmlinuz-*")
	if err != nil {
		return err
	}
	modules, err := one("lib/modules/*/kernel/crypto")
	if err != nil {
		return err
	}
	r := newInitramfs()
	if err := r.tree("lib/modules", modules); err != nil {
		return err
	}
	initramfs := filepath.Join(dir, "initramfs")
	if err := r.write(initramfs); err != nil {
		return err
	}
	defer os.Remove(initramfs)

	var parts []bfb.Part
	for _, id := range []bfb.ID{bfb.IDBL2R, bfb.IDBL2, bfb.IDBL31, bfb.IDBL33} {
		for _, g := range []reg.Generation{reg.BlueField2, reg.BlueField3} {
			data := bytes.Repeat([]byte(fmt.Sprintf("%v of %v\n", id, g)), 4000)
			parts = append(parts, bfb.Part{ID: id, Version: bfb.VersionOf(g), Data: bytes.NewReader(data)})
		}
	}
	for id, name := range map[bfb.ID]string{bfb.IDImage: kernel, bfb.IDInitramfs: initramfs} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		parts = append(parts, bfb.Part{ID: id, Data: f})
	}
	out, err := os.Create(filepath.Join(dir, "debian.bfb"))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := bfb.Write(out, parts...); err != nil {
		return err
	}
	return out.Close()
}
