package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Bounds of a page.
const (
	// MaxPage is the most records that a page may hold.
	MaxPage = 250
	// chunk is how many records are read at once.
	chunk = 256
	// maxLook is after how many records a page ends that finds nothing.
	maxLook = 5000
)

// Values of Query.Error that are no code.
const (
	// AnyError finds calls that were refused or failed.
	AnyError = "any"
	// NoError finds those that did not.
	NoError = "none"
)

// Query asks for a part of an account's records.
type Query struct {
	// From and To bound the time: records from From on and before To. Zero is no
	// bound.
	From, To time.Time
	// Actor is the ARN or the name of a user, a role, an access key, a
	// certificate; Resource an ARN or its end, such as thing/pump-1 or user/ada. Name is that
	// of the call, Error an error code, AnyError or NoError. Empty is no filter.
	Actor, Resource, Name, Error string
	// After is Page.Next of the page before, empty for the first.
	After string
	// Limit is how many records to return, 1 to MaxPage.
	Limit int
}

// Page is a part of a list, each record in its stored form.
type Page struct {
	Records []json.RawMessage
	// Next is where the list goes on; empty at its end. A page may be short or
	// empty and still have a next one.
	Next string
}

// check names the field and the rule that is broken.
func (q *Query) check() error {
	if q.Limit < 1 || q.Limit > MaxPage {
		return fault.New(fault.InvalidRequest, "maxResults: %d is not between 1 and %d", q.Limit, MaxPage)
	}
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		return fault.New(fault.InvalidRequest, "from: must be before to")
	}
	for _, f := range []struct{ name, value string }{{"actor", q.Actor}, {"resource", q.Resource}, {"name", q.Name}, {"error", q.Error}} {
		if len(f.value) > 2048 || strings.ContainsRune(f.value, 0) {
			return fault.New(fault.InvalidRequest, "%s: must have at most 2048 bytes and not contain the character U+0000", f.name)
		}
	}
	return nil
}

// actorNames are the names under which the actor's records may be.
func (q *Query) actorNames(account fleet.Account) []string {
	if strings.HasPrefix(q.Actor, "arn:") {
		return []string{q.Actor}
	}
	if q.Actor == "root" {
		return []string{iamARN(account, "root")}
	}
	return []string{iamARN(account, "user/"+q.Actor), iamARN(account, "role/"+q.Actor), q.Actor, "arn:" + fleet.Partition + ":sts::" + string(account) + ":assumed-role/" + q.Actor}
}

// resourceName is the resource's whole name. Kinds that only operators have are of
// IAM.
func (q *Query) resourceName(scope fleet.Scope) string {
	kind, name, ok := strings.Cut(q.Resource, "/")
	if !ok || strings.HasPrefix(q.Resource, "arn:") {
		return q.Resource
	}
	switch kind {
	case "user", "group", "role", "access-key":
		return iamARN(scope.Account, q.Resource)
	}
	return scope.ARN(kind, name)
}

// matcher is a query ready for use.
type matcher struct {
	q        *Query
	actors   map[string]bool
	resource string
}

func (s *Service) matcher(account fleet.Account, q *Query) *matcher {
	m := &matcher{q: q, resource: q.resourceName(fleet.Scope{Region: s.o.Region, Account: account})}
	if q.Actor != "" {
		m.actors = map[string]bool{}
		for _, name := range q.actorNames(account) {
			m.actors[name] = true
		}
		if id, kind := q.Actor, fleet.ARNCertificate; fleet.ValidCertificateID(id) {
			m.actors[fleet.Scope{Region: s.o.Region, Account: account}.ARN(kind, id)] = true
		}
	}
	return m
}

// match applies all filters.
func (m *matcher) match(r *Record) bool {
	at := r.millis()
	switch {
	case !m.q.From.IsZero() && at < m.q.From.UnixMilli(), !m.q.To.IsZero() && at >= m.q.To.UnixMilli():
		return false
	case m.q.Name != "" && r.EventName != m.q.Name:
		return false
	case m.q.Error == AnyError && r.ErrorCode == "", m.q.Error == NoError && r.ErrorCode != "":
		return false
	case m.q.Error != "" && m.q.Error != AnyError && m.q.Error != NoError && r.ErrorCode != m.q.Error:
		return false
	}
	return m.matchActor(r) && m.matchResource(r)
}

