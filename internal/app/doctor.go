package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// doctorRounds is how often a difference must show: the live index goes
	// on while it is looked at.
	doctorRounds = 3
	doctorPause  = 200 * time.Millisecond
	doctorWait   = 30 * time.Second
	logBatch     = 1000
	maxFindings  = 100
)

// Doctor compares the log with itself and the live index with one built from
// the store. It reads only.
func (a *App) Doctor(ctx context.Context) (adminapi.Report, error) {
	report := adminapi.Report{Checked: map[string]int{}}
	if err := a.checkLog(ctx, &report); err != nil {
		return report, err
	}
	if err := a.checkIndex(ctx, &report); err != nil {
		return report, err
	}
	if err := a.checkAudit(ctx, &report); err != nil {
		return report, err
	}
	return report, nil
}

// checkLog reads every kept event: each must decode, and none may be missing.
func (a *App) checkLog(ctx context.Context, report *adminapi.Report) error {
	cursor, err := a.store.Oldest(ctx)
	if err != nil {
		return err
	}
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	for !cursor.CoversAll(head) {
		var events []event.Envelope
		events, cursor, err = a.store.Events(ctx, cursor, logBatch)
		if errors.Is(err, store.ErrTrimmed) {
			// Retention passed us: begin again where the log begins now.
			if cursor, err = a.store.Oldest(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			report.Findings = append(report.Findings, adminapi.Finding{Check: "event log", Subject: "after " + cursor.String(), Detail: err.Error()})
			return nil
		}
		if len(events) == 0 {
			report.Findings = append(report.Findings, adminapi.Finding{
				Check: "event log", Subject: "after " + cursor.String(), Detail: "no event, but the log ends at " + head.String(),
			})
			return nil
		}
		report.Checked["events"] += len(events)
	}
	return nil
}

// checkIndex builds a second index and looks for differences that stay.
func (a *App) checkIndex(ctx context.Context, report *adminapi.Report) error {
	var staying map[index.Difference]bool
	for round := range doctorRounds {
		found, documents, err := a.compareIndex(ctx)
		if err != nil {
			return err
		}
		report.Checked["index documents"] = documents
		if round > 0 {
			for d := range found {
				if !staying[d] {
					delete(found, d)
				}
			}
		}
		if staying = found; len(staying) == 0 {
			return nil
		}
		if round < doctorRounds-1 {
			select {
			case <-time.After(doctorPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for d := range staying {
		if len(report.Findings) >= maxFindings {
			break
		}
		report.Findings = append(report.Findings, adminapi.Finding{
			Check: "index", Subject: fmt.Sprintf("%s %s %s", d.Account, d.Index, d.Document),
			Detail: fmt.Sprintf("%s: the live index has %s, the store says %s", d.Path, d.Have, d.Want),
		})
	}
	return nil
}

func (a *App) compareIndex(ctx context.Context) (map[index.Difference]bool, int, error) {
	expected := index.New(index.Options{Committer: spectator{}, Source: spectator{}, Logger: slog.New(slog.DiscardHandler), IndexingOff: a.settings.Index.DefaultOff})
	cursor, err := (&loader{store: a.store}).load(ctx, expected)
	if err != nil {
		return nil, 0, fmt.Errorf("build an index to compare with: %w", err)
	}
	waiting, cancel := context.WithTimeout(ctx, doctorWait)
	defer cancel()
	if err := a.followers.index.WaitCovered(waiting, cursor); err != nil {
		return nil, 0, fmt.Errorf("wait for the live index: %w", err)
	}
	if err := a.index.WaitSettled(waiting); err != nil {
		return nil, 0, fmt.Errorf("wait for a rebuild of the live index: %w", err)
	}
	found := map[index.Difference]bool{}
	documents := a.index.Compare(expected, func(d index.Difference) {
		if len(found) < 10*maxFindings {
			found[d] = true
		}
	})
	return found, documents, nil
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
