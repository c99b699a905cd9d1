package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// line is a line of an import.
func line(name, typeName string, attributes map[string]string, groups ...string) ThingImport {
	return ThingImport{CreateThingCommand: CreateThingCommand{Name: name, TypeName: typeName, Attributes: attributes}, Groups: groups}
}

// outcomes renders the answers of an import: a result, or the code and, of
// some, what the message must hold.
func (r *rig) outcomes(t *testing.T, mode ImportMode, lines ...ThingImport) []string {
	t.Helper()
	answers := must[[]ThingImported](t)(r.ImportThings(t.Context(), acct, ImportCommand{Mode: mode, Things: lines}))
	out := make([]string, len(answers))
	for i, a := range answers {
		out[i] = [...]string{ImportFailed: "", ImportCreated: "created", ImportUpdated: "updated", ImportUnchanged: "unchanged"}[a.Result]
		if a.Err != nil {
			out[i] += string(fault.CodeOf(a.Err))
		}
	}
	return out
}

// importRig has a type, a deprecated one, and groups.
func importRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	for _, name := range []string{"Pump", "Old"} {
		must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: name}))
	}
	ok(t, r.DeprecateThingType(t.Context(), acct, "Old", false))
	r.addGroup(t, "site", "")
	r.addGroup(t, "north", "site")
	r.addGroup(t, "line", "")
	r.addDynamic(t, "dynamic", "a:b")
	return r
}

func TestImportCreates(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	before := len(r.store.log())
	attributes := map[string]string{"hw": "2", "empty": ""}
	good := line("a", "Pump", attributes, "north", "line")
	lines := []ThingImport{
		good,
		line("b c", "", nil),
		line("b", "Unknown", nil),
		line("b", "Old", nil),
		line("b", "", map[string]string{"1": "1", "2": "2", "3": "3", "4": "4"}),
		line("b", "", map[string]string{"x": "sp ace"}),
		line("b", "", nil, "nowhere"),
		line("b", "", nil, "dynamic"),
		line("b", "", nil, "site", "north"),
		line("b", "", nil, "line", "line"),
		{CreateThingCommand: CreateThingCommand{Name: "b"}, Refused: fault.New(fault.Forbidden, "no")},
		line("b\x00c", "", nil),
		line("", "", nil),
		line("c", "", nil),
		line("a", "Pump", nil),
		good,
	}
	invalid := string(fault.InvalidRequest)
	wantEqual(t, r.outcomes(t, ImportCreate, lines...), []string{
		"created", invalid, string(fault.ResourceNotFound), invalid, invalid, invalid, string(fault.ResourceNotFound), invalid, invalid, invalid,
		string(fault.Forbidden), invalid, invalid, "created", string(fault.ResourceAlreadyExists), "unchanged",
	})
	a := must[Thing](t)(r.DescribeThing(t.Context(), acct, "a"))
	wantEqual(t, a.Attributes, map[string]string{"hw": "2"})
	wantEqual(t, a.Groups, []Membership{{Group: "line"}, {Group: "north"}})
	wantEqual(t, a.Version, int64(1))
	// A thing and its memberships are one commit: their events stand together.
	log := r.store.log()[before:]
	wantEqual(t, len(log), 4)
	at := slices.IndexFunc(log, func(e event.Event) bool { c, ok := e.(event.ThingCreated); return ok && c.Thing.Thing == "a" })
	for i, group := range []string{"north", "line"} {
		if m, ok := log[at+1+i].(event.MembershipChanged); !ok || m.Group != group || m.Thing != "a" || !m.Added {
			t.Errorf("event %d behind the creation is %+v", i, log[at+1+i])
		}
	}
	// Again: nothing changes, and nothing is added to what exists.
	wantEqual(t, r.outcomes(t, ImportCreate, good, line("c", "", nil), line("c", "", nil, "line"), line("c", "Pump", nil)),
		[]string{"unchanged", "unchanged", string(fault.ResourceAlreadyExists), string(fault.ResourceAlreadyExists)})
	wantEqual(t, len(r.store.log()), before+4)
	wantEqual(t, must[Listed[Thing]](t)(r.ListThings(t.Context(), acct, ListThingsFilter{TypeName: "Pump"}, Page{})).Items[0].Name, "a")
	wantEqual(t, must[Listed[string]](t)(r.ListThingsInThingGroup(t.Context(), acct, "site", true, Page{})).Items, []string{"a"})
}

