package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

const (
	// schema is the version of the stored record.
	schema = 1
	// eventVersion is the version of CloudTrail's record that ours follows.
	eventVersion = "1.11"
	// timeLayout is RFC 3339 in UTC with milliseconds.
	timeLayout = "2006-01-02T15:04:05.000Z"
)

// genesis is what the first record of a chain names as the hash before it.
var genesis = strings.Repeat("0", 2*sha256.Size)

// Record is one entry of the trail, with the names of CloudTrail. Its stored and
// exported form is one line of JSON that ends with the member hash: the SHA-256
// of all that comes before it in the line.
type Record struct {
	Schema int `json:"v"`
	// Seq counts from 1 without gaps within an account.
	Seq                 uint64          `json:"seq"`
	EventVersion        string          `json:"eventVersion"`
	EventID             string          `json:"eventID"`
	EventTime           string          `json:"eventTime"`
	EventSource         string          `json:"eventSource"`
	EventName           string          `json:"eventName"`
	EventType           event.CallKind  `json:"eventType"`
	EventCategory       string          `json:"eventCategory"`
	ReadOnly            bool            `json:"readOnly"`
	ManagementEvent     bool            `json:"managementEvent"`
	AWSRegion           string          `json:"awsRegion"`
	RecipientAccountID  string          `json:"recipientAccountId"`
	SourceIPAddress     string          `json:"sourceIPAddress,omitempty"`
	UserAgent           string          `json:"userAgent,omitempty"`
	RequestID           string          `json:"requestID,omitempty"`
	UserIdentity        UserIdentity    `json:"userIdentity"`
	RequestParameters   json.RawMessage `json:"requestParameters"`
	AdditionalEventData *Additional     `json:"additionalEventData,omitempty"`
	ServiceEventDetails json.RawMessage `json:"serviceEventDetails,omitempty"`
	ErrorCode           string          `json:"errorCode,omitempty"`
	ErrorMessage        string          `json:"errorMessage,omitempty"`
	Resources           []Resource      `json:"resources,omitempty"`
	TLSDetails          *TLSDetails     `json:"tlsDetails,omitempty"`
	// PrevHash is the hash of the record before; it must stay the last member.
	PrevHash string `json:"prevHash"`
}

// UserIdentity is who acted.
type UserIdentity struct {
	Type           string          `json:"type"`
	PrincipalID    string          `json:"principalId,omitempty"`
	ARN            string          `json:"arn,omitempty"`
	AccountID      string          `json:"accountId,omitempty"`
	AccessKeyID    string          `json:"accessKeyId,omitempty"`
	UserName       string          `json:"userName,omitempty"`
	SessionContext *SessionContext `json:"sessionContext,omitempty"`
	InvokedBy      string          `json:"invokedBy,omitempty"`
}

// SessionContext tells what a session was made from.
type SessionContext struct {
	SessionIssuer *SessionIssuer `json:"sessionIssuer,omitempty"`
	Attributes    *Attributes    `json:"attributes,omitempty"`
}

// SessionIssuer is the role of a session.
type SessionIssuer struct {
	Type      string `json:"type"`
	ARN       string `json:"arn"`
	AccountID string `json:"accountId"`
	UserName  string `json:"userName"`
}

// Attributes are facts of a session.
type Attributes struct {
	CreationDate string `json:"creationDate"`
}

// Additional is what CloudTrail has no member for.
type Additional struct {
	// SuppressedCalls is how many refused calls of unproven callers have no record.
	SuppressedCalls int `json:"suppressedCalls,omitempty"`
	// ClientID is of an act that came over MQTT.
	ClientID string `json:"clientId,omitempty"`
}

// Resource is something that the call named or made.
type Resource struct {
	ARN  string `json:"ARN"`
	Type string `json:"type,omitempty"`
}

// TLSDetails tell how the call was protected.
type TLSDetails struct {
	TLSVersion               string `json:"tlsVersion"`
	CipherSuite              string `json:"cipherSuite"`
	ClientProvidedHostHeader string `json:"clientProvidedHostHeader,omitempty"`
}

// Types of UserIdentity beyond CloudTrail's.
const (
	identityRoot        = "Root"
	identityUser        = "IAMUser"
	identityRole        = "AssumedRole"
	identityService     = "AWSService"
	identityAccount     = "AWSAccount"
	identityCertificate = "Certificate"
	identityCustom      = "CustomAuthorizer"
	identityUnknown     = "Unknown"
)

// invokedBy is how records name this server.
const invokedBy = "muster"

// identity says who an actor is, of the account unless its ARN names another one.
func identity(account fleet.Account, actor fleet.Actor, sessionBegan time.Time) UserIdentity {
	p := actor.Principal
	if parts := strings.SplitN(p.ARN, ":", 6); len(parts) == 6 && fleet.Account(parts[4]).Valid() {
		account = fleet.Account(parts[4])
	}
	u := UserIdentity{PrincipalID: p.ID, ARN: p.ARN, AccountID: string(account), AccessKeyID: actor.AccessKeyID}
	switch p.Kind {
	case fleet.PrincipalUser:
		u.Type, u.UserName = identityUser, p.ID
		if strings.HasSuffix(p.ARN, ":root") {
			u.Type, u.UserName = identityRoot, ""
		}
	case fleet.PrincipalRole:
		u.Type = identityRole
		u.SessionContext = sessionContext(account, p.ARN, sessionBegan)
	case fleet.PrincipalCertificate:
		u.Type = identityCertificate
	case fleet.PrincipalCustom:
		u.Type = identityCustom
	case fleet.PrincipalSystem:
		return UserIdentity{Type: identityService, InvokedBy: invokedBy}
	default:
		u.Type, u.AccountID = identityUnknown, ""
	}
	return u
}

