// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bluefield-go/bmc-rshim/dbus/bus"
	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// fields reads properties. One that is not there, as of another version of the
// daemon, is zero; one of another type is an error, the first of which stays.
type fields struct {
	p   bus.Properties
	err error
}

func field[T any](f *fields, name string) (v T) {
	x, ok := f.p[name]
	if !ok {
		return v
	}
	v, ok = x.(T)
	if !ok && f.err == nil {
		f.err = wrongType(name, x)
	}
	return v
}

func (f *fields) text(name string) string { return printable(field[string](f, name)) }

// enum is the last part of an enumeration's value: Attached of
// xyz.openbmc_project.Rshim.Device.States.Attached.
func (f *fields) enum(name, prefix string) string {
	s := field[string](f, name)
	if s == "" {
		return ""
	}
	v, ok := strings.CutPrefix(s, prefix+".")
	if (!ok || v == "" || strings.Contains(v, ".")) && f.err == nil {
		f.err = fmt.Errorf("%w: %s is %q", ErrAnswer, name, printable(s))
	}
	return printable(v)
}

// number is a t that fits an int64.
func (f *fields) number(name string) int64 {
	v := field[uint64](f, name)
	if v > math.MaxInt64 && f.err == nil {
		f.err = fmt.Errorf("%w: %s is %d", ErrAnswer, name, v)
	}
	return int64(v & math.MaxInt64)
}

// when is a time in microseconds since the Epoch; 0 is none.
func (f *fields) when(name string) time.Time { return when(uint64(f.number(name))) }

func when(us uint64) time.Time {
	if us == 0 || us > math.MaxInt64 {
		return time.Time{}
	}
	return time.UnixMicro(int64(us))
}

// counters is an a{st}.
func (f *fields) counters(name string) map[string]uint64 {
	m := make(map[string]uint64)
	for _, e := range field[wire.Dict](f, name).Entries {
		k, ok1 := e.Key.(string)
		v, ok2 := e.Value.(uint64)
		if !ok1 || !ok2 {
			if f.err == nil {
				f.err = wrongType(name, e.Value)
			}
			continue
		}
		m[printable(k)] = v
	}
	return m
}

// printable is a text that a terminal takes for nothing but text, in one line.
func printable(s string) string { return clean(s, false) }

// lines is printable with its newlines and tabs.
func lines(s string) string { return clean(s, true) }

func clean(s string, newlines bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case newlines && (r == '\n' || r == '\t'):
			return r
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}
