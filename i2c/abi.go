// SPDX-License-Identifier: Apache-2.0

package i2c

import "unsafe"

// The structures and numbers of <linux/i2c.h> and <linux/i2c-dev.h>, which
// golang.org/x/sys/unix does not have.

// message is struct i2c_msg. Its flags 0 are a write.
type message struct {
	addr  uint16
	flags uint16
	len   uint16
	buf   unsafe.Pointer
}

// transfer is struct i2c_rdwr_ioctl_data.
type transfer struct {
	msgs unsafe.Pointer
	n    uint32
}

const ioctlRDWR = 0x0707 // I2C_RDWR

// ownOffset is what the kernel adds to the address of a device that is itself
// (I2C_ADDR_OFFSET_SLAVE).
const ownOffset = 0x1000
