package sdk

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// The size of the contest for one resource.
const (
	writers    = 8
	increments = 15
)

// increment reads a counter and writes the next number for the version that it
// read, again and again until nobody was faster.
func increment(read func() (count string, version int64, err error), write func(count string, version int64) error) error {
	for {
		text, version, err := read()
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		err = write(strconv.Itoa(n+1), version)
		if _, conflict := errors.AsType[*types.VersionConflictException](err); conflict {
			continue
		}
		if _, busy := errors.AsType[*types.ThrottlingException](err); busy {
			continue
		}
		return err
	}
}

// contest has many writers increment one counter.
func contest(t *testing.T, read func() (string, int64, error), write func(string, int64) error) {
	t.Helper()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range increments {
				if err := increment(read, write); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	count, version, err := read()
	if err != nil || count != strconv.Itoa(writers*increments) || version != writers*increments+1 {
		t.Errorf("count %s at version %d, %v; want %d", count, version, err, writers*increments)
	}
}

// Concurrent updates that expect a version never lose a write.
func TestExpectedVersionLosesNoWrite(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	ctx := t.Context()
	zero := withAttributes(false, "n=0")
	t.Run("things", func(t *testing.T) {
		t.Parallel()
		name := new("counter")
		must(o, o.CreateThing, &iot.CreateThingInput{ThingName: name, AttributePayload: zero})
		contest(t, func() (string, int64, error) {
			out, err := o.DescribeThing(ctx, &iot.DescribeThingInput{ThingName: name})
			if err != nil {
				return "", 0, err
			}
			return out.Attributes["n"], out.Version, nil
		}, func(n string, version int64) error {
			_, err := o.UpdateThing(ctx, &iot.UpdateThingInput{ThingName: name, ExpectedVersion: &version, AttributePayload: withAttributes(true, "n="+n)})
			return err
		})
	})
	t.Run("thing groups", func(t *testing.T) {
		t.Parallel()
		name := new("counter")
		must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: name, ThingGroupProperties: &types.ThingGroupProperties{AttributePayload: zero}})
		contest(t, func() (string, int64, error) {
			out, err := o.DescribeThingGroup(ctx, &iot.DescribeThingGroupInput{ThingGroupName: name})
			if err != nil {
				return "", 0, err
			}
			return out.ThingGroupProperties.AttributePayload.Attributes["n"], out.Version, nil
		}, func(n string, version int64) error {
			_, err := o.UpdateThingGroup(ctx, &iot.UpdateThingGroupInput{
				ThingGroupName: name, ExpectedVersion: &version, ThingGroupProperties: &types.ThingGroupProperties{AttributePayload: withAttributes(true, "n="+n)},
			})
			return err
		})
	})
}

// Of creators of one name with different attributes exactly one succeeds, and
// the others are told who was faster.
func TestOneCreatorWins(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	const rounds, creators = 100, 3
	for round := range rounds {
		name := fmt.Sprint("contested-", round)
		outs, errs := make([]*iot.CreateThingOutput, creators), make([]error, creators)
		var all sync.WaitGroup
		for i := range creators {
			all.Go(func() {
				outs[i], errs[i] = o.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: &name, AttributePayload: withAttributes(false, fmt.Sprint("by=", i))})
			})
		}
		all.Wait()
		thing := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &name})
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
				if *outs[i].ThingId != *thing.ThingId || thing.Attributes["by"] != strconv.Itoa(i) {
					t.Fatalf("creator %d won %s, but there is %+v", i, *outs[i].ThingId, thing)
				}
				continue
			}
			taken, ok := errors.AsType[*types.ResourceAlreadyExistsException](err)
			if !ok || val(taken.ResourceId) != *thing.ThingId || val(taken.ResourceArn) != *thing.ThingArn {
				t.Fatalf("creator %d got %v, which names %s and %s", i, err, val(taken.ResourceId), val(taken.ResourceArn))
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d creators succeeded: %v", round, won, errs)
		}
	}
}

// pagedList is a list with what it can hold.
type pagedList struct {
	name string
	// add makes an item and returns how the list names it; remove undoes it.
	add    func(o *operator, name string) string
	remove func(o *operator, item string) error
	// page returns the items behind a token, two at most.
	page func(o *operator, token *string) (items []string, next *string, err error)
}

// inTwos is the size of pages here.
func inTwos() *int32 { return new(int32(2)) }

