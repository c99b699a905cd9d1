package iampolicy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/iotpolicy"
)

// decide asks one document about one request.
func decide(t *testing.T, document string, r Request, action, resource string) iotpolicy.Outcome {
	t.Helper()
	parsed, err := Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	return iotpolicy.Compile([]iotpolicy.PolicyRef{{Document: parsed}}, r.Context()).Decide(action, resource).Outcome
}

// TestBuiltinsMeanWhatTheySay holds the policies that come with Muster to what
// docs/operators.md promises.
func TestBuiltinsMeanWhatTheySay(t *testing.T) {
	t.Parallel()
	documents := map[string]string{}
	for _, b := range Builtins() {
		documents[b.Name] = b.Document
		if _, err := Parse(b.Document); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
		if b.ARN != BuiltinPrefix+b.Name || b.Description == "" {
			t.Errorf("%+v", b)
		}
	}
	for line := range strings.Lines(`
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | iot:DescribeThing
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | iot:SearchIndex
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | ops:GetDenials
		Operator FleetAdmin | iot:UpdateThing
		Operator FleetAdmin | iot:Publish
		Operator FleetAdmin SecurityAdmin | iot:DeleteConnection
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | ops:ListUsers
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | ops:CheckAttributeRules
		SecurityAdmin | ops:ListAuditRecords
		SecurityAdmin | ops:VerifyAudit
		FleetAdmin | ops:DecommissionThing
		FleetAdmin | ops:SetAttributeRules
		FleetAdmin | ops:ImportThings
		FleetAdmin SecurityAdmin | ops:ImportRevocationList
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | ops:GetCADeclaration
		SecurityAdmin | ops:PutCADeclaration
		SecurityAdmin | ops:PutCAPurpose
		FleetAdmin SecurityAdmin | ops:PutCertificatePurpose
		FleetAdmin SecurityAdmin | ops:ReprovisionThing
		FleetAdmin SecurityAdmin | ops:ReleaseQuarantine
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | ops:ListQuarantine
		Viewer Operator FleetAdmin SecurityAdmin ProvisioningApprover AllowListVetter | ops:GetCertificatePurpose
		FleetAdmin | iot:DeleteThing
		FleetAdmin | iot:CreateThingType
		FleetAdmin | ops:Drain
		FleetAdmin SecurityAdmin | iot:CreatePolicy
		FleetAdmin SecurityAdmin | iot:UpdateCertificate
		FleetAdmin SecurityAdmin | iot:CreateProvisioningTemplate
		FleetAdmin SecurityAdmin AllowListUploader | ops:PutAllowList
		SecurityAdmin AllowListVetter | ops:VetAllowList
		SecurityAdmin AllowListVetter | ops:ReadAllowList
		SecurityAdmin AllowListVetter | ops:LookUpAllowListEntry
		FleetAdmin | ops:PutSupplier
		FleetAdmin SecurityAdmin | ops:Doctor
		FleetAdmin | ops:Repair
		SecurityAdmin | ops:CreateUser
		SecurityAdmin | ops:AttachRoleAccessPolicy
		SecurityAdmin | ops:CreateAccessKey
		SecurityAdmin | ops:Backup
		ProvisioningApprover | ops:ApproveProvisioning
		ProvisioningApprover | ops:DenyProvisioning
		| sts:AssumeRole
		| ops:CreateAccount
	`) {
		who, action, ok := strings.Cut(strings.TrimSpace(line), "| ")
		if !ok {
			continue
		}
		for name, document := range documents {
			want := strings.Contains(" "+who, " "+strings.TrimPrefix(name, "Muster")+" ")
			if got := decide(t, document, Request{}, action, "*") == iotpolicy.Allowed; got != want {
				t.Errorf("%s %s: allowed is %v", name, action, got)
			}
		}
	}
	console := "arn:aws:iot:r:000000000000:client/"
	if decide(t, documents[Operator], Request{}, "iot:Connect", console+"console-7") != iotpolicy.Allowed ||
		decide(t, documents[Operator], Request{}, "iot:Connect", console+"pump-7") == iotpolicy.Allowed {
		t.Error("an operator connects as console-… and as nobody else")
	}
}

