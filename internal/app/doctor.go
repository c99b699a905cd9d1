package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/history"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/membership"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// doctorRounds is how often a difference must show: what is looked at goes on
	// meanwhile.
	doctorRounds = 3
	doctorPause  = 200 * time.Millisecond
	doctorWait   = 30 * time.Second
	logBatch     = 1000
	maxFindings  = 100
	// maxKept bounds the findings of one check, and so what one pass repairs.
	maxKept = 10 * maxFindings
	// maxPasses bounds how often a repair begins anew after findings that were
	// not kept.
	maxPasses = 1000
)

// finding is a difference, as what repairs it needs to know it; one difference is
// the same value in each round.
type finding struct {
	account fleet.Account
	// key is that of a row or record, "" for what lies elsewhere.
	key        store.Key
	subject    string
	have, want string
	detail     string
	repairable bool
}

// check is one comparison.
type check struct {
	name string
	// counted is what run counts.
	counted string
	// rounds is how often run must find the same, 1 for a frozen state.
	rounds int
	// run reports what differs and returns how much it looked at.
	run func(ctx context.Context, found func(finding)) (int, error)
	// repair is nil where there is nothing to make it from. It changes no source.
	repair func(ctx context.Context, findings []finding) error
}

// checks are all, in an order in which repairs build on those before: rows and
// connectivity are what an index is compared with, the index decides memberships, histories follow.
func (a *App) checks() []check {
	return []check{
		{name: "event log", counted: "events", rounds: 1, run: a.checkLog},
		{name: "registry rows", counted: "registry rows", rounds: 1, run: a.checkRows, repair: a.repairRows},
		{name: "connectivity", counted: "connections of things", rounds: doctorRounds, run: a.checkStates, repair: a.repairStates},
		{name: "index", counted: "index documents", rounds: doctorRounds, run: a.checkIndex, repair: a.repairIndex},
		{name: "dynamic memberships", counted: "dynamic memberships", rounds: doctorRounds, run: a.checkMembers, repair: a.repairMembers},
		{name: "connection history", counted: "connections", rounds: doctorRounds, run: a.checkConnections, repair: a.repairConnections},
		{name: "membership history", counted: "memberships", rounds: doctorRounds, run: a.checkMemberships, repair: a.repairMemberships},
		{name: "shadow history", counted: "shadows with a history", rounds: doctorRounds, run: a.checkVersions},
		{name: "drifts", counted: "drifts", rounds: doctorRounds, run: a.checkDrifts, repair: a.repairDrifts},
		{name: "ledger", counted: "ledger entries", rounds: 1, run: a.checkLedger},
		{name: "audit", counted: "audit records", rounds: 1, run: a.checkAudit},
	}
}

// Doctor runs all checks. It reads only.
func (a *App) Doctor(ctx context.Context) (adminapi.Report, error) {
	report := adminapi.Report{Checked: map[string]int{}}
	for _, c := range a.checks() {
		found, n, err := c.look(ctx)
		if err != nil {
			return report, fmt.Errorf("check %s: %w", c.name, err)
		}
		report.Checked[c.counted] = n
		for _, f := range found {
			if len(report.Findings) < maxFindings {
				report.Findings = append(report.Findings, c.tell(f))
			}
		}
	}
	n, err := a.unboundTemplates(ctx, func(notice adminapi.Notice) {
		if len(report.Notices) < maxFindings {
			report.Notices = append(report.Notices, notice)
		}
	})
	if err != nil {
		return report, fmt.Errorf("look for provisioning templates without a binding: %w", err)
	}
	report.Checked["templates"] = n
	return report, nil
}

// Repair runs the checks, repairs what can be, and runs them again. Only one runs
// at a time.
func (a *App) Repair(ctx context.Context) (adminapi.Repaired, error) {
	a.repairing.Lock()
	defer a.repairing.Unlock()
	out := adminapi.Repaired{Repaired: map[string]int{}}
	for _, c := range a.checks() {
		if c.repair == nil {
			continue
		}
		n, err := c.heal(ctx)
		if n > 0 {
			out.Repaired[c.name] = n
			a.component("doctor").WarnContext(ctx, "projection repaired", slog.String("check", c.name), slog.Int("differences", n))
		}
		if err != nil {
			return out, fmt.Errorf("repair %s: %w", c.name, err)
		}
	}
	var err error
	out.Remaining, err = a.Doctor(ctx)
	return out, err
}

// tell is a finding as callers see it.
func (c *check) tell(f finding) adminapi.Finding {
	return adminapi.Finding{
		Check: c.name, Subject: f.subject, Detail: f.detail, Have: f.have, Want: f.want, Repairable: f.repairable && c.repair != nil,
	}
}

