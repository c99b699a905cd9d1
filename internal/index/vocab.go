package index

import (
	"unsafe"

	"github.com/RoaringBitmap/roaring/v2"
)

// vocab is a dictionary whose texts each name a set of numbers: documents for
// the values of a field, values for the words in them.
type vocab struct {
	dict
	// posts says for each text what its set is: noMember, the only member plus
	// one, or the place in sets with manyMembers. Most values of a device (serial,
	// address) occur once.
	posts []uint32
	sets  []memberSet
	// spare are the places in sets that are free.
	spare []uint32
}

// What a post may be beside a member.
const (
	noMember    = 0
	manyMembers = 1 << 31
)

// memberSet has two members or more.
type memberSet struct {
	count uint32
	bits  *roaring.Bitmap
}

// posting is the set of one text.
type posting struct {
	count uint32
	// one is the only member if bits is nil and count is 1.
	one  uint32
	bits *roaring.Bitmap
}

// newVocab returns an empty vocabulary.
func newVocab(bulk bool) vocab { return vocab{dict: newDict(bulk)} }

// posting returns the set of a text as it is now.
func (v *vocab) posting(id uint32) posting {
	switch post := v.posts[id]; {
	case post == noMember:
		return posting{}
	case post&manyMembers == 0:
		return posting{count: 1, one: post - 1}
	default:
		set := &v.sets[post&^manyMembers]
		return posting{count: set.count, bits: set.bits}
	}
}

// intern returns the number of a text, new or known.
func (v *vocab) intern(text string) uint32 {
	if id, ok := v.find(text); ok {
		return id
	}
	id := v.add(text)
	if int(id) == len(v.posts) {
		v.posts = append(roomier(v.posts), noMember)
	}
	v.dead++ // until its first member
	return id
}

// include adds a member to a text's set and reports whether it is the first.
func (v *vocab) include(id, member uint32) bool {
	switch post := v.posts[id]; {
	case post == noMember:
		v.posts[id] = member + 1
		v.dead--
		return true
	case post&manyMembers == 0:
		if one := post - 1; one != member {
			v.posts[id] = v.addSet(memberSet{2, roaring.BitmapOf(one, member)})
		}
	default:
		if set := &v.sets[post&^manyMembers]; set.bits.CheckedAdd(member) {
			set.count++
		}
	}
	return false
}

// addSet keeps a set and returns what names it among the posts.
func (v *vocab) addSet(set memberSet) uint32 {
	if n := len(v.spare); n > 0 {
		at := v.spare[n-1]
		v.spare = v.spare[:n-1]
		v.sets[at] = set
		return at | manyMembers
	}
	v.sets = append(v.sets, set)
	return uint32(len(v.sets)-1) | manyMembers
}

// exclude removes a member and reports whether it was the last.
func (v *vocab) exclude(id, member uint32) bool {
	post := v.posts[id]
	switch {
	case post == noMember:
		return false
	case post&manyMembers == 0:
		if post-1 != member {
			return false
		}
		v.posts[id] = noMember
		v.dead++
		return true
	}
	at := post &^ manyMembers
	set := &v.sets[at]
	if !set.bits.CheckedRemove(member) {
		return false
	}
	if set.count--; set.count == 1 {
		v.posts[id] = set.bits.Minimum() + 1
		*set = memberSet{}
		v.spare = append(v.spare, at)
	}
	return false
}

// tidy settles the dictionary.
func (v *vocab) tidy() {
	v.settle(func(id uint32) bool { return v.posts[id] != noMember })
}

// each visits the members of a text's set.
func (v *vocab) each(id uint32, visit func(member uint32)) {
	p := v.posting(id)
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

// bytes estimates the memory of a vocabulary.
func (v *vocab) bytes() uint64 {
	total := v.dict.bytes() + 4*uint64(cap(v.posts)+cap(v.spare)) + uint64(cap(v.sets))*uint64(unsafe.Sizeof(memberSet{}))
	for _, set := range v.sets {
		if set.bits != nil {
			total += set.bits.GetSizeInBytes()
		}
	}
	return total
}
