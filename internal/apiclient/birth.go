package apiclient

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// BirthLimits are the limits of a certificate for provisioning; zero values are
// the installation's or none.
type BirthLimits struct {
	Template          string   `json:"template,omitempty"`
	Networks          []string `json:"networks,omitempty"`
	SessionSeconds    int64    `json:"sessionSeconds,omitempty"`
	RequestsPerMinute int      `json:"requestsPerMinute,omitempty"`
	MaxUses           int      `json:"maxUses,omitempty"`
}

// Purpose is what a certificate is for. Times are RFC 3339.
type Purpose struct {
	BirthLimits

	CertificateID   string `json:"certificateId"`
	Purpose         string `json:"purpose"`
	CACertificateID string `json:"caCertificateId,omitempty"`
	Serial          string `json:"serial,omitempty"`
	SetBy           string `json:"setBy,omitempty"`
	SetAt           string `json:"setAt,omitempty"`
	State           string `json:"state,omitempty"`
	Uses            int    `json:"uses,omitempty"`
	Thing           string `json:"thingName,omitempty"`
	ReplacedBy      string `json:"replacedBy,omitempty"`
	UsedAt          string `json:"usedAt,omitempty"`
	ReopenedUntil   string `json:"reopenedUntil,omitempty"`
	Quarantined     bool   `json:"quarantined,omitempty"`
}

// PurposeChange says what a certificate is for from now on.
type PurposeChange struct {
	BirthLimits

	Purpose string `json:"purpose"`
	Serial  string `json:"serial,omitempty"`
}

// CAPurpose is what the certificates under an authority are for.
type CAPurpose struct {
	BirthLimits

	CACertificateID string      `json:"caCertificateId"`
	Purpose         string      `json:"purpose"`
	Fingerprint     string      `json:"fingerprint,omitempty"`
	SerialFrom      string      `json:"serialFrom,omitempty"`
	SetBy           string      `json:"setBy,omitempty"`
	SetAt           string      `json:"setAt,omitempty"`
	Declaration     Declaration `json:"declaration"`
}

// CAPurposeChange says what the certificates under an authority are for from now
// on.
type CAPurposeChange struct {
	BirthLimits

	Purpose     string `json:"purpose"`
	Fingerprint string `json:"fingerprint,omitempty"`
	SerialFrom  string `json:"serialFrom,omitempty"`
}

// CertificatePurpose returns what a certificate is for.
func (c *Client) CertificatePurpose(ctx context.Context, id string) (Purpose, error) {
	var out Purpose
	err := c.JSON(ctx, get(Path("ops", "v1", "certificates", id, "purpose"), nil), nil, &out)
	return out, err
}

// SetCertificatePurpose says what a certificate is for.
func (c *Client) SetCertificatePurpose(ctx context.Context, id string, to PurposeChange) (Purpose, error) {
	var out Purpose
	err := c.JSON(ctx, change(http.MethodPut, Path("ops", "v1", "certificates", id, "purpose"), nil), to, &out)
	return out, err
}

// CAPurpose returns what the certificates under an authority are for.
func (c *Client) CAPurpose(ctx context.Context, ca string) (CAPurpose, error) {
	var out CAPurpose
	err := c.JSON(ctx, get(Path("ops", "v1", "ca-certificates", ca, "purpose"), nil), nil, &out)
	return out, err
}

// SetCAPurpose says what the certificates under an authority are for.
func (c *Client) SetCAPurpose(ctx context.Context, ca string, to CAPurposeChange) (CAPurpose, error) {
	var out CAPurpose
	err := c.JSON(ctx, change(http.MethodPut, Path("ops", "v1", "ca-certificates", ca, "purpose"), nil), to, &out)
	return out, err
}

// Reopened is a window in which a device may be provisioned again.
type Reopened struct {
	Thing         string `json:"thingName"`
	CertificateID string `json:"certificateId"`
	Until         string `json:"until"`
}

// Reprovision opens the birth certificate of a thing for a time.
func (c *Client) Reprovision(ctx context.Context, thing string, within time.Duration, reason string) (Reopened, error) {
	var out Reopened
	in := struct {
		ForSeconds int64  `json:"forSeconds"`
		Reason     string `json:"reason,omitempty"`
	}{int64(within / time.Second), reason}
	err := c.JSON(ctx, change(http.MethodPost, Path("ops", "v1", "things", thing, "reprovision"), nil), in, &out)
	return out, err
}

// Quarantined is a thing in quarantine.
type Quarantined struct {
	Thing  string `json:"thingName"`
	Reason string `json:"reason"`
	By     string `json:"by"`
	Since  string `json:"since"`
}

// Quarantine lists the things in quarantine by name, at most a number, 0 for all.
func (c *Client) Quarantine(ctx context.Context, limit int) ([]Quarantined, error) {
	all := []Quarantined{}
	err := pages(url.Values{}, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Things    []Quarantined `json:"things"`
			NextToken string        `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "quarantine"), q), nil, &page)
		all = append(all, page.Things...)
		return len(all), page.NextToken, err
	})
	return all, err
}

// PutInQuarantine holds a thing to provisioning.
func (c *Client) PutInQuarantine(ctx context.Context, thing, reason string) (Quarantined, error) {
	var out Quarantined
	err := c.JSON(ctx, change(http.MethodPut, Path("ops", "v1", "quarantine", thing), nil), map[string]string{"reason": reason}, &out)
	return out, err
}

// Release ends a quarantine.
func (c *Client) Release(ctx context.Context, thing, reason string) (Quarantined, error) {
	var out Quarantined
	err := c.JSON(ctx, change(http.MethodPost, Path("ops", "v1", "quarantine", thing, "release"), nil), map[string]string{"reason": reason}, &out)
	return out, err
}
