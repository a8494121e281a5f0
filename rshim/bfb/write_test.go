// SPDX-License-Identifier: Apache-2.0

package bfb_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
)

func part(id bfb.ID, version uint8, data string) bfb.Part {
	return bfb.Part{ID: id, Version: version, Data: strings.NewReader(data)}
}

func build(t testing.TB, parts ...bfb.Part) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := bfb.Write(&b, parts...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sample has every length of padding, an empty image and one id twice.
func sample(t testing.TB) []byte {
	return build(t,
		part(bfb.IDBL2, 1, "seven.."),
		part(bfb.IDBL2, 2, "eight..."),
		part(bfb.IDBL31, 0, ""),
		part(bfb.IDImage, 0, "0123456789"),
		part(bfb.IDInitramfs, 0, "x"))
}

// TestWriteGolden compares with what mlx-mkbfb 2.8.2 writes for
// --bl2-v1="=hello" --initramfs="=BlueField".
func TestWriteGolden(t *testing.T) {
	got := build(t, part(bfb.IDBL2, 1, "hello"), part(bfb.IDInitramfs, 0, "BlueField"))
	if want := mkbfb; !bytes.Equal(got, want) {
		t.Errorf("got\n% x\nwant\n% x", got, want)
	}
}

var mkbfb = []byte{
	0x42, 0x66, 0x02, 0x13, 0x21, 0x00, 0x31, 0x01, 0x05, 0x00, 0x00, 0x00, 0x1d, 0xb5, 0x13, 0xff,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80,
	'h', 'e', 'l', 'l', 'o', 0, 0, 0,
	0x42, 0x66, 0x02, 0x13, 0x21, 0x00, 0x30, 0x3f, 0x09, 0x00, 0x00, 0x00, 0xc6, 0x69, 0x41, 0x12,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	'B', 'l', 'u', 'e', 'F', 'i', 'e', 'l', 'd', 0, 0, 0, 0, 0, 0, 0,
}

func TestWriteHeaders(t *testing.T) {
	r := bfb.NewReader(bytes.NewReader(sample(t)))
	const image, initramfs = 1 << 62, 1 << 63
	for i, want := range []struct {
		next      uint8
		following uint64
	}{
		{2, 1<<1 | 1<<3 | image | initramfs},
		{0, 1<<3 | image | initramfs},
		{0, image | initramfs},
		{0, initramfs},
		{0, 0},
	} {
		img, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if img.NextVersion != want.next || img.Following != want.following || img.Last() != (i == 4) {
			t.Errorf("image %d: next version %d, following %#x", i, img.NextVersion, img.Following)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	for _, p := range []bfb.Part{part(64, 0, ""), part(bfb.IDBL2, bfb.MaxVersion+1, "")} {
		if err := bfb.Write(io.Discard, p); err == nil {
			t.Errorf("%v-v%d was written", p.ID, p.Version)
		}
	}
	for n := range len(sample(t)) {
		w := &limited{n}
		err := bfb.Write(w, part(bfb.IDBL2, 1, "seven.."), part(bfb.IDBL2, 2, "eight..."),
			part(bfb.IDBL31, 0, ""), part(bfb.IDImage, 0, "0123456789"), part(bfb.IDInitramfs, 0, "x"))
		if !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("room for %d bytes: %v", n, err)
		}
	}
}

// limited takes so many bytes and no more.
type limited struct{ left int }

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return l.left, io.ErrShortWrite
	}
	l.left -= len(p)
	return len(p), nil
}

// TestTail: bf.cfg and a root file system follow a BFB as they are.
func TestTail(t *testing.T) {
	image := sample(t)
	for _, tail := range []string{"", "odd", "ROOT", "oddROOT"} {
		s, err := bfb.Check(strings.NewReader(string(image)+tail), 0)
		if err != nil || s.Length != int64(len(image)) || s.Tail != int64(len(tail)) {
			t.Errorf("with %q after the BFB: %+v, %v", tail, s, err)
		}
	}
}
