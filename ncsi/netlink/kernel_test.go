// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/ncsi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nic answers one control packet with another, both without Ethernet's header,
// after a time. nil is silence.
type nic func(ncsi.Packet) ([]byte, time.Duration)

// fakeKernel does what net/ncsi of Linux 6.1 does with requests of the family.
type fakeKernel struct {
	noFamily   bool
	privileged bool
	interfaces []net.Interface
	devices    map[int][]Package // by interface index: those that do NC-SI
	nic        nic
	tail       []byte // behind the checksum: padding, FCS
	noise      []netlink.Message

	mu  sync.Mutex
	iid uint8
	got [][]byte // data of the SEND_CMDs
}

const familyID = 0x1c

// system is the kernel as package code sees it.
func (k *fakeKernel) system() *system {
	return &system{
		dial: func() (*genetlink.Conn, error) {
			return genetlink.NewConn(netlink.NewConn(&socket{kernel: k, wake: make(chan struct{}, 1)}, nltest.PID)), nil
		},
		interfaces: func() ([]net.Interface, error) { return k.interfaces, nil },
	}
}

func (k *fakeKernel) transport(o Options) *Transport {
	t := New("eth0", o)
	t.sys = k.system()
	return t
}

// reply is a datagram from the kernel some time after the request.
type reply struct {
	after time.Duration
	msgs  []netlink.Message
}

func failure(req netlink.Message, errno syscall.Errno) netlink.Message {
	msgs, _ := nltest.Error(int(errno), []netlink.Message{req})
	return msgs[0]
}

func (k *fakeKernel) serve(req netlink.Message) []reply {
	k.mu.Lock()
	defer k.mu.Unlock()
	if req.Header.Flags&netlink.Acknowledge != 0 {
		panic("a request for an acknowledgement")
	}
	var g genetlink.Message
	if err := g.UnmarshalBinary(req.Data); err != nil {
		return []reply{{0, []netlink.Message{failure(req, unix.EINVAL)}}}
	}
	if req.Header.Type == unix.GENL_ID_CTRL {
		return []reply{{0, []netlink.Message{k.control(g, req)}}}
	}
	if req.Header.Type != familyID || k.noFamily {
		return []reply{{0, []netlink.Message{failure(req, unix.ENOENT)}}}
	}
	a := make(map[uint16][]byte)
	attrs, err := netlink.UnmarshalAttributes(g.Data)
	if err != nil {
		return []reply{{0, []netlink.Message{failure(req, unix.EINVAL)}}}
	}
	for _, attr := range attrs {
		a[attr.Type] = attr.Data
	}
	answer := func(cmd uint8, flags netlink.HeaderFlags, attrs []byte) netlink.Message {
		data, _ := genetlink.Message{Header: genetlink.Header{Command: cmd}, Data: attrs}.MarshalBinary()
		return netlink.Message{Header: netlink.Header{
			Type: familyID, Flags: flags, Sequence: req.Header.Sequence, PID: req.Header.PID,
		}, Data: data}
	}
	switch g.Header.Command {
	case cmdPackageInfo:
		return k.info(req, a, answer)
	case cmdSend:
		return k.send(req, a, answer)
	}
	return []reply{{0, []netlink.Message{failure(req, unix.EOPNOTSUPP)}}}
}

// control answers what the family's number is.
func (k *fakeKernel) control(g genetlink.Message, req netlink.Message) netlink.Message {
	serve := genltest.ServeFamily(genetlink.Family{ID: familyID, Name: "NCSI"}, nil)
	msgs, err := serve(g, req)
	if err != nil {
		panic(err)
	}
	if k.noFamily {
		return failure(req, unix.ENOENT)
	}
	data, _ := msgs[0].MarshalBinary()
	return netlink.Message{Header: netlink.Header{
		Type: unix.GENL_ID_CTRL, Sequence: req.Header.Sequence, PID: req.Header.PID,
	}, Data: data}
}

type answerFunc func(cmd uint8, flags netlink.HeaderFlags, attrs []byte) netlink.Message

