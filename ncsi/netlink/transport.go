// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// Options are optional.
type Options struct {
	Timeout time.Duration // of one command; 0: DefaultTimeout. The kernel waits for a response as long as it does
	Logger  *slog.Logger  // what goes to and comes from the kernel, in hex, at level debug; nil discards
}

// Transport sends commands through one network interface. It holds nothing
// open, and is safe for concurrent use: the kernel has 255 instance IDs.
type Transport struct {
	name    string
	timeout time.Duration
	log     *slog.Logger
	sys     *system
}

var _ oem.Transport = (*Transport)(nil)

// New returns a Transport for the network interface of that name. Whether it
// exists shows when it is used.
func New(name string, o Options) *Transport {
	t := &Transport{name: name, timeout: o.Timeout, log: o.Logger, sys: &kernel}
	if t.timeout == 0 {
		t.timeout = DefaultTimeout
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	return t
}

// Do sends one command, as oem.Transport says. It takes CAP_NET_ADMIN.
//
// The kernel waits one second for a response; then the error is
// os.ErrDeadlineExceeded. A response that names a package the kernel does not
// know is lost in the kernel, which then says nothing at all: Options.Timeout
// ends the wait, and the error says that too. A response with a wrong checksum,
// header revision or length is lost as well, with an error of the kernel that
// becomes ncsi.ErrMalformed.
//
// The package need not be among those that Packages returns.
func (t *Transport) Do(ctx context.Context, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	response, err := t.do(ctx, ch, typ, payload)
	if err != nil {
		return nil, &OpError{"send command", t.name, err}
	}
	return response, nil
}

func (t *Transport) do(ctx context.Context, ch ncsi.Channel, typ ncsi.Type, payload []byte) ([]byte, error) {
	command, attrs, err := t.prepare(ch, typ, payload)
	if err != nil {
		return nil, oem.NotSent(err)
	}
	t.log.Debug("NC-SI command", "device", t.name, "channel", ch.String(), "data", fmt.Sprintf("% x", command))
	msgs, err := t.sys.execute(ctx, t.timeout, cmdSend, 0, attrs)
	if err != nil {
		return nil, t.explain(err)
	}
	data, err := decodeAnswer(msgs)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, fmt.Errorf("the NIC has not answered for %v: %w", kernelTimeout, os.ErrDeadlineExceeded)
	}
	t.log.Debug("NC-SI response", "device", t.name, "data", fmt.Sprintf("% x", data))
	return decodeResponse(data, ch, typ)
}

// prepare returns a command's data, and all of the kernel's request.
func (t *Transport) prepare(ch ncsi.Channel, typ ncsi.Type, payload []byte) (command, attrs []byte, err error) {
	if most := maxData - ncsi.HeaderSize; len(payload) > most {
		return nil, nil, fmt.Errorf("payload of %d bytes: the kernel takes %d: %w", len(payload), most, os.ErrInvalid)
	}
	ifi, err := t.sys.find(t.name)
	if err != nil {
		return nil, nil, err
	}
	// The kernel would let the command time out.
	if ifi.Flags&net.FlagUp == 0 {
		return nil, nil, fmt.Errorf("%w: ip link set %s up", ErrDown, t.name)
	}
	command = encodeCommand(typ, payload)
	attrs, err = encodeRequest(ifi.Index, ch, command)
	return command, attrs, err
}

// explain says what the failure of a command means. The error number of a
// response that the kernel rejects is EINVAL, which it may also be of a request.
func (t *Transport) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && t.timeout >= 2*kernelTimeout:
		return fmt.Errorf("the kernel has said nothing for %v, although it reports a silent NIC after %v: it has probably dropped the response, as it does with one that names a package that it does not know: %w",
			t.timeout, kernelTimeout, os.ErrDeadlineExceeded)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer for %v: %w", t.timeout, os.ErrDeadlineExceeded)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w: the kernel has rejected the response: its checksum, header revision or length is wrong", ncsi.ErrMalformed)
	case errors.Is(err, syscall.ENOMEM):
		return oem.NotSent(fmt.Errorf("too many commands at once: %w", err))
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENODEV):
		return oem.NotSent(explain(err)) // the kernel has refused the request
	}
	return err
}

// encodeCommand makes the data of a SEND_CMD: a control packet without
// checksum, of whose header the kernel reads type and length. It believes the
// length, older ones without a look at how much there is.
func encodeCommand(typ ncsi.Type, payload []byte) []byte {
	b := make([]byte, ncsi.HeaderSize, ncsi.HeaderSize+len(payload))
	b[1] = ncsi.Revision
	b[4] = byte(typ)
	binary.BigEndian.PutUint16(b[6:], uint16(len(payload)))
	return append(b, payload...)
}

func encodeRequest(index int, ch ncsi.Channel, data []byte) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	e.Uint32(attrPackageID, uint32(ch.Package()))
	e.Uint32(attrChannelID, uint32(ch.Channel()))
	e.Bytes(attrData, data)
	return e.Encode()
}

// decodeAnswer returns the data of the kernel's answer to a SEND_CMD, or nil if
// it has none, as after a timeout.
func decodeAnswer(msgs []genetlink.Message) ([]byte, error) {
	if len(msgs) == 0 {
		return nil, errors.New("empty answer of the kernel")
	}
	d, err := netlink.NewAttributeDecoder(msgs[0].Data)
	if err != nil {
		return nil, fmt.Errorf("answer of the kernel: %w", err)
	}
	var data []byte
	for d.Next() {
		if d.Type() == attrData {
			data = d.Bytes()
		}
	}
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("answer of the kernel: %w", err)
	}
	return data, nil
}

// decodeResponse returns the payload of the response in data. That is the
// Ethernet frame after its header: control packet, checksum, and a tail of
// padding and, with some drivers, the frame check sequence. The kernel does not
// look at the checksum of a response that says that the command failed, and
// finds the command by the instance ID alone.
func decodeResponse(data []byte, ch ncsi.Channel, typ ncsi.Type) ([]byte, error) {
	p, _, err := ncsi.Parse(data)
	switch {
	case err != nil:
		return nil, err
	case p.Type != typ.Response():
		return nil, fmt.Errorf("%w: %v as the answer to %v", ncsi.ErrMalformed, p.Type, typ)
	case p.Channel.Package() != ch.Package():
		return nil, fmt.Errorf("%w: %v answers for %v", ncsi.ErrMalformed, p.Channel, ch)
	}
	if _, err := ncsi.ParseResponse(p.Payload); err != nil {
		return nil, err
	}
	return p.Payload, nil
}