func TestImportUpserts(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	wantEqual(t, r.outcomes(t, ImportUpsert, line("a", "Pump", map[string]string{"hw": "2", "fw": "7"}, "north")), []string{"created"})
	waits := r.barrier.count()
	wantEqual(t, r.outcomes(t, ImportUpsert,
		line("a", "", nil),
		line("a", "Pump", map[string]string{"hw": "2"}, "north"),
		line("a", "", map[string]string{"fw": "", "site": "x"}, "line"),
		line("a", "", nil, "site"), // the second of one hierarchy
		line("new", "", map[string]string{"1": "1", "2": "2", "3": "3", "4": "4"}),
		line("a", "", map[string]string{"1": "1", "2": "2", "3": "3", "4": "4"}), // with a type it may
	), []string{"unchanged", "unchanged", "updated", string(fault.InvalidRequest), string(fault.InvalidRequest), "updated"})
	a := must[Thing](t)(r.DescribeThing(t.Context(), acct, "a"))
	wantEqual(t, a.Attributes, map[string]string{"hw": "2", "site": "x", "1": "1", "2": "2", "3": "3", "4": "4"})
	wantEqual(t, a.TypeName, "Pump")
	wantEqual(t, a.Version, int64(3))
	wantEqual(t, a.Groups, []Membership{{Group: "line"}, {Group: "north"}})
	// Devices are held to the batch once, not line by line.
	wantEqual(t, r.barrier.count(), waits+1)
}

func TestImportBillingGroups(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	for _, name := range []string{"payer", "other"} {
		must[BillingGroup](t)(r.CreateBillingGroup(t.Context(), acct, CreateBillingGroupCommand{Name: name}))
	}
	billed := func(name, group string) ThingImport {
		return ThingImport{CreateThingCommand: CreateThingCommand{Name: name, BillingGroup: group}}
	}
	exists, invalid := string(fault.ResourceAlreadyExists), string(fault.InvalidRequest)
	wantEqual(t, r.outcomes(t, ImportCreate, billed("a", "payer"), billed("b", "nobody"), billed("b", "bad name"), billed("b", "")),
		[]string{"created", string(fault.ResourceNotFound), invalid, "created"})
	wantEqual(t, r.outcomes(t, ImportCreate, billed("a", "payer"), billed("a", ""), billed("b", "payer")), []string{"unchanged", exists, exists})
	wantEqual(t, r.outcomes(t, ImportUpsert, billed("a", ""), billed("a", "payer"), billed("a", "other"), billed("b", "other"), billed("c", "other"), billed("c", "bad name")),
		[]string{"unchanged", "unchanged", invalid, "updated", "created", invalid})
	wantEqual(t, must[Listed[string]](t)(r.ListThingsInBillingGroup(t.Context(), acct, "other", Page{})).Items, []string{"b", "c"})
	wantEqual(t, must[Thing](t)(r.DescribeThing(t.Context(), acct, "a")).BillingGroup, "payer")
}

// Rules that a type has for attributes hold for imports as for any change.
func TestImportFollowsAttributeRules(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	ok(t, r.SetAttributeRules(t.Context(), acct, "Pump", AttributeRules{Attributes: map[string]AttributeRule{
		"serial": {Required: true, Pattern: "[A-Z]{2}[0-9]+"},
	}}))
	good, bad := map[string]string{"serial": "AB12"}, map[string]string{"serial": "12"}
	invalid := string(fault.InvalidRequest)
	wantEqual(t, r.outcomes(t, ImportCreate, line("a", "Pump", good), line("b", "Pump", bad), line("c", "Pump", nil), line("d", "", bad)),
		[]string{"created", invalid, invalid, "created"})
	wantEqual(t, r.outcomes(t, ImportUpsert, line("a", "", bad), line("a", "", map[string]string{"serial": ""}), line("d", "Pump", nil), line("d", "Pump", good)),
		[]string{invalid, invalid, invalid, "updated"})
}

func TestImportLastOfANameWins(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	var lines []ThingImport
	for i := range 300 {
		lines = append(lines, line(fmt.Sprintf("t%d", i%3), "", map[string]string{"n": fmt.Sprint(i)}))
	}
	r.outcomes(t, ImportUpsert, lines...)
	for i := range 3 {
		thing := must[Thing](t)(r.DescribeThing(t.Context(), acct, fmt.Sprintf("t%d", i)))
		wantEqual(t, thing.Attributes["n"], fmt.Sprint(297+i))
		wantEqual(t, thing.Version, int64(100))
	}
}

