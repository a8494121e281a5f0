// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"errors"
)

func bootAST2600(ctx context.Context, l *launch) (*machineProcess, error) {
	return nil, errors.New("not yet")
}
