package apiclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
)

// Certificate is a device certificate. Times are seconds since 1970.
type Certificate struct {
	ID      string   `json:"certificateId"`
	ARN     string   `json:"certificateArn"`
	Status  string   `json:"status"`
	Mode    string   `json:"certificateMode,omitempty"`
	Created float64  `json:"creationDate"`
	CA      string   `json:"caCertificateId,omitempty"`
	Owner   string   `json:"ownedBy,omitempty"`
	PEM     string   `json:"certificatePem,omitempty"`
	Valid   validity `json:"validity,omitzero"`
}

// validity is from when to when a certificate holds.
type validity struct {
	NotBefore float64 `json:"notBefore"`
	NotAfter  float64 `json:"notAfter"`
}

// CACertificate is a registered authority.
type CACertificate struct {
	ID      string   `json:"certificateId"`
	ARN     string   `json:"certificateArn"`
	Status  string   `json:"status"`
	Created float64  `json:"creationDate"`
	Mode    string   `json:"certificateMode,omitempty"`
	PEM     string   `json:"certificatePem,omitempty"`
	Valid   validity `json:"validity,omitzero"`
	// AutoRegistration is ENABLE or DISABLE; it and Registration are not in lists.
	AutoRegistration string              `json:"autoRegistrationStatus,omitempty"`
	Registration     *RegistrationConfig `json:"registrationConfig,omitempty"`
}

// RegistrationConfig is how devices under an authority are provisioned: by a
// named template or by a body.
type RegistrationConfig struct {
	TemplateName string `json:"templateName,omitempty"`
	TemplateBody string `json:"templateBody,omitempty"`
	RoleARN      string `json:"roleArn,omitempty"`
}

// CARegistration asks to register an authority.
type CARegistration struct {
	PEM string
	// VerificationPEM is empty in mode SNI_ONLY.
	VerificationPEM          string
	Mode                     string
	Active, AutoRegistration bool
	// Template names the template of its devices; empty for none.
	Template string
}

// CAUpdate changes an authority; empty members and false change nothing.
type CAUpdate struct {
	// AutoRegistration is ENABLE or DISABLE.
	AutoRegistration string
	// Template names the template of its devices.
	Template string
	// ForgetTemplate ends automatic registration and forgets the template.
	ForgetTemplate bool
}

// ExpiringCertificate is one whose validity ends. Times are RFC 3339.
type ExpiringCertificate struct {
	// Kind is certificate or caCertificate.
	Kind    string `json:"kind"`
	ID      string `json:"certificateId"`
	ARN     string `json:"certificateArn"`
	Status  string `json:"status"`
	End     string `json:"notAfter"`
	Expired bool   `json:"expired"`
	Owner   string `json:"ownedBy"`
	// Things are the first ones; ThingCount counts all.
	Things     []string `json:"things"`
	ThingCount int      `json:"thingCount"`
}

// RevocationImport is what became of a revocation list.
type RevocationImport struct {
	CACertificateID string `json:"caCertificateId"`
	Number          string `json:"number,omitempty"`
	ThisUpdate      string `json:"thisUpdate"`
	NextUpdate      string `json:"nextUpdate,omitempty"`
	Entries         int    `json:"entries"`
	Revoked         int    `json:"revoked"`
	Removed         int    `json:"removed"`
	Unchanged       bool   `json:"unchanged"`
}

// markerPages is pages for lists with markers.
func markerPages(limit int, fetch func(url.Values) (int, string, error)) error {
	return pages(nil, limit, func(q url.Values) (int, string, error) {
		query := url.Values{"pageSize": q["maxResults"]}
		if q.Has("nextToken") {
			query["marker"] = q["nextToken"]
		}
		return fetch(query)
	})
}

// ListCertificates returns up to limit certificates, the newest first; all for
// limit 0. ca narrows the list to those under an authority unless it is empty.
func (c *Client) ListCertificates(ctx context.Context, ca string, limit int) ([]Certificate, error) {
	path := Path("certificates")
	if ca != "" {
		path = Path("certificates-by-ca", ca)
	}
	all := []Certificate{}
	err := markerPages(limit, func(q url.Values) (int, string, error) {
		var page struct {
			Certificates []Certificate `json:"certificates"`
			NextMarker   string        `json:"nextMarker"`
		}
		err := c.JSON(ctx, get(path, q), nil, &page)
		all = append(all, page.Certificates...)
		return len(page.Certificates), page.NextMarker, err
	})
	return all, err
}

// DescribeCertificate returns one certificate.
func (c *Client) DescribeCertificate(ctx context.Context, id string) (Certificate, error) {
	var out struct {
		Description Certificate `json:"certificateDescription"`
	}
	err := c.JSON(ctx, get(Path("certificates", id), nil), nil, &out)
	return out.Description, err
}

// ListCACertificates returns up to limit authorities; all for limit 0.
func (c *Client) ListCACertificates(ctx context.Context, limit int) ([]CACertificate, error) {
	all := []CACertificate{}
	err := markerPages(limit, func(q url.Values) (int, string, error) {
		var page struct {
			Certificates []CACertificate `json:"certificates"`
			NextMarker   string          `json:"nextMarker"`
		}
		err := c.JSON(ctx, get(Path("cacertificates"), q), nil, &page)
		all = append(all, page.Certificates...)
		return len(page.Certificates), page.NextMarker, err
	})
	return all, err
}

