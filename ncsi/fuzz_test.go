// SPDX-License-Identifier: Apache-2.0

package ncsi_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

// FuzzParse decodes any bytes, encodes what came of them, and decodes that.
func FuzzParse(f *testing.F) {
	for _, frame := range frames {
		b := unhex(f, frame.packet)
		f.Add(b)
		f.Add(append(b, make([]byte, 18)...))
		f.Add(b[:len(b)-4])
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		p, sum, err := ncsi.Parse(in)
		if !bytes.Equal(in, before) {
			t.Fatal("Parse writes")
		}
		if err != nil {
			if !errors.Is(err, ncsi.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if sum == ncsi.ChecksumBad {
			t.Fatal("a bad checksum and no error")
		}
		b, err := p.Append(nil)
		if err != nil || len(b) != ncsi.Size(len(p.Payload)) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		q, sum2, err := ncsi.Parse(append(b, in...))
		if err != nil || sum2 != ncsi.ChecksumOK || q.MC != p.MC || q.IID != p.IID || q.Type != p.Type || q.Channel != p.Channel || !bytes.Equal(q.Payload, p.Payload) {
			t.Fatalf("%+v\n%+v\n%v, %v", p, q, sum2, err)
		}
		// A flipped bit shows, unless it makes the checksum zero. One in the
		// length has the checksum looked for elsewhere.
		for i := range 8 * min(len(b), 64) {
			if i/8 == 6 || i/8 == 7 {
				continue
			}
			b[i/8] ^= 1 << (i % 8)
			_, sum, err := ncsi.Parse(b)
			if err == nil && sum == ncsi.ChecksumOK {
				t.Fatalf("bit %d of %x does not matter", i, b)
			}
			b[i/8] ^= 1 << (i % 8)
		}
		if r, err := ncsi.ParseResponse(p.Payload); err == nil && !bytes.Equal(r.Append(nil), p.Payload) {
			t.Fatalf("%+v is not %x", r, p.Payload)
		} else if err == nil && r.Err() != nil && r.Err().Error() == "" {
			t.Fatal("an error without text")
		}
		if n, err := ncsi.ParseAEN(p.Payload); err == nil && !bytes.Equal(n.Append(nil)[3:], p.Payload[3:]) {
			t.Fatalf("%+v is not %x", n, p.Payload)
		}
	})
}
