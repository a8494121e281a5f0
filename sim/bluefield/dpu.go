// SPDX-License-Identifier: Apache-2.0

// Package bluefield is a behavioural model of a BlueField DPU as the RShim
// shows it: registers, boot FIFO, boot ROM and boot stages, boot log, TMFIFO,
// soft reset, and the ways in which each of them misbehaves in the field. It
// knows no transport; sim/usbdev puts it on a USB bus, and Host, the driver on
// the host's PCIe side, is a second caller of ReadReg and WriteReg.
//
// On the TMFIFO the software of the DPU behaves as the real one does. While the
// boot ROM and ATF run nobody reads it. ATF writes 8 characters a message, from
// a second of uptime on one, and loses them when the FIFO is full. UEFI begins
// with up to 192 empty messages, writes a line a message, loses lines without
// room, drops what is typed and all frames, and answers control messages. So
// does Linux, which has the network and a console whose buffer of 32 KiB loses
// whole lines of the kernel when it is full. A frame that the host does not
// take for 2 s is given up, with zeros in its place.
//
// Lines of the boot log are on the console too, ended by CR LF, all but the
// PSC's, until an installed Linux is up. Then there is a shell, with Prompt,
// which never loses anything it prints. What is typed is echoed when the shell
// reads it, which is when the command before has ended; CR and LF each end a
// line and echo as CR LF, DEL and BS rub out, ^C gives up the line, and other
// control characters are ignored. Lines end with CR LF, but the commands flood,
// sink and mirror work raw, where \n alone is printed:
//
//	help       print a list of the commands
//	echo TEXT  print TEXT
//	flood N    print N bytes: FloodText, then "flood done\n"
//	sink N     read N bytes after the line's end, without echo, and print
//	           "sink N sha256 HEX\n"
//	mirror N   read N bytes after the line's end and print them as they come,
//	           then "mirror done\n"
//	uptime     print "uptime N", in seconds since the reset
//	reboot     reset the DPU, to boot from eMMC
//
// Anything else is answered by "NAME: not found", an empty line by the next
// prompt alone.
//
// Time comes from package time alone and every wait is on channels and timers,
// so that a model runs inside a testing/synctest bubble. A model with nothing
// to do sets no timers.
package bluefield

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/bluefield-go/bmc-rshim/rshim/reg"
	"github.com/bluefield-go/bmc-rshim/sim/internal/pace"
)

// Config says what DPU to model. The zero value is a healthy BlueField-3 that
// boots from eMMC as fast as possible.
type Config struct {
	Generation reg.Generation // 0: BlueField3
	Revision   uint8          // bcdDevice is this
	OPN        string         // part number, at most 16 characters
	NICMode    bool           // the card runs in NIC mode

	// NoFirmware takes the boot ROM and all software away: whatever comes
	// into the boot FIFO is read at DrainRate and thrown away.
	NoFirmware bool

	// DrainRate is how fast the DPU reads its boot FIFO, in bytes a second;
	// 0 is at once.
	DrainRate int64
	// StageScale stretches the boot stages: 1 is a demonstration of about ten
	// seconds, 0 as fast as possible in the right order.
	StageScale float64
	// FailAfter and FailLine script a boot that gets stuck: after the log line
	// that contains FailAfter, FailLine is logged, such as
	// "ERR[BL2]: DDR init fail on MSS0", and nothing more happens.
	FailAfter, FailLine string

	Reset ResetBehaviour

	Sink    io.Writer // gets what the DPU reads from its boot FIFO
	Capture bool      // keep all that arrives in the boot FIFO for BootBytes

	// Console puts a console on the TMFIFO: what boots writes its log there, as
	// far as there is room, and then there is a shell. See the package comment.
	Console bool
	// Net is what the DPU's network interface is connected to: a Write is an
	// Ethernet frame from the host, a Read gives the next one for it, both
	// without checksum. A Write that waits stops the DPU from reading its
	// TMFIFO. Run closes it when it ends. See sim/netpeer.
	Net io.ReadWriteCloser
	// MAC is the address that the DPU tells the host; zero: DefaultMAC.
	MAC [6]byte
	// UpstreamKernel makes the DPU's Linux leave control messages unanswered,
	// as the upstream kernel's driver does.
	UpstreamKernel bool
	// DirtyHeaders fills the bytes of a header that the kernel's driver leaves
	// uninitialised, the checksum's among them, with garbage.
	DirtyHeaders bool

	// OnTM gets the words that arrive over the TMFIFO, and replaces the DPU's
	// software there. It must not block for long. With neither of OnTM, Console
	// and Net, and with NoFirmware, they are read and thrown away.
	OnTM func(words []uint64)
	// OnWrite is told of each register write from outside, after it.
	OnWrite func(a reg.Addr, v uint64)

	Logger *slog.Logger // events, see event; nil discards
}

// DefaultMAC is the address of the DPU's side of the network, of any DPU.
var DefaultMAC = [6]byte{0x00, 0x1a, 0xca, 0xff, 0xff, 0x01}

// Stage is how far the DPU has come.
type Stage int

// Stages of a DPU.
const (
	StageOff        Stage = iota // Run has not begun
	StageReset                   // in reset, or not yet ready after it
	StageROM                     // the boot ROM waits for a boot stream
	StageLoading                 // reading the boot stream
	StageInstalling              // the installer's Linux runs
	StageBooting                 // booting from eMMC
	StageReady                   // up
	StageStuck                   // dead until the next reset
)

