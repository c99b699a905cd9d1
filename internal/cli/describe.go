package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// describedConnections is how many of the newest connections are shown.
const describedConnections = 5

// section is a part of the page on a device, asked for by itself.
type section struct {
	name string
	ask  func(ctx context.Context, p *page) (raw any, lines []fact, err error)

	raw   any
	lines []fact
	err   error
}

// fact is what a section tells.
type fact struct{ what, value string }

// page is what the sections are about.
type page struct {
	api   *apiclient.Client
	thing string
}

// describe shows all that is known of one device on one page.
func (c *command) describe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe THING", Short: "One page on one device", Args: cobra.ExactArgs(1),
		Long: `Show on one page what is known of a device: its registry entry, groups, the
certificates that act as it, its state and newest connections, and its shadows
with what they differ in. A part that you may not see, or that is not there just
now, says so; the others are shown.`,
		Example: `  muster describe pump-00001
  muster describe pump-00001 -o json | jq .connectivity.state`,
	}
	format := cmd.Flags().StringP("output", "o", formatTable, "table or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *format != formatTable && *format != formatJSON {
			return fmt.Errorf("--output %q is neither table nor json", *format)
		}
		return nil
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		sections := askAll(cmd.Context(), &page{api: api, thing: args[0]})
		var missing *apiclient.Error
		if errors.As(sections[0].err, &missing) && missing.Status == http.StatusNotFound {
			return sections[0].err
		}
		if *format == formatJSON {
			whole := map[string]any{}
			for _, s := range sections {
				if s.err != nil {
					whole[s.name] = map[string]string{"error": s.err.Error()}
				} else {
					whole[s.name] = s.raw
				}
			}
			return c.printJSON(whole)
		}
		return c.printSections(sections)
	})
}

// askAll asks for all sections at once.
func askAll(ctx context.Context, p *page) []*section {
	sections := []*section{
		{name: "registry", ask: describeRegistry},
		{name: "groups", ask: describeGroups},
		{name: "principals", ask: describePrincipals},
		{name: "connectivity", ask: describeConnectivity},
		{name: "connections", ask: describeConnections},
		{name: "shadows", ask: describeShadows},
	}
	var asking sync.WaitGroup
	for _, s := range sections {
		asking.Go(func() { s.raw, s.lines, s.err = s.ask(ctx, p) })
	}
	asking.Wait()
	return sections
}

// printSections writes the page.
func (c *command) printSections(sections []*section) error {
	wide := 0
	for _, s := range sections {
		for _, l := range s.lines {
			wide = max(wide, len(printable(l.what)))
		}
	}
	for i, s := range sections {
		var b strings.Builder
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.ToUpper(s.name) + "\n")
		switch {
		case s.err != nil:
			b.WriteString("  not shown: " + printable(s.err.Error()) + "\n")
		case len(s.lines) == 0:
			b.WriteString("  none\n")
		}
		for _, l := range s.lines {
			b.WriteString(strings.TrimRight(fmt.Sprintf("  %-*s  %s", wide, printable(l.what), printable(l.value)), " ") + "\n")
		}
		if _, err := fmt.Fprint(c.Out, b.String()); err != nil {
			return fmt.Errorf("write page: %w", err)
		}
	}
	return nil
}

func describeRegistry(ctx context.Context, p *page) (any, []fact, error) {
	thing, err := p.api.DescribeThing(ctx, p.thing)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the server's own words
	}
	lines := []fact{{"thing", thing.ThingName}, {"type", thing.ThingTypeName}, {"version", strconv.FormatInt(thing.Version, 10)}}
	for _, name := range sortedKeys(thing.Attributes) {
		lines = append(lines, fact{"attributes." + name, thing.Attributes[name]})
	}
	return thing, lines, nil
}

func describeGroups(ctx context.Context, p *page) (any, []fact, error) {
	groups, err := p.api.ThingGroups(ctx, p.thing, 0)
	lines := make([]fact, len(groups))
	for i, g := range groups {
		lines[i] = fact{g.Name, g.ARN}
	}
	return groups, lines, err //nolint:wrapcheck // the server's own words
}