// DescribeCACertificate returns one authority.
func (c *Client) DescribeCACertificate(ctx context.Context, id string) (CACertificate, error) {
	var out struct {
		Description  CACertificate       `json:"certificateDescription"`
		Registration *RegistrationConfig `json:"registrationConfig"`
	}
	err := c.JSON(ctx, get(Path("cacertificate", id), nil), nil, &out)
	out.Description.Registration = out.Registration
	return out.Description, err
}

// RegistrationCode returns what a verification certificate has to carry.
func (c *Client) RegistrationCode(ctx context.Context) (string, error) {
	var out struct {
		Code string `json:"registrationCode"`
	}
	err := c.JSON(ctx, get(Path("registrationcode"), nil), nil, &out)
	return out.Code, err
}

// RegisterCACertificate registers an authority and returns its id.
func (c *Client) RegisterCACertificate(ctx context.Context, r CARegistration) (string, error) {
	in := map[string]any{"caCertificate": r.PEM, "certificateMode": r.Mode}
	if r.VerificationPEM != "" {
		in["verificationCertificate"] = r.VerificationPEM
	}
	query := url.Values{"setAsActive": {strconv.FormatBool(r.Active)}}
	if r.AutoRegistration {
		query.Set("allowAutoRegistration", "true")
	}
	if r.Template != "" {
		in["registrationConfig"] = RegistrationConfig{TemplateName: r.Template}
	}
	var out CACertificate
	err := c.JSON(ctx, change(http.MethodPost, Path("cacertificate"), query), in, &out)
	return out.ID, err
}

// UpdateCACertificate changes an authority.
func (c *Client) UpdateCACertificate(ctx context.Context, id string, u CAUpdate) error {
	query := url.Values{}
	if u.AutoRegistration != "" {
		query.Set("newAutoRegistrationStatus", u.AutoRegistration)
	}
	in := map[string]any{}
	if u.Template != "" {
		in["registrationConfig"] = RegistrationConfig{TemplateName: u.Template}
	}
	if u.ForgetTemplate {
		in["removeAutoRegistration"] = true
	}
	return c.JSON(ctx, change(http.MethodPut, Path("cacertificate", id), query), in, nil)
}

// UpdateCertificate gives a device certificate another status.
func (c *Client) UpdateCertificate(ctx context.Context, id, status string) error {
	return c.JSON(ctx, change(http.MethodPut, Path("certificates", id), url.Values{"newStatus": {status}}), nil, nil)
}

// ExpiringCertificates returns up to limit certificates and authorities that
// are out of validity within a time span such as 30d; all for limit 0.
func (c *Client) ExpiringCertificates(ctx context.Context, within string, limit int) ([]ExpiringCertificate, error) {
	all := []ExpiringCertificate{}
	err := pages(url.Values{"within": {within}}, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Certificates []ExpiringCertificate `json:"certificates"`
			NextToken    string                `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "certificates", "expiring"), q), nil, &page)
		all = append(all, page.Certificates...)
		return len(page.Certificates), page.NextToken, err
	})
	return all, err
}

// CertificateRenewal is a thing's way from one certificate to the next. Times are
// RFC 3339.
type CertificateRenewal struct {
	Thing   string        `json:"thingName"`
	OldID   string        `json:"oldCertificateId"`
	NewID   string        `json:"newCertificateId"`
	Step    string        `json:"step"`
	Begun   string        `json:"begunAt"`
	Changed string        `json:"changedAt"`
	Due     string        `json:"dueAt,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Proof   *renewalProof `json:"proof,omitempty"`
}

// renewalProof is the first connection with the new certificate.
type renewalProof struct {
	At            string `json:"at"`
	ClientID      string `json:"clientId"`
	ConnectionID  string `json:"connectionId,omitempty"`
	SourceAddress string `json:"sourceAddress,omitempty"`
}

// CertificateRenewals returns up to limit renewals; all for limit 0. step and
// thing narrow the list unless they are empty.
func (c *Client) CertificateRenewals(ctx context.Context, step, thing string, limit int) ([]CertificateRenewal, error) {
	filter := url.Values{}
	if step != "" {
		filter.Set("step", step)
	}
	if thing != "" {
		filter.Set("thing", thing)
	}
	all := []CertificateRenewal{}
	err := pages(filter, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Renewals  []CertificateRenewal `json:"certificateRenewals"`
			NextToken string               `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "certificate-renewals"), q), nil, &page)
		all = append(all, page.Renewals...)
		return len(page.Renewals), page.NextToken, err
	})
	return all, err
}

// ImportRevocationList hands over the list of an authority in PEM or DER.
func (c *Client) ImportRevocationList(ctx context.Context, ca string, list []byte) (RevocationImport, error) {
	var out RevocationImport
	// The server takes in a long body of nobody who has not stated its hash.
	sum := sha256.Sum256(list)
	err := c.JSON(ctx, Request{
		Service: ServiceControl, Method: http.MethodPost, Path: Path("ops", "v1", "ca-certificates", ca, "revocation-list"),
		Header: http.Header{"Content-Type": {"application/pkix-crl"}, "X-Amz-Content-Sha256": {hex.EncodeToString(sum[:])}}, Body: list,
	}, nil, &out)
	return out, err
}

// RevocationList returns the list of the server's own device authority, in
// DER.
func (c *Client) RevocationList(ctx context.Context) ([]byte, error) {
	return c.Raw(ctx, get(Path("crl", "issuing-ca.crl"), nil))
}
