// SPDX-License-Identifier: Apache-2.0

//go:build nosim

package main

import "flag"

// simFlags are the flags of the simulated DPU, which this build does not have.
type simFlags struct{ chip string }

func (s *simFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&s.chip, "simulate", "", "not in this build")
}

func (s *simFlags) on() bool { return s.chip != "" }

func simulate(simFlags) (*usbBus, error) {
	return nil, usageError("-simulate: this build has no simulator")
}
