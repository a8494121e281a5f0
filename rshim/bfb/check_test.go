// SPDX-License-Identifier: Apache-2.0

package bfb_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

func TestCheck(t *testing.T) {
	file := sample(t)
	s, err := bfb.Check(bytes.NewReader(append(file, "tail"...)), reg.BlueField3)
	if err != nil {
		t.Fatal(err)
	}
	if s.Length != int64(len(file)) || s.Tail != 4 || len(s.Images) != 5 {
		t.Errorf("got %+v", s)
	}
	for _, img := range s.Images {
		if !img.CRCOK {
			t.Errorf("%v: CRC not good", img)
		}
	}
}

// check returns the error of Check; it must be a *FormatError at that offset.
func check(t *testing.T, file []byte, offset int64, want error) *bfb.Summary {
	t.Helper()
	s, err := bfb.Check(bytes.NewReader(file), 0)
	var fe *bfb.FormatError
	if !errors.Is(err, want) || !errors.As(err, &fe) || fe.Offset != offset {
		t.Fatalf("got %v, want offset %d: %v", err, offset, want)
	}
	return s
}

func TestR24BadCRC(t *testing.T) {
	good := sample(t)
	covered := func(i int) bool { // CRC field, data and padding, by image
		for _, img := range []struct{ at, size int }{{0, 8}, {32, 8}, {64, 0}, {88, 16}, {128, 8}} {
			if i >= img.at+12 && i < img.at+16 || i >= img.at+24 && i < img.at+24+img.size {
				return true
			}
		}
		return false
	}
	for i := range good {
		if !covered(i) {
			continue
		}
		file := bytes.Clone(good)
		file[i] ^= 0x10
		s, err := bfb.Check(bytes.NewReader(file), 0)
		if !errors.Is(err, bfb.ErrCRC) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		bad := 0
		for _, img := range s.Images {
			if !img.CRCOK {
				bad++
			}
		}
		if bad != 1 || len(s.Images) != 5 || s.Length != int64(len(good)) {
			t.Errorf("byte %d changed: %d of %d images are bad", i, bad, len(s.Images))
		}
	}
}

// TestR24Truncated cuts a BFB at every offset.
func TestR24Truncated(t *testing.T) {
	good := sample(t)
	for n := range good {
		s, err := bfb.Check(bytes.NewReader(good[:n]), 0)
		var fe *bfb.FormatError
		if !errors.Is(err, bfb.ErrTruncated) || !errors.As(err, &fe) || fe.Offset > int64(n) || s.Length != int64(n) {
			t.Fatalf("cut at %d: %v, %+v", n, err, s)
		}
	}
}

func TestR24Padding(t *testing.T) {
	for n := range 17 {
		data := strings.Repeat("d", n)
		file := build(t, part(bfb.IDImage, 0, data))
		if want := bfb.HeaderSize + (n+7)/8*8; len(file) != want {
			t.Errorf("%d bytes of data: file has %d, want %d", n, len(file), want)
		}
		r := bfb.NewReader(bytes.NewReader(append(file, "tail"...)))
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); string(got) != data || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%d bytes of data: %v", n, err)
		}
	}
}

func TestR24BadHeaders(t *testing.T) {
	good := sample(t)
	tests := []struct {
		name          string
		index, offset int64
		value         byte
		want          error
	}{
		{"magic of the first", 0, 0, 'X', bfb.ErrMagic},
		{"magic of the second", 35, 32, 0, bfb.ErrMagic},
		{"major", 36, 32, 0x22, bfb.ErrVersion},
		{"minor", 36, 32, 0x31, bfb.ErrVersion},
		{"header length", 38, 32, 0x42, bfb.ErrVersion},
		{"id not announced", 39, 32, 2, bfb.ErrBitmap},
		{"id above 63", 39, 32, 200, bfb.ErrBitmap},
		{"bitmap gains an id", 32 + 17, 32, 1, bfb.ErrBitmap},
		{"bitmap loses another id", 32 + 16, 32, 0, bfb.ErrBitmap},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := bytes.Clone(good)
			file[tt.index] = tt.value
			check(t, file, tt.offset, tt.want)
		})
	}
	check(t, nil, 0, bfb.ErrTruncated)
	check(t, []byte("Be"), 0, bfb.ErrMagic)
	check(t, []byte("#!/bin/sh\nexec something"), 0, bfb.ErrMagic)
	check(t, append(good[:64:64], "Bfx"...), 64, bfb.ErrMagic)
}

