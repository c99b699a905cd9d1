package index

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Originals reads what is indexed in the case in which it was written: the index
// itself has texts in lower case only. Both answer ResourceNotFound for what is
// gone.
type Originals interface {
	OriginalThing(ctx context.Context, account fleet.Account, thing string) (t Thing, groups []string, err error)
	OriginalGroup(ctx context.Context, account fleet.Account, group string) (Group, error)
}

// cased tells that a folded text may have been written in another way.
func cased(text string) bool { return strings.ToUpper(text) != text }

// spell makes buckets of terms; the keys are read from their examples. What has
// changed in between stays in lower case.
func (x *Index) spell(ctx context.Context, account fleet.Account, groups bool, path string, terms []term) ([]Bucket, error) {
	buckets := make([]Bucket, len(terms))
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(stateLoaders)
	for i, t := range terms {
		buckets[i] = Bucket{Key: t.text, Count: t.count}
		if t.example == "" || x.options.Originals == nil {
			continue
		}
		reading.Go(func() error {
			texts, err := x.originalTexts(ctx, account, groups, path, t.example)
			if fault.CodeOf(err) == fault.ResourceNotFound {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read %q: %w", t.example, err)
			}
			for _, text := range texts {
				if fleetquery.Fold(text) == t.text {
					buckets[i].Key = text
					break
				}
			}
			return nil
		})
	}
	return buckets, reading.Wait() //nolint:wrapcheck // it says what was read
}

// originalTexts are the texts at a path of a document as they were written.
func (x *Index) originalTexts(ctx context.Context, account fleet.Account, groups bool, path, name string) ([]string, error) {
	if groups {
		g, err := x.options.Originals.OriginalGroup(ctx, account, name)
		switch path {
		case fieldGroupName:
			return []string{g.Name}, err
		case fieldGroupID:
			return []string{g.ID}, err
		case fieldGroupDescription:
			return []string{g.Description}, err
		case fieldGroupParents:
			return g.Ancestors, err
		}
		return []string{g.Attributes[strings.TrimPrefix(path, prefixAttributes)]}, err
	}
	first, _, _ := strings.Cut(path, ".")
	switch first {
	case fieldThingName:
		return []string{name}, nil
	case fieldThingID, fieldThingType, fieldGroups, strings.TrimSuffix(prefixAttributes, "."):
		t, in, err := x.options.Originals.OriginalThing(ctx, account, name)
		switch path {
		case fieldThingID:
			return []string{t.ID}, err
		case fieldThingType:
			return []string{t.TypeName}, err
		case fieldGroups:
			return append(in, t.BillingGroup), err
		}
		return []string{t.Attributes[strings.TrimPrefix(path, prefixAttributes)]}, err
	}
	state, err := x.options.Source.ThingState(ctx, account, name)
	switch {
	case err != nil:
		return nil, err //nolint:wrapcheck // spell says what was read
	case path == fieldConnReason && state.Connectivity != nil:
		return []string{state.Connectivity.Reason}, nil
	}
	return state.textsAt(path), nil
}

// textsAt are the texts at a path of the shadows.
func (s State) textsAt(path string) []string {
	var texts []string
	for _, sh := range s.Shadows {
		for section, document := range map[string][]byte{"desired": sh.Desired, "reported": sh.Reported, "delta": sh.Delta} {
			rest, ok := strings.CutPrefix(path, shadowRoot(sh.Name)+"."+section+".")
			var object any
			if ok && json.Unmarshal(document, &object) == nil {
				texts = append(texts, textsIn(object, rest)...)
			}
		}
	}
	return texts
}

// textsIn are the texts at a path, in which a dot may also be a part of a key.
func textsIn(value any, path string) []string {
	var texts []string
	switch v := value.(type) {
	case map[string]any:
		for key, child := range v {
			if key == path {
				texts = append(texts, textsIn(child, "")...)
			} else if rest, ok := strings.CutPrefix(path, key+"."); ok {
				texts = append(texts, textsIn(child, rest)...)
			}
		}
	case []any:
		for _, child := range v {
			texts = append(texts, textsIn(child, path)...)
		}
	case string:
		if path == "" {
			texts = append(texts, v)
		}
	}
	return texts
}
