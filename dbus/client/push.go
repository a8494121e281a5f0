// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// Push is what a push's properties were at one time.
type Push struct {
	Path      Path
	Device    int    // index, -1 if not known
	Origin    string // Bus, File
	Name      string // of the image
	Phase     string // Waiting, Resetting, Streaming, Booting, Ended
	Outcome   string // None until it has ended; then one of Outcomes
	Stage     string // what the DPU is doing, in words
	Line      string // of the DPU's log: the one that decided, or the last one
	Bytes     int64
	Total     int64 // 0 if not known
	Rate      int64 // bytes a second
	SHA256    string
	Error     string // in words, "" if there is none
	ErrorName string // D-Bus name of the error
	Percent   int
	Started   time.Time
	Completed time.Time
}

// Outcomes of a push.
const (
	Ready      = "Ready"      // the DPU is up
	Streamed   = "Streamed"   // it has the image
	DPUError   = "DpuError"   // it has reported an error
	TimedOut   = "TimedOut"   // it was not ready in time
	Cancelled  = "Cancelled"  // somebody has cancelled the push
	DeviceLost = "DeviceLost" // it has gone, or another has its RShim
	Failed     = "Failed"     // anything else
)

// Ended reports whether the push is over, and its outcome known.
func (p *Push) Ended() bool {
	return p.Phase == "Ended" && p.Outcome != "" && p.Outcome != "None"
}

func decodePush(path Path, interfaces map[string]bus.Properties) (*Push, error) {
	f := &fields{p: interfaces[ifPush]}
	p := &Push{
		Path:      path,
		Device:    Index(field[Path](f, "Device")),
		Origin:    f.enum("Origin", ifPush+".Origins"),
		Name:      f.text("Name"),
		Phase:     f.enum("Phase", ifPush+".Phases"),
		Outcome:   f.enum("Outcome", ifPush+".Outcomes"),
		Stage:     f.text("Stage"),
		Line:      f.text("Line"),
		Bytes:     f.number("Bytes"),
		Total:     f.number("Total"),
		Rate:      f.number("Rate"),
		SHA256:    f.text("SHA256"),
		Error:     f.text("Error"),
		ErrorName: f.text("ErrorName"),
	}
	g := &fields{p: interfaces[ifPercent], err: f.err}
	p.Percent = int(min(field[byte](g, "Progress"), 100))
	h := &fields{p: interfaces[ifProgress], err: g.err}
	p.Started, p.Completed = h.when("StartTime"), h.when("CompletedTime")
	return p, h.err
}

// PushOptions are those of a push. The files are the caller's to close.
type PushOptions struct {
	Config, Rootfs *os.File      // sent after the image; nil: none
	SHA256         string        // of the image, 64 hex digits; "": not checked
	NoCheck        bool          // push what is no good BFB for the chip, too
	Force          bool          // take the RShim from its owner first
	Size           int64         // that a pipe will deliver, in bytes; 0: not known
	Name           string        // of the image, for logs
	Streamed       bool          // it is over when the image has been streamed
	Timeout        time.Duration // for the DPU to be ready after that; 0: the daemon's
}

// StartPush has the daemon push an image, which it reads by itself: the push
// goes on when the caller has ended. The error is ErrImage or ErrWrongChip for
// an image that is refused, with nothing touched.
func (c *Client) StartPush(ctx context.Context, index int, image *os.File, o PushOptions) (Path, error) {
	files := []*os.File{image}
	var opts []any
	for _, f := range []struct {
		key  string
		file *os.File
	}{{"Config", o.Config}, {"Rootfs", o.Rootfs}} {
		if f.file != nil {
			opts = append(opts, f.key, wire.FD(len(files)))
			files = append(files, f.file)
		}
	}
	if o.SHA256 != "" {
		opts = append(opts, "SHA256", o.SHA256)
	}
	if o.NoCheck {
		opts = append(opts, "Check", false)
	}
	if o.Force {
		opts = append(opts, "Force", true)
	}
	if o.Size > 0 {
		opts = append(opts, "Size", uint64(o.Size))
	}
	if o.Name != "" {
		opts = append(opts, "Name", o.Name[:min(len(o.Name), 255)])
	}
	if o.Streamed {
		opts = append(opts, "Wait", "Streamed")
	}
	if o.Timeout > 0 {
		opts = append(opts, "TimeoutMs", uint32(min(max(1, o.Timeout.Milliseconds()), 1<<31)))
	}
	r, err := c.call(ctx, pushLimit, "push", deviceName(index), devicePath(index), ifDevice, "PushBoot", files, wire.FD(0), wire.Vardict(opts...))
	if err != nil {
		return "", err
	}
	p, err := one[Path](r.Body)
	if err == nil && !isPush(p) {
		err = wrongType("the push "+printable(string(p)), p)
	}
	return p, c.opError("push", deviceName(index), err)
}

// Push returns a push. The error is ErrNotFound if it is not there any more.
func (c *Client) Push(ctx context.Context, path Path) (*Push, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	interfaces := make(map[string]bus.Properties)
	for _, i := range []string{ifPush, ifPercent, ifProgress} {
		p, err := c.c.GetAll(ctx, name, path, i)
		if err != nil {
			return nil, c.opError("push", "", err)
		}
		interfaces[i] = p
	}
	p, err := decodePush(path, interfaces)
	if err != nil {
		return nil, c.opError("push", "", err)
	}
	return p, nil
}

// LastPush returns the push of a device that began last. The error is ErrNotFound
// if there is none.
func (c *Client) LastPush(ctx context.Context, index int) (*Push, error) {
	all, err := c.objects(ctx)
	if err != nil {
		return nil, err
	}
	var last *Push
	for path, interfaces := range all {
		if !isPush(path) || interfaces[ifPush] == nil {
			continue
		}
		p, err := decodePush(path, interfaces)
		if err != nil {
			return nil, c.opError("push", "", err)
		}
		if p.Device == index && (last == nil || p.after(last)) {
			last = p
		}
	}
	if last == nil {
		return nil, c.opError("push", deviceName(index), fmt.Errorf("%w: the daemon has no push", ErrNotFound))
	}
	return last, nil
}

// after reports whether p has a higher number than q.
func (p *Push) after(q *Push) bool {
	if len(p.Path) != len(q.Path) {
		return len(p.Path) > len(q.Path)
	}
	return p.Path > q.Path
}

// Cancel cancels a push that runs, and removes one that has ended.
func (c *Client) Cancel(ctx context.Context, path Path) error {
	_, err := c.call(ctx, callLimit, "cancel", "", path, ifDelete, "Delete", nil)
	return err
}
