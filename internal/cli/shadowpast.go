package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// shadowHistory lists versions, or shows one.
func (c *command) shadowHistory() *cobra.Command {
	cmd := &cobra.Command{
		Use: "history THING", Short: "Show who changed a shadow when and how, or what it was", Args: cobra.ExactArgs(1),
		Long: `Shows the versions of a shadow, newest first: when, by whom, and what was
accepted; null removes. DELTA says whether desired and reported differed
afterwards. With --version it prints the whole document at that version.

A time is RFC 3339 or relative to now: -90m, -24h, -7d. All times are UTC. How
much is kept is set by shadow.history-versions, -age and -bytes of the server.`,
		Example: `  muster shadow history pump-00001
  muster shadow history pump-00001 --name firmware --from -24h -o json
  muster shadow history pump-00001 --version 41`,
	}
	name := nameFlag(cmd)
	version := cmd.Flags().Int64("version", 0, "print the document at this version")
	from := cmd.Flags().String("from", "", "only versions made at or after this time")
	to := cmd.Flags().String("to", "", "only versions made before this time")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if cmd.Flags().Changed("version") {
			if *from != "" || *to != "" {
				return table{}, mistake(cmd, errors.New("--version is one version: it takes no --from and --to"))
			}
			return c.shadowAt(cmd, api, args[0], *name, *version)
		}
		var span apiclient.Span
		var err error
		if span.From, err = c.moment("from", *from); err != nil {
			return table{}, err
		}
		if span.To, err = c.moment("to", *to); err != nil {
			return table{}, err
		}
		found, err := api.ShadowHistory(cmd.Context(), args[0], *name, span, *limit)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"VERSION", "AT", "CHANGE", "BY", "FROM", "DELTA", "PATCH"}, raw: found}
		for i := range found.Versions {
			v := &found.Versions[i]
			change, delta := strings.ToLower(v.Change), ""
			if v.RestoredVersion > 0 {
				change += " " + strconv.FormatInt(v.RestoredVersion, 10)
			}
			if v.HasDelta != nil {
				delta = strconv.FormatBool(*v.HasDelta)
			}
			t.add(strconv.FormatInt(v.Version, 10), v.At, change, author(v.By), v.By.SourceAddress, delta, string(v.Patch))
		}
		return t, c.shadowNotes(found)
	})
}

// shadowNotes says, where it is in nobody's way, what the list lacks.
func (c *command) shadowNotes(found apiclient.ShadowHistory) error {
	if found.Truncated {
		if _, err := fmt.Fprintln(c.Err, "there were earlier versions: they are trimmed, or older than the history"); err != nil {
			return err //nolint:wrapcheck // standard error says it all
		}
	}
	if found.Behind {
		if _, err := fmt.Fprintln(c.Err, "the history is behind: the newest versions may be missing"); err != nil {
			return err //nolint:wrapcheck // as above
		}
	}
	return nil
}

// author is who acted, as short as it is clear.
func author(by apiclient.ShadowAuthor) string {
	who := by.Principal.ID
	if by.Principal.Kind == "certificate" {
		who = short(who)
	}
	if by.ClientID != "" && by.ClientID != who {
		who = by.ClientID + " " + who
	}
	return strings.TrimSpace(by.Principal.Kind + " " + who)
}

// shadowAt prints the document of a version as JSON, in any format: it is one.
func (c *command) shadowAt(cmd *cobra.Command, api *apiclient.Client, thing, name string, version int64) (table, error) {
	found, err := api.ShadowAt(cmd.Context(), thing, name, version)
	if err != nil {
		return table{}, err //nolint:wrapcheck // the server's own words
	}
	t := table{header: []string{"VERSION", "AT", "BY", "DOCUMENT"}, raw: found}
	at, by := "", ""
	if found.Made != nil {
		at, by = found.Made.At, author(found.Made.By)
	}
	t.add(strconv.FormatInt(found.Version, 10), at, by, string(found.Document))
	return t, nil
}

