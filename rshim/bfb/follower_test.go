// SPDX-License-Identifier: Apache-2.0

package bfb_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

var _ io.Writer = (*bfb.Follower)(nil)

// TestFollower passes a BFB and its tail by one byte at a time.
func TestFollower(t *testing.T) {
	file := sample(t)
	length := int64(len(file))
	stream := append(file, "tail"...)
	var f bfb.Follower
	last := ""
	for i := range stream {
		at := int64(i)
		if f.Offset() != at {
			t.Fatalf("offset %d, want %d", f.Offset(), at)
		}
		if got, want := f.Recognised(), at >= 4; got != want {
			t.Fatalf("at %d: recognised %v", at, got)
		}
		if got, want := f.Complete(), at >= length; got != want {
			t.Fatalf("at %d: complete %v", at, got)
		}
		left := f.Remaining()
		if at >= 4 && at < length && (left <= 0 || left > length-at) {
			t.Fatalf("at %d: %d remain, in truth %d", at, left, length-at)
		}
		if at >= length && left != 0 {
			t.Fatalf("in the tail: %d remain", left)
		}
		if got, want := f.Tail(), max(0, at-length); got != want {
			t.Fatalf("at %d: tail %d", at, got)
		}
		if got, want := f.Finish(), at < length; errors.Is(got, bfb.ErrTruncated) != want {
			t.Fatalf("at %d: Finish: %v", at, got)
		}
		if img, ok := f.Image(); ok && img.String() != last {
			last = img.String()
			t.Logf("%3d %v", at, last)
		}
		f.Write(stream[i : i+1])
	}
	if f.Err() != nil || f.Finish() != nil || f.Tail() != 4 || last != "initramfs-v0" {
		t.Errorf("at the end: %v, %v, tail %d, image %q", f.Err(), f.Finish(), f.Tail(), last)
	}
	if _, ok := f.Image(); ok {
		t.Error("an image in the tail")
	}
}

// TestFollowerRemaining knows the images' headers in advance.
func TestFollowerRemaining(t *testing.T) {
	var f bfb.Follower
	file := sample(t)
	for _, tt := range []struct{ upTo, want int64 }{
		{4, 20},
		{23, 1},
		{24, 8 + 4*24}, // bl2, bl31, image and initramfs are announced
		{32, 4 * 24},
		{56, 8 + 3*24},
		{64, 3 * 24},
		{88, 2 * 24}, // the empty image is over with its header
		{112, 16 + 24},
		{128, 24},
		{152, 8},
		{159, 1},
		{160, 0},
	} {
		f.Write(file[f.Offset():tt.upTo])
		if got := f.Remaining(); got != tt.want {
			t.Errorf("at %d: %d remain, want %d", tt.upTo, got, tt.want)
		}
	}
}

func TestFollowerOfSomethingElse(t *testing.T) {
	var f bfb.Follower
	f.Write(bytes.Repeat([]byte("no BFB "), 100))
	if f.Recognised() || f.Complete() || f.Remaining() != 0 || f.Offset() != 700 {
		t.Errorf("got %+v", f)
	}
	if !errors.Is(f.Err(), bfb.ErrMagic) || f.Finish() != f.Err() {
		t.Errorf("got %v, %v", f.Err(), f.Finish())
	}
	if _, ok := f.Image(); ok {
		t.Error("an image")
	}
}

func TestFollowerCRC(t *testing.T) {
	file := sample(t)
	file[bfb.HeaderSize] ^= 1
	for _, skip := range []bool{false, true} {
		f := bfb.Follower{SkipCRC: skip}
		f.Write(file)
		if !f.Recognised() || !f.Complete() {
			t.Errorf("skip %v: lost", skip)
		}
		if got := errors.Is(f.Finish(), bfb.ErrCRC); got == skip {
			t.Errorf("skip %v: %v", skip, f.Finish())
		}
	}
}

func TestFollowerAllocatesNothing(t *testing.T) {
	file := sample(t)
	var f bfb.Follower
	if n := testing.AllocsPerRun(100, func() {
		f = bfb.Follower{}
		for i := 0; i < len(file); i += 7 {
			f.Write(file[i:min(i+7, len(file))])
		}
	}); n != 0 || !f.Complete() {
		t.Errorf("%v allocations, complete %v", n, f.Complete())
	}
}
