// SPDX-License-Identifier: Apache-2.0

package bfb_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

func TestReader(t *testing.T) {
	file := append(sample(t), "the tail"...)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole":           func(r io.Reader) io.Reader { return r },
		"byte by byte":    iotest.OneByteReader,
		"halves":          iotest.HalfReader,
		"EOF with data":   iotest.DataErrReader,
		"no other method": func(r io.Reader) io.Reader { return struct{ io.Reader }{r} },
	} {
		t.Run(name, func(t *testing.T) {
			r := bfb.NewReader(wrap(bytes.NewReader(file)))
			for _, want := range []struct {
				name, data string
				offset     int64
			}{
				{"bl2-v1", "seven..", 0},
				{"bl2-v2", "eight...", 32},
				{"bl31-v0", "", 64},
				{"image-v0", "0123456789", 88},
				{"initramfs-v0", "x", 128},
			} {
				img, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(r)
				if img.String() != want.name || string(data) != want.data || img.Offset != want.offset || err != nil {
					t.Errorf("got %v at %d, %q, %v; want %+v", img, img.Offset, data, err, want)
				}
				if img.Last() {
					continue
				}
				if r.Tail() != nil {
					t.Errorf("%v: a tail before the end", img)
				}
			}
			for range 2 {
				if _, err := r.Next(); err != io.EOF {
					t.Fatalf("after the last image: %v", err)
				}
			}
			if tail, err := io.ReadAll(r.Tail()); string(tail) != "the tail" || err != nil {
				t.Errorf("tail %q, %v", tail, err)
			}
		})
	}
}

func TestReaderSkipsWhatWasNotRead(t *testing.T) {
	r := bfb.NewReader(bytes.NewReader(sample(t)))
	var names []string
	for {
		img, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, img.String())
		io.CopyN(io.Discard, r, 3) // stops in the middle, or at the end
	}
	if got := strings.Join(names, " "); got != "bl2-v1 bl2-v2 bl31-v0 image-v0 initramfs-v0" {
		t.Errorf("got %s", got)
	}
}

func TestReaderReportsCRCOnce(t *testing.T) {
	file := sample(t)
	file[bfb.HeaderSize] ^= 1

	r := bfb.NewReader(bytes.NewReader(file))
	r.Next()
	if _, err := io.ReadAll(r); !errors.Is(err, bfb.ErrCRC) {
		t.Errorf("Read: %v", err)
	}
	if img, err := r.Next(); err != nil || img.Version != 2 {
		t.Errorf("Next after Read: %v, %v", img, err)
	}

	r = bfb.NewReader(bytes.NewReader(file))
	r.Next()
	if _, err := r.Next(); !errors.Is(err, bfb.ErrCRC) {
		t.Errorf("Next: %v", err)
	}
	if img, err := r.Next(); err != nil || img.Version != 2 {
		t.Errorf("Next after Next: %v, %v", img, err)
	}
}

func TestReaderPassesOnErrorsOfTheSource(t *testing.T) {
	file := sample(t)
	broken := errors.New("broken")
	for n := range len(file) {
		src := io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken))
		if _, err := bfb.Check(src, 0); err != broken {
			t.Fatalf("at %d: %v", n, err)
		}
	}
	src := io.MultiReader(bytes.NewReader(file), iotest.ErrReader(broken))
	if s, err := bfb.Check(src, 0); err != broken || s.Length != int64(len(file)) {
		t.Errorf("in the tail: %+v, %v", s, err)
	}
}