// shadowDiff compares versions.
func (c *command) shadowDiff() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff THING [FROM [TO]]", Short: "Show what changed between two versions of a shadow", Args: cobra.RangeArgs(1, 3), //nolint:mnd // thing, from, to
		Long: `Shows which values were added, removed and changed from one version to another,
by JSON Pointers. Without TO it is the newest version, without FROM the one
before TO; FROM 0 is the state before the first version.`,
		Example: `  muster shadow diff pump-00001
  muster shadow diff pump-00001 41
  muster shadow diff pump-00001 38 41 --name firmware -o json`,
	}
	name := nameFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		var versions [2]*int64
		for i, text := range args[1:] {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return table{}, mistake(cmd, fmt.Errorf("%q is no version", text))
			}
			versions[i] = &n
		}
		diff, err := api.ShadowDiff(cmd.Context(), args[0], *name, versions[0], versions[1])
		t := table{header: []string{"CHANGE", "PATH", strconv.FormatInt(diff.From, 10), strconv.FormatInt(diff.To, 10)}, raw: diff}
		for _, d := range diff.Differences {
			t.add(strings.ToLower(d.Change), d.Path, string(d.Old), string(d.New))
		}
		return t, err
	})
}

// shadowRestore brings a version back.
func (c *command) shadowRestore() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore THING VERSION", Short: "Make a shadow again what it was at a version", Args: cobra.ExactArgs(2), //nolint:mnd // thing, version
		Long: `Makes a new version with the state of an earlier one. Devices are told as of any
update; values that are the same keep their times. A deleted shadow comes to be
again. With --desired-only what the device reported stays as it is.`,
		Example: `  muster shadow restore pump-00001 41 --desired-only
  muster shadow restore pump-00001 41 --expect 57
  muster shadow restore pump-00001 3 --name firmware`,
	}
	name := nameFlag(cmd)
	desiredOnly := cmd.Flags().Bool("desired-only", false, "restore only what is desired")
	expect := cmd.Flags().Int64("expect", 0, "refuse unless this is the present version")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		version, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil || version < 1 {
			return table{}, mistake(cmd, fmt.Errorf("%q is no version", args[1]))
		}
		in := apiclient.RestoreShadow{Version: version, DesiredOnly: *desiredOnly}
		if cmd.Flags().Changed("expect") {
			in.ExpectVersion = expect
		}
		done, err := api.RestoreShadow(cmd.Context(), args[0], *name, in)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		var accepted struct {
			State json.RawMessage `json:"state"`
		}
		if err := json.Unmarshal(done.Accepted, &accepted); err != nil {
			return table{}, fmt.Errorf("read the answer: %w", err)
		}
		t := table{header: []string{"VERSION", "RESTORED", "CHANGED"}, raw: done}
		t.add(strconv.FormatInt(done.Version, 10), strconv.FormatInt(done.RestoredVersion, 10), string(accepted.State))
		return t, nil
	})
}

// shadowDrift reports what devices have not taken over.
func (c *command) shadowDrift() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drift [THING]", Short: "Show which devices have not taken over what is desired, oldest first", Args: cobra.MaximumNArgs(1),
		Long: `Shows the shadows whose reported state is not the desired one, in order of age:
since when the oldest outstanding value is desired. The table has a line for
each outstanding value, so that limit counts shadows, not lines.`,
		Example: `  muster shadow drift
  muster shadow drift --older-than 24h --query 'thingTypeName:Pump AND connectivity.connected:true'
  muster shadow drift pump-00001 -o json`,
	}
	older := cmd.Flags().Duration("older-than", 0, "only what is outstanding for longer than this")
	query := cmd.Flags().String("query", "", "only things that this query of the fleet index finds")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		filter := apiclient.DriftFilter{Query: *query}
		if len(args) > 0 {
			filter.Thing = args[0]
		}
		if *older > 0 {
			filter.OlderThan = older.String()
		}
		found, err := api.ShadowDrift(cmd.Context(), filter, *limit)
		t := table{header: []string{"THING", "SHADOW", "AGE", "SINCE", "PATH", "DESIRED", "REPORTED"}, raw: found}
		for i := range found.Shadows {
			d := &found.Shadows[i]
			for _, l := range d.Leaves {
				age := ""
				if l.AgeSeconds != nil {
					age = (time.Duration(*l.AgeSeconds) * time.Second).String()
				}
				t.add(d.ThingName, d.ShadowName, age, l.Since, l.Path, string(l.Desired), string(l.Reported))
			}
		}
		if err == nil && found.Incomplete {
			_, err = fmt.Fprintln(c.Err, "the report is being filled after an upgrade: shadows may be missing")
		}
		return t, err
	})
}
