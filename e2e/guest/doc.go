// SPDX-License-Identifier: Apache-2.0

// Package guest holds the whole-system tests: the real binaries on a real kernel, inside a test machine. Outside of
// one they are skipped; go test ./e2e runs them.
package guest
