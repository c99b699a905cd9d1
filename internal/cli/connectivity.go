package cli

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// connectivity shows what state devices have settled to, and how they are
// watched.
func (c *command) connectivity() *cobra.Command {
	cmd := &cobra.Command{
		Use: "connectivity", Short: "Show what state devices have settled to and how they are watched",
		Long: `A device's connectivity state is not the same as whether it is connected at this
moment: one that comes back within its wait state was never offline. Things
behind a gateway that is gone are told apart from things that fell silent
themselves.`,
		Example: `  muster connectivity summary
  muster connectivity show pump-00001
  muster connectivity settings put --group pumps --wait 30s --stale 5m
  muster search 'muster.connectivity.state:OFFLINE_DIRTY'`,
	}
	cmd.AddCommand(c.connectivityShow(), c.connectivitySummary(), c.connectivitySettings(), c.connectivityGateway())
	return cmd
}

func (c *command) connectivityShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show THING", Short: "Show one device's state, timers, settings and newest changes", Args: cobra.ExactArgs(1),
		Example: `  muster connectivity show pump-00001
  muster connectivity show pump-00001 -o json`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		v, err := api.Connectivity(cmd.Context(), args[0])
		return connectivityTable(&v), err //nolint:wrapcheck // the server's own words
	})
}

// connectivityTable shows what is known of one thing, then its changes.
func connectivityTable(v *apiclient.ThingConnectivity) table {
	t := table{header: []string{"WHAT", "VALUE"}, raw: v}
	show := func(name, value string) {
		if value != "" {
			t.add(name, value)
		}
	}
	show("thing", v.ThingName)
	show("state", v.State)
	show("since", v.Since)
	show("connected", strconv.FormatBool(v.Connected))
	show("last seen", v.LastSeen)
	show("disconnect reason", v.DisconnectReason)
	if v.Gateway != nil {
		show("gateway", v.Gateway.ThingName)
	}
	if v.Children > 0 {
		show("things behind it", strconv.Itoa(v.Children))
	}
	show("changes if nothing happens", v.Timers.State)
	show("next contact", v.NextContact)
	if v.Flapping {
		show("flapping until at least", v.Timers.Flapping)
	}
	show("blips", strconv.FormatInt(v.Blips, 10))
	show("outages", strconv.FormatInt(v.Outages, 10))
	if v.CurrentOutageMS != nil {
		show("offline for", milliseconds(*v.CurrentOutageMS))
	}
	if v.Outages > 0 {
		show("last outage", milliseconds(v.LastOutageMS))
		show("all outages", milliseconds(v.TotalOutageMS))
	}
	if l := v.Latency; l != nil {
		show("round trip", fmt.Sprintf("last %g ms, mean %g ms, longest %g ms (%s)", l.LastMS, l.MeanMS, l.MaxMS, l.MeasuredAt))
	}
	for _, name := range sortedKeys(v.Settings.From) {
		show("setting "+name, settingText(&v.Settings.ConnectivitySettings, name)+" from "+v.Settings.From[name])
	}
	for i := range v.Recent {
		change := &v.Recent[i]
		text := change.From + " → " + change.To
		if change.DisconnectReason != "" {
			text += " (" + change.DisconnectReason + ")"
		}
		show(change.At, text)
	}
	return t
}

// milliseconds shows a duration.
func milliseconds(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

// settingNames are the fields of settings, in the order in which they are shown.
func settingNames() []string {
	return []string{
		"waitSeconds", "waitCleanSeconds", "helloSeconds", "staleSeconds", "sleepGraceSeconds", "flapSuppress", "flapRelease", "alert",
	}
}

// settingText shows one field, empty for one that says nothing.
func settingText(s *apiclient.ConnectivitySettings, name string) string {
	number := map[string]*float64{
		"waitSeconds": s.WaitSeconds, "waitCleanSeconds": s.WaitCleanSeconds, "helloSeconds": s.HelloSeconds, "staleSeconds": s.StaleSeconds,
		"sleepGraceSeconds": s.SleepGraceSeconds, "flapSuppress": s.FlapSuppress, "flapRelease": s.FlapRelease,
	}[name]
	switch {
	case name == "alert" && s.Alert != nil:
		return strconv.FormatBool(*s.Alert)
	case number != nil:
		return strconv.FormatFloat(*number, 'g', -1, 64)
	default:
		return ""
	}
}

func (c *command) connectivitySummary() *cobra.Command {
	cmd := &cobra.Command{
		Use: "summary", Short: "Count devices by connectivity state", Args: cobra.NoArgs,
		Example: `  muster connectivity summary
  muster connectivity summary -o csv`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		sum, err := api.ConnectivitySummary(cmd.Context())
		t := table{header: []string{"STATE", "DEVICES"}, raw: sum}
		for _, state := range sortedKeys(sum.States) {
			t.add(state, strconv.Itoa(sum.States[state]))
		}
		t.add("(flapping)", strconv.Itoa(sum.Flapping))
		t.add("(all)", strconv.Itoa(sum.Things))
		return t, err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) connectivitySettings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "settings", Short: "Show or change how devices are watched, by thing group",
		Long: `Settings say how long a device may be away before it is offline, after which
silence it is stale, and when it is flapping. Each field of a thing comes from the
nearest group that sets it (groups that the thing is in, then their parents, and
so on; of equally near ones the eldest), then from the account's own settings,
then from what is built in. "muster connectivity show" names the source of each.`,
		Example: `  muster connectivity settings list
  muster connectivity settings put --wait 45s
  muster connectivity settings put --group pumps --stale 5m --alert=false
  muster connectivity settings delete --group pumps`,
	}
	cmd.AddCommand(c.listConnectivitySettings(), c.putConnectivitySettings(), c.deleteConnectivitySettings())
	return cmd
}

