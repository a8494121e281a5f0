// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/bluefield-go/bmc-rshim/internal/metrics"
	"github.com/bluefield-go/bmc-rshim/rshim"
)

// collect puts the devices' counters into x. Names and labels are an
// interface. What changes by itself with time, such as an
// age, is not among them: the file is written when something has happened.
func collect(x *metrics.Text, set *rshim.Set, began time.Time) {
	gauge := func(name, help string) metrics.Metric {
		return x.Metric("bmc_rshim_"+name, metrics.Gauge, help)
	}
	counter := func(name, help string) metrics.Metric {
		return x.Metric("bmc_rshim_"+name+"_total", metrics.Counter, help)
	}
	devices := set.Devices()
	gauge("build_info", "Version of the daemon.").Add(1, "version", version())
	gauge("start_time_seconds", "When the daemon started, in seconds since the Epoch.").Add(float64(began.Unix()))
	gauge("serving", "Whether the daemon serves the DPUs.").Bool(set.Serving())
	gauge("devices", "Devices that are known, absent ones too.").Add(float64(len(devices)))
	for _, d := range devices {
		s, t := d.Status(), d.TMFIFO()
		dev := fmt.Sprintf("rshim%d", s.Index)
		generation := ""
		if s.Generation != 0 {
			generation = s.Generation.String()
		}
		gauge("device_info", "What a device is.").Add(1, "device", dev, "name", s.Name, "generation", generation, "opn", s.OPN)
		gauge("attached", "Whether the RShim is ours.").Bool(!s.Attached.IsZero(), "device", dev)
		gauge("device_state", "State of a device, which is the one with 1.").Add(1, "device", dev, "state", s.State.String())
		gauge("boot_stage", "What the DPU is doing, as its boot log told; it is the one with 1.").Add(1, "device", dev, "stage", s.Stage.String())

		c := s.Counters
		counter("attaches", "How often the RShim became ours.").Add(float64(c.Attaches), "device", dev)
		counter("pushes", "Boot streams opened.").Add(float64(c.Pushes), "device", dev)
		counter("push_bytes", "Bytes of boot streams that the chip has taken.").Add(float64(c.PushBytes), "device", dev)
		counter("resets", "Resets of the chip by the daemon.").Add(float64(c.Resets), "device", dev)
		counter("forced", "How often the RShim was taken over from another backend.").Add(float64(c.Forced), "device", dev)
		counter("granted", "How often the RShim was handed over to another backend.").Add(float64(c.Granted), "device", dev)
		counter("boot_log_lines", "Lines of the boot log.").Add(float64(c.LogLines), "device", dev)
		if p := s.Push; p.Phase != rshim.PushNone {
			gauge("push_running", "Whether a push runs, the boot after it included.").Bool(!p.Outcome.Final(), "device", dev)
			if p.Outcome.Final() {
				gauge("last_push", "Outcome of the last push, which is the one with 1.").Add(1, "device", dev, "outcome", p.Outcome.String())
				gauge("last_push_duration_seconds", "How long the last push took, the boot after it included.").Add(p.Ended.Sub(p.Started).Seconds(), "device", dev)
			}
		}

		messages := counter("tmfifo_messages", "Messages through the TMFIFO.")
		bytes := counter("tmfifo_bytes", "Payload through the TMFIFO, in bytes.")
		dropped := counter("tmfifo_dropped_bytes", "Payload that was dropped, in bytes.")
		for _, k := range trafficKinds {
			to, from := k.of(t)
			for _, w := range []struct {
				way string
				rshim.Traffic
			}{{"to_dpu", to}, {"from_dpu", from}} {
				messages.Add(float64(w.Messages), "device", dev, "kind", k.name, "direction", w.way)
				bytes.Add(float64(w.Bytes), "device", dev, "kind", k.name, "direction", w.way)
				dropped.Add(float64(w.DroppedBytes), "device", dev, "kind", k.name, "direction", w.way)
			}
		}
		counter("tmfifo_starts", "How often the TMFIFO was begun with anew.").Add(float64(t.Starts), "device", dev)
		counter("tmfifo_errors", "How often the TMFIFO ended with an error.").Add(float64(t.Errors), "device", dev)
	}
}
