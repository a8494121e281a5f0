// SPDX-License-Identifier: Apache-2.0

package tmfifo_test

import (
	"testing"

	"github.com/bluefield-go/bmc-rshim/rshim/tmfifo"
)

var benchmarks = []struct {
	name  string
	typ   tmfifo.Type
	bytes int
}{
	{"Frame", tmfifo.Net, 1514}, {"Console", tmfifo.Console, tmfifo.MaxInput}, {"Character", tmfifo.Console, 1},
}

func BenchmarkAppend(b *testing.B) {
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			m := tmfifo.Message{Type: bm.typ, Payload: make([]byte, bm.bytes)}
			buf := make([]byte, 0, tmfifo.MaxMessage)
			b.SetBytes(int64(tmfifo.Size(bm.bytes)))
			b.ReportAllocs()
			for b.Loop() {
				buf = tmfifo.Append(buf[:0], m)
			}
		})
	}
}

// BenchmarkDecode decodes a stream that comes in pieces of a FIFO's size.
func BenchmarkDecode(b *testing.B) {
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			var stream []byte
			for len(stream) < 64<<10 {
				stream = tmfifo.Append(stream, tmfifo.Message{Type: bm.typ, Payload: make([]byte, bm.bytes)})
			}
			var d tmfifo.Decoder
			n := 0
			deliver := func(m tmfifo.Message) { n += len(m.Payload) }
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				for p := stream; len(p) > 0; p = p[min(len(p), 2048):] {
					d.Decode(p[:min(len(p), 2048)], deliver)
				}
			}
			if n == 0 || d.Counts().Dropped() > 0 {
				b.Fatalf("%d bytes, %+v", n, d.Counts())
			}
		})
	}
}
