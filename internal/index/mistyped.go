package index

import (
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fleet"
)

const (
	// maxMistyped bounds the lines about one field, maxMistypedBytes a value in
	// them.
	maxMistyped      = 10
	maxMistypedBytes = 64
)

// mistyped remembers the custom fields whose values of a wrong type are logged.
type mistyped struct {
	mu sync.Mutex
	// logged has the version of the configuration for which that was done.
	logged map[mistypedField]int64
}

// mistypedField is a field of the index of things or groups.
type mistypedField struct {
	account fleet.Account
	groups  bool
	field   string
}

// first reports whether nobody asked about the field and version before.
func (m *mistyped) first(f mistypedField, version int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before, ok := m.logged[f]; ok && before == version {
		return false
	}
	if m.logged == nil {
		m.logged = map[mistypedField]int64{}
	}
	m.logged[f] = version
	return true
}

// reportMistyped logs that documents have values of another type than that of
// the custom field: some of them, once for each configuration.
func (x *Index) reportMistyped(at *subject, a Aggregation) {
	total := at.field.mistyped(at.of)
	if total == 0 || !x.mistyped.first(mistypedField{at.account, a.Groups, at.path}, at.shard.config.Version) {
		return
	}
	name := "thing"
	if a.Groups {
		name = "group"
	}
	logged := 0
	var v values
	for it := at.field.exists.Iterator(); it.HasNext() && logged < min(total, maxMistyped); {
		doc := it.Next()
		v.texts, v.numbers = v.texts[:0], v.numbers[:0]
		if at.field.appendTo(doc, &v); v.typed(at.of) {
			continue
		}
		logged++
		x.options.Logger.Error("value left out of aggregations, a custom field has another type",
			slog.String("event_type", "IndexingCustomFieldFailed"), slog.String("account", string(at.account)),
			slog.String(name, strings.Clone(at.corpus.names.text(doc))), slog.String("field", at.path),
			slog.String("value", v.sample()), slog.String("expected_type", string(at.of)), slog.Int("mistyped", total))
	}
}

// mistyped is how many documents have values, but none of the type.
func (f *field) mistyped(of fleet.FieldType) int {
	have := f.numbers.count + f.lists.count
	switch of {
	case fleet.FieldString:
		have = f.texts.count + f.textLists.count
	case fleet.FieldBoolean:
		have = int(f.truths().GetCardinality())
	case fleet.FieldNumber:
	}
	return int(f.exists.GetCardinality()) - have
}

// truths are the documents with a truth value.
func (f *field) truths() *roaring.Bitmap {
	truths := roaring.New()
	for _, text := range []string{falseText, trueText} {
		if id, ok := f.vocab.find(text); ok {
			if p := f.vocab.posting(id); p.bits != nil {
				truths.Or(p.bits)
			} else {
				f.vocab.each(id, truths.Add)
			}
		}
	}
	return truths
}

// typed reports whether there is a value of the type.
func (v values) typed(of fleet.FieldType) bool {
	switch of {
	case fleet.FieldNumber:
		return len(v.numbers) > 0
	case fleet.FieldString:
		return len(v.texts) > 0
	case fleet.FieldBoolean:
		for _, text := range v.texts {
			if text == falseText || text == trueText {
				return true
			}
		}
	}
	return false
}

// sample is one of the values, shortened.
func (v values) sample() string {
	if len(v.texts) == 0 {
		return strconv.FormatFloat(v.numbers[0], 'g', -1, 64)
	}
	text := v.texts[0]
	if len(text) > maxMistypedBytes {
		text = strings.ToValidUTF8(text[:maxMistypedBytes], "")
	}
	return strings.Clone(text)
}
