// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	vmguest "github.com/bluefield-go/bmc-rshim/internal/vmtest/guest"
)

// The addresses that people give both ends of the TMFIFO's network.
const (
	bmcIP = "192.168.100.1"
	dpuIP = "192.168.100.2"
)

// TestPing pings the DPU's own answering machine.
func TestPing(t *testing.T) {
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newRig(t, "-generation", gen, "-net", "echo")
			r.addressed()
			r.ping(gen, 20)
			if mac, _ := os.ReadFile("/sys/class/net/tmfifo_net0/address"); strings.TrimSpace(string(mac)) != "00:1a:ca:ff:ff:02" {
				t.Errorf("MAC address %s", mac)
			}
			before, _ := os.ReadFile("/sys/class/net/tmfifo_net0/ifindex")
			r.swReset()
			r.until("the DPU to be back", func() bool { return onBus(t) == 1 })
			r.until("the network to be back", func() bool { _, code := sh(t, "ping -c 1 -W 1 "+dpuIP); return code == 0 })
			if after, _ := os.ReadFile("/sys/class/net/tmfifo_net0/ifindex"); string(after) != string(before) {
				t.Errorf("interface %s was replaced by %s in a reset", before, after)
			}
		})
	}
}

// TestNetwork puts a Linux of its own at the other end of tmfifo_net0: a network
// namespace in which the servers are real.
func TestNetwork(t *testing.T) {
	umlOnly(t)
	for _, gen := range generations {
		t.Run(gen, func(t *testing.T) {
			r := newDPUNetwork(t, "-generation", gen)
			r.ping(gen, 50)
			r.mustRun("ip netns exec dpu ping -c 3 -i 0.2 " + bmcIP)

			t.Run("iperf3", func(t *testing.T) {
				r := r.in(t)
				server := start(t, "ip", "netns", "exec", "dpu", "iperf3", "-s", "--forceflush")
				r.until("iperf3", func() bool { return strings.Contains(server.output(), "Server listening") })
				for name, flag := range map[string]string{"to_dpu": "", "from_dpu": "-R"} {
					var result struct {
						End struct {
							Received struct {
								Rate float64 `json:"bits_per_second"`
							} `json:"sum_received"`
						}
					}
					var out string
					r.until("iperf3 to have measured", func() bool {
						var code int
						if out, code = sh(t, "iperf3 -J -t 5 -c "+dpuIP+" "+flag); code == 0 {
							return true
						}
						if !strings.Contains(out, "busy") { // with the end of the one before
							t.Fatalf("iperf3: exit code %d\n%s", code, out)
						}
						return false
					})
					if err := json.Unmarshal([]byte(out), &result); err != nil || result.End.Received.Rate == 0 {
						t.Fatalf("%v\n%s", err, out)
					}
					vmguest.Metric(t, "net_"+gen+"_"+name, result.End.Received.Rate/8e6, "MB/s")
				}
			})

			t.Run("ssh", func(t *testing.T) {
				r := r.in(t)
				ssh := r.sshServer()
				if out := r.mustRun(ssh + " 'echo from $(ip -br -4 addr show dev dpu0)'"); !strings.Contains(out, dpuIP) {
					t.Error(out)
				}
				// A login with a terminal, and enough output to fill every buffer.
				out := r.mustRun(ssh + " -tt 'tty && seq 1 50000'")
				if !strings.Contains(out, "/dev/pts/") || !strings.Contains(out, "\n50000\r\n") {
					t.Errorf("%.200s...", out)
				}
			})
		})
	}
}

// newDPUNetwork starts a DPU whose network is the namespace dpu.
func newDPUNetwork(t *testing.T, args ...string) *rig {
	t.Helper()
	vmguest.Require(t)
	ns := &rig{t: t}
	ns.mustRun("ip netns add dpu")
	t.Cleanup(func() { sh(t, "ip netns del dpu") })
	r := newRig(t, append(args, "-net", "tap:dpu0@/run/netns/dpu")...)
	r.mustRun("ip -n dpu link set lo up")
	r.addressed()
	return r
}

// addressed gives the BMC's end its address.
func (r *rig) addressed() {
	r.t.Helper()
	r.until("tmfifo_net0", func() bool { _, err := os.Stat("/sys/class/net/tmfifo_net0"); return err == nil })
	r.mustRun("ip addr add " + bmcIP + "/30 dev tmfifo_net0")
}

// mustRun runs a shell command that has to succeed.
func (r *rig) mustRun(script string) string {
	r.t.Helper()
	out, code := sh(r.t, script)
	if code != 0 {
		r.t.Fatalf("%s: exit code %d\n%s", script, code, out)
	}
	return out
}

var (
	pingSent  = regexp.MustCompile(`([0-9]+) packets transmitted`)
	pingSeq   = regexp.MustCompile(`bytes from .* (icmp_)?seq=([0-9]+) `)
	pingTimes = regexp.MustCompile(`= [0-9.]+/([0-9.]+)/`) // min/avg/...
)

// ping pings the DPU, of whose answers none may be missing.
func (r *rig) ping(gen string, count int) {
	r.t.Helper()
	r.until("the first answer", func() bool { _, code := sh(r.t, "ping -c 1 -W 1 "+dpuIP); return code == 0 })
	for try := 1; ; try++ {
		out := r.mustRun(fmt.Sprintf("ping -c %d -i 0.2 %s", count, dpuIP))
		answers, gap := answered(out)
		times := pingTimes.FindStringSubmatch(out)
		switch {
		case times != nil && answers == count:
			avg, _ := strconv.ParseFloat(times[1], 64)
			vmguest.Metric(r.t, "ping_"+gen, avg, "ms")
			return
		case times == nil || gap || try == 4: // it does not wait long for the last ones
			r.t.Fatalf("%d answers to %d pings, with a gap: %t\n%s", answers, count, gap, out)
		}
	}
}

// answered counts the answers that ping has printed, and reports whether one is
// missing before the last of them.
func answered(out string) (answers int, gap bool) {
	seen, last := make(map[int]bool), 0
	for _, m := range pingSeq.FindAllStringSubmatch(out, -1) {
		n, _ := strconv.Atoi(m[2])
		if m[1] == "" {
			n++ // busybox begins at 0
		}
		seen[n], last = true, max(last, n)
	}
	return len(seen), len(seen) != last
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sshServer starts an SSH server in the DPU's namespace and returns the command
// that logs in there.
func (r *rig) sshServer() string {
	r.t.Helper()
	dir := r.t.TempDir()
	host, id := filepath.Join(dir, "host"), filepath.Join(dir, "id")
	r.mustRun(fmt.Sprintf(`dropbearkey -t ed25519 -f %s && ssh-keygen -q -t ed25519 -N '' -f %s &&
mkdir -p -m 700 /root/.ssh && cp %s.pub /root/.ssh/authorized_keys && chmod 600 /root/.ssh/authorized_keys`, host, id, id))
	server := start(r.t, "ip", "netns", "exec", "dpu", "dropbear", "-F", "-E", "-s", "-r", host, "-p", dpuIP+":22")
	r.until("the SSH server", func() bool { return strings.Contains(server.output(), "Not backgrounding") })
	return "ssh -q -i " + id + " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@" + dpuIP
}