// info is PKG_INFO, with the limit that hides packages with high numbers.
func (k *fakeKernel) info(req netlink.Message, a map[uint16][]byte, answer answerFunc) []reply {
	packages, ok := k.devices[int(binary.NativeEndian.Uint32(a[attrIndex]))]
	dump := req.Header.Flags&netlink.Dump == netlink.Dump
	done := func(errno syscall.Errno) netlink.Message {
		return netlink.Message{Header: netlink.Header{
			Type: netlink.Done, Flags: netlink.Multi, Sequence: req.Header.Sequence, PID: req.Header.PID,
		}, Data: binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))}
	}
	find := func(id int) int {
		if id >= len(packages) {
			return -1
		}
		return slices.IndexFunc(packages, func(p Package) bool { return p.ID == id })
	}
	switch {
	case !ok && dump:
		return []reply{{0, []netlink.Message{done(unix.ENODEV)}}}
	case !ok:
		return []reply{{0, []netlink.Message{failure(req, unix.ENODEV)}}}
	case !dump:
		i := find(int(binary.NativeEndian.Uint32(a[attrPackageID])))
		if i < 0 {
			return []reply{{0, []netlink.Message{failure(req, unix.ENODEV)}}}
		}
		return []reply{{0, []netlink.Message{answer(cmdPackageInfo, 0, encodePackages(packages[i]))}}}
	}
	var replies []reply
	for id := 0; find(id) >= 0; id++ {
		replies = append(replies, reply{0, []netlink.Message{answer(cmdPackageInfo, netlink.Multi, encodePackages(packages[find(id)]))}})
	}
	return append(replies, reply{0, []netlink.Message{done(0)}})
}

// send is SEND_CMD.
func (k *fakeKernel) send(req netlink.Message, a map[uint16][]byte, answer answerFunc) []reply {
	once := func(errno syscall.Errno) []reply { return []reply{{0, []netlink.Message{failure(req, errno)}}} }
	twice := func(errno syscall.Errno) []reply { return append(once(errno), once(errno)...) }
	if !k.privileged {
		return once(unix.EPERM)
	}
	index, pkg, ch, data := a[attrIndex], a[attrPackageID], a[attrChannelID], a[attrData]
	if index == nil || pkg == nil || ch == nil || data == nil || len(data) > 2048 {
		return once(unix.EINVAL)
	}
	packages, ok := k.devices[int(binary.NativeEndian.Uint32(index))]
	if !ok {
		return once(unix.ENODEV)
	}
	p, c := binary.NativeEndian.Uint32(pkg), binary.NativeEndian.Uint32(ch)
	if p >= 8 || c >= 32 {
		return twice(unix.ERANGE)
	}
	if len(data) < 16 || int(binary.BigEndian.Uint16(data[6:])) != len(data)-16 {
		return twice(unix.EINVAL)
	}
	k.got = append(k.got, slices.Clone(data))
	k.iid = max(1, k.iid+1)
	response, after := k.nic(ncsi.Packet{IID: k.iid, Type: ncsi.Type(data[4]), Channel: ncsi.Channel(p<<5 | c), Payload: data[16:]})
	attrs := func(data []byte) []byte {
		e := netlink.NewAttributeEncoder()
		e.Bytes(attrIndex, index)
		e.Bytes(attrPackageID, pkg)
		e.Bytes(attrChannelID, ch)
		if data != nil {
			e.Bytes(attrData, data)
		}
		b, _ := e.Encode()
		return b
	}
	noise := make([]reply, 0, 2)
	if k.noise != nil {
		noise = append(noise, reply{0, k.noise})
	}
	if len(response) < 20 || response[3] != k.iid || after >= kernelTimeout {
		return append(noise, reply{kernelTimeout, []netlink.Message{answer(cmdSend, 0, attrs(nil))}})
	}
	_, _, err := ncsi.Parse(response)
	if failed := binary.BigEndian.Uint32(response[16:]) != 0; err != nil && !failed {
		return append(noise, reply{after, []netlink.Message{failure(req, unix.EINVAL)}})
	}
	if !slices.ContainsFunc(packages, func(p Package) bool { return p.ID == ncsi.Channel(response[5]).Package() }) {
		return noise
	}
	return append(noise, reply{after, []netlink.Message{answer(cmdSend, 0, attrs(append(response, k.tail...)))}})
}

