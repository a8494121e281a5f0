// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestConfTexts(t *testing.T) {
	for text, want := range map[string]struct {
		ncsi    []string
		metrics string
		remark  string // "": none
	}{
		"NCSI -if eth0 -package 3\nMETRICS_FILE /run/x.prom\n": {[]string{"-if", "eth0", "-package", "3"}, "/run/x.prom", ""},
		"NCSI\n":                                  {nil, "", `no value for "NCSI"`},
		"METRICS_FILE x.prom\n":                   {nil, "", "is an absolute path"},
		"METRICS_FILE /a b\n":                     {nil, "/a", `just "/a" counts`},
		"NCSI -if eth0\nNCSI -mctp 1:29\n":        {[]string{"-mctp", "1:29"}, "", "the last one counts"},
		"#NCSI -if eth0\n":                        {nil, "", ""},
		"NCSl -if eth0\n":                         {nil, "", "did you mean NCSI?"},
		"NCSI " + strings.Repeat("x", 200) + "\n": {[]string{strings.Repeat("x", 200)}, "", ""},
	} {
		c, remarks, err := readConf(strings.NewReader(text))
		if err != nil || !slices.Equal(c.ncsi, want.ncsi) || c.metrics != want.metrics {
			t.Errorf("%q: %q, %q, %v", text, c.ncsi, c.metrics, err)
		}
		if want.remark == "" && len(remarks) > 0 || want.remark != "" && (len(remarks) != 1 || !strings.Contains(remarks[0].text, want.remark)) {
			t.Errorf("%q: remarks %v", text, remarks)
		}
	}
}
