// SPDX-License-Identifier: Apache-2.0

// Mkbfb makes a BFB to try things with: the images that a real one has, in the
// order of a real one, with made-up content. The same flags give the same file.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

func main() {
	out := flag.String("o", "", "`file` to write")
	chip := flag.Int("chip", 3, "`generation` of the BlueField: 1, 2 or 3")
	size := flag.Int64("size", 32<<20, "of the file, about, in `bytes`")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 || *chip < 1 || *chip > 3 {
		fmt.Fprintln(os.Stderr, "usage: mkbfb -o FILE [flags]")
		flag.PrintDefaults()
		os.Exit(2)
	}
	if err := write(*out, reg.Generation(*chip), *size); err != nil {
		fmt.Fprintln(os.Stderr, "mkbfb:", err)
		os.Exit(1)
	}
}

func write(name string, g reg.Generation, size int64) error {
	v := bfb.VersionOf(g)
	var parts []bfb.Part
	left := size
	add := func(id bfb.ID, version uint8, n int64) {
		parts = append(parts, bfb.Part{ID: id, Version: version, Data: &noise{id: id, size: n}})
		left = max(0, left-n)
	}
	if g == reg.BlueField3 {
		add(bfb.IDPSCBL, v, 153_360)
	}
	add(bfb.IDBL2R, v, 49_171)
	add(bfb.IDBL2, v, 187_203)
	add(bfb.IDBL31, v, 98_307)
	add(bfb.IDBL33, v, 3_100_001)
	for _, b := range []struct {
		id   bfb.ID
		text string
	}{
		{bfb.IDBootACPI, "=ACPI0"},
		{bfb.IDBootDesc, "Linux from rshim"},
		{bfb.IDBootPath, "VenHw(F019E406-8C9C-11E5-8797-001ACA00BFC4)/Image"},
		{bfb.IDBootArgs, "console=hvc0 console=ttyAMA0 ro initrd=initramfs"},
	} {
		parts = append(parts, bfb.Part{ID: b.id, Data: strings.NewReader(b.text)})
	}
	add(bfb.IDImage, 0, left/3)
	add(bfb.IDInitramfs, 0, left)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(bfb.Write(w, parts...), w.Flush(), f.Close())
}

// noise is size bytes that cannot be compressed, the same ones for an id.
type noise struct {
	id   bfb.ID
	size int64
	left int64
	src  *rand.ChaCha8
}

// Seek goes back to the start, which is all that bfb.Write asks for.
func (n *noise) Seek(int64, int) (int64, error) {
	n.left, n.src = n.size, rand.NewChaCha8([32]byte{byte(n.id)})
	return 0, nil
}

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.left)]
	n.left -= int64(len(p))
	return n.src.Read(p)
}
