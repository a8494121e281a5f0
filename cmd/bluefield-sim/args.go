// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// args are the arguments of a command, taken one by one.
type args struct {
	left []string
	err  error
}

func (a *args) next() string {
	if len(a.left) == 0 {
		if a.err == nil {
			a.err = errors.New("an argument is missing")
		}
		return ""
	}
	s := a.left[0]
	a.left = a.left[1:]
	return s
}

func (a *args) rest() string {
	s := strings.Join(a.left, " ")
	a.left = nil
	return s
}

func (a *args) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// number takes a number of up to so many bits, in decimal, or 0x and hex.
func (a *args) number(bits int) uint64 {
	v, err := strconv.ParseUint(a.next(), 0, bits)
	a.fail(err)
	return v
}

func (a *args) endpoint() uint8 { return uint8(a.number(8)) }

func (a *args) register() reg.Addr {
	return reg.Addr{Channel: reg.Channel(a.number(16)), Offset: uint16(a.number(16))}
}

func (a *args) duration() time.Duration {
	d, err := time.ParseDuration(a.next())
	a.fail(err)
	return d
}

func (a *args) oneOf(words ...string) int {
	s := a.next()
	i := slices.Index(words, s)
	if i < 0 {
		a.fail(fmt.Errorf("%q is none of %s", s, strings.Join(words, ", ")))
	}
	return i
}

func (a *args) onOff() bool { return a.oneOf("off", "on") == 1 }
