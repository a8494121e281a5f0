// SPDX-License-Identifier: Apache-2.0

package usbbackend

import (
	"errors"
	"fmt"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
)

const tmDepth = reg.TmFIFODepth * 8 // bytes the TMFIFO holds, each way

var (
	errTMStopped = errors.New("TMFIFO is not started")
	errTMLength  = fmt.Errorf("not whole words, or not what %d bytes of FIFO call for", tmDepth)
)

// TMStart begins anew with the TMFIFO. Neither it nor TMStop may be called
// while another method of the TMFIFO runs.
func (d *Device) TMStart() {
	d.tmIn.start(d)
	d.tmOut.start(d)
}

// TMStop takes back what is under way, and forgets what has come and was not
// read. The other methods of the TMFIFO then fail, until TMStart.
func (d *Device) TMStop() {
	d.tmIn.end()
	d.tmOut.end()
}
