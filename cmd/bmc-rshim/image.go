// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bluefield-go/bmc-rshim/internal/fdread"
	"github.com/bluefield-go/bmc-rshim/internal/sha256"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

// image is what shall be pushed: a file of any kind, or what else stdin is.
type image struct {
	name   string
	file   *os.File        // nil: it is none
	stdin  io.Reader       // if it is no file
	whole  *corepush.Image // if file can be read twice
	length int64           // in bytes; -1 if not known before its end
	opened bool            // file is the image's to close
}

// openImage opens a file, or standard input for "-".
func openImage(ctx context.Context, name string, stdin io.Reader) (*image, error) {
	img := &image{name: name, stdin: stdin, length: -1}
	if name == "-" {
		img.file, _ = stdin.(*os.File)
	} else {
		// Opening a FIFO waits for its writer.
		f, err := blocking(ctx, func() (*os.File, error) { return os.Open(name) })
		if err != nil {
			return nil, err
		}
		img.file, img.opened = f, true
	}
	if img.file == nil {
		return img, nil
	}
	info, err := img.file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a directory", name)
	case info.Mode().IsRegular():
		if img.whole, err = corepush.OpenFile(img.file, img.title()); err == nil {
			img.length = img.whole.Length()
		}
	}
	if err != nil {
		img.close()
		return nil, err
	}
	return img, nil
}

func (img *image) close() {
	if img.opened {
		_ = img.file.Close()
	}
}

// title is the image's name for people.
func (img *image) title() string {
	if img.name == "-" {
		return "standard input"
	}
	return img.name
}

// read is the image for who reads it in this process, until done is called.
func (img *image) read() (_ *corepush.Image, done func(), err error) {
	switch {
	case img.whole != nil:
		return img.whole, func() {}, nil
	case img.file == nil:
		return corepush.NewPipe(leaving{img.stdin}, img.title()), func() {}, nil
	}
	raw, err := img.file.SyscallConn() // Fd may have its calls block
	if err != nil {
		return nil, nil, err
	}
	var r *fdread.Reader
	if cerr := raw.Control(func(fd uintptr) { r, err = fdread.New(fd, img.title()) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, nil, err
	}
	return corepush.NewPipe(r, img.title()), func() { _ = r.Close() }, nil
}

// leaving is the source of a reader that knows no contexts: a Read that its
// context has ended is left behind, with a buffer of its own.
type leaving struct{ r io.Reader }

func (l leaving) Read(ctx context.Context, p []byte) (int, error) {
	own := make([]byte, len(p))
	type result struct {
		n   int
		err error
	}
	// An error does not keep what came with it from being passed on.
	got, err := blocking(ctx, func() (result, error) {
		n, err := l.r.Read(own)
		return result{n, err}, nil
	})
	if err != nil {
		return 0, err
	}
	return copy(p, own[:got.n]), got.err
}

// pipe gives an image that is no file as one, which the daemon can read.
func (img *image) pipe() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(w, img.stdin)
		w.Close()
	}()
	return r, nil
}

// refusal is what follows from an image that was refused.
func refusal(err error) error {
	if strings.Contains(err.Error(), corepush.ErrDigest.Error()) { // also as the daemon's words
		return &exitError{exitRefused, err}
	}
	return exitWith(exitRefused, "%w (-no-check pushes it all the same)", err)
}

// digestOf is the digest of an image whose SHA-256 is to be sum, in hexadecimal;
// "" is any.
func digestOf(sum string) corepush.Digest {
	b, err := hex.DecodeString(sum)
	if err != nil || len(b) == 0 {
		return corepush.Digest{}
	}
	return corepush.Digest{Hash: sha256.New(), Sum: b}
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}