func TestKeysAndVariables(t *testing.T) {
	t.Parallel()
	full := Request{
		PrincipalARN: "arn:aws:iam::000000000042:user/alice", Account: "000000000042", Type: TypeUser, UserName: "alice", UserID: "AIDA1",
		SourceIP: netip.MustParseAddr("10.0.0.1"), TokenIssued: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), Secure: true, Region: "local",
		Now: time.Date(2027, 1, 2, 4, 0, 0, 0, time.UTC), ExternalID: "x", SessionName: "s",
	}
	statement := func(condition string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":` + condition + `}}`
	}
	for condition, holds := range map[string][2]bool{ // for the full request, and for an empty one
		`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/a*"}}`:         {true, false},
		`{"StringEquals":{"AWS:USERNAME":"alice"}}`:                         {true, false},
		`{"StringEquals":{"aws:userid":"AIDA1"}}`:                           {true, false},
		`{"StringEquals":{"aws:PrincipalType":"User"}}`:                     {true, false},
		`{"StringEquals":{"aws:PrincipalAccount":"000000000042"}}`:          {true, false},
		`{"StringEquals":{"aws:RequestedRegion":["local","x"]}}`:            {true, false},
		`{"Bool":{"aws:SecureTransport":"true"}}`:                           {true, false},
		`{"Bool":{"aws:SecureTransport":false}}`:                            {false, true},
		`{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`:                       {true, false},
		`{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`:                    {false, true},
		`{"DateGreaterThan":{"aws:TokenIssueTime":"2027-01-02T03:00:00Z"}}`: {true, false},
		`{"Null":{"aws:TokenIssueTime":"true"}}`:                            {false, true},
		`{"NumericGreaterThan":{"aws:EpochTime":"1798860000"}}`:             {true, false},
		`{"StringEqualsIfExists":{"aws:username":"bob"}}`:                   {false, true},
		`{"StringEquals":{"aws:username":"${aws:username}"}}`:               {true, false},
		`{"StringNotEquals":{"aws:username":"${aws:userid}"}}`:              {true, false},
		`{"ForAnyValue:StringLike":{"aws:PrincipalArn":["*bob","*alice"]}}`: {true, false},
	} {
		for i, r := range []Request{full, {}} {
			if got := decide(t, statement(condition), r, "iot:ListThings", "*") == iotpolicy.Allowed; got != holds[i] {
				t.Errorf("%s of request %d: %v", condition, i, got)
			}
		}
	}
	// A name with a wildcard stays literal.
	star := full
	star.UserName = "a"
	own := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:thing/${aws:username}/*"}}`
	for resource, want := range map[string]iotpolicy.Outcome{
		"arn:aws:iot:r:1:thing/a/x": iotpolicy.Allowed, "arn:aws:iot:r:1:thing/ab/x": iotpolicy.ImplicitDeny, "*": iotpolicy.ImplicitDeny,
	} {
		if got := decide(t, own, star, "iot:UpdateThing", resource); got != want {
			t.Errorf("%s: %v", resource, got)
		}
	}
	if got := decide(t, own, Request{}, "iot:UpdateThing", "arn:aws:iot:r:1:thing//x"); got == iotpolicy.Allowed {
		t.Error("a session without a name got what is named like nothing")
	}
}

func TestSeparated(t *testing.T) {
	t.Parallel()
	doc := func(text string) *iotpolicy.Document {
		parsed, err := Parse(`{"Version":"2012-10-17","Statement":` + text + `}`)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	approve := doc(`{"Effect":"Allow","Action":"OPS:Approve*","Resource":"*"}`)
	supply := doc(`{"Effect":"Allow","Action":"iot:Create*","Resource":"arn:aws:iot:*:*:x/y","Condition":{"Bool":{"aws:SecureTransport":"true"}}}`)
	everything := doc(`{"Effect":"Allow","NotAction":"iot:Describe*","Resource":"*"}`)
	for name, c := range map[string]struct {
		documents []*iotpolicy.Document
		both      bool
	}{
		"approves":            {[]*iotpolicy.Document{approve}, false},
		"supplies":            {[]*iotpolicy.Document{supply}, false},
		"both":                {[]*iotpolicy.Document{approve, supply}, true},
		"everything":          {[]*iotpolicy.Document{everything}, true},
		"approval denied":     {[]*iotpolicy.Document{everything, doc(`{"Effect":"Deny","Action":"ops:ApproveProvisioning","Resource":"*"}`)}, false},
		"denied on something": {[]*iotpolicy.Document{everything, doc(`{"Effect":"Deny","Action":"ops:ApproveProvisioning","Resource":"arn:a"}`)}, true},
		"denied sometimes": {[]*iotpolicy.Document{everything, doc(`{"Effect":"Deny","Action":"ops:ApproveProvisioning","Resource":"*",
			"Condition":{"Bool":{"aws:SecureTransport":"false"}}}`)}, true},
		"denied but for something": {[]*iotpolicy.Document{everything, doc(`{"Effect":"Deny","Action":"ops:ApproveProvisioning","NotResource":"arn:a"}`)}, true},
		"nothing":                  {nil, false},
	} {
		if _, _, both := Separated(c.documents); both != c.both {
			t.Errorf("%s: %v", name, both)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range Builtins() {
		f.Add(b.Document)
	}
	f.Add(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":["000000000042","arn:aws:iam::000000000042:role/x"]},"Action":"sts:*"}}`)
	f.Add(`{"Statement":[{"Effect":"Deny","NotAction":"*","NotResource":["*"],"Condition":{"ForAllValues:StringLike":{"aws:username":["${aws:userid}"]}}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) (*iotpolicy.Document, error){Parse, ParseTrust} {
			parsed, err := parse(text)
			if err != nil {
				if syntax, ok := errors.AsType[*iotpolicy.SyntaxError](err); !ok || syntax.Line < 1 || syntax.Column < 1 {
					t.Fatalf("error without a place: %v", err)
				}
				continue
			}
			set := iotpolicy.Compile([]iotpolicy.PolicyRef{{Document: parsed}}, (&Request{UserName: "a"}).Context())
			// What a document always denies, no set of it allows.
			const action, resource = "ops:ApproveProvisioning", "arn:aws:iam::000000000042:user/a"
			if parsed.AlwaysDenies(action) && set.Decide(action, resource).Outcome != iotpolicy.ExplicitDeny {
				t.Fatalf("%q does not deny", text)
			}
			if set.Decide(action, resource).Outcome == iotpolicy.Allowed && !parsed.Touches(iotpolicy.Allow, action) {
				t.Fatalf("%q allows what it is not about", text)
			}
		}
	})
}
