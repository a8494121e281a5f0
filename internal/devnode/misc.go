// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"context"
	"io"
	"sync"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// miscDevice is /dev/rshimN/misc. An open file gives the text once, made when
// the first read asks for it; each write is a list of commands.
type miscDevice struct{ d *rshim.Device }

func (m miscDevice) Open(context.Context, uint32) (cuse.File, error) {
	return &miscFile{d: m.d}, nil
}

type miscFile struct {
	d    *rshim.Device
	once sync.Once
	mu   sync.Mutex
	text string // that has not been read yet
}

func (f *miscFile) Read(ctx context.Context, p []byte, _ int64) (int, error) {
	f.once.Do(func() { f.text = f.d.Misc(ctx) })
	f.mu.Lock()
	defer f.mu.Unlock()
	n := copy(p, f.text)
	f.text = f.text[n:]
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *miscFile) Write(ctx context.Context, p []byte, off int64) (int, error) {
	if off != 0 {
		return 0, syscall.EINVAL
	}
	if err := f.d.WriteMisc(ctx, string(p)); err != nil {
		return 0, errno(err)
	}
	return len(p), nil
}

func (f *miscFile) Release(context.Context) {}
