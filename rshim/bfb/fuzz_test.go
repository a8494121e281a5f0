// SPDX-License-Identifier: Apache-2.0

package bfb_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// FuzzCheck gives any bytes to Check and Follower, split in any way, which
// must come to the same verdict.
func FuzzCheck(f *testing.F) {
	file := sample(f)
	f.Add(file, uint8(1))
	f.Add(append(bytes.Clone(file), "tail"...), uint8(7))
	f.Add(file[:len(file)-3], uint8(23))
	f.Add(mkbfb, uint8(24))
	f.Add(golden[:], uint8(255))
	f.Add([]byte("Bf"), uint8(0))
	f.Fuzz(func(t *testing.T, file []byte, split uint8) {
		s, err := bfb.Check(bytes.NewReader(file), 0)
		if err == nil && s.Length+s.Tail != int64(len(file)) {
			t.Fatalf("%d and %d of %d bytes", s.Length, s.Tail, len(file))
		}
		if len(s.Images)*bfb.HeaderSize > len(file) {
			t.Fatalf("%d images in %d bytes", len(s.Images), len(file))
		}
		for g := reg.BlueField1; g <= reg.BlueField3; g++ {
			s.Fits(g)
		}

		var fo bfb.Follower
		size := int(split) + 1
		for i := 0; i < len(file); i += size {
			promised := fo.Remaining()
			piece := file[i:min(i+size, len(file))]
			if n, err := fo.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
			if fo.Complete() && int64(len(piece)) < promised {
				t.Fatalf("complete after %d more bytes, %d were promised to come", len(piece), promised)
			}
		}
		if got := fo.Finish(); !same(got, err) {
			t.Fatalf("Follower: %v\nCheck: %v", got, err)
		}
		if err == nil && (!fo.Complete() || !fo.Recognised() || fo.Tail() != s.Tail || fo.Remaining() != 0) {
			t.Fatalf("Follower %+v\nCheck %+v", fo, s)
		}
		if fo.Offset() != int64(len(file)) {
			t.Fatalf("offset %d of %d", fo.Offset(), len(file))
		}
		if err == nil {
			rewrite(t, file, s)
		}
	})
}

func same(a, b error) bool {
	var fa, fb *bfb.FormatError
	if !errors.As(a, &fa) || !errors.As(b, &fb) {
		return a == nil && b == nil
	}
	return fa.Error() == fb.Error() && fa.Offset == fb.Offset && fa.Image == fb.Image
}

// rewrite writes the images of a good file anew; the data must come back.
func rewrite(t *testing.T, file []byte, s *bfb.Summary) {
	var parts []bfb.Part
	for _, img := range s.Images {
		if int(img.ID) > 63 {
			return // the first image is not announced, and can have any id
		}
		at := img.Offset + bfb.HeaderSize
		parts = append(parts, bfb.Part{ID: img.ID, Version: img.Version,
			Data: bytes.NewReader(file[at : at+int64(img.Length)])})
	}
	r := bfb.NewReader(bytes.NewReader(build(t, parts...)))
	for _, p := range parts {
		img, err := r.Next()
		if err != nil || img.ID != p.ID || img.Version != p.Version {
			t.Fatalf("%v, %v; want %v", img, err, p.ID)
		}
		got, err := io.ReadAll(r)
		want := make([]byte, img.Length)
		p.Data.Seek(0, io.SeekStart)
		io.ReadFull(p.Data, want)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v: %q, %v; want %q", img, got, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
}

// FuzzHeader decodes and encodes.
func FuzzHeader(f *testing.F) {
	f.Add(golden[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var h, again bfb.Header
		if h.Decode(b) != nil {
			return
		}
		enc := h.Encode()
		if err := again.Decode(enc[:]); err != nil || again != h {
			t.Fatalf("%+v, %v; want %+v", again, err, h)
		}
	})
}

// FuzzWrite makes a BFB out of any data: each image has an id, a version, a
// length and that much of the data.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("\x01\x01\x05hello\x3f\x00\x09BlueField"), []byte("tail"))
	f.Fuzz(func(t *testing.T, spec, tail []byte) {
		var parts []bfb.Part
		for len(spec) >= 3 && len(parts) < 200 {
			n := min(int(spec[2]), len(spec)-3)
			parts = append(parts, bfb.Part{ID: bfb.ID(spec[0] & 63), Version: spec[1] & 15,
				Data: bytes.NewReader(spec[3 : 3+n])})
			spec = spec[3+n:]
		}
		if len(parts) == 0 {
			return
		}
		file := build(t, parts...)
		s, err := bfb.Check(io.MultiReader(bytes.NewReader(file), bytes.NewReader(tail)), 0)
		if err != nil || len(s.Images) != len(parts) || s.Length != int64(len(file)) || s.Tail != int64(len(tail)) {
			t.Fatalf("%+v, %v", s, err)
		}
	})
}
