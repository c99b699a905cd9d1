package apiclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// BulkDrift settles what differs from what templates promised.
type BulkDrift struct {
	// Action is REPAIR or ACCEPT; without Kinds it is about those that the server
	// documents.
	Action string   `json:"action"`
	Kinds  []string `json:"kinds,omitempty"`
}

// DriftDifference is something that was promised and is not so.
type DriftDifference struct {
	Kind     string `json:"kind"`
	Name     string `json:"name,omitempty"`
	Promised string `json:"promised,omitempty"`
	Found    string `json:"found,omitempty"`
	// Irreparable is why it cannot be repaired, empty when it can.
	Irreparable string `json:"irreparable,omitempty"`
}

// ThingDrift is one thing beside what was promised of it.
type ThingDrift struct {
	ThingName         string            `json:"thingName"`
	ThingID           string            `json:"thingId"`
	Promise           ThingPromise      `json:"promise"`
	CertificateID     string            `json:"certificateId,omitempty"`
	CertificateStatus string            `json:"certificateStatus,omitempty"`
	Drifts            bool              `json:"drifts"`
	Differences       []DriftDifference `json:"differences"`
	ExtraPolicies     []string          `json:"extraPolicies"`
	Revision          string            `json:"revision"`
}

// ThingPromise is what a template promised of a thing.
type ThingPromise struct {
	TemplateName     string            `json:"templateName,omitempty"`
	TemplateVersion  int64             `json:"templateVersion,omitempty"`
	DefaultVersion   int64             `json:"defaultVersion,omitempty"`
	Outdated         bool              `json:"outdated,omitempty"`
	Method           string            `json:"method"`
	MadeAt           string            `json:"madeAt"`
	AcceptedAt       string            `json:"acceptedAt,omitempty"`
	ThingTypeName    string            `json:"thingTypeName,omitempty"`
	Attributes       map[string]string `json:"attributes,omitempty"`
	ThingGroups      []string          `json:"thingGroups,omitempty"`
	BillingGroupName string            `json:"billingGroupName,omitempty"`
	CertificateID    string            `json:"certificateId,omitempty"`
	Active           bool              `json:"certificateActive,omitempty"`
	PolicyNames      []string          `json:"policyNames,omitempty"`
	Kept             []struct {
		Part     string `json:"part"`
		Template string `json:"template,omitempty"`
		Version  int64  `json:"version,omitempty"`
	} `json:"kept,omitempty"`
}

// PromiseFilter selects things; zero members select all that differ.
type PromiseFilter struct {
	Query, Template string
	Version         int64
	Outdated, All   bool
	Kinds           []string
}

// DriftList are things with the numbers of those that were compared.
type DriftList struct {
	Things   []ThingDrift   `json:"things"`
	Examined int            `json:"examined"`
	Drifting int            `json:"drifting"`
	Outdated int            `json:"outdated"`
	ByKind   map[string]int `json:"byKind"`
}

// DriftVersions are the things of a template by the version that promised them.
type DriftVersions struct {
	TemplateName   string              `json:"templateName"`
	DefaultVersion int64               `json:"defaultVersion,omitempty"`
	Versions       []DriftVersionCount `json:"versions"`
}

// DriftVersionCount is how many things one version has promised.
type DriftVersionCount struct {
	Version int64 `json:"version"`
	Things  int   `json:"things"`
}

// DriftSettled is what was settled of one thing, and what cannot be.
type DriftSettled struct {
	ThingName string            `json:"thingName"`
	Settled   []DriftDifference `json:"settled"`
	Left      []DriftDifference `json:"left"`
}

// driftPath is where promises are.
func driftPath(more ...string) string {
	return Path(append([]string{"ops", "v1", "drift"}, more...)...)
}

// ThingDrift compares one thing with what was promised of it.
func (c *Client) ThingDrift(ctx context.Context, thing string) (d ThingDrift, err error) {
	err = c.JSON(ctx, get(driftPath("things", thing), nil), nil, &d)
	return d, err
}

// ListDrift compares things until limit of them were found, all for limit 0; of
// the last page some more may have been counted. A negative limit counts all and
// returns none.
func (c *Client) ListDrift(ctx context.Context, f PromiseFilter, limit int) (DriftList, error) {
	query := url.Values{}
	for name, value := range map[string]string{"query": f.Query, "template": f.Template, "kind": strings.Join(f.Kinds, ",")} {
		if value != "" {
			query.Set(name, value)
		}
	}
	number(query, "version", f.Version)
	for name, is := range map[string]bool{"outdated": f.Outdated, "all": f.All} {
		if is {
			query.Set(name, strconv.FormatBool(is))
		}
	}
	all := DriftList{Things: []ThingDrift{}, ByKind: map[string]int{}}
	err := pages(query, max(0, limit), func(q url.Values) (int, string, error) {
		var page struct {
			DriftList

			NextToken string `json:"nextToken"`
		}
		err := c.JSON(ctx, get(driftPath(), q), nil, &page)
		if limit >= 0 {
			all.Things = append(all.Things, page.Things...)
		}
		all.Examined, all.Drifting, all.Outdated = all.Examined+page.Examined, all.Drifting+page.Drifting, all.Outdated+page.Outdated
		for kind, n := range page.ByKind {
			all.ByKind[kind] += n
		}
		return len(page.Things), page.NextToken, err
	})
	return all, err
}

// DriftVersions counts the things of a template by version.
func (c *Client) DriftVersions(ctx context.Context, template string) (DriftVersions, error) {
	all := DriftVersions{TemplateName: template, Versions: []DriftVersionCount{}}
	query := url.Values{}
	for {
		var page struct {
			DriftVersions

			NextToken string `json:"nextToken"`
		}
		if err := c.JSON(ctx, get(driftPath("templates", template, "versions"), query), nil, &page); err != nil {
			return all, err
		}
		all.DefaultVersion = page.DefaultVersion
		for _, v := range page.Versions {
			if n := len(all.Versions); n > 0 && all.Versions[n-1].Version == v.Version {
				all.Versions[n-1].Things += v.Things
				continue
			}
			all.Versions = append(all.Versions, v)
		}
		if page.NextToken == "" {
			return all, nil
		}
		query.Set("nextToken", page.NextToken)
	}
}

// SettleDrift does repair or accept for one thing that differs as revision says.
func (c *Client) SettleDrift(ctx context.Context, thing, verb, revision string, kinds []string, dryRun bool) (s DriftSettled, err error) {
	in := struct {
		Revision string   `json:"revision"`
		Kinds    []string `json:"kinds,omitempty"`
		DryRun   bool     `json:"dryRun,omitempty"`
	}{revision, kinds, dryRun}
	err = c.JSON(ctx, change(http.MethodPost, driftPath("things", thing, verb), nil), in, &s)
	return s, err
}
