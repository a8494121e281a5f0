// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the tests that need a kernel of their own in test machines: those of the packages that talk to the
// kernel, and the whole-system tests of e2e/guest.
package e2e
