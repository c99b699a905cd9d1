package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-iot/muster/internal/store"
)

// SQLSTATE values that say more than "this statement is wrong".
const (
	stateDiskFull           = "53100"
	stateTooManyConnections = "53300"
	stateReadOnly           = "25006"
	classConnection         = "08"
	classShutdown           = "57P"
)

// classify adds store.ErrUnavailable or store.ErrDiskFull to an error of the
// driver where one of them is the cause.
func classify(err error) error {
	if err == nil || errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	var answered *pgconn.PgError
	if !errors.As(err, &answered) {
		// The server did not answer: there is no connection or it broke.
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	switch {
	case answered.Code == stateDiskFull:
		return fmt.Errorf("%w: %w", store.ErrDiskFull, err)
	case strings.HasPrefix(answered.Code, classConnection), strings.HasPrefix(answered.Code, classShutdown),
		answered.Code == stateTooManyConnections, answered.Code == stateReadOnly:
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// away reports whether the error means that the server could not be reached.
func away(err error) bool { return errors.Is(classify(err), store.ErrUnavailable) }
