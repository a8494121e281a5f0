// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// trouble matches a kernel message, time stamp first, that says the kernel itself went wrong.
var trouble = regexp.MustCompile(`(?m)^\[ *\d+\.\d+\](?:\[[^\]]*\])? ` +
	`(?:.*Kernel panic|.*\bOops\b|BUG: |.*kernel BUG at|Internal error: |.*Unable to handle kernel|` +
	`.*general protection fault|.*refcount_t: |WARNING: |INFO: task .* blocked for more than|` +
	`.*possible circular locking|Out of memory: |.*invoked oom-killer).*$`)

// harmless matches what the kernel's NC-SI says about itself: at the first command that comes by netlink, about a copy
// into the buffer that was made for it; and where it meets itself, as when a NIC has been silent for long.
var harmless = regexp.MustCompile(`WARNING: .* at net/ncsi/`)

// kernelTrouble returns the kernel's complaints about itself as an error.
func kernelTrouble(console string) error {
	found := slices.DeleteFunc(trouble.FindAllString(console, -1), harmless.MatchString)
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("the kernel complains:\n%s", strings.Join(found[:min(len(found), 5)], "\n"))
}