// encodePackages encodes as the kernel does.
func encodePackages(packages ...Package) []byte {
	e := netlink.NewAttributeEncoder()
	e.Nested(attrPackageList, func(e *netlink.AttributeEncoder) error {
		for _, p := range packages {
			e.Nested(pkgAttr, func(e *netlink.AttributeEncoder) error {
				e.Uint32(pkgID, uint32(p.ID))
				e.Flag(pkgForced, p.Forced)
				e.Nested(pkgChannels, func(e *netlink.AttributeEncoder) error {
					for _, c := range p.Channels {
						e.Nested(chAttr, func(e *netlink.AttributeEncoder) error { return encodeChannel(e, c) })
					}
					return nil
				})
				return nil
			})
		}
		return nil
	})
	b, err := e.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func encodeChannel(e *netlink.AttributeEncoder, c Channel) error {
	e.Uint32(chID, uint32(c.ID))
	e.Uint32(chLinkState, c.LinkStatus)
	e.Flag(chActive, c.Active)
	e.Flag(chForced, c.Forced)
	e.Uint32(chMajor, uint32(c.Major))
	e.Uint32(chMinor, uint32(c.Minor))
	e.String(chFirmware, c.Firmware)
	e.Nested(chVLANs, func(e *netlink.AttributeEncoder) error {
		for _, v := range c.VLANs {
			e.Uint16(chVLAN, v)
		}
		return nil
	})
	return nil
}

// socket is a netlink socket of the fake kernel, with deadlines, which nltest's
// lacks.
type socket struct {
	kernel *fakeKernel
	wake   chan struct{} // something of the below has changed

	mu       sync.Mutex
	replies  map[time.Time][][]netlink.Message // datagrams, by when they come
	deadline time.Time
}

func (s *socket) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *socket) Close() error { return nil }

func (s *socket) SendMessages([]netlink.Message) error { return errors.ErrUnsupported }

func (s *socket) Send(m netlink.Message) error {
	replies := s.kernel.serve(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replies == nil {
		s.replies = make(map[time.Time][][]netlink.Message)
	}
	for _, r := range replies {
		at := time.Now().Add(r.after)
		s.replies[at] = append(s.replies[at], r.msgs)
	}
	s.changed()
	return nil
}

func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

func (s *socket) SetWriteDeadline(time.Time) error { return nil }

func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.changed()
	return nil
}

// next returns the next datagram, or until when there is none.
func (s *socket) next() ([]netlink.Message, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := s.deadline
	if !until.IsZero() && !until.After(time.Now()) {
		return nil, until, os.ErrDeadlineExceeded
	}
	at := slices.SortedFunc(maps.Keys(s.replies), time.Time.Compare)
	if len(at) == 0 {
		return nil, until, nil
	}
	if at[0].After(time.Now()) {
		if until.IsZero() || at[0].Before(until) {
			until = at[0]
		}
		return nil, until, nil
	}
	msgs := s.replies[at[0]][0]
	if s.replies[at[0]] = s.replies[at[0]][1:]; len(s.replies[at[0]]) == 0 {
		delete(s.replies, at[0])
	}
	return msgs, until, nil
}

func (s *socket) Receive() ([]netlink.Message, error) {
	for {
		msgs, until, err := s.next()
		if msgs != nil || err != nil {
			return msgs, err
		}
		var timer <-chan time.Time
		if !until.IsZero() {
			timer = time.After(time.Until(until))
		}
		select {
		case <-s.wake:
		case <-timer:
		}
	}
}

func (s *socket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		msgs, err := s.Receive()
		if err != nil {
			yield(netlink.Message{}, err)
			return
		}
		for _, m := range msgs {
			if !yield(m, nil) {
				return
			}
		}
	}
}
