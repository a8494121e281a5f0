// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"regexp"
	"strings"
)

// trouble matches a kernel message, time stamp first, that says the kernel itself went wrong.
var trouble = regexp.MustCompile(`(?m)^\[ *\d+\.\d+\](?:\[[^\]]*\])? ` +
	`(?:.*Kernel panic|.*\bOops\b|BUG: |.*kernel BUG at|Internal error: |.*Unable to handle kernel|` +
	`.*general protection fault|.*refcount_t: |WARNING: |INFO: task .* blocked for more than|` +
	`.*possible circular locking|Out of memory: |.*invoked oom-killer).*$`)

// kernelTrouble returns the kernel's complaints about itself as an error.
func kernelTrouble(console string) error {
	found := trouble.FindAllString(console, 5)
	if found == nil {
		return nil
	}
	return fmt.Errorf("the kernel complains:\n%s", strings.Join(found, "\n"))
}