func (m *matcher) matchActor(r *Record) bool {
	if m.actors == nil {
		return true
	}
	for _, name := range r.actors() {
		if m.actors[name] {
			return true
		}
	}
	return false
}

func (m *matcher) matchResource(r *Record) bool {
	if m.resource == "" {
		return true
	}
	for _, resource := range r.Resources {
		if resource.ARN == m.resource {
			return true
		}
	}
	return false
}

// List returns records, newest first.
func (s *Service) List(ctx context.Context, account fleet.Account, q Query) (Page, error) {
	if err := q.check(); err != nil {
		return Page{}, err
	}
	if err := s.catchUp(ctx); err != nil {
		return Page{}, err
	}
	m := s.matcher(account, &q)
	source, err := s.prefix(ctx, account, m)
	if err != nil {
		return Page{}, err
	}
	within := span(source, q.From, q.To)
	if q.After != "" {
		within = within.After(store.Key(string(store.K(source...)) + "\x00" + q.After))
	}
	page := Page{Records: []json.RawMessage{}}
	looked := 0
	for {
		rows, err := s.scanRows(ctx, within, chunk)
		if err != nil {
			return page, err
		}
		if len(rows) == 0 {
			page.Next = ""
			return page, nil
		}
		records, err := s.behind(ctx, account, rows)
		if err != nil {
			return page, err
		}
		for i, stored := range records {
			// A row whose record retention has removed since is none.
			var r Record
			if stored.Version != 0 && json.Unmarshal(stored.Value, &r) == nil && m.match(&r) {
				page.Records = append(page.Records, stored.Value)
			}
			parts := rows[i].Parts()
			page.Next = string(store.K(parts[len(parts)-2:]...))
			if looked++; len(page.Records) == q.Limit || looked == maxLook {
				return page, nil
			}
		}
		within = within.After(rows[len(rows)-1])
	}
}

// prefix chooses the rows that lead to the fewest records: those of the resource,
// of the actor, or of all. An actor's name may mean several; rows of the first
// that has any are taken, or else all.
func (s *Service) prefix(ctx context.Context, account fleet.Account, m *matcher) ([]string, error) {
	if m.resource != "" {
		return []string{kindResource, string(account), part(m.resource)}, nil
	}
	var only []string
	for name := range m.actors {
		rows, err := s.scanRows(ctx, store.Under(kindActor, string(account), part(name)), 1)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			only = append(only, name)
		}
	}
	switch {
	case m.actors == nil || len(only) > 1:
		return []string{kindTime, string(account)}, nil
	case len(only) == 0:
		return []string{kindActor, string(account), part(m.q.Actor)}, nil
	default:
		return []string{kindActor, string(account), part(only[0])}, nil
	}
}

// span is the rows under a prefix from one time to another, newest first.
func span(prefix []string, from, to time.Time) store.Range {
	within := store.Under(prefix...)
	begin := string(store.K(prefix...)) + "\x00"
	if !to.IsZero() {
		within.From = store.Key(begin + downTime(to.UnixMilli()-1))
	}
	if !from.IsZero() {
		within.To = store.Key(begin + downTime(from.UnixMilli()) + "\x01")
	}
	return within
}

// scanRows reads some keys.
func (s *Service) scanRows(ctx context.Context, within store.Range, limit int) ([]store.Key, error) {
	var rows []store.Key
	err := s.store.Scan(ctx, within, func(stored store.Record) error {
		rows = append(rows, stored.Key)
		if len(rows) == limit {
			return store.Stop
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read audit records: %w", err)
	}
	return rows, nil
}

// behind reads the records that rows point to.
func (s *Service) behind(ctx context.Context, account fleet.Account, rows []store.Key) ([]store.Record, error) {
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		seq, ok := seqOfRow(row)
		if !ok {
			return nil, fmt.Errorf("row %s of the audit trail points to no record", row)
		}
		keys[i] = recordKey(account, seq)
	}
	records, err := s.store.GetMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read audit records: %w", err)
	}
	return records, nil
}

// followEvery is how often a follower looks for more.
const followEvery = 250 * time.Millisecond

