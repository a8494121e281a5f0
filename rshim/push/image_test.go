// SPDX-License-Identifier: Apache-2.0

package push

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

// part is an image of a BFB: its id, the generation it is marked for, and how
// long it is.
type part struct {
	id      bfb.ID
	version uint8
	size    int
}

func chainOf(t testing.TB, parts ...part) []byte {
	t.Helper()
	var b bytes.Buffer
	var ps []bfb.Part
	for _, p := range parts {
		rnd := rand.New(rand.NewPCG(uint64(p.id), uint64(p.size)))
		data := make([]byte, p.size)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		ps = append(ps, bfb.Part{ID: p.id, Version: p.version, Data: bytes.NewReader(data)})
	}
	if err := bfb.Write(&b, ps...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// good makes a BFB for BlueField-3 of about size bytes.
func good(t testing.TB, size int) []byte {
	v := bfb.VersionOf(reg.BlueField3)
	return chainOf(t, part{bfb.IDBL2R, v, 1000}, part{bfb.IDBL2, v, 3001}, part{bfb.IDImage, 0, size / 4}, part{bfb.IDInitramfs, 0, size - size/4})
}

func damaged(img []byte, at int) []byte {
	img = slices.Clone(img)
	img[at] ^= 0x10
	return img
}

// asFile and asPipe make an Image of some bytes.
func asFile(t testing.TB, p []byte) *Image {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.bfb")
	if err := os.WriteFile(name, append([]byte("before"), p...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Seek(6, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	img, err := OpenFile(f, "x.bfb")
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func asPipe(_ testing.TB, p []byte) *Image {
	return NewPipe(FromReader(iotest.HalfReader(bytes.NewReader(p))), "standard input")
}

var kinds = map[string]func(testing.TB, []byte) *Image{"file": asFile, "pipe": asPipe}

func digestOf(p []byte) Digest {
	sum := sha256.Sum256(p)
	return Digest{sha256.New(), sum[:]}
}

// all reads what an image has left to be sent.
func all(t testing.TB, img *Image) []byte {
	t.Helper()
	p, err := io.ReadAll(bound{t.Context(), img.src})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCheck: what is wrong is found before anything is touched: in a file
// wherever it is, in a pipe if it is near the start. What is good is sent from
// its start all the same.
func TestCheck(t *testing.T) {
	small, big := good(t, 20_000), good(t, 3<<20)
	other := chainOf(t, part{bfb.IDBL2, bfb.VersionOf(reg.BlueField2), 3000}, part{bfb.IDImage, 0, 20_000})
	text := []byte("#!/bin/sh\necho this is no BFB\n")
	for name, c := range map[string]struct {
		img  []byte
		o    CheckOptions
		file string // what a file is refused for; "": it is not
		pipe string
	}{
		"small":                   {small, CheckOptions{Generation: reg.BlueField3}, "", ""},
		"big":                     {big, CheckOptions{Generation: reg.BlueField3}, "", ""},
		"with a tail":             {append(slices.Clone(big), text...), CheckOptions{Generation: reg.BlueField3}, "", ""},
		"for any chip":            {other, CheckOptions{}, "", ""},
		"for another chip":        {other, CheckOptions{Generation: reg.BlueField3}, "no boot firmware for BlueField-3", "no boot firmware for BlueField-3"},
		"truncated":               {small[:len(small)-8], CheckOptions{}, "truncated", "truncated"},
		"big, truncated":          {big[:2<<20], CheckOptions{}, "truncated", ""},
		"damaged":                 {damaged(small, 3000), CheckOptions{}, "CRC mismatch", "CRC mismatch"},
		"damaged at its end":      {damaged(big, len(big)-100), CheckOptions{}, "CRC mismatch", ""},
		"no BFB":                  {text, CheckOptions{}, "not a BFB image header", "not a BFB image header"},
		"no BFB, as it may be":    {text, CheckOptions{NoFormat: true}, "", ""},
		"nothing":                 {nil, CheckOptions{}, "offset 0", "offset 0"},
		"digest":                  {big, CheckOptions{Digest: digestOf(big)}, "", ""},
		"digest, small":           {small, CheckOptions{Digest: digestOf(small)}, "", ""},
		"wrong digest":            {big, CheckOptions{Digest: digestOf(small)}, "digest is wrong", ""},
		"wrong digest, small":     {small, CheckOptions{Digest: digestOf(big)}, "digest is wrong", "digest is wrong"},
		"wrong digest, damaged":   {damaged(small, 3000), CheckOptions{Digest: digestOf(small)}, "digest is wrong", "digest is wrong"},
		"digest of what is bad":   {text, CheckOptions{Digest: digestOf(text)}, "not a BFB", "not a BFB"},
		"digest of any file":      {text, CheckOptions{NoFormat: true, Digest: digestOf(text)}, "", ""},
		"wrong digest of a file":  {text, CheckOptions{NoFormat: true, Digest: digestOf(small)}, "digest is wrong", ""},
		"wrong digest, truncated": {big[:2<<20], CheckOptions{Digest: digestOf(big)}, "digest is wrong", ""},
	} {
		for kind, make := range kinds {
			t.Run(kind+"/"+name, func(t *testing.T) {
				c.o.Digest = Digest{nil, c.o.Digest.Sum}
				if c.o.Digest.Sum != nil {
					c.o.Digest.Hash = sha256.New()
				}
				img, why := make(t, c.img), c.file
				if kind == "pipe" {
					why = c.pipe
				}
				if kind == "file" != img.Whole() || kind == "file" && img.Length() != int64(len(c.img)) || kind == "pipe" && img.Length() != -1 {
					t.Errorf("whole %v, length %d", img.Whole(), img.Length())
				}
				sum, err := img.Check(t.Context(), c.o)
				if why != "" {
					var refused *RefusedError
					if !errors.As(err, &refused) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), img.Name()+" refused") {
						t.Errorf("error %v, want %q", err, why)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if sum == nil != c.o.NoFormat {
					t.Errorf("summary %+v", sum)
				}
				if kind == "file" && !c.o.NoFormat && img.Checked() != int64(len(c.img)) {
					t.Errorf("%d bytes were checked", img.Checked())
				}
				if !bytes.Equal(all(t, img), c.img) {
					t.Error("it is not at its start again")
				}
			})
		}
	}
}

// TestCheckErrors: what cannot be read is not refused, and says why.
func TestCheckErrors(t *testing.T) {
	errFire := errors.New("the disk is on fire")
	img := NewPipe(FromReader(io.MultiReader(bytes.NewReader(good(t, 20_000)), iotest.ErrReader(errFire))), "-")
	var refused *RefusedError
	if _, err := img.Check(t.Context(), CheckOptions{}); !errors.Is(err, errFire) || errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for kind, make := range kinds {
		if _, err := make(t, good(t, 20_000)).Check(ctx, CheckOptions{}); !errors.Is(err, context.Canceled) || errors.As(err, &refused) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := OpenFile(d, "dir"); err == nil {
		t.Error("a directory is an image")
	}
}

// A pipe's head is refused only for what is certain.
func TestCheckHead(t *testing.T) {
	const v2, v3 = 1, 2 // BlueField-2, -3
	both := []part{{bfb.IDBL2R, v2, 100}, {bfb.IDBL2R, v3, 100}, {bfb.IDBL2, v2, 100}, {bfb.IDBL2, v3, 100}, {bfb.IDImage, 0, 1000}}
	for name, c := range map[string]struct {
		parts []part
		cut   int // bytes of the head; 0: all
		g     reg.Generation
		bad   bool
	}{
		"own":                  {both[1:], 0, reg.BlueField3, false},
		"both":                 {both, 0, reg.BlueField2, false},
		"other":                {[]part{both[0], both[2], both[4]}, 0, reg.BlueField3, true},
		"other, for any":       {[]part{both[0], both[2], both[4]}, 0, 0, false},
		"other, seen":          {[]part{both[0], both[2], both[4]}, 300, reg.BlueField3, true},
		"other, not seen":      {[]part{both[0], both[2], both[4]}, 100, reg.BlueField3, false},
		"own comes later":      {both, 400, reg.BlueField3, false},
		"bl2r alone":           {[]part{both[0], both[4]}, 150, reg.BlueField3, true},
		"no firmware":          {[]part{both[4]}, 0, reg.BlueField3, false},
		"newer for older chip": {[]part{both[3], both[4]}, 0, reg.BlueField2, true},
	} {
		t.Run(name, func(t *testing.T) {
			head := chainOf(t, c.parts...)
			if c.cut > 0 {
				head = head[:c.cut]
			}
			if _, err := checkHead(head, c.g); (err != nil) != c.bad {
				t.Errorf("error %v", err)
			}
		})
	}
}
