// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/json"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// initramfs collects the records of an initial RAM disk.
type initramfs struct {
	records []cpio.Record
	dirs    map[string]bool
}

func newInitramfs() *initramfs {
	return &initramfs{dirs: map[string]bool{".": true}}
}

// mkdir adds the directory and its parents.
func (r *initramfs) mkdir(dir string) {
	dir = path.Clean(strings.TrimPrefix(dir, "/"))
	if r.dirs[dir] {
		return
	}
	r.mkdir(path.Dir(dir))
	r.dirs[dir] = true
	r.records = append(r.records, cpio.Directory(dir, 0o755))
}

func (r *initramfs) bytes(name string, data []byte, perm uint64) {
	name = strings.TrimPrefix(name, "/")
	r.mkdir(path.Dir(name))
	r.records = append(r.records, cpio.StaticFile(name, string(data), perm))
}

// file adds the host's file, executable if it is there.
func (r *initramfs) file(name, host string) error {
	data, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	info, err := os.Stat(host)
	if err != nil {
		return err
	}
	r.bytes(name, data, 0o644|uint64(info.Mode().Perm()&0o111))
	return nil
}

// tree adds the host's directory with all its regular files; none is as good as an empty one.
func (r *initramfs) tree(name, host string) error {
	r.mkdir(name)
	err := filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		return r.file(path.Join(name, filepath.ToSlash(rel)), p)
	})
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// job adds init and its orders.
func (r *initramfs) job(init string, job guest.Job) error {
	data, err := json.Marshal(job)
	if err != nil {
		return err
	}
	r.bytes(guest.JobFile, data, 0o644)
	return r.file("init", init)
}

func (r *initramfs) write(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	records := append([]cpio.Record{
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
	}, r.records...)
	if err := cpio.WriteRecords(w, records); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	return f.Close()
}