// look runs the check as often as it takes and returns what was found each time.
func (c *check) look(ctx context.Context) (found []finding, counted int, err error) {
	var staying map[finding]bool
	for round := range c.rounds {
		if round > 0 {
			select {
			case <-time.After(doctorPause):
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			}
		}
		now := map[finding]bool{}
		counted, err = c.run(ctx, func(f finding) {
			if round > 0 && !staying[f] || len(now) >= maxKept {
				return
			}
			now[f] = true
		})
		if err != nil {
			return nil, counted, err
		}
		if staying = now; len(staying) == 0 {
			break
		}
	}
	found = slices.Collect(maps.Keys(staying))
	slices.SortFunc(found, func(a, b finding) int {
		if c := strings.Compare(a.subject, b.subject); c != 0 {
			return c
		}
		return strings.Compare(a.detail, b.detail)
	})
	return found, counted, nil
}

// heal repairs until nothing is left that it can repair, and returns how many
// findings are gone.
func (c *check) heal(ctx context.Context) (gone int, err error) {
	before := map[finding]bool{}
	for range maxPasses {
		found, _, err := c.look(ctx)
		if err != nil {
			return gone, err
		}
		found = slices.DeleteFunc(found, func(f finding) bool { return !f.repairable })
		tried := 0
		for _, f := range found {
			if before[f] {
				tried++
			}
		}
		gone += len(before) - tried
		if len(found) == tried {
			return gone, nil // all that is left was tried in vain
		}
		if err := c.repair(ctx, found); err != nil {
			return gone, err
		}
		clear(before)
		for _, f := range found {
			before[f] = true
		}
	}
	return gone, nil
}

// keysOf are the keys of findings.
func keysOf(findings []finding) []store.Key {
	keys := make([]store.Key, len(findings))
	for i, f := range findings {
		keys[i] = f.key
	}
	return keys
}

// follow waits until a consumer has come to a place.
func follow(ctx context.Context, consumer *eventlog.Runner, cursor store.Cursor) error {
	waiting, cancel := context.WithTimeout(ctx, doctorWait)
	defer cancel()
	return consumer.WaitCovered(waiting, cursor)
}

// checkLog reads every kept event: each must decode, and none may be missing.
func (a *App) checkLog(ctx context.Context, found func(finding)) (checked int, err error) {
	cursor, err := a.store.Oldest(ctx)
	if err != nil {
		return checked, err
	}
	head, err := a.store.Head(ctx)
	if err != nil {
		return checked, err
	}
	for !cursor.CoversAll(head) {
		var events []event.Envelope
		events, cursor, err = a.store.Events(ctx, cursor, logBatch)
		if errors.Is(err, store.ErrTrimmed) {
			// Retention passed us: begin again where the log begins now.
			if cursor, err = a.store.Oldest(ctx); err != nil {
				return checked, err
			}
			continue
		}
		if err != nil {
			found(finding{subject: "after " + cursor.String(), detail: err.Error()})
			return checked, nil
		}
		if len(events) == 0 {
			found(finding{subject: "after " + cursor.String(), detail: "no event, but the log ends at " + head.String()})
			return checked, nil
		}
		checked += len(events)
	}
	return checked, nil
}

