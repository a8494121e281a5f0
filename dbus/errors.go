// SPDX-License-Identifier: Apache-2.0

package dbus

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/bluefield-go/bmc-rshim/rshim"
	"github.com/bluefield-go/bmc-rshim/rshim/bfb"
	corepush "github.com/bluefield-go/bmc-rshim/rshim/push"
)

// Names of D-Bus errors. bmcweb turns them into HTTP statuses: InvalidArgument
// 400, NotAllowed 405, Unavailable 409, and 500 for what it does not know.
// Source: bmcweb, redfish-core/src/utils/dbus_utils.cpp.
const (
	commonError = "xyz.openbmc_project.Common.Error."

	errorInvalidArgument = commonError + "InvalidArgument"
	errorNotAllowed      = commonError + "NotAllowed"
	errorUnavailable     = commonError + "Unavailable"
	errorTimeout         = commonError + "Timeout"
	errorInternal        = commonError + "InternalFailure"
	errorNotFound        = commonError + "ResourceNotFound"
	errorUnsupported     = commonError + "UnsupportedRequest"
	errorTooMany         = commonError + "TooManyResources"
	errorPermission      = commonError + "InsufficientPermission"

	errorInvalidImage = "xyz.openbmc_project.Software.Update.Error.InvalidImage"
	errorIncompatible = "xyz.openbmc_project.Software.Update.Error.Incompatible"
	errorInvalidEnum  = "xyz.openbmc_project.sdbusplus.Error.InvalidEnumString"
)

// Errors that the service itself finds.
var (
	// errArgument is a value that no property or option can have.
	errArgument = errors.New("invalid argument")
	// errEnum is a string that is none of an enumeration's.
	errEnum = errors.New("not a value of the enumeration")
	// errPushing refuses what would break a push that runs.
	errPushing = errors.New("a push is running")
)

// errorNames is the D-Bus name of every error that callers can get. The first
// that an error is counts, so that what is more special stands first.
var errorNames = []struct {
	err  error
	name string
}{
	{errEnum, errorInvalidEnum},
	{errArgument, errorInvalidArgument},
	{errPushing, errorUnavailable},

	{bfb.ErrGeneration, errorIncompatible},
	{bfb.ErrMagic, errorInvalidImage},
	{bfb.ErrVersion, errorInvalidImage},
	{bfb.ErrTruncated, errorInvalidImage},
	{bfb.ErrCRC, errorInvalidImage},
	{bfb.ErrBitmap, errorInvalidImage},

	{corepush.ErrDigest, errorInvalidImage},

	{rshim.ErrNoAnswer, errorTimeout},
	{rshim.ErrNoReset, errorTimeout},
	{rshim.ErrGone, errorUnavailable},
	{rshim.ErrNotOwner, errorUnavailable},
	{rshim.ErrLocked, errorUnavailable},
	{rshim.ErrNotReady, errorUnavailable},
	{rshim.ErrBusy, errorUnavailable},
	{rshim.ErrIncomplete, errorInvalidImage},
	{rshim.ErrCancelled, errorUnavailable},
	{rshim.ErrGivenUp, errorUnavailable},
	{rshim.ErrNoPush, errorNotFound},
	{rshim.ErrDPU, errorInternal},
	{rshim.ErrInvalid, errorInvalidArgument},
	{rshim.ErrNotSupported, errorUnsupported},
	{rshim.ErrTooMany, errorTooMany},
	{rshim.ErrBlocked, errorNotAllowed},

	{ErrNoHostAccess, errorUnavailable},
	{ErrHostAccessRefused, errorNotAllowed},

	{os.ErrDeadlineExceeded, errorTimeout},
	{context.DeadlineExceeded, errorTimeout},
	{context.Canceled, errorUnavailable}, // the daemon ends, or the device goes
	{os.ErrPermission, errorPermission},
	{os.ErrNotExist, errorNotFound},
	{syscall.EMFILE, errorTooMany},
	{syscall.ENFILE, errorTooMany},
}

// errorName is the D-Bus name of an error.
func errorName(err error) string {
	for _, e := range errorNames {
		if errors.Is(err, e.err) {
			return e.name
		}
	}
	return errorInternal
}
