package shadow

import "slices"

// merge applies the members of a patch to an object and returns the new
// members. Objects merge, everything else replaces, null removes. Neither
// input changes; unchanged subtrees are shared.
func merge(base, patch []node) []node {
	if len(patch) == 0 {
		return base
	}
	out := make([]node, 0, len(base)+len(patch))
	for i, j := 0, 0; i < len(base) || j < len(patch); {
		switch {
		case j == len(patch) || i < len(base) && base[i].key < patch[j].key:
			out = append(out, base[i])
			i++
		case i == len(base) || patch[j].key < base[i].key:
			if patch[j].kind != kindNull {
				out = append(out, withoutNulls(patch[j]))
			}
			j++
		default:
			if patch[j].kind != kindNull {
				out = append(out, mergeMember(base[i], patch[j]))
			}
			i++
			j++
		}
	}
	return out
}

// mergeMember applies a patch that is not null to one present member.
func mergeMember(base, patch node) node {
	if base.kind != kindObject || patch.kind != kindObject {
		return withoutNulls(patch)
	}
	base.kids = merge(base.kids, patch.kids)
	return base
}

// withoutNulls returns a patch's value as it is stored where nothing was
// before: what null would remove is not there.
func withoutNulls(n node) node {
	if !n.nulls {
		return n
	}
	kids := make([]node, 0, len(n.kids))
	for _, k := range n.kids {
		if k.kind != kindNull {
			kids = append(kids, withoutNulls(k))
		}
	}
	n.kids, n.nulls = slices.Clip(kids), false
	return n
}

// difference returns the members of desired that reported lacks or holds with
// another value. Members that only reported has never count. Leaves keep the
// times of desired.
func difference(desired, reported []node) []node {
	var out []node
	j := 0
	for i := range desired {
		want := &desired[i]
		for j < len(reported) && reported[j].key < want.key {
			j++
		}
		if j == len(reported) || reported[j].key != want.key {
			out = append(out, *want)
			continue
		}
		if rest, differs := differenceOf(want, &reported[j]); differs {
			out = append(out, rest)
		}
	}
	return out
}

// differenceOf compares one member that both sides have.
func differenceOf(want, have *node) (node, bool) {
	if want.kind != kindObject || have.kind != kindObject {
		return *want, !equal(want, have)
	}
	kids := difference(want.kids, have.kids)
	if len(kids) == 0 {
		return node{}, false
	}
	rest := *want
	rest.kids = kids
	return rest, true
}
