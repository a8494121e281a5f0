// SPDX-License-Identifier: Apache-2.0

package sha256_test

import (
	"bytes"
	stdlib "crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/bluefield-go/bmc-rshim/internal/sha256"
)

// TestExamples are the examples of FIPS 180-4, and the message of a million
// letters that goes with them.
func TestExamples(t *testing.T) {
	for text, want := range map[string]string{
		"":    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
		string(bytes.Repeat([]byte("a"), 1_000_000)):               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
	} {
		if got := sha256.Sum256([]byte(text)); hex.EncodeToString(got[:]) != want {
			t.Errorf("%.20q: %x, want %s", text, got, want)
		}
	}
}

// TestLengths: messages of every length around the block's, whole and in pieces,
// with the digest asked for in between.
func TestLengths(t *testing.T) {
	p := make([]byte, 5*sha256.BlockSize)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	for n := range p {
		want := stdlib.Sum256(p[:n])
		if got := sha256.Sum256(p[:n]); got != want {
			t.Errorf("%d bytes: %x, want %x", n, got, want)
		}
		h := sha256.New()
		for at := 0; at < n; {
			m := min(1+rnd.IntN(90), n-at)
			_, _ = h.Write(p[at : at+m])
			at += m
			part := stdlib.Sum256(p[:at])
			if got := h.Sum([]byte{1, 2}); !bytes.Equal(got, append([]byte{1, 2}, part[:]...)) {
				t.Errorf("%d bytes of %d: %x, want %x", at, n, got, part)
			}
		}
		h.Reset()
		if got := h.Sum(nil); !bytes.Equal(got, sha256.New().Sum(nil)) {
			t.Errorf("after Reset: %x", got)
		}
	}
}

// FuzzSum compares with the standard library, whatever the pieces.
func FuzzSum(f *testing.F) {
	f.Add([]byte("abc"), uint8(1))
	f.Add(make([]byte, 200), uint8(63))
	f.Fuzz(func(t *testing.T, p []byte, piece uint8) {
		h := sha256.New()
		for left := p; len(left) > 0; {
			n, err := h.Write(left[:min(len(left), 1+int(piece))])
			if err != nil {
				t.Fatal(err)
			}
			left = left[n:]
		}
		if want := stdlib.Sum256(p); !bytes.Equal(h.Sum(nil), want[:]) {
			t.Errorf("%x, want %x", h.Sum(nil), want)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	p := make([]byte, 128<<10)
	b.SetBytes(int64(len(p)))
	h := sha256.New()
	for b.Loop() {
		_, _ = h.Write(p)
	}
}
