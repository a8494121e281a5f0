// SPDX-License-Identifier: Apache-2.0

//go:build race

package rshim_test

// The race detector makes everything ten times slower. What runs for a thousand
// seeds runs for a hundred with it; "make test" also runs it without.
const seedShare = 10
