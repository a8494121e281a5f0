// SPDX-License-Identifier: Apache-2.0

package devnode

import (
	"context"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// bootDevice is /dev/rshimN/boot: open resets the chip, write pushes, close
// ends the push. close(2) cannot report an error on such a device: what can go
// wrong only then is in the log and in the device's status.
type bootDevice struct{ d *rshim.Device }

func (b bootDevice) Open(ctx context.Context, flags uint32) (cuse.File, error) {
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		// Reading makes no sense, and must not cost a reset.
		return nil, syscall.EINVAL
	}
	s, err := b.d.OpenBoot(ctx)
	if err != nil {
		return nil, errno(err)
	}
	return bootFile{s}, nil
}

type bootFile struct{ s *rshim.BootStream }

func (f bootFile) Read(context.Context, []byte, int64) (int, error) { return 0, syscall.EINVAL }

func (f bootFile) Write(ctx context.Context, p []byte, _ int64) (int, error) {
	n, err := f.s.Write(ctx, p)
	return n, errno(err)
}

// Release logs nothing: the device does.
func (f bootFile) Release(ctx context.Context) { _ = f.s.Close(ctx) }
