// SPDX-License-Identifier: Apache-2.0

package afmctp_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bluefield-go/bmc-rshim/mctp/afmctp"
	"github.com/bluefield-go/bmc-rshim/ncsi"
	"github.com/bluefield-go/bmc-rshim/ncsi/oem"
)

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		in   error
		want error
		text []string
		kept bool // it is certain that nothing has left
	}{
		{unix.EAFNOSUPPORT, afmctp.ErrNoMCTP, []string{"CONFIG_MCTP"}, false},
		{unix.EACCES, fs.ErrPermission, []string{"CAP_NET_RAW"}, true},
		{unix.EHOSTUNREACH, afmctp.ErrNoRoute, []string{"mctp route add 29", "mctp neigh add 29", "mctp addr"}, true},
		{unix.EBUSY, afmctp.ErrBusy, []string{"too many requests"}, true},
		{unix.EMSGSIZE, unix.EMSGSIZE, nil, true},
		{unix.EIO, unix.EIO, nil, false},
		{os.ErrDeadlineExceeded, os.ErrDeadlineExceeded, nil, false},
	} {
		err := afmctp.Explain(afmctp.Options{Network: 7, Peer: 29}, tt.in)
		var oe *afmctp.OpError
		if !errors.Is(err, tt.want) || !errors.Is(err, tt.in) || !errors.As(err, &oe) || oe.Op != "send" {
			t.Errorf("%v: %v", tt.in, err)
		}
		if oem.IsNotSent(err) != tt.kept {
			t.Errorf("%v: not sent: %v", tt.in, !tt.kept)
		}
		for _, s := range append(tt.text, "network 7 EID 29") {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%q does not say %q", err, s)
			}
		}
	}
}

// Most kernels have no MCTP.
func TestNoMCTP(t *testing.T) {
	fd, err := unix.Socket(unix.AF_MCTP, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.Close(fd)
		t.Skip("this kernel has MCTP")
	}
	_, err = afmctp.New(afmctp.Options{Peer: 29}).Do(t.Context(), 0, ncsi.OEM, nil)
	if !errors.Is(err, afmctp.ErrNoMCTP) || errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "EID 29: socket") || !oem.IsNotSent(err) {
		t.Errorf("%v", err)
	}
}
