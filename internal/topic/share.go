package topic

import "strings"

// Shared is a subscription whose messages are split among a group's members.
type Shared struct {
	// Group is the name between `$share/` and the next slash.
	Group string
	// Filter is what remains and is matched against names.
	Filter string
}

// ParseShared splits `$share/{group}/{filter}`. It reports false for filters
// that are not shared and ErrShare for those that begin as one but have an
// empty or wildcard group, or no filter.
func ParseShared(filter string) (Shared, bool, error) {
	rest, ok := strings.CutPrefix(filter, sharePrefix)
	if !ok {
		if filter == "$share" {
			return Shared{}, true, ErrShare
		}
		return Shared{}, false, nil
	}
	group, inner, found := strings.Cut(rest, "/")
	if !found || group == "" || inner == "" || strings.ContainsAny(group, "+#") {
		return Shared{}, true, ErrShare
	}
	return Shared{Group: group, Filter: inner}, true, nil
}
