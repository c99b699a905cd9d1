package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// shortCertificate is how much of a certificate id tells it from others at a
// glance; -o json shows it whole.
const shortCertificate = 12

// connections shows what became of a device's connections, or who was
// connected at a moment.
func (c *command) connections() *cobra.Command {
	cmd := &cobra.Command{
		Use: "connections [THING]", Short: "Show when a device was connected and why not, or who was at a moment", Args: cobra.MaximumNArgs(1),
		Long: `Shows the connections of a thing, newest first, refused connects among them, or
those of a client id with --client. With --at it shows which devices were
connected at a moment and says how many.

A time is RFC 3339 or relative to now: -90m, -24h, -7d. --from and --to keep
connections that lasted at some moment between the two. A connection without
DISCONNECTED lasts; one without CONNECTED was refused. All times are UTC.`,
		Example: `  muster connections pump-00001
  muster connections pump-00001 --from -24h -o csv
  muster connections --client site/7/gateway --limit 20
  muster connections --at 2026-03-01T04:05:00Z
  muster connections --at -1h -o json`,
	}
	client := cmd.Flags().String("client", "", "client id to show instead of a thing")
	from := cmd.Flags().String("from", "", "only connections that lasted after this time")
	to := cmd.Flags().String("to", "", "only connections that began before this time")
	at := cmd.Flags().String("at", "", "show who was connected at this time")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if err := oneSubject(len(args) == 1, *client != "", *at != ""); err != nil {
			return table{}, mistake(cmd, err)
		}
		if *at != "" {
			if *from != "" || *to != "" {
				return table{}, mistake(cmd, errors.New("--at is one moment: it takes no --from and --to"))
			}
			return c.fleetAt(cmd, api, *at, *limit)
		}
		var span apiclient.Span
		var err error
		if span.From, err = c.moment("from", *from); err != nil {
			return table{}, err
		}
		if span.To, err = c.moment("to", *to); err != nil {
			return table{}, err
		}
		var found []apiclient.Connection
		if *client != "" {
			found, err = api.ClientConnections(cmd.Context(), *client, span, *limit)
		} else {
			found, err = api.ThingConnections(cmd.Context(), args[0], span, *limit)
		}
		return connectionsTable(found, found), err
	})
}

// oneSubject demands that exactly one thing is asked for.
func oneSubject(given ...bool) error {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	if n != 1 {
		return errors.New("give one of THING, --client and --at")
	}
	return nil
}

// fleetAt shows who was connected. How many goes to where it is in nobody's
// way.
func (c *command) fleetAt(cmd *cobra.Command, api *apiclient.Client, text string, limit int) (table, error) {
	at, err := c.moment("at", text)
	if err != nil {
		return table{}, err
	}
	found, err := api.FleetConnections(cmd.Context(), at, limit)
	if err != nil {
		return table{}, err //nolint:wrapcheck // the server's own words
	}
	_, err = fmt.Fprintf(c.Err, "%d connected at %s\n", found.Count, found.At)
	return connectionsTable(found.Connections, found), err
}

// moment reads a time: RFC 3339, or a duration before now. Empty is zero.
func (c *command) moment(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	ago := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > -100_000 {
			ago = strconv.Itoa(24*n) + "h"
		}
	}
	if d, err := time.ParseDuration(ago); err == nil && d <= 0 {
		return c.Now().Add(d), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--%s %q is neither a time such as 2006-01-02T15:04:05Z nor one before now such as -24h", name, text)
	}
	return at, nil
}

// connectionsTable shows entries.
func connectionsTable(found []apiclient.Connection, raw any) table {
	t := table{header: []string{"CONNECTED", "DISCONNECTED", "DURATION", "REASON", "ADDRESS", "PROTOCOL", "CERTIFICATE", "CLIENT"}, raw: raw}
	for i := range found {
		entry := &found[i]
		ended, reason := entry.DisconnectedAt, entry.Reason
		if entry.RefusedAt != "" {
			ended, reason = entry.RefusedAt, "refused: "+entry.Reason
		}
		duration := ""
		if entry.DurationMS != nil {
			duration = (time.Duration(*entry.DurationMS) * time.Millisecond).String()
		}
		t.add(entry.ConnectedAt, ended, duration, reason, entry.RemoteAddress, entry.Protocol, short(entry.Principal), entry.ClientID)
	}
	return t
}

// short is the beginning of a certificate id.
func short(id string) string { return id[:min(len(id), shortCertificate)] }
