package index

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2"
)

// field holds all values at one path. A document's single text is a number in
// a column and a posting under that text; several texts or numbers (arrays,
// group names) go into the list columns instead.
type field struct {
	exists    *roaring.Bitmap
	texts     idColumn
	textLists listColumn
	numbers   numberColumn
	lists     column[[]float64]
	// vocab maps each whole text to the documents that hold it.
	vocab vocab
	// compound marks the texts of vocab that are not exactly one word; words
	// maps each of their words to such texts. Both are nil until needed.
	compound *roaring.Bitmap
	words    *vocab
}

// newField returns an empty field.
func newField(bulk bool) *field {
	return &field{exists: roaring.New(), vocab: newVocab(bulk)}
}

// isWord reports whether folded text is exactly one word.
func isWord(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case c >= utf8.RuneSelf:
			return strings.IndexFunc(text, unicode.IsSpace) < 0
		case c == ' ' || c-'\t' < 5:
			return false
		}
	}
	return text != ""
}

// appendTo appends the values of a document to into.
func (f *field) appendTo(doc uint32, into *values) {
	if n, ok := f.numbers.get(doc); ok {
		into.numbers = append(into.numbers, n)
	} else if list, ok := f.lists.get(doc); ok {
		into.numbers = append(into.numbers, list...)
	}
	if id, ok := f.texts.get(doc); ok {
		into.texts = append(into.texts, f.vocab.text(id))
	} else if list, ok := f.textLists.get(doc); ok {
		for _, id := range list {
			into.texts = append(into.texts, f.vocab.text(id))
		}
	}
}

// replace changes the values of a document from old, which appendTo gave, to
// now.
func (f *field) replace(doc uint32, old, now values) {
	if now.empty() {
		f.exists.Remove(doc)
	} else if old.empty() {
		f.exists.Add(doc)
	}
	if !slices.Equal(old.numbers, now.numbers) {
		f.replaceNumbers(doc, len(old.numbers), now.numbers)
	}
	switch {
	case slices.Equal(old.texts, now.texts):
	case len(old.texts) > 1 && len(now.texts) > 1:
		f.changeTexts(doc, now.texts)
	default:
		f.dropTexts(doc)
		f.putTexts(doc, now.texts)
	}
}

// changeTexts puts a list of texts in the place of another one. Most of a list
// stays, in its order: only what differs leaves and joins postings.
func (f *field) changeTexts(doc uint32, texts []string) {
	old, _ := f.textLists.get(doc)
	ids := make([]uint32, len(texts))
	kept := 0
	for i, text := range texts {
		// What stays is the next of the old ones, but for those that leave.
		k := kept
		for k < len(old) && f.vocab.text(old[k]) != text {
			k++
		}
		if k == len(old) {
			ids[i] = f.join(text, doc)
			continue
		}
		for _, id := range old[kept:k] {
			f.leaveUnless(id, doc, texts)
		}
		ids[i], kept = old[k], k+1
	}
	for _, id := range old[kept:] {
		f.leaveUnless(id, doc, texts)
	}
	f.textLists.set(doc, ids)
}

// leaveUnless removes a document from a text that is not among those it has.
func (f *field) leaveUnless(id, doc uint32, texts []string) {
	if !slices.Contains(texts, f.vocab.text(id)) {
		f.leave(id, doc)
	}
}

// replaceNumbers stores the numbers of a document that held had of them.
func (f *field) replaceNumbers(doc uint32, had int, now []float64) {
	if had == 1 && len(now) != 1 {
		f.numbers.remove(doc)
	}
	if had > 1 && len(now) < 2 {
		f.lists.remove(doc)
	}
	switch {
	case len(now) == 1:
		f.numbers.set(doc, now[0])
	case len(now) > 1:
		f.lists.set(doc, slices.Clone(now))
	}
}

// dropTexts takes a document out of the postings of its texts.
func (f *field) dropTexts(doc uint32) {
	if id, ok := f.texts.get(doc); ok {
		f.texts.remove(doc)
		f.leave(id, doc)
		return
	}
	if list, ok := f.textLists.get(doc); ok {
		for _, id := range list {
			f.leave(id, doc)
		}
		f.textLists.remove(doc)
	}
}

// putTexts enters a document into the postings of its texts.
func (f *field) putTexts(doc uint32, texts []string) {
	switch len(texts) {
	case 0:
	case 1:
		f.texts.set(doc, f.join(texts[0], doc))
	default:
		ids := make([]uint32, len(texts))
		for i, text := range texts {
			ids[i] = f.join(text, doc)
		}
		f.textLists.set(doc, ids)
	}
}

// join adds a document to a text and returns the text's number.
func (f *field) join(text string, doc uint32) uint32 {
	id := f.vocab.intern(text)
	if !f.vocab.include(id, doc) || isWord(text) {
		return id
	}
	if f.words == nil {
		words := newVocab(f.vocab.bulk)
		f.words, f.compound = &words, roaring.New()
	}
	f.compound.Add(id)
	for word := range strings.FieldsSeq(text) {
		f.words.include(f.words.intern(word), id)
	}
	return id
}

// leave removes a document from a text.
func (f *field) leave(id, doc uint32) {
	if !f.vocab.exclude(id, doc) || f.compound == nil || !f.compound.Contains(id) {
		return
	}
	f.compound.Remove(id)
	for word := range strings.FieldsSeq(f.vocab.text(id)) {
		if wordID, ok := f.words.find(word); ok {
			f.words.exclude(wordID, id)
		}
	}
}

// tidy settles the dictionaries after a batch.
func (f *field) tidy() {
	f.vocab.tidy()
	if f.words != nil {
		f.words.tidy()
	}
}

// finish ends the bulk phase.
func (f *field) finish() {
	f.vocab.finish()
	if f.words != nil {
		f.words.finish()
	}
	f.exists.RunOptimize()
}