// listsOfThings are ListThings with every kind of filter.
func listsOfThings() []pagedList {
	var all []pagedList
	for name, filter := range map[string]iot.ListThingsInput{
		"ListThings plain":                  {},
		"ListThings by type":                {ThingTypeName: new("Pump")},
		"ListThings by attribute":           {AttributeName: new("site")},
		"ListThings by value":               {AttributeName: new("site"), AttributeValue: new("leeds")},
		"ListThings by prefix":              {AttributeName: new("site"), AttributeValue: new("le"), UsePrefixAttributeValue: true},
		"ListThings by type and its prefix": {ThingTypeName: new("Pump"), AttributeName: new("site"), AttributeValue: new("l"), UsePrefixAttributeValue: true},
	} {
		all = append(all, pagedList{
			name: name,
			add: func(o *operator, name string) string {
				must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name, ThingTypeName: new("Pump"), AttributePayload: withAttributes(false, "site=leeds")})
				return name
			},
			remove: func(o *operator, item string) error {
				_, err := o.DeleteThing(o.t.Context(), &iot.DeleteThingInput{ThingName: &item})
				return err
			},
			page: func(o *operator, token *string) (items []string, next *string, err error) {
				in := filter
				in.MaxResults, in.NextToken = inTwos(), token
				out, err := o.ListThings(o.t.Context(), &in)
				if err != nil {
					return nil, nil, err
				}
				for _, thing := range out.Things {
					items = append(items, *thing.ThingName)
				}
				return items, out.NextToken, nil
			},
		})
	}
	return all
}