// checkRows compares the registry's rows with its records in one frozen state.
func (a *App) checkRows(ctx context.Context, found func(finding)) (int, error) {
	snapshot, err := a.store.Snapshot(ctx)
	if err != nil {
		return 0, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	return registry.CompareRows(ctx, snapshot, func(d registry.RowDifference) {
		found(finding{
			key: d.Key, subject: d.Key.String(), have: d.Have, want: d.Want, repairable: d.Repairable,
			detail: fmt.Sprintf("the row is %s, the records want it %s", d.Have, d.Want),
		})
	})
}

func (a *App) repairRows(ctx context.Context, findings []finding) error {
	return a.registry.RepairRows(ctx, keysOf(findings))
}

// checkIndex builds a second index and compares. One such index is in memory at a
// time.
func (a *App) checkIndex(ctx context.Context, found func(finding)) (int, error) {
	o := a.indexed
	o.Committer, o.Source, o.Certificates, o.Reloader, o.Stored, o.Registerer = spectator{}, spectator{}, nil, nil, nil, nil
	o.Logger = slog.New(slog.DiscardHandler)
	expected := index.New(o)
	cursor, err := (&loader{store: a.store}).load(ctx, expected)
	if err != nil {
		return 0, fmt.Errorf("build an index to compare with: %w", err)
	}
	if err := a.settledIndex(ctx, cursor); err != nil {
		return 0, err
	}
	return a.index.Compare(expected, func(d index.Difference) {
		found(finding{
			account: d.Account, subject: fmt.Sprintf("%s %s %s", d.Account, d.Index, d.Document), have: d.Have, want: d.Want, repairable: true,
			detail: fmt.Sprintf("%s: the live index has %s, the store says %s", d.Path, d.Have, d.Want),
		})
	}), nil
}

// settledIndex waits until the live index has come to a place and is not about to
// be replaced.
func (a *App) settledIndex(ctx context.Context, cursor store.Cursor) error {
	if err := follow(ctx, a.followers.index, cursor); err != nil {
		return fmt.Errorf("wait for the live index: %w", err)
	}
	waiting, cancel := context.WithTimeout(ctx, doctorWait)
	defer cancel()
	if err := a.index.WaitSettled(waiting); err != nil {
		return fmt.Errorf("wait for a rebuild of the live index: %w", err)
	}
	return nil
}

// repairIndex builds the index anew for every account that has differences.
func (a *App) repairIndex(ctx context.Context, findings []finding) error {
	accounts := map[fleet.Account]bool{}
	for _, f := range findings {
		accounts[f.account] = true
	}
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		if err := a.index.Rebuild(ctx, account); err != nil {
			return fmt.Errorf("rebuild the index of %s: %w", account, err)
		}
	}
	return nil
}

// checkMembers compares what the index has decided with what is recorded.
func (a *App) checkMembers(ctx context.Context, found func(finding)) (int, error) {
	head, err := a.store.Head(ctx)
	if err != nil {
		return 0, err
	}
	if err := a.settledIndex(ctx, head); err != nil {
		return 0, err
	}
	return a.index.CompareMembers(ctx, (&loader{store: a.store}).storedMemberships, func(d index.MemberDifference) {
		f := finding{
			account: d.Account, subject: fmt.Sprintf("%s %s %s", d.Account, d.Group, d.Thing), have: "member", want: "no member", repairable: true,
		}
		if d.Decided {
			f.have, f.want = f.want, f.have
		}
		f.detail = fmt.Sprintf("recorded as %s, the index says %s", f.have, f.want)
		found(f)
	})
}

func (a *App) repairMembers(ctx context.Context, _ []finding) error { return a.index.Reconcile(ctx) }

// checkConnections compares the open ends of the connection history with presence.
func (a *App) checkConnections(ctx context.Context, found func(finding)) (int, error) {
	n := 0
	cursor, err := a.history.Differences(ctx, func(d history.Difference) { found(openEnd(d.Account, d.Open, d.Lasts)) })
	if err != nil {
		return 0, err
	}
	err = liveConnections(ctx, a.store, func(history.Live) error { n++; return nil })
	return n, errors.Join(err, follow(ctx, a.followers.history, cursor))
}

func (a *App) repairConnections(ctx context.Context, findings []finding) error {
	return a.history.Mend(ctx, keysOf(findings))
}

// checkMemberships compares the open ends of the membership history with the
// registry.
func (a *App) checkMemberships(ctx context.Context, found func(finding)) (int, error) {
	n := 0
	cursor, err := a.memberships.Differences(ctx, func(d membership.Difference) { found(openEnd(d.Account, d.Open, d.Lasts)) })
	if err != nil {
		return 0, err
	}
	err = liveMemberships(ctx, a.store, func(membership.Live) error { n++; return nil })
	return n, errors.Join(err, follow(ctx, a.followers.memberships, cursor))
}

func (a *App) repairMemberships(ctx context.Context, findings []finding) error {
	return a.memberships.Mend(ctx, keysOf(findings))
}

// openEnd is a difference between a history and what it tells of.
func openEnd(account fleet.Account, key store.Key, lasts bool) finding {
	f := finding{account: account, key: key, subject: key.String(), have: "ended", want: "lasting", repairable: true}
	if lasts {
		f.have, f.want = f.want, f.have
	}
	f.detail = fmt.Sprintf("%s in the history, should be %s", f.have, f.want)
	return f
}

// spectator stands behind an index that only looks: it records nothing, and
// nothing happens to it after the build.
type spectator struct{}

// CommitMembership implements index.Committer.
func (spectator) CommitMembership(context.Context, []index.MembershipChange, store.Cursor) error {
	return nil
}

// CommitComplete implements index.Committer.
func (spectator) CommitComplete(context.Context, []index.CompleteGroup) error { return nil }

// ThingState implements index.Source.
func (spectator) ThingState(context.Context, fleet.Account, string) (index.State, error) {
	return index.State{}, nil
}
