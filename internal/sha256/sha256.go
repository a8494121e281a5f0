// SPDX-License-Identifier: Apache-2.0

// Package sha256 is SHA-256 (FIPS 180-4) without the certified module that
// crypto/sha256 brings along, which is more than a hundred kilobytes in a
// daemon that hashes nothing but the images it pushes.
package sha256

import (
	"encoding/binary"
	"hash"
	"math/bits"
)

// Size is how many bytes a digest has, BlockSize how many bytes are hashed at a
// time.
const (
	Size      = 32
	BlockSize = 64
)

type digest struct {
	h    [8]uint32
	x    [BlockSize]byte
	have int    // bytes in x
	n    uint64 // bytes in all
}

// New returns a hash that has seen nothing.
func New() hash.Hash {
	d := new(digest)
	d.Reset()
	return d
}

// Sum256 is the digest of p.
func Sum256(p []byte) (sum [Size]byte) {
	d := New()
	_, _ = d.Write(p)
	d.Sum(sum[:0])
	return sum
}

func (d *digest) Size() int      { return Size }
func (d *digest) BlockSize() int { return BlockSize }

// Reset begins anew. The words are the first 32 bits of the fractional parts of
// the square roots of the first 8 primes.
func (d *digest) Reset() {
	*d = digest{h: [8]uint32{
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	}}
}

// Write takes more of the message. It always returns len(p), nil.
func (d *digest) Write(p []byte) (int, error) {
	size := len(p)
	d.n += uint64(size)
	if d.have > 0 {
		n := copy(d.x[d.have:], p)
		d.have += n
		p = p[n:]
		if d.have == BlockSize {
			d.blocks(d.x[:])
			d.have = 0
		}
	}
	if whole := len(p) &^ (BlockSize - 1); whole > 0 {
		d.blocks(p[:whole])
		p = p[whole:]
	}
	if len(p) > 0 {
		d.have = copy(d.x[:], p)
	}
	return size, nil
}

// Sum appends the digest of what was written to b; more can be written after.
func (d *digest) Sum(b []byte) []byte {
	end := *d
	// A one bit, zeros, and the length in bits, to the end of a block.
	var tail [BlockSize + 8]byte
	tail[0] = 0x80
	zeros := (BlockSize - 9 - int(d.n%BlockSize) + BlockSize) % BlockSize
	binary.BigEndian.PutUint64(tail[1+zeros:], d.n<<3)
	_, _ = end.Write(tail[:1+zeros+8])
	for _, w := range end.h {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// k are the first 32 bits of the fractional parts of the cube roots of the first
// 64 primes.
var k = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

// blocks hashes whole blocks. FIPS 180-4, section 6.2.2.
func (d *digest) blocks(p []byte) {
	var w [64]uint32
	for ; len(p) >= BlockSize; p = p[BlockSize:] {
		for t := range 16 {
			w[t] = binary.BigEndian.Uint32(p[4*t:])
		}
		for t := 16; t < len(w); t++ {
			a, b := w[t-2], w[t-15]
			s1 := bits.RotateLeft32(a, -17) ^ bits.RotateLeft32(a, -19) ^ a>>10
			s0 := bits.RotateLeft32(b, -7) ^ bits.RotateLeft32(b, -18) ^ b>>3
			w[t] = s1 + w[t-7] + s0 + w[t-16]
		}
		a, b, c, e, f, g := d.h[0], d.h[1], d.h[2], d.h[4], d.h[5], d.h[6]
		dd, h := d.h[3], d.h[7]
		for t := range w {
			t1 := h + (bits.RotateLeft32(e, -6) ^ bits.RotateLeft32(e, -11) ^ bits.RotateLeft32(e, -25)) +
				(e&f ^ ^e&g) + k[t] + w[t]
			t2 := (bits.RotateLeft32(a, -2) ^ bits.RotateLeft32(a, -13) ^ bits.RotateLeft32(a, -22)) +
				(a&b ^ a&c ^ b&c)
			h, g, f, e, dd, c, b, a = g, f, e, dd+t1, c, b, a, t1+t2
		}
		for i, v := range [8]uint32{a, b, c, dd, e, f, g, h} {
			d.h[i] += v
		}
	}
}
