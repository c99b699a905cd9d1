package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// spanFlags registers --from, --to and --at and returns what reads them.
func (c *command) spanFlags(cmd *cobra.Command) func(cmd *cobra.Command) (apiclient.MembershipSpan, error) {
	from := cmd.Flags().String("from", "", "only memberships that lasted after this time")
	to := cmd.Flags().String("to", "", "only memberships that began before this time")
	at := cmd.Flags().String("at", "", "only memberships that lasted at this time")
	return func(cmd *cobra.Command) (span apiclient.MembershipSpan, err error) {
		if *at != "" && (*from != "" || *to != "") {
			return span, mistake(cmd, errors.New("--at is one moment: it takes no --from and --to"))
		}
		if span.From, err = c.moment("from", *from); err != nil {
			return span, err
		}
		if span.To, err = c.moment("to", *to); err != nil {
			return span, err
		}
		span.At, err = c.moment("at", *at)
		return span, err
	}
}

// membershipTimes is what the help of histories says about times.
const membershipTimes = `A time is RFC 3339 or relative to now: -90m, -24h, -7d. A membership without LEFT
lasts; one without JOINED began before the history. All times are UTC.`

// groupsHistory shows who was in a group.
func (c *command) groupsHistory() *cobra.Command {
	cmd := &cobra.Command{
		Use: "history GROUP", Short: "Show who was in a group, from when to when and why", Args: cobra.ExactArgs(1),
		Long: `Shows the memberships of a static or dynamic group, those that began last first,
with what began and ended each: who asked for it, or which value met which part
of the group's query. With --at it shows who was in the group at a moment.

` + membershipTimes,
		Example: `  muster groups history low-battery
  muster groups history low-battery --from -24h -o csv
  muster groups history low-battery --at 2026-03-01T04:05:00Z`,
	}
	span := c.spanFlags(cmd)
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		within, err := span(cmd)
		if err != nil {
			return table{}, err
		}
		found, err := api.GroupHistory(cmd.Context(), args[0], within, *limit)
		return membershipsTable("THING", found), err
	})
}

// thingsGroups shows the groups of a thing, now or ever.
func (c *command) thingsGroups() *cobra.Command {
	cmd := &cobra.Command{
		Use: "groups THING", Short: "List the groups that a thing is in, or was in", Args: cobra.ExactArgs(1),
		Long: `Lists the static and dynamic groups that a thing is in. With --history it shows
all that it was in, those that it joined last first, and why it came and went.

` + membershipTimes,
		Example: `  muster things groups pump-00001
  muster things groups pump-00001 --history
  muster things groups pump-00001 --history --at -24h`,
	}
	history := cmd.Flags().Bool("history", false, "also the groups that it has left")
	span := c.spanFlags(cmd)
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if !*history {
			for _, name := range []string{"from", "to", "at"} {
				if cmd.Flags().Changed(name) {
					return table{}, mistake(cmd, fmt.Errorf("--%s is for --history", name))
				}
			}
			groups, err := api.ThingGroups(cmd.Context(), args[0], *limit)
			t := table{header: []string{"GROUP", "ARN"}, raw: groups}
			for _, g := range groups {
				t.add(g.Name, g.ARN)
			}
			return t, err
		}
		within, err := span(cmd)
		if err != nil {
			return table{}, err
		}
		found, err := api.ThingGroupHistory(cmd.Context(), args[0], within, *limit)
		return membershipsTable("GROUP", found), err
	})
}

// membershipsTable shows entries by the other side of a membership.
func membershipsTable(by string, found []apiclient.Membership) table {
	t := table{header: []string{by, "JOINED", "LEFT", "WHY IT JOINED", "WHY IT LEFT"}, raw: found}
	for i := range found {
		m := &found[i]
		name := m.ThingName
		if by == "GROUP" {
			name = m.GroupName
		}
		t.add(name, m.JoinedAt, m.LeftAt, causeText(m.Joined), causeText(m.Left))
	}
	return t
}

