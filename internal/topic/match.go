package topic

import "strings"

// Match reports whether a name falls under a filter. A filter that begins with
// a wildcard never matches a name that begins with `$`. A shared subscription
// is matched by the filter behind its prefix, which the caller has cut off.
// It allocates nothing.
func Match(filter, name string, p Profile) bool {
	if wildcardFirst(filter) && strings.HasPrefix(name, "$") {
		return false
	}
	for {
		want, restFilter, moreFilter := strings.Cut(filter, "/")
		if want == "#" {
			return true
		}
		have, restName, moreName := strings.Cut(name, "/")
		if want != "+" && want != have {
			return false
		}
		switch {
		case !moreFilter:
			return !moreName
		case !moreName:
			return p == Standard && restFilter == "#"
		}
		filter, name = restFilter, restName
	}
}

// Intersects reports whether some name falls under both filters. It answers
// whether a subscription can ever see a topic of a given shape.
func Intersects(a, b string, p Profile) bool {
	if wildcardFirst(a) && strings.HasPrefix(b, "$") || wildcardFirst(b) && strings.HasPrefix(a, "$") {
		return false
	}
	for {
		levelA, restA, moreA := strings.Cut(a, "/")
		levelB, restB, moreB := strings.Cut(b, "/")
		if levelA == "#" || levelB == "#" {
			return true
		}
		if levelA != levelB && levelA != "+" && levelB != "+" {
			return false
		}
		switch {
		case !moreA && !moreB:
			return true
		case !moreA:
			return p == Standard && restB == "#"
		case !moreB:
			return p == Standard && restA == "#"
		}
		a, b = restA, restB
	}
}

// wildcardFirst reports whether the first level is a wildcard.
func wildcardFirst(filter string) bool {
	return filter != "" && (filter[0] == '#' || filter[0] == '+')
}
