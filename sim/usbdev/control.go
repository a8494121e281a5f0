// SPDX-License-Identifier: Apache-2.0

package usbdev

import (
	"encoding/binary"
	"slices"
	"time"
	"unicode/utf16"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/usbbackend/usb"
)

// Standard requests (USB 2.0, section 9.4) and descriptor types.
const (
	getStatus        = 0x00
	clearFeature     = 0x01
	setFeature       = 0x03
	getDescriptor    = 0x06
	getConfiguration = 0x08
	setConfiguration = 0x09
	getInterface     = 0x0a
	setInterface     = 0x0b

	descDevice    = 1
	descConfig    = 2
	descString    = 3
	descInterface = 4
	descEndpoint  = 5
)

// isRegister reports whether a control transfer of n bytes is an access to a
// register, in a size that the chip answers.
func (f *Function) isRegister(s usb.Setup, n int) bool {
	return (s.RequestType == reg.USBRequestRead || s.RequestType == reg.USBRequestWrite) &&
		s.Request == 0 && n == f.gen().USBSize(n)
}

func (f *Function) gen() reg.Generation { return f.dpu.Config().Generation }

// register makes a register access. The caller holds mu, which is let go
// meanwhile, since the DPU tells others of it.
func (f *Function) register(u *URB) (int, error) {
	var b [8]byte
	n := copy(b[:], u.Data)
	f.mu.Unlock()
	a := f.gen().FromUSB(u.Setup.Value, u.Setup.Index)
	read := u.Setup.RequestType == reg.USBRequestRead
	if read {
		binary.LittleEndian.PutUint64(b[:], f.dpu.ReadReg(a, n))
	} else {
		f.dpu.WriteReg(a, n, binary.LittleEndian.Uint64(b[:]))
	}
	f.mu.Lock()
	if read && u.ep.cur == u { // else the buffer is not ours any more
		copy(u.Data, b[:n])
	}
	return n, nil
}

// standard carries out a standard request. The caller holds mu.
func (f *Function) standard(s usb.Setup, data []byte) (int, error) {
	if s.RequestType&0x60 != 0 {
		return 0, usb.ErrStall
	}
	answer := func(b ...byte) (int, error) { return copy(data, b), nil }
	switch s.Request {
	case getDescriptor:
		if d := f.descriptor(s); d != nil {
			return answer(d...)
		}
	case getStatus:
		e := f.endpoint(uint8(s.Index))
		if s.RequestType&0x1f == 2 && e != nil && e.halted {
			return answer(1, 0)
		}
		return answer(0, 0)
	case setFeature, clearFeature:
		e := f.endpoint(uint8(s.Index))
		if s.RequestType&0x1f != 2 {
			return 0, nil // remote wake-up and the like
		}
		if e != nil && s.Value == 0 {
			e.halted = s.Request == setFeature && e.Type != usb.Control
			e.work.ring()
			return 0, nil
		}
	case getConfiguration:
		return answer(1)
	case setConfiguration:
		if s.Value > 1 {
			break
		}
		for _, e := range f.eps {
			e.halted = false
		}
		// A host controller need not tell us of a port's reset, but a host
		// configures a device again after one.
		if f.configs += int(s.Value); f.configs > 1 && f.speed == usb.SpeedLow {
			time.AfterFunc(pollInterval, f.Reset) // after this transfer's end
		}
		return 0, nil
	case getInterface:
		return answer(0)
	case setInterface:
		if s.Value == 0 && s.Index < 2 {
			return 0, nil
		}
	}
	return 0, usb.ErrStall
}

var texts = [...]string{1: "NVIDIA", 2: "BlueField RShim (simulated)", 3: "SIM0001"}

func (f *Function) descriptor(s usb.Setup) []byte {
	index := int(s.Value & 0xff)
	switch s.Value >> 8 {
	case descDevice:
		return f.deviceDescriptor()
	case descConfig:
		if index == 0 {
			return f.configDescriptor()
		}
	case descString:
		if index == 0 {
			return []byte{4, descString, 0x09, 0x04} // English
		}
		if index < len(texts) {
			d := []byte{0, descString}
			for _, c := range utf16.Encode([]rune(texts[index])) {
				d = binary.LittleEndian.AppendUint16(d, c)
			}
			d[0] = byte(len(d))
			return d
		}
	}
	return nil
}

func (f *Function) deviceDescriptor() []byte {
	packet0 := byte(64)
	if f.speed == usb.SpeedLow {
		packet0 = 8
	}
	d := []byte{18, descDevice, 0x00, 0x02, 0, 0, 0, packet0}
	info := f.identity()
	d = binary.LittleEndian.AppendUint16(d, info.Vendor)
	d = binary.LittleEndian.AppendUint16(d, info.Product)
	d = binary.LittleEndian.AppendUint16(d, info.Release)
	return append(d, 1, 2, 3, 1)
}

func (f *Function) configDescriptor() []byte {
	ifs := f.interfaces()
	d := []byte{9, descConfig, 0, 0, byte(len(ifs)), 1, 0, 0xc0, 0}
	for _, i := range ifs {
		d = append(d, 9, descInterface, byte(i.Number), 0, byte(len(i.Endpoints)), i.Class, i.Subclass, i.Protocol, 0)
		for _, e := range i.Endpoints {
			packet, interval := e.MaxPacket, byte(0)
			if e.Type == usb.Interrupt {
				interval = 4
			}
			if f.speed == usb.SpeedLow {
				packet, interval = 8, 10
			}
			d = append(d, 7, descEndpoint, e.Address, byte(e.Type), byte(packet), byte(packet>>8), interval)
		}
	}
	binary.LittleEndian.PutUint16(d[2:], uint16(len(d)))
	return d
}

// identity is what enumeration tells but for where and how.
func (f *Function) identity() usb.Info {
	c := f.dpu.Config()
	info := usb.Info{Vendor: reg.USBVendor, Release: uint16(c.Revision)}
	switch c.Generation {
	case reg.BlueField1:
		info.Product = reg.USBProductBlueField1
	case reg.BlueField2:
		info.Product = reg.USBProductBlueField2
	default:
		info.Product = reg.USBProductBlueField3
	}
	return info
}

func (f *Function) interfaces() []usb.Interface {
	pick := func(addrs ...uint8) (eps []usb.Endpoint) {
		if f.opt.Reversed {
			slices.Reverse(addrs)
		}
		for _, a := range addrs {
			eps = append(eps, f.endpoint(a).Endpoint)
		}
		return eps
	}
	ifs := []usb.Interface{
		{Class: 0xff, Subclass: reg.USBSubclassBoot, Endpoints: pick(f.opt.Boot)},
		{Class: 0xff, Subclass: reg.USBSubclassTMFIFO, Endpoints: pick(f.opt.TMInt, f.opt.TMIn, f.opt.TMOut)},
	}
	if f.opt.TMFIFOFirst {
		slices.Reverse(ifs)
	}
	for i := range ifs {
		ifs[i].Number = i
	}
	return ifs
}
