package adminapi

import (
	"net/http"
	"slices"
	"strings"
)

// routes is a multiplexer that can tell what it serves.
type routes struct {
	*http.ServeMux

	patterns []string
}

// newRoutes serves nothing yet.
func newRoutes() *routes { return &routes{ServeMux: http.NewServeMux()} }

// HandleFunc adds an operation, or what answers where there is none.
func (r *routes) HandleFunc(pattern string, handle http.HandlerFunc) {
	r.ServeMux.HandleFunc(pattern, handle)
	if strings.Contains(pattern, " ") {
		r.patterns = append(r.patterns, pattern)
	}
}

// Operations are the methods and paths that this front end serves, sorted.
func Operations() []string {
	return slices.Sorted(slices.Values((&handler{}).routes().patterns))
}
