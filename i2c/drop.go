// SPDX-License-Identifier: Apache-2.0

package i2c

import (
	"encoding/hex"
	"errors"
	"log/slog"
)

// Why a frame is dropped that is one.
var (
	errOtherAddress  = errors.New("to another address")
	errOtherEndpoint = errors.New("to another endpoint")
	errOtherSource   = errors.New("from another address than the NIC's")
	errOtherRequest  = errors.New("no response to our request")
)

func (e *Endpoint) drop(b []byte, why error) {
	e.o.Logger.Debug("i2c: frame dropped", "err", why, "frame", hexBytes(b))
}

// hexBytes are written out only if the logger wants them.
type hexBytes []byte

func (h hexBytes) LogValue() slog.Value { return slog.StringValue(hex.EncodeToString(h)) }