// A line that sets back what an earlier one has changed changes it: what was
// there before the import is not what it is compared with.
func TestImportSetsBack(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	is := func(value string) ThingImport { return line("a", "", map[string]string{"n": value}) }
	wantEqual(t, r.outcomes(t, ImportUpsert, is("1")), []string{"created"})
	wantEqual(t, r.outcomes(t, ImportUpsert, is("2"), is("1")), []string{"updated", "updated"})
	wantEqual(t, must[Thing](t)(r.DescribeThing(t.Context(), acct, "a")).Attributes["n"], "1")
	// Nor is an error decided by it.
	wantEqual(t, r.outcomes(t, ImportUpsert, line("a", "Pump", nil), line("a", "", map[string]string{"1": "1", "2": "2", "3": "3", "4": "4"})),
		[]string{"updated", "updated"})
}

// A line that names more groups than a thing can be in is refused before any of
// them is read.
func TestImportBoundsGroups(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	groups := make([]string, MaxImportGroups+1)
	for i := range groups {
		groups[i] = fmt.Sprintf("g%d", i)
	}
	wantEqual(t, r.outcomes(t, ImportUpsert, line("a", "", nil, groups...), line("b", "", nil, groups[1:]...)),
		[]string{string(fault.InvalidRequest), string(fault.ResourceNotFound)})
}

func TestImportDryRun(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	r.addThing(t, "old")
	before := r.store.records()
	answers := must[[]ThingImported](t)(r.ImportThings(t.Context(), acct, ImportCommand{Mode: ImportUpsert, DryRun: true, Things: []ThingImport{
		line("a", "Pump", nil, "north"), line("b", "Nope", nil), line("old", "Pump", nil), line("old", "", nil),
	}}))
	wantEqual(t, []ImportResult{answers[0].Result, answers[1].Result, answers[2].Result, answers[3].Result},
		[]ImportResult{ImportCreated, ImportFailed, ImportUpdated, ImportUnchanged})
	wantEqual(t, r.store.records(), before)
}

// A type that is deprecated between the batch's look at it and a commit is
// seen: what was read once for all lines is still an expectation of each.
func TestImportSeesTheTypeChange(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	var once sync.Once
	r.store.hook(func(store.Batch) error {
		once.Do(func() {
			r.store.unhook()
			ok(t, r.DeprecateThingType(t.Context(), acct, "Pump", false))
		})
		return nil
	})
	wantEqual(t, r.outcomes(t, ImportCreate, line("a", "Pump", nil)), []string{string(fault.InvalidRequest)})
	must[Listed[Thing]](t)(r.ListThings(t.Context(), acct, ListThingsFilter{}, Page{}))
}

// A commit that fails harms its own line only, and the call when the store is
// at fault for all.
func TestImportCommitFails(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	broken := errors.New("broken")
	r.store.hook(func(b store.Batch) error {
		for _, w := range b.Writes {
			if strings.HasSuffix(string(w.Key), "bad") {
				return broken
			}
		}
		return nil
	})
	answers := must[[]ThingImported](t)(r.ImportThings(t.Context(), acct, ImportCommand{Things: []ThingImport{
		line("a", "", nil), line("bad", "", nil), line("c", "", nil),
	}}))
	if answers[0].Result != ImportCreated || !errors.Is(answers[1].Err, broken) || answers[2].Result != ImportCreated {
		t.Errorf("got %+v", answers)
	}
}

func TestImportTooMany(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.ImportThings(t.Context(), acct, ImportCommand{Things: make([]ThingImport, MaxImport+1)})
	wantCode(t, err, fault.InvalidRequest)
	answers := must[[]ThingImported](t)(r.ImportThings(t.Context(), acct, ImportCommand{}))
	wantEqual(t, len(answers), 0)
}

// Importers of one file side by side: each thing is made once, and everybody
// else finds it unchanged.
func TestRaceOfImports(t *testing.T) {
	t.Parallel()
	r := importRig(t)
	before := len(r.store.log())
	var lines []ThingImport
	for i := range 400 {
		lines = append(lines, line(fmt.Sprintf("t%d", i), "Pump", map[string]string{"n": fmt.Sprint(i)}, "north", "line"))
	}
	var mu sync.Mutex
	got := map[string]int{}
	var importers sync.WaitGroup
	for range 4 {
		importers.Go(func() {
			for part := range slices.Chunk(lines, 100) {
				for _, outcome := range r.outcomes(t, ImportCreate, part...) {
					mu.Lock()
					got[outcome]++
					mu.Unlock()
				}
			}
		})
	}
	importers.Wait()
	wantEqual(t, got, map[string]int{"created": 400, "unchanged": 1200})
	wantEqual(t, len(r.store.log())-before, 3*400)
}
