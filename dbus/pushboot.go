// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
	"github.com/bluefield-go/bmc-rshim/internal/fdread"
	"github.com/bluefield-go/bmc-rshim/internal/sha256"
	"github.com/bluefield-go/bmc-rshim/rshim"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

const (
	// checkPatience is how long a caller waits for the image to be checked and
	// the stream to be open. What takes longer it learns from the object: most
	// callers give up after 25 s.
	checkPatience = 8 * time.Second
	maxImageName  = 255 // bytes
)

// order is a push as a caller wants it. It owns its files.
type order struct {
	image, config, rootfs *os.File
	name                  string
	digest                []byte // nil: none
	noCheck, force        bool
	size                  int64 // 0: not known
	streamOnly            bool
	limit                 time.Duration
}

func (o *order) close() {
	for _, f := range []*os.File{o.image, o.config, o.rootfs} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// pushBoot is the method PushBoot.
func (v *device) pushBoot(ctx context.Context, c *bus.Call) ([]any, error) {
	o, err := readOrder(c)
	if err != nil {
		return nil, err
	}
	p, err := v.startPush(ctx, c, o)
	if err != nil {
		return nil, err
	}
	return []any{p.path}, nil
}

// readOrder reads the arguments of PushBoot.
func readOrder(c *bus.Call) (*order, error) {
	o := new(order)
	if err := o.read(c); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *order) read(c *bus.Call) (err error) {
	if o.image, err = c.TakeFile(c.Args[0].(wire.FD)); err != nil {
		return err
	}
	for _, e := range c.Args[1].(wire.Dict).Entries {
		key, value := e.Key.(string), e.Value.(wire.Variant).Value
		set, ok := orderOptions[key]
		if !ok {
			return fmt.Errorf("%w: no option %.64q", errArgument, key)
		}
		if ok, err = set(o, c, value); err == nil && !ok {
			err = fmt.Errorf("%w: option %s cannot have this value", errArgument, key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// orderOptions are the options of PushBoot. They report false for a value that
// is not of their type, or out of range.
var orderOptions = map[string]func(o *order, c *bus.Call, v any) (bool, error){
	"Config": func(o *order, c *bus.Call, v any) (bool, error) { return takeFile(&o.config, c, v) },
	"Rootfs": func(o *order, c *bus.Call, v any) (bool, error) { return takeFile(&o.rootfs, c, v) },
	"SHA256": func(o *order, _ *bus.Call, v any) (bool, error) {
		var err error
		switch v := v.(type) {
		case string:
			o.digest, err = hex.DecodeString(v)
		case []byte:
			o.digest = v
		}
		return err == nil && len(o.digest) == sha256.Size, nil
	},
	"Check": func(o *order, _ *bus.Call, v any) (bool, error) {
		check, ok := v.(bool)
		o.noCheck = !check
		return ok, nil
	},
	"Force": func(o *order, _ *bus.Call, v any) (ok bool, _ error) {
		o.force, ok = v.(bool)
		return ok, nil
	},
	"Size": func(o *order, _ *bus.Call, v any) (bool, error) {
		n, ok := v.(uint64)
		o.size = int64(n)
		return ok && o.size >= 0, nil
	},
	"Name": func(o *order, _ *bus.Call, v any) (ok bool, _ error) {
		o.name, ok = v.(string)
		return ok && len(o.name) <= maxImageName, nil
	},
	"Wait": func(o *order, _ *bus.Call, v any) (bool, error) {
		o.streamOnly = v == "Streamed"
		return o.streamOnly || v == "Ready", nil
	},
	"TimeoutMs": func(o *order, _ *bus.Call, v any) (bool, error) {
		ms, ok := v.(uint32)
		o.limit = time.Duration(ms) * time.Millisecond
		return ok, nil
	},
}

func takeFile(f **os.File, c *bus.Call, v any) (bool, error) {
	fd, ok := v.(wire.FD)
	if !ok || *f != nil {
		return false, nil
	}
	var err error
	*f, err = c.TakeFile(fd)
	return true, err
}

// startPush begins a push and returns it with its objects published: when its
// stream is open, or the checks take longer than a caller can wait. What goes
// wrong before is an error, and there is no object. It takes the order's files.
func (v *device) startPush(ctx context.Context, c *bus.Call, o *order) (*push, error) {
	if streams(v.d.Push()) || !v.s.pushes.begin(v) {
		o.close()
		return nil, fmt.Errorf("rshim%d: %w", v.d.Index(), errPushing)
	}
	p := &push{
		ps: &v.s.pushes, v: v, origin: "Bus", name: o.name, began: time.Now(),
		streamOnly: o.streamOnly, digest: hex.EncodeToString(o.digest),
		opened: make(chan struct{}), sent: make(chan struct{}), replied: make(chan struct{}),
	}
	ready := make(chan struct{})
	begun := v.s.pushes.tasks.run(func(ctx context.Context) {
		ctx, p.cancel = context.WithCancel(ctx)
		defer p.cancel()
		close(ready)
		p.err = p.send(ctx, o)
		o.close()
		v.s.pushes.end(v) // before the caller is told: it may try again at once
		close(p.sent)
		v.look()
	})
	if !begun {
		v.s.pushes.end(v)
		o.close()
		return nil, context.Canceled
	}
	<-ready
	patience := time.NewTimer(checkPatience)
	defer patience.Stop()
	select {
	case <-p.opened:
	case <-patience.C:
	case <-p.sent:
		// One that was opened, and has failed since, was a push.
		if p.err != nil && p.id.Load() == 0 {
			return nil, p.err
		}
	case <-ctx.Done(): // the bus is gone, or the daemon ends
		p.cancel()
		<-p.sent
		if p.id.Load() == 0 {
			return nil, ctx.Err()
		}
	}
	p.ps.announce(p)
	c.AfterReply(func(bool) { close(p.replied) })
	return p, nil
}

// title is the image's name for people.
func (o *order) title() string { return cmp.Or(o.name, "the image") }

// send checks the image, takes the RShim if it is to, and sends the image and
// what follows it.
func (p *push) send(ctx context.Context, o *order) error {
	img, src, err := openImage(o.image, o.title())
	if err != nil {
		return err
	}
	defer src.close()
	check := corepush.CheckOptions{Generation: p.v.d.Status().Generation, NoFormat: o.noCheck}
	if o.digest != nil {
		check.Digest = corepush.Digest{Hash: sha256.New(), Sum: o.digest}
	}
	if _, err := img.Check(ctx, check); err != nil {
		return err
	}
	if o.force {
		if _, err := p.v.d.Force(ctx); err != nil {
			return err
		}
	}
	total := o.size
	if n := img.Length(); n >= 0 {
		total = n
	}
	s := corepush.Sender{Image: img, NoFormat: o.noCheck}
	for _, extra := range []struct {
		name string
		f    *os.File
		src  *corepush.Source
	}{{"bf.cfg", o.config, &s.Config}, {"root file system", o.rootfs, &s.RootFS}} {
		if extra.f == nil {
			continue
		}
		e, err := openSource(extra.f, extra.name)
		if err != nil {
			return err
		}
		defer e.close()
		*extra.src = e.Reader
		if total <= 0 || e.size <= 0 || e.size > math.MaxInt64-total {
			total = 0 // not known
			continue
		}
		total += e.size
	}
	err = s.Send(ctx, func(ctx context.Context) (corepush.Stream, error) {
		b, err := p.ps.open(ctx, p, rshim.PushOptions{Total: total, Limit: o.limit, Streamed: o.streamOnly})
		if err != nil {
			return nil, err
		}
		close(p.opened)
		return b, nil
	})
	if errors.Is(err, context.Canceled) && p.cancelled.Load() {
		err = rshim.ErrCancelled
	}
	return err
}

// source is a caller's file as it is read.
type source struct {
	*fdread.Reader
	size int64 // from where it stands; 0 unless it is a file
}

func (s source) close() {
	if s.Reader != nil {
		_ = s.Close()
	}
}

func openSource(f *os.File, name string) (s source, err error) {
	st, err := f.Stat()
	if err != nil {
		return s, err
	}
	raw, err := f.SyscallConn() // Fd would change the flags of the caller's file
	if err != nil {
		return s, err
	}
	if cerr := raw.Control(func(fd uintptr) { s.Reader, err = fdread.New(fd, name) }); err == nil {
		err = cerr
	}
	if at, serr := f.Seek(0, io.SeekCurrent); serr == nil && st.Mode().IsRegular() {
		s.size = st.Size() - at
	}
	return s, err
}

// openImage opens the image for reading, as a file, or as what comes in a pipe.
func openImage(f *os.File, name string) (*corepush.Image, source, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, source{}, err
	}
	if st.Mode().IsRegular() {
		img, err := corepush.OpenFile(f, name)
		return img, source{}, err
	}
	s, err := openSource(f, name)
	if err != nil {
		return nil, s, err
	}
	return corepush.NewPipe(s.Reader, name), s, nil
}
