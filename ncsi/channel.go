// SPDX-License-Identifier: Apache-2.0

package ncsi

import "fmt"

// Channel is the channel ID of a control packet: a package in the upper 3 bits
// and a channel of it in the lower 5.
type Channel uint8

// Limits of a Channel.
const (
	MaxPackage   = 7    // highest package number
	MaxChannel   = 0x1e // highest number of one channel
	WholePackage = 0x1f // the channel number that means the package itself
)

// NewChannel returns the ID of a channel of a package; channel may be
// WholePackage.
func NewChannel(pkg, channel int) (Channel, error) {
	if pkg < 0 || pkg > MaxPackage {
		return 0, fmt.Errorf("package %d: want 0 to %d", pkg, MaxPackage)
	}
	if channel < 0 || channel > WholePackage {
		return 0, fmt.Errorf("channel %d: want 0 to %d, or %d for the whole package", channel, MaxChannel, WholePackage)
	}
	return Channel(pkg<<5 | channel), nil
}

// Package returns the package's number, 0 to MaxPackage.
func (c Channel) Package() int { return int(c >> 5) }

// Channel returns the channel's number in its package, or WholePackage.
func (c Channel) Channel() int { return int(c & WholePackage) }

// First returns the package's channel 0.
func (c Channel) First() Channel { return c &^ WholePackage }

// Whole returns the ID of the package itself.
func (c Channel) Whole() Channel { return c | WholePackage }

func (c Channel) String() string {
	if c.Channel() == WholePackage {
		return fmt.Sprintf("package %d", c.Package())
	}
	return fmt.Sprintf("package %d channel %d", c.Package(), c.Channel())
}