// causeText puts a cause into a few words.
func causeText(c *apiclient.MembershipCause) string {
	if c == nil {
		return ""
	}
	text := map[string]string{
		"REQUEST": "asked for", "QUERY": "the group's query changed", "THING": "thing registered or deleted", "GROUP": "group deleted",
		"LIMIT": "number of groups of a thing", "UNKNOWN": "not known",
	}[c.Kind]
	if c.Kind == "VALUE" {
		text = c.Predicate
		if c.Value != "" || c.Field != "" {
			text += fmt.Sprintf(" (%s is %s)", c.Field, orNone(c.Value))
		}
	}
	if text == "" {
		text = c.Kind
	}
	if c.By != nil {
		by := c.By.Principal.ARN
		if by == "" {
			by = strings.TrimSuffix(c.By.Principal.Kind+"/"+c.By.Principal.ID, "/")
		}
		text += " by " + by
	}
	return text
}

// orNone names what is not there.
func orNone(text string) string {
	if text == "" {
		return "not set"
	}
	return text
}

// groupsWhy explains a membership.
func (c *command) groupsWhy() *cobra.Command {
	cmd := &cobra.Command{
		Use: "why GROUP THING", Short: "Explain why a thing is in a group, or why it is not", Args: cobra.ExactArgs(2),
		Long: `Explains a membership. For a dynamic group it shows each part of the query with
what the thing has there, whether the part holds and since when the value is
there; ! marks what would have to be the opposite for the thing to be on the
other side. For a static group it shows who put the thing there, and when.`,
		Example: `  muster groups why low-battery pump-00001
  muster groups why low-battery pump-00001 -o json`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		reason, err := api.WhyMember(cmd.Context(), args[0], args[1])
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		if _, err := fmt.Fprintln(c.Err, printable(summary(&reason))); err != nil {
			return table{}, err //nolint:wrapcheck // standard error says it all
		}
		t := table{header: []string{"PART", "HOLDS", "VALUE", "SINCE"}, raw: reason}
		if reason.Evaluation != nil {
			addPart(&t, reason.Evaluation, 0)
		}
		return t, nil
	})
}

// summary says in a sentence or two how things are.
func summary(r *apiclient.MembershipReason) string {
	text := r.ThingName + " is not in " + r.GroupName
	if r.Member {
		text = r.ThingName + " is in " + r.GroupName
		if r.JoinedAt != "" {
			text += " since " + r.JoinedAt
		}
		if r.Joined != nil {
			text += ": " + causeText(r.Joined)
		}
	}
	switch {
	case !r.Dynamic && !r.Member:
		text += ": nobody put it there"
	case r.Refused != nil:
		text += fmt.Sprintf(": it meets the query, but a thing may be in %d groups, and it is in %s",
			r.Refused.MaxGroupsPerThing, strings.Join(append(r.Refused.StaticGroups, r.Refused.ElderGroups...), ", "))
	case r.Matches != nil && *r.Matches != r.Member:
		text += "; that changes just now"
	case r.Dynamic && !r.Member:
		text += ": it does not meet the query"
	}
	if r.Dynamic && r.Status != "ACTIVE" {
		text += "; the group is " + r.Status
	}
	return text
}

// addPart adds a part of a query with those below it.
func addPart(t *table, p *apiclient.QueryPart, depth int) {
	text := p.Kind
	if p.Kind == "TEST" {
		text = p.Predicate
	}
	mark := ""
	if p.WouldChange {
		mark = "! "
	}
	holds := "no"
	if p.Holds {
		holds = "yes"
	}
	var values []string
	since := ""
	for _, v := range p.Values {
		value := strings.Join(v.Values, ", ")
		if v.Field != p.Field {
			value = v.Field + " = " + value
		}
		values = append(values, value)
		since = max(since, v.Since)
	}
	value := strings.Join(values, "; ")
	if p.Kind == "TEST" && p.Predicate != "*" {
		value = orNone(value)
	}
	t.add(strings.Repeat("  ", depth)+mark+text, holds, value, since)
	for _, kid := range p.Parts {
		addPart(t, kid, depth+1)
	}
}
