// SPDX-License-Identifier: Apache-2.0

// Package metrics writes a daemon's counters in the text format of Prometheus,
// to a file for node_exporter's textfile collector. Source: the text-based
// exposition format, version 0.0.4.
package metrics

import (
	"strconv"
	"strings"
)

// Kinds of metrics.
const (
	Counter = "counter" // grows, but for restarts
	Gauge   = "gauge"
)

// Text is metrics as text. Its zero value has none.
type Text struct {
	families []family
	at       map[string]int // index by name
}

// family are the samples of one metric.
type family struct {
	name, help, kind string
	samples          []byte
}

// Metric is a metric that samples can be added to.
type Metric struct {
	t *Text
	i int
}

// Metric returns the metric of a name, which is in the text from its first
// sample on. A counter's name ends in _total, and names have their unit:
// _bytes, _seconds.
func (t *Text) Metric(name, kind, help string) Metric {
	i, ok := t.at[name]
	if !ok {
		if t.at == nil {
			t.at = make(map[string]int)
		}
		i = len(t.families)
		t.at[name] = i
		t.families = append(t.families, family{name: name, help: help, kind: kind})
	}
	return Metric{t, i}
}

// Add adds a sample. Labels are names and values by turns.
func (m Metric) Add(value float64, labels ...string) {
	f := &m.t.families[m.i]
	b := append(f.samples, f.name...)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		b = append(b, sep)
		b = append(b, labels[i]...)
		b = append(b, `="`...)
		b = appendEscaped(b, labels[i+1])
		b = append(b, '"')
	}
	if len(labels) > 1 {
		b = append(b, '}')
	}
	b = append(b, ' ')
	b = strconv.AppendFloat(b, value, 'g', -1, 64)
	f.samples = append(b, '\n')
}

// Bool adds a sample that is 1 or 0.
func (m Metric) Bool(value bool, labels ...string) {
	v := 0.0
	if value {
		v = 1
	}
	m.Add(v, labels...)
}

// Bytes returns the text: each metric once, in the order of their first
// mention.
func (t *Text) Bytes() []byte {
	var b []byte
	for _, f := range t.families {
		if len(f.samples) == 0 {
			continue
		}
		b = append(b, "# HELP "+f.name+" "...)
		b = append(b, strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(f.help)...)
		b = append(b, "\n# TYPE "+f.name+" "+f.kind+"\n"...)
		b = append(b, f.samples...)
	}
	return b
}

// appendEscaped appends a label's value, which may be what a device says of
// itself.
func appendEscaped(b []byte, s string) []byte {
	for _, c := range []byte(strings.ToValidUTF8(s, "?")) {
		switch c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		default:
			b = append(b, c)
		}
	}
	return b
}
