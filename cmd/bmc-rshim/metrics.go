// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/metrics"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// sampler puts samples into x, of the device dev if that is not "".
type sampler struct {
	x   *metrics.Text
	dev string
}

func (m *sampler) put(kind, name, help string, value float64, labels []string) {
	if m.dev != "" {
		labels = append([]string{"device", m.dev}, labels...)
	}
	m.x.Metric("bmc_rshim_"+name, kind, help).Add(value, labels...)
}

// gauge and count are not inlined: that would be 15 KiB of code in collect.
//
//go:noinline
func (m *sampler) gauge(name, help string, value float64, labels ...string) {
	m.put(metrics.Gauge, name, help, value, labels)
}

//go:noinline
func (m *sampler) count(name, help string, value int64, labels ...string) {
	m.put(metrics.Counter, name+"_total", help, float64(value), labels)
}

// collect puts the devices' counters into x. Names and labels are an
// interface. What changes by itself with time, such as an
// age, is not among them: the file is written when something has happened.
func collect(x *metrics.Text, set *rshim.Set, began time.Time) {
	m := sampler{x: x}
	devices := set.Devices()
	m.gauge("build_info", "Version of the daemon.", 1, "version", version())
	m.gauge("start_time_seconds", "When the daemon started, in seconds since the Epoch.", float64(began.Unix()))
	m.gauge("serving", "Whether the daemon serves the DPUs.", truth(set.Serving()))
	m.gauge("devices", "Devices that are known, absent ones too.", float64(len(devices)))
	for _, d := range devices {
		s, t := d.Status(), d.TMFIFO()
		m.dev = fmt.Sprintf("rshim%d", s.Index)
		generation := ""
		if s.Generation != 0 {
			generation = s.Generation.String()
		}
		m.gauge("device_info", "What a device is.", 1, "name", s.Name, "generation", generation, "opn", s.OPN)
		m.gauge("attached", "Whether the RShim is ours.", truth(!s.Attached.IsZero()))
		m.gauge("device_state", "State of a device, which is the one with 1.", 1, "state", s.State.String())
		m.gauge("boot_stage", "What the DPU is doing, as its boot log told; it is the one with 1.", 1, "stage", s.Stage.String())

		c := s.Counters
		m.count("attaches", "How often the RShim became ours.", c.Attaches)
		m.count("pushes", "Boot streams opened.", c.Pushes)
		m.count("push_bytes", "Bytes of boot streams that the chip has taken.", c.PushBytes)
		m.count("resets", "Resets of the chip by the daemon.", c.Resets)
		m.count("forced", "How often the RShim was taken over from another backend.", c.Forced)
		m.count("granted", "How often the RShim was handed over to another backend.", c.Granted)
		m.count("boot_log_lines", "Lines of the boot log.", c.LogLines)
		if p := s.Push; p.Phase != rshim.PushNone {
			m.gauge("push_running", "Whether a push runs, the boot after it included.", truth(!p.Outcome.Final()))
			if p.Outcome.Final() {
				m.gauge("last_push", "Outcome of the last push, which is the one with 1.", 1, "outcome", p.Outcome.String())
				m.gauge("last_push_duration_seconds", "How long the last push took, the boot after it included.", p.Ended.Sub(p.Started).Seconds())
			}
		}
		for _, k := range trafficKinds {
			to, from := k.of(t)
			for _, w := range []struct {
				way string
				rshim.Traffic
			}{{"to_dpu", to}, {"from_dpu", from}} {
				labels := []string{"kind", k.name, "direction", w.way}
				m.count("tmfifo_messages", "Messages through the TMFIFO.", int64(w.Messages), labels...)
				m.count("tmfifo_bytes", "Payload through the TMFIFO, in bytes.", int64(w.Bytes), labels...)
				m.count("tmfifo_dropped_bytes", "Payload that was dropped, in bytes.", int64(w.DroppedBytes), labels...)
			}
		}
		m.count("tmfifo_starts", "How often the TMFIFO was begun with anew.", int64(t.Starts))
		m.count("tmfifo_errors", "How often the TMFIFO ended with an error.", int64(t.Errors))
	}
}

// truth is 1 for true.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
