package authorizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// input is what a function gets, in AWS's shape; members that do not apply are
// left out.
type input struct {
	Token              string             `json:"token,omitempty"`
	SignatureVerified  bool               `json:"signatureVerified"`
	Protocols          []string           `json:"protocols"`
	ProtocolData       protocolData       `json:"protocolData"`
	ConnectionMetadata connectionMetadata `json:"connectionMetadata"`
}

type protocolData struct {
	TLS  *TLSData  `json:"tls,omitempty"`
	HTTP *HTTPData `json:"http,omitempty"`
	MQTT *MQTTData `json:"mqtt,omitempty"`
}

type connectionMetadata struct {
	ID string `json:"id"`
}

// TLSData is what a function learns of the handshake.
type TLSData struct {
	ServerName string `json:"serverName,omitempty"`
}

// HTTPData is what a function learns of a request.
type HTTPData struct {
	Headers map[string]string `json:"headers,omitempty"`
	// QueryString begins with a question mark unless it is empty.
	QueryString string `json:"queryString,omitempty"`
}

// MQTTData is what a function learns of a CONNECT. The user name is as the
// client sent it, with the query string at its end.
type MQTTData struct {
	Username string `json:"username,omitempty"`
	Password []byte `json:"password,omitempty"`
	ClientID string `json:"clientId,omitempty"`
}

// output is what a function answers. Other members are ignored, as by AWS.
type output struct {
	IsAuthenticated *bool             `json:"isAuthenticated"`
	PrincipalID     string            `json:"principalId"`
	PolicyDocuments []json.RawMessage `json:"policyDocuments"`
	DisconnectAfter *int              `json:"disconnectAfterInSeconds"`
	RefreshAfter    *int              `json:"refreshAfterInSeconds"`
}

// Rules of AWS for an answer.
const (
	maxDocuments     = 10
	maxDocumentBytes = 16 << 10
	minSeconds       = 300
	maxSeconds       = 86400
)

var principalPattern = regexp.MustCompile(`^[a-zA-Z0-9]{1,128}$`)

// Answer is a function's answer that keeps to the rules.
type Answer struct {
	Authenticated bool
	// The rest is empty unless authenticated.
	PrincipalID string
	// Documents are the policies as the function wrote them, Policies the same
	// parsed, named by authorizer and place.
	Documents []string
	Policies  []iotpolicy.PolicyRef
	// DisconnectAfter bounds the connection, RefreshAfter says when the function
	// is to be asked again.
	DisconnectAfter, RefreshAfter time.Duration
}

// invalid is the fault of an answer that breaks a rule.
func invalid(format string, args ...any) error {
	return fault.New(fault.InvalidResponse, "The authorizer's function answered against the rules: "+format, args...)
}

// parseAnswer checks everything that a function may have got wrong.
func parseAnswer(authorizer string, data []byte) (Answer, error) {
	var out output
	if err := json.Unmarshal(data, &out); err != nil {
		return Answer{}, fault.Wrap(fault.InvalidResponse, err, "The authorizer's function answered no JSON object of the documented members")
	}
	if out.IsAuthenticated == nil {
		return Answer{}, invalid("isAuthenticated is missing")
	}
	if !*out.IsAuthenticated {
		return Answer{}, nil
	}
	a := Answer{Authenticated: true, PrincipalID: out.PrincipalID}
	if !principalPattern.MatchString(a.PrincipalID) {
		return Answer{}, invalid("principalId must have 1 to 128 letters and digits")
	}
	var err error
	if a.DisconnectAfter, err = seconds("disconnectAfterInSeconds", out.DisconnectAfter); err != nil {
		return Answer{}, err
	}
	if a.RefreshAfter, err = seconds("refreshAfterInSeconds", out.RefreshAfter); err != nil {
		return Answer{}, err
	}
	if len(out.PolicyDocuments) > maxDocuments {
		return Answer{}, invalid("policyDocuments holds %d documents; at most %d are allowed", len(out.PolicyDocuments), maxDocuments)
	}
	for i, raw := range out.PolicyDocuments {
		text, parsed, err := parseDocument(raw)
		if err != nil {
			return Answer{}, invalid("policyDocuments[%d] %v", i, err)
		}
		a.Documents = append(a.Documents, text)
		a.Policies = append(a.Policies, iotpolicy.PolicyRef{Name: fmt.Sprintf("%s[%d]", authorizer, i), Document: parsed})
	}
	return a, nil
}

// seconds reads a duration; without one the longest counts.
func seconds(member string, n *int) (time.Duration, error) {
	if n == nil {
		return maxSeconds * time.Second, nil
	}
	if *n < minSeconds || *n > maxSeconds {
		return 0, invalid("%s must be a whole number from %d to %d", member, minSeconds, maxSeconds)
	}
	return time.Duration(*n) * time.Second, nil
}

// parseDocument takes a policy as an object or as the text of one.
func parseDocument(raw json.RawMessage) (string, *iotpolicy.Document, error) {
	text := string(raw)
	if bytes.HasPrefix(raw, []byte{'"'}) {
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", nil, fmt.Errorf("is no text: %w", err)
		}
	}
	limits := iotpolicy.DefaultLimits()
	limits.MaxBytes = maxDocumentBytes
	parsed, err := iotpolicy.Parse([]byte(text), limits)
	if err != nil {
		return "", nil, fmt.Errorf("is no policy: %w", err)
	}
	return text, parsed, nil
}