// Follow calls fn with each record behind a sequence that matches, in order, as
// they are made, until ctx ends or the server stops, which is no error. fn is
// called with nil when there was nothing for a while.
func (s *Service) Follow(ctx context.Context, account fleet.Account, q Query, after uint64, fn func(line []byte) error) error {
	q.Limit = MaxPage
	if err := q.check(); err != nil {
		return err
	}
	m := s.matcher(account, &q)
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	quiet := 0
	for {
		last, err := s.follow(ctx, account, m, after, fn)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if quiet++; last != after {
			after, quiet = last, 0
		}
		if time.Duration(quiet)*followEvery >= followBeat {
			if err := fn(nil); err != nil {
				return err
			}
			quiet = 0
		}
		select {
		case <-tick.C:
		case <-s.closed:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// followBeat is how long a follower hears nothing at most.
const followBeat = 10 * time.Second

// follow hands on what there is.
func (s *Service) follow(ctx context.Context, account fleet.Account, m *matcher, after uint64, fn func([]byte) error) (uint64, error) {
	within := store.Under(kindRecord, string(account))
	within.From = recordKey(account, after+1)
	for {
		var lines []store.Record
		err := s.store.Scan(ctx, within, func(stored store.Record) error {
			if lines = append(lines, stored); len(lines) == chunk {
				return store.Stop
			}
			return nil
		})
		if err != nil {
			return after, fmt.Errorf("read audit records: %w", err)
		}
		for _, stored := range lines {
			seq, ok := seqOfRecord(stored.Key)
			if !ok {
				continue
			}
			var r Record
			if json.Unmarshal(stored.Value, &r) == nil && m.match(&r) {
				if err := fn(stored.Value); err != nil {
					return after, err
				}
			}
			after = seq
		}
		if len(lines) < chunk {
			return after, nil
		}
		within.From = recordKey(account, after+1)
	}
}

// errNoRecords is an export of a time without any record.
var errNoRecords = errors.New("no records")

// Export calls fn with the records of a time in the order of the chain, and with
// the signed end of the export last. Records whose times are not in order are
// all there if they lie between two that were asked for. Zero times are no bound.
func (s *Service) Export(ctx context.Context, account fleet.Account, from, to time.Time, fn func(line []byte) error) error {
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return fault.New(fault.InvalidRequest, "from: must be before to")
	}
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	end, err := s.export(ctx, snapshot, account, from, to, fn)
	if err != nil {
		return err
	}
	if end, err = sign(s.key, end, s.o.Now()); err != nil {
		return err
	}
	line, err := end.encode()
	if err != nil {
		return err
	}
	return fn(line)
}

// export hands out the records and says where they begin and end.
func (s *Service) export(ctx context.Context, r store.Reader, account fleet.Account, from, to time.Time, fn func([]byte) error) (Head, error) {
	end := Head{What: endOf, Account: account, Hash: genesis, PrevHash: genesis}
	first, last, err := bounds(ctx, r, account, from, to)
	if errors.Is(err, errNoRecords) {
		return end, nil
	}
	if err != nil {
		return end, err
	}
	within := store.Range{From: recordKey(account, first), To: recordKey(account, last) + "\x01"}
	err = r.Scan(ctx, within, func(stored store.Record) error {
		// What is not whole goes out as it is, for the reader to find.
		record, hash, _ := parseLine(stored.Value)
		if end.First == 0 {
			end.First, end.PrevHash = record.Seq, record.PrevHash
		}
		end.Seq, end.Hash = record.Seq, hash
		return fn(stored.Value)
	})
	if err != nil {
		return end, fmt.Errorf("export audit records: %w", err)
	}
	return end, nil
}

// bounds are the first and the last record of a time.
func bounds(ctx context.Context, r store.Reader, account fleet.Account, from, to time.Time) (first, last uint64, err error) {
	within := span([]string{kindTime, string(account)}, from, to)
	if from.IsZero() && to.IsZero() {
		return 0, 1<<64 - 1, nil
	}
	err = r.Scan(ctx, within, func(stored store.Record) error {
		seq, ok := seqOfRow(stored.Key)
		if !ok {
			return fmt.Errorf("row %s of the audit trail points to no record", stored.Key)
		}
		if first == 0 || seq < first {
			first = seq
		}
		last = max(last, seq)
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("find the bounds of an export: %w", err)
	}
	if first == 0 {
		return 0, 0, errNoRecords
	}
	return first, last, nil
}

// ParseAfter reads a sequence to follow from, "" for the end.
func ParseAfter(text string) (uint64, error) {
	seq, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, fault.New(fault.InvalidRequest, "after: must be the number of a record")
	}
	return seq, nil
}