// certificateResource comes before the id in the ARN of a certificate.
const certificateResource = ":cert/"

func describePrincipals(ctx context.Context, p *page) (any, []fact, error) {
	principals, err := p.api.ThingPrincipals(ctx, p.thing)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the server's own words
	}
	type principal struct {
		ARN    string  `json:"arn"`
		Status string  `json:"status,omitempty"`
		Until  float64 `json:"notAfter,omitempty"`
	}
	all := make([]principal, len(principals))
	lines := make([]fact, len(principals))
	for i, arn := range principals {
		all[i] = principal{ARN: arn}
		lines[i] = fact{what: arn}
		_, id, ok := strings.Cut(arn, certificateResource)
		if !ok {
			continue
		}
		lines[i].what = "certificate " + id[:min(12, len(id))]
		certificate, err := p.api.DescribeCertificate(ctx, id)
		if err != nil {
			lines[i].value = "not shown: " + err.Error()
			continue
		}
		all[i].Status, all[i].Until = certificate.Status, certificate.Valid.NotAfter
		lines[i].value = certificate.Status
		if until := certificate.Valid.NotAfter; until > 0 {
			lines[i].value += ", until " + time.Unix(int64(until), 0).UTC().Format(time.RFC3339)
		}
	}
	return all, lines, nil
}

func describeConnectivity(ctx context.Context, p *page) (any, []fact, error) {
	v, err := p.api.Connectivity(ctx, p.thing)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the server's own words
	}
	var lines []fact
	for _, row := range connectivityTable(&v).rows {
		if row[0] != "thing" && !strings.HasPrefix(row[0], "setting ") {
			lines = append(lines, fact{row[0], row[1]})
		}
	}
	return v, lines, nil
}

func describeConnections(ctx context.Context, p *page) (any, []fact, error) {
	found, err := p.api.ThingConnections(ctx, p.thing, apiclient.Span{}, describedConnections)
	lines := make([]fact, 0, len(found))
	for _, connection := range found {
		at := connection.ConnectedAt
		if at == "" {
			at = connection.RefusedAt
		}
		text := []string{connection.Status, connection.RemoteAddress, connection.Protocol}
		if connection.DisconnectedAt != "" {
			text = append(text, "until "+connection.DisconnectedAt, connection.Reason)
		}
		lines = append(lines, fact{at, strings.Join(strings.Fields(strings.Join(text, " ")), " ")})
	}
	return found, lines, err //nolint:wrapcheck // the server's own words
}

// describedShadow is a shadow in a search's document.
type describedShadow struct {
	Version  int64                      `json:"version"`
	HasDelta bool                       `json:"hasDelta"`
	Reported map[string]json.RawMessage `json:"reported"`
	Delta    json.RawMessage            `json:"delta"`
}

func describeShadows(ctx context.Context, p *page) (any, []fact, error) {
	found, err := p.api.Search(ctx, `thingName:"`+p.thing+`"`, 1)
	if err != nil || len(found) == 0 || found[0].Shadow == "" {
		return nil, nil, err //nolint:wrapcheck // the server's own words
	}
	var document struct {
		describedShadow
		Name map[string]describedShadow `json:"name"`
	}
	if err := json.Unmarshal([]byte(found[0].Shadow), &document); err != nil {
		return nil, nil, fmt.Errorf("read shadows: %w", err)
	}
	var lines []fact
	show := func(name string, s *describedShadow) {
		text := "version " + strconv.FormatInt(s.Version, 10)
		if s.HasDelta {
			text += ", differs: " + string(s.Delta)
		}
		lines = append(lines, fact{name, text})
	}
	if document.Version > 0 {
		show("classic", &document.describedShadow)
		for _, name := range sortedKeys(document.Reported) {
			lines = append(lines, fact{"  " + name, string(document.Reported[name])})
		}
	}
	for _, name := range sortedKeys(document.Name) {
		shadow := document.Name[name]
		show(name, &shadow)
	}
	return json.RawMessage(found[0].Shadow), lines, nil
}
