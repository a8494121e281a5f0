// SPDX-License-Identifier: Apache-2.0

package cuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// request is a message from the kernel that wants an answer. The answer is
// built in the buffer that the message came in.
type request struct {
	inHeader
	body   []byte // follows the header
	c      *conn
	ctx    context.Context // ends when the caller is interrupted
	buf    *buffer
	opened uint64 // handle of the file that an open made
}

// serve does what the request asks for, answers it and gives the buffer back.
func (r *request) serve() {
	n, err := r.call()
	if r.answer(n, err) != nil && r.opened != 0 {
		// The kernel will not release what it does not know of.
		if f := r.c.takeFile(r.opened); f != nil {
			f.release()
		}
	}
	buffers.Put(r.buf)
}

var errMalformed = errors.New("message is malformed or names no open file")

// call leaves the answer in the payload and returns its size.
func (r *request) call() (n int, err error) {
	if int64(r.Len) != int64(inHeaderSize+len(r.body)) {
		return 0, errMalformed
	}
	switch r.Opcode {
	case opOpen:
		if in, _, ok := take[openIn](r.body); ok {
			return r.open(in)
		}
	case opRelease:
		in, _, ok := take[releaseIn](r.body)
		if f := r.c.takeFile(in.FH); ok && f != nil {
			f.release()
			return 0, nil
		}
	case opRead:
		in, _, ok := take[ioIn](r.body)
		if f := r.c.file(in.FH); ok && f != nil {
			return f.read(r.ctx, in, r.payload())
		}
	case opWrite:
		in, data, ok := take[ioIn](r.body)
		ok = ok && uint64(in.Size) == uint64(len(data))
		if f := r.c.file(in.FH); ok && f != nil {
			return f.write(r.ctx, in, data, r.payload())
		}
	case opIoctl:
		in, data, ok := take[ioctlIn](r.body)
		ok = ok && uint64(in.InSize) == uint64(len(data))
		if f := r.c.file(in.FH); ok && f != nil {
			return f.ioctl(r.ctx, in, data, r.payload())
		}
	case opPoll:
		in, _, ok := take[pollIn](r.body)
		if f := r.c.file(in.FH); ok && f != nil {
			return f.poll(in, r.payload())
		}
	}
	return 0, errMalformed
}

func (r *request) open(in openIn) (n int, err error) {
	impl, err := r.c.d.Open(r.ctx, in.Flags)
	if err != nil {
		// An answer of ENOSYS would let all later opens succeed unasked.
		if e, _ := errno(err); e == syscall.ENOSYS {
			err = syscall.ENXIO
		}
		return 0, err
	}
	r.opened = r.c.addFile(&file{File: impl, c: r.c})
	return put(r.payload(), openOut{FH: r.opened, OpenFlags: fopenDirectIO}), nil
}

// payload is where the answer's body goes.
func (r *request) payload() []byte { return r.buf[outHeaderSize:] }

// answer sends n bytes of payload, or what err means to the caller. It fails
// if the kernel no longer wants an answer.
func (r *request) answer(n int, err error) error {
	e, known := errno(err)
	if !known {
		r.c.log.Warn("call failed with EIO", "op", opName(r.Opcode), "err", err)
	}
	if e != 0 {
		n = 0
	}
	msg := r.buf[:outHeaderSize+n]
	put(msg, outHeader{Len: uint32(len(msg)), Error: -int32(e), Unique: r.Unique})
	_, err = r.c.f.Write(msg)
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, os.ErrClosed) {
		r.c.log.Warn("cannot answer the kernel", "op", opName(r.Opcode), "err", err)
	}
	return err
}

func opName(opcode uint32) string {
	switch opcode {
	case opOpen:
		return "open"
	case opRelease:
		return "release"
	case opRead:
		return "read"
	case opWrite:
		return "write"
	case opIoctl:
		return "ioctl"
	case opPoll:
		return "poll"
	case opCuseInit:
		return "init"
	}
	return fmt.Sprint("opcode ", opcode)
}
