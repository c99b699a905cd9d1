package index

import "github.com/RoaringBitmap/roaring/v2"

// vocab is a dictionary whose texts each name a set of numbers: documents for
// the values of a field, values for the words in them.
type vocab struct {
	dict
	posts []posting
}

// posting is a set that costs nothing beyond itself while it has one member;
// most values of a device (serial, address) occur once.
type posting struct {
	count uint32
	// one is the only member while bits is nil and count is 1.
	one  uint32
	bits *roaring.Bitmap
}

// newVocab returns an empty vocabulary.
func newVocab(bulk bool) vocab { return vocab{dict: newDict(bulk)} }

// intern returns the number of a text, new or known.
func (v *vocab) intern(text string) uint32 {
	if id, ok := v.find(text); ok {
		return id
	}
	id := v.add(text)
	if int(id) == len(v.posts) {
		v.posts = append(v.posts, posting{})
	}
	v.dead++ // until its first member
	return id
}

// include adds a member to a text's set and reports whether it is the first.
func (v *vocab) include(id, member uint32) bool {
	p := &v.posts[id]
	switch {
	case p.count == 0:
		p.one, p.count = member, 1
		v.dead--
		return true
	case p.bits == nil:
		if p.one == member {
			return false
		}
		p.bits = roaring.New()
		p.bits.Add(p.one)
		p.bits.Add(member)
		p.count = 2
	case p.bits.CheckedAdd(member):
		p.count++
	}
	return false
}

// exclude removes a member and reports whether it was the last.
func (v *vocab) exclude(id, member uint32) bool {
	p := &v.posts[id]
	switch {
	case p.count == 0:
		return false
	case p.bits == nil:
		if p.one != member {
			return false
		}
		p.count = 0
		v.dead++
		return true
	case p.bits.CheckedRemove(member):
		if p.count--; p.count == 1 {
			p.one, p.bits = p.bits.Minimum(), nil
		}
	}
	return false
}

// tidy settles the dictionary.
func (v *vocab) tidy() {
	v.settle(func(id uint32) bool { return v.posts[id].count > 0 })
}

// each visits the members of a text's set.
func (v *vocab) each(id uint32, visit func(member uint32)) {
	p := &v.posts[id]
	if p.bits == nil {
		if p.count == 1 {
			visit(p.one)
		}
		return
	}
	for it := p.bits.Iterator(); it.HasNext(); {
		visit(it.Next())
	}
}
