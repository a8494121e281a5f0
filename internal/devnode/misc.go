// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"context"
	"io"
	"log/slog"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// miscDevice is /dev/rshimN/misc. An open file gives the text once, made when
// the first read asks for it; each write is a list of commands.
type miscDevice struct {
	d   *rshim.Device
	log *slog.Logger
}

func (m miscDevice) Open(context.Context, uint32) (cuse.File, error) {
	return &miscFile{miscDevice: m, turn: make(chan struct{}, 1)}, nil
}

type miscFile struct {
	miscDevice
	turn chan struct{} // filled by whoever reads
	made bool
	text string // that has not been read yet
}

func (f *miscFile) Read(ctx context.Context, p []byte, _ int64) (int, error) {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-f.turn }()
	if !f.made {
		text := f.d.Misc(ctx)
		// Who is interrupted asks again, and must not be left with the zeros
		// of registers that there was no time to read.
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		f.text, f.made = text, true
	}
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
		// All that the writer sees is "invalid argument" and the like.
		f.log.Warn("command refused", "op", "misc write", "err", err)
		return 0, forceErrno(err)
	}
	return len(p), nil
}

func (f *miscFile) Release(context.Context) {}
