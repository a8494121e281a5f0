// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/bluefield-go/bmc-rshim/dbus/wire"
)

// handshakeTime is how long a bus may take to let us in. One that is busy
// starting a BMC is slow.
const handshakeTime = 30 * time.Second

// The bus itself as a destination.
const (
	driver     = "org.freedesktop.DBus"
	driverPath = "/org/freedesktop/DBus"
)

// link is an authenticated connection without queues.
type link struct {
	sock    *socket
	address string
	name    string // unique
	buf     [4096]byte
}

// connect dials, authenticates and says Hello.
func connect(ctx context.Context, address string) (*link, error) {
	if address == "" {
		address = SystemAddress()
	}
	names, err := socketNames(address)
	if err != nil {
		return nil, &OpError{"connect", address, err}
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	for _, name := range names {
		var sock *socket
		if sock, err = dialSocket(ctx, name); err != nil {
			continue
		}
		l := &link{sock: sock, address: address}
		stop := context.AfterFunc(ctx, func() { sock.Close() })
		op := "authenticate"
		if err = l.authenticate(); err == nil {
			op = "hello"
			err = l.hello()
		}
		if !stop() {
			err = ctx.Err()
		}
		if err != nil {
			sock.Close()
			return nil, &OpError{op, address, err}
		}
		return l, nil
	}
	return nil, &OpError{"connect", address, err}
}

// authenticate goes through section "Authentication Protocol" of the specification: EXTERNAL,
// that is what the kernel tells the bus of us, and file descriptors.
func (l *link) authenticate() error {
	uid := hex.EncodeToString(strconv.AppendInt(nil, int64(os.Geteuid()), 10))
	if err := l.ask("\x00AUTH EXTERNAL "+uid, "OK "); err != nil {
		return err
	}
	if err := l.ask("NEGOTIATE_UNIX_FD", "AGREE_UNIX_FD"); err != nil {
		return err
	}
	return l.sock.write([]byte("BEGIN\r\n"), nil, handshakeTime)
}

// ask sends a line and wants one that begins with want.
func (l *link) ask(line, want string) error {
	if err := l.sock.write([]byte(line+"\r\n"), nil, handshakeTime); err != nil {
		return err
	}
	for n := 0; n < len(l.buf); {
		k, fds, _, err := l.sock.read(l.buf[n:], nil)
		closeFDs(fds)
		if err != nil {
			return err
		}
		n += k
		// It says nothing more before it is asked again.
		if !bytes.HasSuffix(l.buf[:n], []byte("\r\n")) {
			continue
		}
		if !bytes.HasPrefix(l.buf[:n], []byte(want)) {
			return fmt.Errorf("bus answers %.100q", l.buf[:n-2])
		}
		return nil
	}
	return errors.New("bus answers without an end")
}

// hello gets the connection its unique name.
func (l *link) hello() error {
	m := wire.Message{Type: wire.MethodCall, Serial: 1, Destination: driver, Path: driverPath, Interface: driver, Member: "Hello"}
	b, err := m.Append(nil, binary.LittleEndian)
	if err != nil {
		return err
	}
	if err := l.sock.write(b, nil, handshakeTime); err != nil {
		return err
	}
	in, err := l.receive()
	if err != nil {
		return err
	}
	defer in.discard()
	if in.ReplySerial != 1 {
		return errors.New("bus says something before it answers")
	}
	if err := in.remote(); err != nil {
		return err
	}
	name, ok := in.single().(string)
	if !ok || !wire.ValidBusName(name) {
		return fmt.Errorf("bus gives %v for a name", in.Body)
	}
	l.name = name
	return nil
}

// incoming is a message that was received.
type incoming struct {
	*wire.Message
	fds []int
	err error // why there is no body; the message is valid, or was skipped
}

func (in *incoming) discard() {
	closeFDs(in.fds)
	in.fds = nil
}

// single returns the body's value, if it is one.
func (in *incoming) single() any {
	if len(in.Body) != 1 {
		return nil
	}
	return in.Body[0]
}

// remote returns the error of a reply that is one.
func (in *incoming) remote() error {
	if in.err != nil {
		return in.err
	}
	if in.Type != wire.Error {
		return nil
	}
	text := ""
	if len(in.Body) > 0 {
		text, _ = in.Body[0].(string)
	}
	return &Error{in.ErrorName, text}
}

// receive reads the next message. An error means that the connection is of no
// more use. Bytes are read exactly to the end of a message, so that file
// descriptors, which come with the first, are those of this message.
func (l *link) receive() (*incoming, error) {
	for {
		in, err := l.receiveAny()
		if in != nil || err != nil {
			return in, err
		}
	}
}

// receiveAny is receive; neither message nor error means that one was skipped.
func (l *link) receiveAny() (_ *incoming, err error) {
	in := &incoming{}
	defer func() {
		if err != nil {
			in.discard()
		}
	}()
	var cut, c bool
	if in.fds, cut, err = l.sock.readFull(l.buf[:wire.FixedSize], nil); err != nil {
		return nil, err
	}
	header, body, err := wire.Lengths(l.buf[:wire.FixedSize])
	if err != nil {
		return nil, err
	}
	if header > wire.MaxHeader {
		in.discard()
		return nil, l.skip(header - wire.FixedSize + body)
	}
	b := l.space(header)
	copy(b, l.buf[:wire.FixedSize])
	in.fds, c, err = l.sock.readFull(b[wire.FixedSize:], in.fds)
	if cut = cut || c; err != nil {
		return nil, err
	}
	var order wire.Order
	if in.Message, order, err = wire.DecodeHeader(b); err != nil {
		return nil, err
	}
	switch {
	case header+body > wire.MaxMessage:
		in.err = fmt.Errorf("%w: %d bytes", wire.ErrLimit, header+body)
	case in.FDs > wire.MaxFDs || cut:
		in.err = fmt.Errorf("%w: %d file descriptors", wire.ErrLimit, in.FDs)
	}
	if in.err != nil {
		in.discard()
		return in, l.skip(body)
	}
	b = l.space(body)
	in.fds, cut, err = l.sock.readFull(b, in.fds)
	switch {
	case err != nil:
		return nil, err
	case len(in.fds) != int(in.FDs) || cut:
		return nil, fmt.Errorf("%d file descriptors came for %d", len(in.fds), in.FDs)
	}
	in.err = in.DecodeBody(order, b)
	return in, nil
}

// space returns room for n bytes until the next call. What is decoded is no part of it.
func (l *link) space(n int) []byte {
	if n <= len(l.buf) {
		return l.buf[:n]
	}
	return make([]byte, n)
}

// skip reads over n bytes.
func (l *link) skip(n int) error {
	for n > 0 {
		k, fds, _, err := l.sock.read(l.buf[:min(n, len(l.buf))], nil)
		closeFDs(fds)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// gone reports whether err is that of a connection which ended without a fault.
func gone(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) }
