package app

import (
	"slices"
	"strings"
)

// named reports whether a connection asked for one of our names, and so chose
// the account; who asks for none or another one is in the default account.
func (n *names) named(serverName string) bool {
	return slices.Contains(n.known, strings.ToLower(serverName))
}
