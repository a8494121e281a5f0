// SPDX-License-Identifier: Apache-2.0

package ncsi

import "fmt"

// Type is the control packet type: a command, the response to it, or an AEN.
type Type uint8

// Commands of DSP0222. Their responses have ResponseBit set.
const (
	ClearInitialState            Type = 0x00
	SelectPackage                Type = 0x01
	DeselectPackage              Type = 0x02
	EnableChannel                Type = 0x03
	DisableChannel               Type = 0x04
	ResetChannel                 Type = 0x05
	EnableChannelTx              Type = 0x06
	DisableChannelTx             Type = 0x07
	EnableAEN                    Type = 0x08
	SetLink                      Type = 0x09
	GetLinkStatus                Type = 0x0a
	SetVLANFilter                Type = 0x0b
	EnableVLAN                   Type = 0x0c
	DisableVLAN                  Type = 0x0d
	SetMACAddress                Type = 0x0e
	EnableBroadcastFilter        Type = 0x10
	DisableBroadcastFilter       Type = 0x11
	EnableGlobalMulticastFilter  Type = 0x12
	DisableGlobalMulticastFilter Type = 0x13
	SetFlowControl               Type = 0x14
	GetVersionID                 Type = 0x15
	GetCapabilities              Type = 0x16
	GetParameters                Type = 0x17
	GetControllerStatistics      Type = 0x18
	GetNCSIStatistics            Type = 0x19
	GetNCSIPassThroughStatistics Type = 0x1a
	GetPackageStatus             Type = 0x1b
	OEM                          Type = 0x50
	PLDM                         Type = 0x51
	GetPackageUUID               Type = 0x52
	AEN                          Type = 0xff // what the NIC says unasked; no response
	ResponseBit                  Type = 0x80
)

var typeNames = map[Type]string{
	ClearInitialState:            "Clear Initial State",
	SelectPackage:                "Select Package",
	DeselectPackage:              "Deselect Package",
	EnableChannel:                "Enable Channel",
	DisableChannel:               "Disable Channel",
	ResetChannel:                 "Reset Channel",
	EnableChannelTx:              "Enable Channel Network TX",
	DisableChannelTx:             "Disable Channel Network TX",
	EnableAEN:                    "AEN Enable",
	SetLink:                      "Set Link",
	GetLinkStatus:                "Get Link Status",
	SetVLANFilter:                "Set VLAN Filter",
	EnableVLAN:                   "Enable VLAN",
	DisableVLAN:                  "Disable VLAN",
	SetMACAddress:                "Set MAC Address",
	EnableBroadcastFilter:        "Enable Broadcast Filter",
	DisableBroadcastFilter:       "Disable Broadcast Filter",
	EnableGlobalMulticastFilter:  "Enable Global Multicast Filter",
	DisableGlobalMulticastFilter: "Disable Global Multicast Filter",
	SetFlowControl:               "Set NC-SI Flow Control",
	GetVersionID:                 "Get Version ID",
	GetCapabilities:              "Get Capabilities",
	GetParameters:                "Get Parameters",
	GetControllerStatistics:      "Get Controller Packet Statistics",
	GetNCSIStatistics:            "Get NC-SI Statistics",
	GetNCSIPassThroughStatistics: "Get NC-SI Pass-through Statistics",
	GetPackageStatus:             "Get Package Status",
	OEM:                          "OEM",
	PLDM:                         "PLDM",
	GetPackageUUID:               "Get Package UUID",
}

// IsResponse reports whether t is the type of a response.
func (t Type) IsResponse() bool { return t&ResponseBit != 0 && t != AEN }

// Response returns the type of the response to the command t.
func (t Type) Response() Type { return t | ResponseBit }

// Command returns the command that t is, or is the response to.
func (t Type) Command() Type {
	if t == AEN {
		return t
	}
	return t &^ ResponseBit
}

// String names the type as DSP0222 does.
func (t Type) String() string {
	if t == AEN {
		return "AEN"
	}
	name, ok := typeNames[t.Command()]
	if !ok {
		name = fmt.Sprintf("command 0x%02x", uint8(t.Command()))
	}
	if t.IsResponse() {
		name += " response"
	}
	return name
}