// sessionContext names the role of a session by the session's ARN.
func sessionContext(account fleet.Account, arn string, began time.Time) *SessionContext {
	c := &SessionContext{}
	if _, rest, ok := strings.Cut(arn, ":assumed-role/"); ok {
		role, _, _ := strings.Cut(rest, "/")
		c.SessionIssuer = &SessionIssuer{Type: "Role", ARN: iamARN(account, "role/"+role), AccountID: string(account), UserName: role}
	}
	if !began.IsZero() {
		c.Attributes = &Attributes{CreationDate: began.UTC().Format(timeLayout)}
	}
	return c
}

// iamARN names something of operators.
func iamARN(account fleet.Account, what string) string {
	return "arn:" + fleet.Partition + ":iam::" + string(account) + ":" + what
}

// actors are the names under which a record is found.
func (r *Record) actors() []string {
	u := &r.UserIdentity
	var names []string
	switch {
	case u.ARN != "":
		names = append(names, u.ARN)
	case u.PrincipalID != "":
		names = append(names, u.PrincipalID)
	case u.Type == identityAccount:
		names = append(names, u.AccountID)
	case u.InvokedBy != "":
		names = append(names, u.InvokedBy)
	}
	if u.SessionContext != nil && u.SessionContext.SessionIssuer != nil {
		names = append(names, u.SessionContext.SessionIssuer.ARN)
	}
	if u.AccessKeyID != "" {
		names = append(names, u.AccessKeyID)
	}
	return names
}

// millis is the record's time, 0 when it has none.
func (r *Record) millis() int64 {
	at, err := time.Parse(time.RFC3339, r.EventTime)
	if err != nil {
		return 0
	}
	return at.UnixMilli()
}

// resourceType is the type that AWS gives to what an ARN names.
func resourceType(arn string) string {
	if parsed, ok := fleet.ParseARN(arn); ok {
		return map[string]string{
			fleet.ARNThing: "AWS::IoT::Thing", fleet.ARNThingType: "AWS::IoT::ThingType", fleet.ARNThingGroup: "AWS::IoT::ThingGroup",
			fleet.ARNBillingGroup: "AWS::IoT::BillingGroup", fleet.ARNCertificate: "AWS::IoT::Certificate", fleet.ARNCACert: "AWS::IoT::CACertificate",
			fleet.ARNPolicy: "AWS::IoT::Policy", fleet.ARNAuthorizer: "AWS::IoT::Authorizer", fleet.ARNIndex: "AWS::IoT::Index",
			fleet.ARNCertificateProvider: "AWS::IoT::CertificateProvider",
		}[parsed.Kind]
	}
	for prefix, name := range map[string]string{
		":user/": "AWS::IAM::User", ":group/": "AWS::IAM::Group", ":role/": "AWS::IAM::Role", ":policy/": "AWS::IAM::Policy", ":access-key/": "AWS::IAM::AccessKey",
	} {
		if strings.HasPrefix(arn, "arn:"+fleet.Partition+":iam::") && strings.Contains(arn, prefix) {
			return name
		}
	}
	return ""
}

// hashMember is how a line goes on behind what its hash covers, and lineEnd how
// it ends.
const (
	hashMember = `,"hash":"`
	lineEnd    = `"}`
	// lineTail is how many bytes hash and punctuation take.
	lineTail = len(hashMember) + 2*sha256.Size + len(lineEnd)
)

// line writes the record in its stored form and returns its hash.
func (r *Record) line() (line []byte, hash string, err error) {
	body, err := marshal(r)
	if err != nil {
		return nil, "", fmt.Errorf("encode record %d: %w", r.Seq, err)
	}
	body = body[:len(body)-1]
	hash = digest(body)
	return append(append(append(body, hashMember...), hash...), lineEnd...), hash, nil
}

// digest is the hash over the beginning of a line.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// marshal writes JSON with <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err //nolint:wrapcheck // callers say what it was
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// errChanged is a line whose content is not what its hash was made of.
var errChanged = errors.New("the content does not have the hash that stands at its end")

// claimed is the hash that stands at the end of a line, "" for a line of another
// shape.
func claimed(line []byte) string {
	if len(line) < lineTail {
		return ""
	}
	tail := string(line[len(line)-lineTail:])
	hash, ok := strings.CutPrefix(tail, hashMember)
	if !ok || !strings.HasSuffix(hash, lineEnd) {
		return ""
	}
	hash = strings.TrimSuffix(hash, lineEnd)
	if _, err := hex.DecodeString(hash); err != nil || strings.ToLower(hash) != hash {
		return ""
	}
	return hash
}

// parseLine reads a line whose hash holds. For another it returns what can be
// read of it with errChanged.
func parseLine(line []byte) (*Record, string, error) {
	hash := claimed(line)
	var r Record
	err := json.Unmarshal(line, &r)
	if hash == "" || err != nil || digest(line[:len(line)-lineTail]) != hash {
		return &r, hash, errChanged
	}
	if r.Schema != schema {
		return &r, hash, fmt.Errorf("schema version %d of a record is not known to this program", r.Schema)
	}
	return &r, hash, nil
}
