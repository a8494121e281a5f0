// SPDX-License-Identifier: Apache-2.0

package mctp

// A control message is of type Control: type, flags and instance ID, command,
// in a response a completion code, then data.
const (
	controlRequest  = 0x80 // in the flags
	controlDatagram = 0x40 // a request that wants no response
	controlInstance = 0x1f

	setEndpointID = 0x01
	getEndpointID = 0x02

	completionSuccess       = 0x00
	completionInvalidLength = 0x03
	completionUnsupported   = 0x05

	assignmentRejected = 0x01 << 4 // in the response to Set Endpoint ID
	staticAndCurrent   = 0x02      // in the response to Get Endpoint ID: the kind of ID
)

// AnswerControl returns the body of the response to a control message, from an
// endpoint whose ID is own and never changes. It knows Get Endpoint ID, and Set
// Endpoint ID, which it rejects unless own is what is set; other commands it
// calls unsupported. It returns nil for what wants no response: no control
// message, no request, a datagram.
func AnswerControl(body []byte, own EID) []byte {
	if len(body) < 3 || Type(body[0]) != Control || body[1]&controlRequest == 0 || body[1]&controlDatagram != 0 {
		return nil
	}
	response := []byte{byte(Control), body[1] & controlInstance, body[2]}
	data := body[3:]
	switch body[2] {
	case setEndpointID:
		if len(data) < 2 { // operation, ID
			return append(response, completionInvalidLength)
		}
		// Operations 0 and 1 set an ID, 2 asks for the static one, 3 sets a
		// flag; the two low bits count.
		var status byte
		if data[0]&3 < 2 && EID(data[1]) != own {
			status = assignmentRejected
		}
		return append(response, completionSuccess, status, byte(own), 0) // no IDs to give to others
	case getEndpointID:
		return append(response, completionSuccess, byte(own), staticAndCurrent, 0) // a simple endpoint
	}
	return append(response, completionUnsupported)
}