func (s Stage) String() string {
	return [...]string{"off", "reset", "rom", "loading", "installing", "booting", "ready", "stuck"}[s]
}

// DPU is a model of one DPU. All methods are safe for concurrent use.
type DPU struct {
	cfg Config
	m   *reg.Map
	log *slog.Logger

	resets chan struct{} // the key was written; holds one

	// mu guards all below. It is held for short steps only, never for a wait.
	mu sync.Mutex

	stage   Stage
	stageCh bell

	plain     map[reg.Addr]uint64 // registers that just hold a value
	mem       map[uint64]uint32   // what MEM_ACC reaches
	memRsp    uint64
	resetAt   time.Time
	powerAt   time.Time
	notReady  bool // in reset or not ready yet
	resetting bool // a reset was asked for and has not begun
	reset     ResetBehaviour
	kick      bell // SWINT was written

	onBus  bool
	busFn  func(present bool)
	faults []badRead
	badAll struct {
		until time.Time
		value uint64
	}
	trace struct {
		left int
		acc  []Access
	}

	sem     uint64 // SEMAPHORE0; not 0 when taken
	semFree bell
	ring    [reg.LogWords]uint64
	ringIdx int
	lost    int // log lines

	boot struct {
		fifo     ring8
		room     bell // something was read
		data     bell // something arrived, or reading resumed
		resume   bell // a pause is to end
		hold     bool
		pauses   []pause
		rate     int64
		pacer    pace.Pacer
		drained  int64
		count    int64 // what arrived since the last reset into the boot ROM
		sum      hash.Hash
		captured []byte
		overflow int64
		lost     int64 // swallowed while not ready
	}
	tm struct {
		in, out       []uint64 // from the host, to the host
		inData, inRem bell
		outData       bell
		outRem        bell
		hold          bool
		lossy         bool
		overflow      int64

		soft        *software // of this boot
		consoleHold bool
		seed        uint64
		state       TMState
	}
}

// New returns a DPU that is powered, on the bus, and does nothing until Run.
func New(cfg Config) *DPU {
	if cfg.Generation == 0 {
		cfg.Generation = reg.BlueField3
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.MAC == [6]byte{} {
		cfg.MAC = DefaultMAC
	}
	now := time.Now()
	d := &DPU{
		cfg: cfg, m: reg.For(cfg.Generation), log: log,
		resets: make(chan struct{}, 1),
		plain:  map[reg.Addr]uint64{}, mem: map[uint64]uint32{},
		resetAt: now, powerAt: now, onBus: true, reset: cfg.Reset,
	}
	d.boot.fifo.buf = make([]byte, d.m.BootFIFODepth*8)
	d.boot.rate = cfg.DrainRate
	d.boot.sum = sha256.New()
	d.plain[d.m.BootControl] = uint64(reg.BootEMMC)
	d.tm.soft = newSoftware()
	d.tm.state.MAC = cfg.MAC
	for i, w := range reg.OPNWords(cfg.OPN) {
		d.mem[d.opnAddr(i)] = w
	}
	return d
}

// Config returns what New was given, with its defaults filled in.
func (d *DPU) Config() Config { return d.cfg }

// Map is the register map of the DPU's generation.
func (d *DPU) Map() *reg.Map { return d.m }

// Run makes the DPU alive: it boots, reads its FIFOs and obeys resets until
// ctx ends. It returns nil when everything it started has ended.
func (d *DPU) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if !d.hasSoftware() {
		wg.Go(func() { d.drainTM(ctx) })
	}
	if d.cfg.Net != nil {
		wg.Go(func() { d.readNet(ctx) })
		wg.Go(func() { <-ctx.Done(); d.cfg.Net.Close() })
	}
	for {
		bootCtx, stop := context.WithCancel(ctx)
		var boot sync.WaitGroup
		boot.Go(func() { d.runBoot(bootCtx) })
		boot.Go(func() { d.runTM(bootCtx) })
		b, ok := d.waitReset(ctx)
		stop()
		boot.Wait()
		if !ok || !d.doReset(ctx, b) {
			return nil
		}
	}
}

// Stage returns how far the DPU has come.
func (d *DPU) Stage() Stage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stage
}

// WaitStage returns when the DPU is at stage s, or ctx has ended. A stage that
// is passed through quickly may be missed.
func (d *DPU) WaitStage(ctx context.Context, s Stage) error {
	for {
		d.mu.Lock()
		at, ch := d.stage, d.stageCh.wait()
		d.mu.Unlock()
		if at == s {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *DPU) setStage(s Stage) {
	d.mu.Lock()
	d.stage = s
	d.stageCh.ring()
	d.mu.Unlock()
	d.event("stage", "name", s.String())
}

// event reports something that happened: a name and key=value pairs.
func (d *DPU) event(name string, kv ...any) { d.log.Info(name, kv...) }

// bell wakes those who wait for a change. The owner's mutex guards it.
type bell struct{ ch chan struct{} }

// wait returns a channel that is closed at the next ring.
func (b *bell) wait() <-chan struct{} {
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// sleep waits for d, not at all when it is 0; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