// TestR24HugeLength claims 4 GiB and has 10 bytes.
func TestR24HugeLength(t *testing.T) {
	file := build(t, part(bfb.IDInitramfs, 0, "0123456789"))[:bfb.HeaderSize+10]
	for _, length := range []uint32{11, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 8, 1<<32 - 1} {
		binary.LittleEndian.PutUint32(file[8:], length)
		s := check(t, file, int64(len(file)), bfb.ErrTruncated)
		if len(s.Images) != 1 || s.Images[0].Length != length || s.Images[0].CRCOK {
			t.Errorf("length %d: got %+v", length, s)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			bfb.Check(bytes.NewReader(file), 0)
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / 10; n > 256<<10 {
			t.Errorf("length %d: %d bytes allocated", length, n)
		}
	}
}

// TestR24EndlessImages feeds headers without data that announce one more for
// ever.
func TestR24EndlessImages(t *testing.T) {
	h := bfb.Header{Major: bfb.Major, Minor: bfb.Minor, ID: 1, Following: 1 << 1}.Encode()
	file := bytes.Repeat(h[:], 1<<16)
	s := check(t, file, 1024*bfb.HeaderSize, bfb.ErrBitmap)
	if len(s.Images) != 1024 {
		t.Errorf("%d images", len(s.Images))
	}
}

func TestCheckGeneration(t *testing.T) {
	bl2 := func(versions ...uint8) (parts []bfb.Part) {
		for _, v := range versions {
			parts = append(parts, part(bfb.IDBL2, v, fmt.Sprint("bl2 for ", v)))
		}
		return append(parts, part(bfb.IDImage, 0, "Linux"))
	}
	with := func(p bfb.Part, parts []bfb.Part) []bfb.Part { return append([]bfb.Part{p}, parts...) }
	for _, tt := range []struct {
		name  string
		parts []bfb.Part
		fits  []reg.Generation
	}{
		{"one for all", bl2(0, 1, 2), []reg.Generation{1, 2, 3}},
		{"BlueField-2 alone", bl2(1), []reg.Generation{2}},
		{"BlueField-3 alone", bl2(2), []reg.Generation{3}},
		{"BlueField-1 and -2", bl2(0, 1), []reg.Generation{1, 2}},
		{"BlueField-2 and -3", bl2(1, 2), []reg.Generation{2, 3}},
		{"not marked", bl2(0), []reg.Generation{1, 2, 3}},
		{"no boot firmware", bl2(), []reg.Generation{1, 2, 3}},
		{"PSC for BlueField-3 in front", with(part(bfb.IDPSCBL, 2, "psc"), bl2(1, 2)), []reg.Generation{2, 3}},
		{"BL2R alone", with(part(bfb.IDBL2R, 2, "bl2r"), bl2()), []reg.Generation{3}},
		{"BL2R for BlueField-3", with(part(bfb.IDBL2R, 2, "bl2r"), bl2(1, 2)), []reg.Generation{2, 3}},
		{"a chip to come", bl2(3), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := build(t, tt.parts...)
			var fits []reg.Generation
			for g := reg.BlueField1; g <= reg.BlueField3; g++ {
				s, err := bfb.Check(bytes.NewReader(file), g)
				if err == nil {
					fits = append(fits, g)
				} else if !errors.Is(err, bfb.ErrGeneration) {
					t.Errorf("%v: %v", g, err)
				}
				if len(s.Images) != len(tt.parts) || s.Length != int64(len(file)) {
					t.Errorf("%v: incomplete summary %+v", g, s)
				}
			}
			if fmt.Sprint(fits) != fmt.Sprint(tt.fits) {
				t.Errorf("fits %v, want %v", fits, tt.fits)
			}
		})
	}
}

func TestFormatErrorText(t *testing.T) {
	file := sample(t)
	file[56] ^= 1
	s, err := bfb.Check(bytes.NewReader(file), reg.BlueField2)
	const want = "bfb: offset 32: image bl2-v2: CRC mismatch: header says "
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s...", err, want)
	}
	if s.Images[1].CRCOK {
		t.Error("CRC good in the summary")
	}
	_, err = bfb.Check(bytes.NewReader(build(t, part(bfb.IDBL2, 1, "x"))), reg.BlueField3)
	const generation = "bfb: offset 0: image bl2: BFB is not for this chip: no boot firmware for BlueField-3"
	if err == nil || err.Error() != generation {
		t.Errorf("got %v, want %s", err, generation)
	}
}
