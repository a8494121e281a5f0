// SPDX-License-Identifier: Apache-2.0

//go:build !race

package rshim_test

const seedShare = 1
