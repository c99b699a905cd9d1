package apiclient

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Import asks for many things to be made or changed.
type Import struct {
	// Mode is create or upsert.
	Mode   string        `json:"mode"`
	DryRun bool          `json:"dryRun,omitempty"`
	Things []ImportThing `json:"things"`
}

// ImportThing is a thing as an import has it.
type ImportThing struct {
	Name         string            `json:"name"`
	TypeName     string            `json:"typeName,omitempty"`
	Attributes   map[string]string `json:"attributes,omitempty"`
	BillingGroup string            `json:"billingGroupName,omitempty"`
	Groups       []string          `json:"groups,omitempty"`
}

// Imported is the answer to an import.
type Imported struct {
	// Account is whose things they are.
	Account string `json:"account"`
	// Results has one entry for each thing, in order.
	Results []ImportResult `json:"results"`
}

// Results of an import's things.
const (
	ImportCreated   = "created"
	ImportUpdated   = "updated"
	ImportUnchanged = "unchanged"
	ImportError     = "error"
)

// ImportResult is what became of a thing.
type ImportResult struct {
	// Result is one of ImportCreated, ImportUpdated, ImportUnchanged and
	// ImportError; only with the last there are a code and a message.
	Result  string `json:"result"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// ImportThings sends one batch.
func (c *Client) ImportThings(ctx context.Context, in Import) (Imported, error) {
	if in.Things == nil {
		in.Things = []ImportThing{}
	}
	var out Imported
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("ops", "v1", "things", "import")}, in, &out)
	if err == nil && len(out.Results) != len(in.Things) {
		err = fmt.Errorf("the server answered %d of %d things", len(out.Results), len(in.Things))
	}
	return out, err
}

// exportPage is how many things of an export are asked for at a time.
const exportPage = 1000

// ExportThings calls do for every thing, in order of name, as an import takes
// it.
func (c *Client) ExportThings(ctx context.Context, do func(ImportThing) error) error {
	query := url.Values{"maxResults": {strconv.Itoa(exportPage)}}
	for {
		var page struct {
			Things    []ImportThing `json:"things"`
			NextToken string        `json:"nextToken"`
		}
		if err := c.JSON(ctx, get(Path("ops", "v1", "things", "export"), query), nil, &page); err != nil {
			return err
		}
		for _, thing := range page.Things {
			if err := do(thing); err != nil {
				return err
			}
		}
		if page.NextToken == "" {
			return nil
		}
		query.Set("nextToken", page.NextToken)
	}
}
