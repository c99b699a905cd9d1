package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// drainPath is the operations' path; the front end that serves it is not for
// clients to import.
const drainPath = "/ops/v1/drain"

// drainEvery is how often --wait looks.
const drainEvery = 500 * time.Millisecond

// drainStatus is the server's answer.
type drainStatus struct {
	Draining  bool      `json:"draining"`
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Connected int       `json:"connected"`
	Remaining int       `json:"remaining"`
}

// drainRequest is one call.
func drainRequest(method string) apiclient.Request {
	return apiclient.Request{Service: apiclient.ServiceControl, Method: method, Path: drainPath}
}

// drain tells the devices of a server to leave.
func (c *command) drain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drain", Short: "Tell all devices to leave and let none in", Args: cobra.NoArgs,
		Long: `Tell the connected devices to leave, one after the other in random order, and
refuse new connections until the drain is ended or the server restarts: before
maintenance, or to move the fleet to another server. Devices that speak MQTT 5
are told why, and when to come back. Meanwhile GET /readyz answers 503, so that
load balancers look elsewhere.

Without --over the time is the server's setting drain.over.`,
		Example: `  muster drain --over 60s --wait
  muster drain --status
  muster drain --end`,
	}
	over := cmd.Flags().Duration("over", 0, "time over which devices are told to leave, at most 1h (default the server's drain.over)")
	wait := cmd.Flags().Bool("wait", false, "return when all devices have left")
	end := cmd.Flags().Bool("end", false, "let devices in again")
	status := cmd.Flags().Bool("status", false, "show how far a drain has come and change nothing")
	cmd.MarkFlagsMutuallyExclusive("over", "end", "status")
	cmd.MarkFlagsMutuallyExclusive("wait", "end")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		var now drainStatus
		var err error
		switch {
		case *end:
			err = api.JSON(cmd.Context(), drainRequest(http.MethodDelete), nil, &now)
		case *status:
			err = api.JSON(cmd.Context(), drainRequest(http.MethodGet), nil, &now)
		default:
			in := map[string]string{}
			if cmd.Flags().Changed("over") {
				in["over"] = over.String()
			}
			err = api.JSON(cmd.Context(), drainRequest(http.MethodPost), in, &now)
		}
		if err == nil && *wait {
			now, err = awaitDrain(cmd.Context(), api, now)
		}
		return drainTable(now), err
	})
}

// errDrainOver is a drain that somebody ended while it was waited for.
var errDrainOver = errors.New("the drain was ended before all devices had left")

// awaitDrain looks until all devices have left.
func awaitDrain(ctx context.Context, api *apiclient.Client, now drainStatus) (drainStatus, error) {
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for now.Remaining > 0 {
		if !now.Draining {
			return now, errDrainOver
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return now, ctx.Err() //nolint:wrapcheck // the caller's own
		}
		if err := api.JSON(ctx, drainRequest(http.MethodGet), nil, &now); err != nil {
			return now, fmt.Errorf("look at the drain: %w", err)
		}
	}
	return now, nil
}

// drainTable shows the status.
func drainTable(now drainStatus) table {
	t := table{header: []string{"DRAINING", "CONNECTED AT START", "REMAINING", "LAST IS TOLD AT"}, raw: now}
	until, began := "", ""
	if now.Draining {
		until, began = now.Until.Format(time.RFC3339), strconv.Itoa(now.Connected)
	}
	t.add(strconv.FormatBool(now.Draining), began, strconv.Itoa(now.Remaining), until)
	return t
}