func (c *command) listConnectivitySettings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "Show the settings of the account and of its groups", Args: cobra.NoArgs,
		Example: `  muster connectivity settings list
  muster connectivity settings list -o json`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		all, err := api.ConnectivitySettings(cmd.Context(), *limit)
		t := table{header: append([]string{"GROUP"}, settingNames()...), raw: all}
		row := func(group string, s *apiclient.ConnectivitySettings) {
			cells := []string{group}
			for _, name := range settingNames() {
				cells = append(cells, settingText(s, name))
			}
			t.add(cells...)
		}
		if all.Default != nil {
			row("(account)", all.Default)
		}
		for i := range all.Groups {
			row(all.Groups[i].Group, &all.Groups[i].ConnectivitySettings)
		}
		return t, err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) putConnectivitySettings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "put", Short: "Replace the settings of a group, or the account's own", Args: cobra.NoArgs,
		Long: `Replaces all settings of a group, or the account's own without --group: what is
not given is not set there any more.`,
		Example: `  muster connectivity settings put --wait 45s --stale 10m
  muster connectivity settings put --group pumps --wait 30s --flap-suppress 8 --flap-release 3`,
	}
	group := cmd.Flags().String("group", "", "thing group; the account's own settings without one")
	durations := map[string]*time.Duration{
		"wait":        cmd.Flags().Duration("wait", 0, "wait state after a dirty disconnect (default the keep-alive, at least 5s)"),
		"wait-clean":  cmd.Flags().Duration("wait-clean", 0, "wait state after a clean disconnect"),
		"hello":       cmd.Flags().Duration("hello", 0, "time for the first message of a new device"),
		"stale":       cmd.Flags().Duration("stale", 0, "silence after which a connected device is stale; 0s for never"),
		"sleep-grace": cmd.Flags().Duration("sleep-grace", 0, "how late a device may be that announced its return"),
	}
	suppress := cmd.Flags().Float64("flap-suppress", 0, "flap score above which a device is flapping")
	release := cmd.Flags().Float64("flap-release", 0, "flap score below which it is no more")
	alert := cmd.Flags().Bool("alert", true, "whether changes to stale and offline ask for an alert")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		var s apiclient.ConnectivitySettings
		into := map[string]**float64{
			"wait": &s.WaitSeconds, "wait-clean": &s.WaitCleanSeconds, "hello": &s.HelloSeconds, "stale": &s.StaleSeconds, "sleep-grace": &s.SleepGraceSeconds,
		}
		given := false
		for name, value := range durations {
			if cmd.Flags().Changed(name) {
				seconds := value.Seconds()
				*into[name], given = &seconds, true
			}
		}
		if cmd.Flags().Changed("flap-suppress") {
			s.FlapSuppress, given = suppress, true
		}
		if cmd.Flags().Changed("flap-release") {
			s.FlapRelease, given = release, true
		}
		if cmd.Flags().Changed("alert") {
			s.Alert, given = alert, true
		}
		if !given {
			return table{}, mistake(cmd, errors.New("give at least one setting, or delete them"))
		}
		if err := api.PutConnectivitySettings(cmd.Context(), *group, s); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"SETTING", "VALUE"}, raw: s}
		for _, name := range settingNames() {
			if text := settingText(&s, name); text != "" {
				t.add(name, text)
			}
		}
		return t, nil
	})
}

func (c *command) deleteConnectivitySettings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete", Short: "Remove the settings of a group, or the account's own", Args: cobra.NoArgs,
		Example: `  muster connectivity settings delete --group pumps
  muster connectivity settings delete`,
	}
	group := cmd.Flags().String("group", "", "thing group; the account's own settings without one")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		if err := api.DeleteConnectivitySettings(cmd.Context(), *group); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		return doneTable(*group), nil
	})
}

// doneTable says which settings are gone.
func doneTable(group string) table {
	t := table{header: []string{"REMOVED"}, raw: map[string]string{"group": group}}
	if group == "" {
		group = "(account)"
	}
	t.add(group)
	return t
}

func (c *command) connectivityGateway() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gateway THING [GATEWAY]", Short: "Say which gateway speaks for a device, or that none does", Args: cobra.RangeArgs(1, 2),
		Long: `From then on only this gateway may declare that the device works, and the
gateway's outage is told apart from the device's own silence. A gateway that
declares for a device without certificate needs no such assignment; policies say
for which names it may.`,
		Example: `  muster connectivity gateway sensor-17 gw-york
  muster connectivity gateway sensor-17`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		gateway := ""
		if len(args) == 2 {
			gateway = args[1]
		}
		if err := api.AssignGateway(cmd.Context(), args[0], gateway); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"THING", "GATEWAY"}, raw: map[string]string{"thingName": args[0], "gateway": gateway}}
		t.add(args[0], gateway)
		return t, nil
	})
}
