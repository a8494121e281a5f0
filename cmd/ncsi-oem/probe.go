// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// probe is what a package says when it is asked for the host's access, which
// changes nothing.
type probe struct {
	pkg int
	err error // nil: it has told; a refusal; or there was no answer
}

// answered reports whether there is somebody.
func (p probe) answered() bool { return !oem.IsTimeout(p.err) }

// chosen says why it was chosen over an address where it was the first to be
// good enough.
func (p probe) chosen(o options) string {
	switch {
	case o.pkg >= 0:
		return "it has answered (" + p.answer() + ")"
	case p.err == nil:
		return "of packages 0 to 7, the first to tell the host's access"
	}
	return "of packages 0 to 7, the first that has answered (" + p.answer() + ")"
}

// answer is the answer in words.
func (p probe) answer() string {
	if p.err == nil {
		return "command completed"
	}
	return oneLine(p.err.Error())
}

// probeAll asks packages, one after the other, over a transport where nobody
// has looked for them before us, or not found them, until enough says so. A NIC
// says nothing to commands for another package, so that each of those takes a
// timeout; asking is not repeated. Errors are the transport's; an answer that
// makes no sense is one.
func probeAll(ctx context.Context, t oem.Transport, packages []int, enough func(probe) bool) (found []probe, err error) {
	for _, pkg := range packages {
		ch, err := ncsi.NewChannel(pkg, ncsi.WholePackage)
		if err != nil {
			return nil, err
		}
		payload, err := t.Do(ctx, ch, ncsi.OEM, oem.GetHostAccess())
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && !oem.IsTimeout(err) && !errors.Is(err, ncsi.ErrMalformed) {
			return nil, err
		}
		p := probe{pkg, err}
		if err == nil {
			_, p.err = oem.HostAccessResponse(payload)
		}
		if p.answered() {
			found = append(found, p)
		}
		if enough(p) {
			break
		}
	}
	return found, nil
}

// probeFirst returns the package behind an address that answers best: the first
// that has told the host's access; else the first that tells it to a client
// that initialises it when asked to; else the first that has answered at all,
// as its refusal says more than silence.
func probeFirst(ctx context.Context, e *env, o options, a address, log *slog.Logger) (probe, error) {
	t, giveUp, err := e.open(a, o.timeout, log)
	if err != nil {
		return probe{}, &deviceError{a, err}
	}
	defer giveUp()
	found, err := probeAll(ctx, t, o.packages(), func(p probe) bool { return p.err == nil })
	if err == nil && len(found) == 0 {
		err = errSilent
	}
	if err != nil {
		return probe{}, &deviceError{a, err}
	}
	for _, p := range found {
		if p.err == nil {
			return p, nil
		}
	}
	for _, p := range found {
		ch, err := ncsi.NewChannel(p.pkg, ncsi.WholePackage)
		if err != nil {
			return probe{}, err
		}
		if _, err := (&oem.Client{Transport: t, Channel: ch}).Get(ctx); err == nil {
			return probe{pkg: p.pkg}, nil
		}
	}
	return found[0], nil
}

// packages are the numbers to ask for.
func (o options) packages() []int {
	if o.pkg >= 0 {
		return []int{o.pkg}
	}
	return allPackages
}

// asked says in words which those are.
func (o options) asked() string {
	if o.pkg >= 0 {
		return fmt.Sprintf("package %d", o.pkg)
	}
	return fmt.Sprintf("packages 0 to %d", ncsi.MaxPackage)
}

// errSilent is the error when nobody is there.
var errSilent = fmt.Errorf("no NC-SI package has answered: %w", os.ErrDeadlineExceeded)

// allPackages are the numbers that a package can have.
var allPackages = func() (all []int) {
	for pkg := range ncsi.MaxPackage + 1 {
		all = append(all, pkg)
	}
	return all
}()
