// SPDX-License-Identifier: Apache-2.0

package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReadConf(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		want    conf
		remarks []remark
	}{
		"empty": {},
		"shipped": {text: `
#
# This is the rshim driver configuration file.
#DISPLAY_LEVEL 0
#BOOT_TIMEOUT  300
`},
		"all": {
			text: "DISPLAY_LEVEL 2\nBOOT_TIMEOUT\t600\n  USB_TIMEOUT 20 seconds\r\nDROP_MODE 0\nFORCE_MODE 0\n",
			want: conf{2, 600 * time.Second, 20 * time.Second},
		},
		"the last one counts": {text: "BOOT_TIMEOUT 1\nBOOT_TIMEOUT 2", want: conf{bootTimeout: 2 * time.Second}},
		"of no effect": {
			text: "DROP_MODE 1\nrshim0 usb-2-1.7\nnone usb-1-1.4\nPCIE_HAS_UIO 1\nUSB_RESET_DELAY 3\n",
			remarks: []remark{
				{1, false, "DROP_MODE is not supported yet"},
				{2, false, "rshim0 usb-2-1.7 is not supported yet"},
				{3, false, "none usb-1-1.4 is not supported yet"},
				{4, false, "PCIE_HAS_UIO has no effect over USB"},
				{5, false, "USB_RESET_DELAY has no effect: a push waits for what the delay was to allow for"},
			},
		},
		"wrong": {
			text: "BOOT_TIMEOUT\nBOOT_TIMEOUT 0\nDISPLAY_LEVEL 3\nUSB_TIMEOUT # x\nrshim64 usb-1.1\nboot_timeout 3\nUSB_TIMEOUT 30\n",
			want: conf{usbTimeout: 30 * time.Second},
			remarks: []remark{
				{1, true, "no value for BOOT_TIMEOUT"},
				{2, true, `BOOT_TIMEOUT is a number from 1 to 86400, not "0"`},
				{3, true, `DISPLAY_LEVEL is a number from 0 to 2, not "3"`},
				{4, true, `USB_TIMEOUT is a number from 0 to 300, not "#"`},
				{5, true, `unknown key "rshim64"`},
				{6, true, `unknown key "boot_timeout"`},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, remarks, err := readConf(strings.NewReader(c.text))
			if err != nil || got != c.want || !reflect.DeepEqual(remarks, c.remarks) {
				t.Errorf("%+v, %+v, %v", got, remarks, err)
			}
		})
	}
	if _, _, err := readConf(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line of 1 MiB is fine")
	}
}

func FuzzReadConf(f *testing.F) {
	f.Add("DISPLAY_LEVEL 2\nBOOT_TIMEOUT 600\nrshim0 usb-2-1.7\n")
	f.Add("USB_TIMEOUT 99999999999999999999\n\x00\xff \xff")
	f.Fuzz(func(t *testing.T, text string) {
		c, remarks, _ := readConf(strings.NewReader(text))
		if c.displayLevel < 0 || c.displayLevel > 2 || c.bootTimeout < 0 || c.bootTimeout > 24*time.Hour ||
			c.usbTimeout < 0 || c.usbTimeout > 300*time.Second {
			t.Errorf("%+v", c)
		}
		lines := 1 + strings.Count(text, "\n")
		if len(remarks) > lines {
			t.Errorf("%d remarks on %d lines", len(remarks), lines)
		}
		for _, r := range remarks {
			if r.line < 1 || r.line > lines || r.text == "" {
				t.Errorf("%+v", r)
			}
		}
	})
}
