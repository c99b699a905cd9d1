package fleetquery_test

import (
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/fleetquery/fleetquerytest"
)

// TestLanguage runs the scripts against the plain evaluator.
func TestLanguage(t *testing.T) {
	t.Parallel()
	fleetquerytest.Run(t, "testdata", false, func(t *testing.T, s fleetquerytest.Suite) fleetquerytest.Search {
		t.Helper()
		lonLat := map[string]bool{}
		for _, p := range s.Places {
			lonLat[p.Name] = p.LonLat
		}
		docs := map[string]fleetquery.Document{}
		for _, thing := range s.Things {
			d, err := thing.Document(lonLat)
			if err != nil {
				t.Fatal(err)
			}
			docs[thing.Name] = d
		}
		for _, group := range s.Groups {
			docs[group.Name] = group.Document()
		}
		return func(query string) ([]string, error) {
			q, err := fleetquery.Parse(query)
			if err != nil {
				return nil, err //nolint:wrapcheck // its message is what is tested
			}
			var names []string
			for name, d := range docs {
				if fleetquery.Eval(q.Root, d) {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			return names, nil
		}
	})
}
