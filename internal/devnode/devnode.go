// SPDX-License-Identifier: Apache-2.0

// Package devnode is the files of a device, /dev/rshimN/{boot,console,misc,rshim},
// on character devices in user space. It turns system calls into calls on an
// rshim.Device and errors into the errno that existing programs know.
package devnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bluefield-go/bmc-rshim/internal/cuse"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// Options of the nodes. The zero value works.
type Options struct {
	DevRoot string // where the kernel keeps its device nodes; "" means /dev
	GID     int    // group that may use the nodes besides root; 0: none
	Logger  *slog.Logger
}

// takenPause is between tries to create a node whose name is still taken, by a
// daemon that is just ending.
const takenPause = 500 * time.Millisecond

// Run has the nodes of d there until ctx ends. Nodes are gone when it returns.
func Run(ctx context.Context, d *rshim.Device, o Options) error {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("device", fmt.Sprintf("rshim%d", d.Index()))
	if o.DevRoot == "" {
		o.DevRoot = "/dev"
	}
	g, ctx := errgroup.WithContext(ctx)
	for name, dev := range map[string]cuse.Device{
		"boot":    bootDevice{d},
		"console": consoleDevice{d.Console(), newTTY(), log},
		"misc":    miscDevice{d, log},
		"rshim":   regDevice{d},
	} {
		s := cuse.New(cuse.Options{
			Name:    fmt.Sprintf("rshim%d/%s", d.Index(), name),
			GID:     o.GID,
			DevPath: o.DevRoot + "/cuse",
			Logger:  log,
			// Those of terminals say nothing of what they move.
			UnrestrictedIoctl: name == "console",
		}, dev)
		g.Go(func() error {
			for {
				err := s.Run(ctx)
				if !errors.Is(err, cuse.ErrRefused) && !errors.Is(err, cuse.ErrGone) {
					return err
				}
				log.Warn("node is not there, trying again", "op", "cuse", "err", err)
				t := time.NewTimer(takenPause)
				select {
				case <-t.C:
				case <-ctx.Done():
					t.Stop()
					return ctx.Err()
				}
			}
		})
	}
	return g.Wait()
}

// errnos has the errno for every error of package rshim that callers of the C
// daemon's files may test for.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{rshim.ErrGone, syscall.ENODEV},
	{rshim.ErrNotOwner, syscall.EINVAL}, // what drop mode gives there
	{rshim.ErrLocked, syscall.EPERM},
	{rshim.ErrNoAnswer, syscall.ETIMEDOUT},
	{rshim.ErrNotReady, syscall.ENODEV},
	{rshim.ErrBusy, syscall.EBUSY},
	{rshim.ErrNoReset, syscall.EIO},
	{rshim.ErrIncomplete, syscall.EIO},
	{rshim.ErrInvalid, syscall.EINVAL},
	{rshim.ErrNotSupported, syscall.EOPNOTSUPP},
	{rshim.ErrTooMany, syscall.ENODEV},
	{rshim.ErrBlocked, syscall.ENODEV},
	{rshim.ErrCancelled, syscall.ECANCELED},
	{rshim.ErrDPU, syscall.EIO},
	{rshim.ErrNoPush, syscall.ENOENT},
	{rshim.ErrGivenUp, syscall.ECANCELED},
}

// errno puts the errno that belongs to err into its chain; cuse knows those of
// contexts and deadlines by itself.
func errno(err error) error {
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return fmt.Errorf("%w: %w", e.errno, err)
		}
	}
	return err
}

// forceErrno is errno for who wants to have the RShim: that another backend owns
// it is no mistake of his.
func forceErrno(err error) error {
	if errors.Is(err, rshim.ErrNotOwner) {
		return fmt.Errorf("%w: %w", syscall.EBUSY, err)
	}
	return errno(err)
}
