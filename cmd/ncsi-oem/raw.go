// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/hex"

	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

// raw sends an OEM command, once, and shows its response.
func raw(ctx context.Context, e *env, o options, r *report, cmd, param, data string) error {
	c, err1 := parseHex(cmd)
	p, err2 := parseHex(param)
	b, err3 := parseBytes(data)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return usageError("raw: %v", err)
		}
	}
	if len(b) > oem.MaxData {
		return usageError("raw: %d bytes, and an OEM command has room for %d", len(b), oem.MaxData)
	}
	t, err := find(ctx, e, o, r)
	if err != nil {
		return err
	}
	defer t.close()
	if disables(oem.Command(c), oem.Parameter(p), b) && !o.yes {
		if err := confirm(ctx, e, t.String()); err != nil {
			return err
		}
	}
	answer, err := t.client().Raw(ctx, oem.Command(c), oem.Parameter(p), b)
	if err != nil {
		return t.failed(err)
	}
	text := hex.EncodeToString(answer)
	r.Data = &text
	r.line("%v: command 0x%02x parameter 0x%02x completed; data: %s", t, c, p, cmp.Or(text, "none"))
	return nil
}

// disables reports whether a command may disable the host's access: the state is
// the last byte of a word, and a NIC may take what is missing for zeros.
func disables(c oem.Command, p oem.Parameter, data []byte) bool {
	return c == oem.Set && p == oem.ParamHostAccess && (len(data) < 4 || data[3] == byte(oem.Disabled))
}
