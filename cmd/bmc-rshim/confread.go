// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bluefield-go/bmc-rshim/rshim"
)

// Limits of a file. The longest tokens are those of the C daemon; the rest is
// to keep a file that is none from taking the BMC's memory.
const (
	maxKey      = 31      // bytes
	maxValue    = 63      // bytes
	maxConfLine = 4 << 10 // bytes of a line that are looked at
	maxConf     = 16 << 20
	maxRemarks  = 100
	maxBlocked  = 64 // as in the C daemon
)

// remark is what is to be said about a line of the file.
type remark struct {
	line  int // from 1
	wrong int // how many things are wrong; 0: it is just of no effect
	text  string
}

// confReader is a file being read.
type confReader struct {
	conf
	line      int
	remarks   []remark
	left      int                      // remarks that are too many
	leftWrong int                      // as remark's, of these
	seen      map[string]int           // line of what was set: a key, "rshim3", "none usb-1.1"
	slots     [rshim.MaxDevices]string // device by index
}

// readConf reads a file in the C daemon's format: a key and a value in a line,
// and what comes after them does not matter; lines that begin with # are
// comments. Of two lines for the same key the last one counts. Lines that are
// wrong or of no effect do not keep the others from being used. The error is one
// of r. Source: rshim 2.8.2, rshim_load_cfg.
func readConf(r io.Reader) (conf, []remark, error) {
	c := &confReader{conf: newConf(), seen: make(map[string]int)}
	b := bufio.NewReaderSize(io.LimitReader(r, maxConf), maxConfLine)
	size := 0
	var err error
	for err == nil {
		var text []byte
		text, err = b.ReadSlice('\n')
		size += len(text)
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(text) > 0 {
			c.line++
			c.read(text, cut)
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			text, err = b.ReadSlice('\n')
			size += len(text)
		}
	}
	if size == maxConf {
		c.warn("what comes after %d MiB is not read", maxConf>>20)
	}
	if c.left > 0 {
		c.remarks = append(c.remarks, remark{c.line, c.leftWrong, fmt.Sprintf("and %d more", c.left)})
	}
	for i, name := range c.slots {
		if _, twice := c.index[name]; name != "" && !twice {
			c.index[name] = i
		}
	}
	if err == io.EOF {
		err = nil
	}
	return c.conf, c.remarks, err
}

// warn remarks that something is wrong, note that something is of no effect.
//
//go:noinline
func (c *confReader) warn(format string, args ...any) { c.remark(1, format, args...) }
func (c *confReader) note(format string, args ...any) { c.remark(0, format, args...) }

func (c *confReader) remark(wrong int, format string, args ...any) {
	if len(c.remarks) < maxRemarks {
		c.remarks = append(c.remarks, remark{c.line, wrong, fmt.Sprintf(format, args...)})
		return
	}
	c.left++
	c.leftWrong += wrong
}

// read takes a line; cut means that it is just the beginning of one.
func (c *confReader) read(line []byte, cut bool) {
	line, _, nul := bytes.Cut(line, []byte{0}) // where C strings end
	key, rest := token(line)
	value, rest := token(rest)
	switch {
	case strings.HasPrefix(key, "#"):
		return
	case nul:
		c.warn("a NUL byte ends what counts of the line")
	case cut && rest == nil:
		c.warn("the line is too long: its first %d bytes are no key and value", maxConfLine)
		return
	}
	known := lookUp(key)
	switch {
	case key == "":
	case key == keyNCSI, key == keyMetrics:
		c.setText(key, value, string(rest))
	case len(key) > maxKey:
		c.warn("%q...: a key has %d bytes at most", key[:maxKey], maxKey)
	case known == nil && key != "none" && !isMapping(key, value):
		c.warn("unknown key %q%s", key, c.didYouMean(key))
	case value == "":
		c.warn("no value for %q", key)
	case len(value) > maxValue:
		c.warn("%q: a value has %d bytes at most, not %d", key, maxValue, len(value))
	case known != nil:
		c.set(known, value)
	case key == "none":
		c.block(value)
	default:
		c.mapTo(key, value)
	}
}

// token splits off what is between white space. The rest is nil at the end of
// the line.
func token(line []byte) (_ string, rest []byte) {
	const space = " \t\n\v\f\r"
	line = bytes.TrimLeft(line, space)
	if i := bytes.IndexAny(line, space); i >= 0 {
		return string(line[:i]), line[i:]
	}
	return string(line), nil
}

// setText takes the value of a key that has a text.
func (c *confReader) setText(key, value, rest string) {
	if value == "" {
		c.warn("no value for %q", key)
		return
	}
	if before := c.seen[key]; before > 0 {
		c.warn("%s is in line %d already: the last one counts", key, before)
	}
	c.seen[key] = c.line
	if key == keyNCSI {
		c.ncsi = append([]string{value}, strings.Fields(rest)...)
		return
	}
	if !filepath.IsAbs(value) {
		c.warn("%s is an absolute path, not %q", key, value)
		return
	}
	if strings.TrimSpace(rest) != "" {
		c.warn("%s: of the line just %q counts", key, value)
	}
	c.metrics = value
}

func lookUp(key string) *confKey {
	for i := range confKeys {
		if confKeys[i].name == key {
			return &confKeys[i]
		}
	}
	return nil
}

// set takes the value of a key that has a number.
func (c *confReader) set(k *confKey, value string) {
	if k.at == nil {
		c.note("%s has no effect%s", k.name, k.idle)
		return
	}
	n, rest, ok := leadingNumber(value)
	switch {
	case ok && k.isSwitch() && (n < 0 || n > 1):
		on := min(max(n, 0), 1)
		c.warn("%s is 0 or 1: %q counts as %d", k.name, value, on)
		n = on
	case !ok || n < k.low || n > k.high && !k.time:
		c.warn("%s is %s, not %q", k.name, k.span(), value)
		return
	case n > k.high:
		c.warn("%s is %s: %d is used for %q", k.name, k.span(), k.high, value)
		n = k.high
	case rest != "":
		c.warn("%s: of %q just %d counts", k.name, value, n)
	}
	if n == 0 && k.zero != 0 {
		c.note("%s: 0 stands for %d", k.name, k.zero)
		n = k.zero
	}
	at := k.at(&c.conf)
	if before := c.seen[k.name]; before > 0 && *at != n {
		c.warn("%s is %d in line %d: the last one counts", k.name, *at, before)
	}
	*at, c.seen[k.name] = n, c.line
}

func (k *confKey) span() string {
	if k.isSwitch() {
		return "0 or 1"
	}
	unit := ""
	if k.time {
		unit = " of seconds"
	}
	return fmt.Sprintf("a number%s from %d to %d", unit, k.low, k.high)
}

// leadingNumber is C's atoi: what comes after the number does not matter. One
// that is too big for it is the biggest there is.
func leadingNumber(s string) (n int, rest string, ok bool) {
	digits := strings.TrimLeft(strings.TrimLeft(s, "+-"), "0123456789")
	number := s[:len(s)-len(digits)]
	v, err := strconv.ParseInt(number, 10, 32)
	if errors.Is(err, strconv.ErrRange) {
		if v > 0 {
			return math.MaxInt32, digits, true
		}
		return math.MinInt32, digits, true
	}
	return int(v), digits, err == nil
}