// otherLists are the lists of groups, policies and certificates.
func otherLists() []pagedList {
	certificates := func(name string, ascending bool) pagedList {
		return pagedList{
			name: name,
			add: func(o *operator, _ string) string {
				return *must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{}).CertificateId
			},
			remove: func(o *operator, item string) error {
				_, err := o.DeleteCertificate(o.t.Context(), &iot.DeleteCertificateInput{CertificateId: &item})
				return err
			},
			page: func(o *operator, token *string) (items []string, next *string, err error) {
				out, err := o.ListCertificates(o.t.Context(), &iot.ListCertificatesInput{PageSize: inTwos(), Marker: token, AscendingOrder: ascending})
				if err != nil {
					return nil, nil, err
				}
				for _, c := range out.Certificates {
					items = append(items, *c.CertificateId)
				}
				return items, out.NextMarker, nil
			},
		}
	}
	return []pagedList{
		{
			name: "ListThingGroups",
			add: func(o *operator, name string) string {
				must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: &name})
				return name
			},
			remove: func(o *operator, item string) error {
				_, err := o.DeleteThingGroup(o.t.Context(), &iot.DeleteThingGroupInput{ThingGroupName: &item})
				return err
			},
			page: func(o *operator, token *string) (items []string, next *string, err error) {
				out, err := o.ListThingGroups(o.t.Context(), &iot.ListThingGroupsInput{MaxResults: inTwos(), NextToken: token})
				if err != nil {
					return nil, nil, err
				}
				for _, g := range out.ThingGroups {
					items = append(items, *g.GroupName)
				}
				return items, out.NextToken, nil
			},
		},
		{
			name: "ListPolicies",
			add: func(o *operator, name string) string {
				must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: &name, PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`)})
				return name
			},
			remove: func(o *operator, item string) error {
				_, err := o.DeletePolicy(o.t.Context(), &iot.DeletePolicyInput{PolicyName: &item})
				return err
			},
			page: func(o *operator, token *string) (items []string, next *string, err error) {
				out, err := o.ListPolicies(o.t.Context(), &iot.ListPoliciesInput{PageSize: inTwos(), Marker: token})
				if err != nil {
					return nil, nil, err
				}
				for _, p := range out.Policies {
					items = append(items, *p.PolicyName)
				}
				return items, out.NextMarker, nil
			},
		},
		certificates("ListCertificates, newest first", false),
		certificates("ListCertificates, oldest first", true),
	}
}

// Between any two pages things are made and removed before and behind the place
// where the list goes on, and once the server is killed and started again: what
// was there all the time is listed exactly once, and nothing is listed twice.
func TestPagesSurviveChangesAndRestart(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: new("Pump")})
	walks := []*walk{}
	for i, l := range slices.Concat(listsOfThings(), otherLists()) {
		w := &walk{t: t, o: o, list: l, prefix: fmt.Sprintf("l%02d", i), seen: map[string]int{}}
		w.prepare()
		walks = append(walks, w)
	}
	for _, w := range walks {
		w.next()
		w.next()
	}
	server.Kill()
	server.Start()
	for _, w := range walks {
		for w.next() {
		}
		w.check()
	}
}

// walk goes through one list.
type walk struct {
	t      *testing.T
	o      *operator
	list   pagedList
	prefix string
	// stays are there all the time, fleeting are removed on the way.
	stays, fleeting []string
	token           *string
	pages           int
	seen            map[string]int
}

// prepare makes what is there before the walk begins: what stays between what
// will go.
func (w *walk) prepare() {
	for i := range 6 {
		w.fleeting = append(w.fleeting, w.list.add(w.o, fmt.Sprintf("%s-%02d-goes", w.prefix, i)))
		w.stays = append(w.stays, w.list.add(w.o, fmt.Sprintf("%s-%02d-stays", w.prefix, i)))
	}
}

// next reads one page and then changes the list; false at its end.
func (w *walk) next() (more bool) {
	w.t.Helper()
	items, token, err := w.list.page(w.o, w.token)
	if err != nil {
		w.t.Fatalf("%s: page %d: %v", w.list.name, w.pages, err)
	}
	if len(items) > 2 {
		w.t.Errorf("%s: a page of %d items", w.list.name, len(items))
	}
	for _, item := range items {
		w.seen[item]++
	}
	w.token = token
	// One at the front of the names, one at their end; not for ever, or a list in
	// order of age would never end.
	if w.pages < 8 {
		w.list.add(w.o, fmt.Sprintf("%s-%02d-new", "a-"+w.prefix, w.pages))
		w.list.add(w.o, fmt.Sprintf("%s-%02d-new", "z-"+w.prefix, w.pages))
	}
	// The item where the list stands goes too, whichever it is.
	if n := len(w.fleeting); n > 0 {
		i := w.pages % n
		if err := w.list.remove(w.o, w.fleeting[i]); err != nil {
			w.t.Errorf("%s: %v", w.list.name, err)
		}
		w.fleeting = slices.Delete(w.fleeting, i, i+1)
	}
	for _, item := range items {
		if i := slices.Index(w.fleeting, item); i >= 0 {
			if err := w.list.remove(w.o, item); err != nil {
				w.t.Errorf("%s: %v", w.list.name, err)
			}
			w.fleeting = slices.Delete(w.fleeting, i, i+1)
		}
	}
	w.pages++
	return token != nil && w.pages < 10_000
}

// check compares what was seen with what was there.
func (w *walk) check() {
	w.t.Helper()
	for _, item := range w.stays {
		if w.seen[item] != 1 {
			w.t.Errorf("%s: %s was there all the time and listed %d times", w.list.name, item, w.seen[item])
		}
	}
	for _, item := range slices.Sorted(maps.Keys(w.seen)) {
		if w.seen[item] > 1 {
			w.t.Errorf("%s: %s was listed %d times", w.list.name, item, w.seen[item])
		}
	}
	if w.pages < 4 {
		w.t.Errorf("%s: only %d pages", w.list.name, w.pages)
	}
}

// A token is good for its own list with its own filters, and in one piece.
func TestTokensOfOtherListsAreRefused(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: new("Pump")})
	lists := slices.Concat(listsOfThings(), otherLists())
	tokens := make([]*string, len(lists))
	for i, l := range lists {
		for n := range 3 {
			l.add(o, fmt.Sprintf("t%02d-%d", i, n))
		}
	}
	for i, l := range lists {
		_, token, err := l.page(o, nil)
		if err != nil || token == nil {
			t.Fatalf("%s: %v, token %v", l.name, err, token)
		}
		tokens[i] = token
	}
	for i, l := range lists {
		for j, token := range tokens {
			_, _, err := l.page(o, token)
			if i == j {
				if err != nil {
					t.Errorf("%s refuses its own token: %v", l.name, err)
				}
				continue
			}
			if code, _ := answered(err); code != "InvalidRequestException" {
				t.Errorf("%s with the token of %s: %v", l.name, lists[j].name, err)
			}
		}
		altered := []byte(*tokens[i])
		altered[len(altered)/2] ^= 1
		for _, bad := range []string{string(altered), (*tokens[i])[1:], "", "x"} {
			if _, _, err := l.page(o, &bad); err == nil && bad != "" {
				t.Errorf("%s takes %q", l.name, bad)
			}
		}
	}
}
