package sdk

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/muster-iot/muster/internal/testkit"
)

// muster runs the command line as root and returns what it prints.
func muster(t *testing.T, server *testkit.Server, args ...string) string {
	t.Helper()
	out, err := server.Muster(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// user makes a user with policies and returns its credentials.
func user(t *testing.T, server *testkit.Server, policies ...string) (name string, key aws.CredentialsProvider) {
	t.Helper()
	name = named("user")
	muster(t, server, "user", "create", name)
	for _, p := range policies {
		muster(t, server, "user", "attach", name, p)
	}
	var made struct {
		AccessKeyID     string `json:"accessKeyId"`
		SecretAccessKey string `json:"secretAccessKey"`
	}
	if err := json.Unmarshal([]byte(muster(t, server, "key", "create", name, "-o", "json")), &made); err != nil {
		t.Fatal(err)
	}
	return name, awscredentials.NewStaticCredentialsProvider(made.AccessKeyID, made.SecretAccessKey, "")
}

// as is the control plane for somebody.
func as(server *testkit.Server, key aws.CredentialsProvider) *iot.Client {
	return iot.New(iot.Options{Region: signingRegion, BaseEndpoint: new("http://" + server.HTTPAddr), RetryMaxAttempts: 1, Credentials: key})
}

// tokens is sts for somebody.
func tokens(server *testkit.Server, key aws.CredentialsProvider) *sts.Client {
	return sts.New(sts.Options{Region: signingRegion, BaseEndpoint: new("http://" + server.HTTPAddr), RetryMaxAttempts: 1, Credentials: key})
}

// deniedAs demands AccessDeniedException that names who, what and why.
func deniedAs(t *testing.T, err error, parts ...string) {
	t.Helper()
	code, message := answered(err)
	if code != "AccessDeniedException" && code != "AccessDenied" {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, part := range parts {
		if !strings.Contains(message, part) {
			t.Errorf("message %q lacks %q", message, part)
		}
	}
}

// TestViewer lets a viewer see the fleet and change nothing.
func TestViewer(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	root := newOperator(t, server)
	must(root, root.CreateThing, &iot.CreateThingInput{ThingName: new("pump")})
	must(root, root.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("plant")})
	name, key := user(t, server, "MusterViewer")
	viewer, ctx := as(server, key), t.Context()
	for what, see := range map[string]func() error{
		"DescribeThing": func() error {
			_, err := viewer.DescribeThing(ctx, &iot.DescribeThingInput{ThingName: new("pump")})
			return err
		},
		"ListThings":      func() error { _, err := viewer.ListThings(ctx, &iot.ListThingsInput{}); return err },
		"ListThingGroups": func() error { _, err := viewer.ListThingGroups(ctx, &iot.ListThingGroupsInput{}); return err },
		"ListPolicies":    func() error { _, err := viewer.ListPolicies(ctx, &iot.ListPoliciesInput{}); return err },
		"SearchIndex": func() error {
			_, err := viewer.SearchIndex(ctx, &iot.SearchIndexInput{QueryString: new("*")})
			return err
		},
		"DescribeEndpoint": func() error { _, err := viewer.DescribeEndpoint(ctx, &iot.DescribeEndpointInput{}); return err },
		"DescribeThingGroup": func() error {
			_, err := viewer.DescribeThingGroup(ctx, &iot.DescribeThingGroupInput{ThingGroupName: new("plant")})
			return err
		},
	} {
		if err := see(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, change := range map[string]func() error{
		"CreateThing": func() error {
			_, err := viewer.CreateThing(ctx, &iot.CreateThingInput{ThingName: new("x")})
			return err
		},
		"UpdateThing": func() error {
			_, err := viewer.UpdateThing(ctx, &iot.UpdateThingInput{ThingName: new("pump")})
			return err
		},
		"DeleteThing": func() error {
			_, err := viewer.DeleteThing(ctx, &iot.DeleteThingInput{ThingName: new("pump")})
			return err
		},
		"CreateThingType": func() error {
			_, err := viewer.CreateThingType(ctx, &iot.CreateThingTypeInput{ThingTypeName: new("x")})
			return err
		},
		"CreatePolicy": func() error {
			_, err := viewer.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: new("x"), PolicyDocument: new("{}")})
			return err
		},
		"CreateKeysAndCertificate": func() error {
			_, err := viewer.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{})
			return err
		},
		"DeleteThingGroup": func() error {
			_, err := viewer.DeleteThingGroup(ctx, &iot.DeleteThingGroupInput{ThingGroupName: new("plant")})
			return err
		},
	} {
		deniedAs(t, change(), "User: arn:aws:iam::000000000000:user/"+name+" is not authorized to perform: iot:"+what+" on resource: ",
			"because no identity-based policy allows the iot:"+what+" action")
	}
	muster(t, server, "user", "attach", name, "MusterFleetAdmin")
	muster(t, server, "user", "put-policy", name, "keep", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"iot:DeleteThing","Resource":"`+arnPrefix+`thing/pu*"}}`)
	_, err := viewer.DeleteThing(ctx, &iot.DeleteThingInput{ThingName: new("pump")})
	deniedAs(t, err, "with an explicit deny in an identity-based policy")
	muster(t, server, "user", "delete-policy", name, "keep")
	if _, err := viewer.DeleteThing(ctx, &iot.DeleteThingInput{ThingName: new("pump")}); err != nil {
		t.Error(err)
	}
}

// TestAssumeRoleProvider takes a role as programs do: with the SDK's own provider.
func TestAssumeRoleProvider(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	name, key := user(t, server)
	role := named("role")
	arn := "arn:aws:iam::000000000000:role/" + role
	muster(t, server, "role", "create", role, "--max-session", "2h", "--trust",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/`+name+`"},
		"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"plant-7"}}}]}`)
	muster(t, server, "role", "attach", role, "MusterOperator")
	with := func(change func(*stscreds.AssumeRoleOptions)) aws.CredentialsProvider {
		return aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(tokens(server, key), arn, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName, o.ExternalID, o.Duration = "night-shift", new("plant-7"), 2*time.Hour
			change(o)
		}))
	}
	good := with(func(*stscreds.AssumeRoleOptions) {})
	taken, err := good.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(taken.Expires); !strings.HasPrefix(taken.AccessKeyID, "ASIA") || !taken.CanExpire || left < 119*time.Minute || left > 2*time.Hour {
		t.Errorf("%s expires in %v", taken.AccessKeyID, left)
	}
	me, err := tokens(server, good).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	if *me.Arn != "arn:aws:sts::000000000000:assumed-role/"+role+"/night-shift" || *me.Account != "000000000000" || !strings.HasSuffix(*me.UserId, ":night-shift") {
		t.Errorf("I am %s, %s, %s", *me.Arn, *me.Account, *me.UserId)
	}
	client := as(server, good)
	if _, err := client.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("made-in-session")}); err != nil {
		t.Error(err)
	}
	_, err = client.DeleteThing(t.Context(), &iot.DeleteThingInput{ThingName: new("made-in-session")})
	deniedAs(t, err, "assumed-role/"+role+"/night-shift is not authorized to perform: iot:DeleteThing")
	for what, c := range map[string]struct {
		change func(*stscreds.AssumeRoleOptions)
		code   string
	}{
		"no external id":       {func(o *stscreds.AssumeRoleOptions) { o.ExternalID = nil }, "AccessDenied"},
		"longer than the role": {func(o *stscreds.AssumeRoleOptions) { o.Duration = 3 * time.Hour }, "ValidationError"},
		"too short":            {func(o *stscreds.AssumeRoleOptions) { o.Duration = 15 * time.Second }, "ValidationError"},
		"session policy":       {func(o *stscreds.AssumeRoleOptions) { o.Policy = new("{}") }, "UnsupportedOperation"},
		"device of a factor": {func(o *stscreds.AssumeRoleOptions) {
			o.SerialNumber, o.TokenProvider = new("arn:aws:iam::0:mfa/x"), func() (string, error) { return "123456", nil }
		}, "UnsupportedOperation"},
		"name": {func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "a b" }, "ValidationError"},
	} {
		_, err := with(c.change).Retrieve(t.Context())
		if code, _ := answered(err); strings.TrimSuffix(code, "Exception") != c.code {
			t.Errorf("%s: %v, want %s", what, err, c.code)
		}
	}
	// Another secret with the same token, and a token that was altered.
	wrong := awscredentials.NewStaticCredentialsProvider(taken.AccessKeyID, taken.SecretAccessKey+"x", taken.SessionToken)
	if _, err := as(server, wrong).ListThings(t.Context(), &iot.ListThingsInput{}); err == nil {
		t.Error("a wrong secret is taken")
	}
	altered := awscredentials.NewStaticCredentialsProvider(taken.AccessKeyID, taken.SecretAccessKey, "AAAA"+taken.SessionToken[4:])
	if code, _ := answered(func() error {
		_, err := as(server, altered).ListThings(t.Context(), &iot.ListThingsInput{})
		return err
	}()); code != "UnrecognizedClientException" {
		t.Errorf("an altered token: %s", code)
	}
	muster(t, server, "role", "revoke-sessions", role)
	if _, err := client.ListThings(t.Context(), &iot.ListThingsInput{}); err == nil {
		t.Error("a revoked session is taken")
	}
	// A new one is good, and outlives the server.
	again := with(func(*stscreds.AssumeRoleOptions) {})
	if _, err := as(server, again).ListThings(t.Context(), &iot.ListThingsInput{}); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	server.Start()
	if _, err := as(server, again).ListThings(t.Context(), &iot.ListThingsInput{}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// plain fetches an address without any header of the SDK's.
func plain(t *testing.T, method, address string, body io.Reader) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

// TestPresigned hands signed addresses to somebody who has no key.
func TestPresigned(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	root := newOperator(t, server)
	must(root, root.CreateThing, &iot.CreateThingInput{ThingName: new("pump")})
	name, key := user(t, server, "MusterViewer")
	request, err := sts.NewPresignClient(tokens(server, key)).PresignGetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	status, answer := plain(t, request.Method, request.URL, nil)
	var me struct {
		ARN string `xml:"GetCallerIdentityResult>Arn"`
	}
	if err := xml.Unmarshal([]byte(answer), &me); err != nil || status != http.StatusOK || !strings.HasSuffix(me.ARN, ":user/"+name) {
		t.Errorf("sts answered %d %s, %v", status, answer, err)
	}
	const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for what, c := range map[string]struct {
		query, hash string
		at          time.Duration
		method      string
		path        string
		body        string
		says        string
		status      int
	}{
		"thing":             {query: "X-Amz-Expires=604800", hash: emptyHash, path: "/things/pump", says: `"thingName":"pump"`, status: 200},
		"unsigned payload":  {query: "X-Amz-Expires=60", hash: "UNSIGNED-PAYLOAD", path: "/things/pump", says: `"thingName":"pump"`, status: 200},
		"list with a query": {query: "X-Amz-Expires=60&maxResults=1&attributeName=a%3Ab%2Fc", hash: emptyHash, path: "/things", says: `"things":[]`, status: 200},
		"six days ago":      {query: "X-Amz-Expires=604800", hash: emptyHash, at: -6 * 24 * time.Hour, path: "/things/pump", says: "pump", status: 200},
		"expired":           {query: "X-Amz-Expires=60", hash: emptyHash, at: -61 * time.Second, path: "/things/pump", says: "too skewed", status: 403},
		"without expiry":    {hash: emptyHash, at: -4 * time.Minute, path: "/things/pump", says: "pump", status: 200},
		"without, too old":  {hash: emptyHash, at: -6 * time.Minute, path: "/things/pump", says: "too skewed", status: 403},
		"zero":              {query: "X-Amz-Expires=0", hash: emptyHash, path: "/things/pump", says: "1 to 604800", status: 400},
		"eight days":        {query: "X-Amz-Expires=691200", hash: emptyHash, path: "/things/pump", says: "1 to 604800", status: 400},
		"not permitted":     {query: "X-Amz-Expires=60", hash: emptyHash, method: http.MethodDelete, path: "/things/pump", says: "iot:DeleteThing", status: 403},
		"body was added":    {query: "X-Amz-Expires=60", hash: "UNSIGNED-PAYLOAD", method: http.MethodPost, path: "/things/new", body: `{}`, says: "does not match", status: 403},
		"body of another":   {query: "X-Amz-Expires=60", hash: emptyHash, method: http.MethodPost, path: "/things/new", body: `{}`, says: "does not match", status: 403},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			address := "http://" + server.HTTPAddr + c.path
			if c.query != "" {
				address += "?" + c.query
			}
			method := c.method
			if method == "" {
				method = http.MethodGet
			}
			r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
			if err != nil {
				t.Fatal(err)
			}
			k, err := key.Retrieve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), k, r, c.hash, "iot", signingRegion, time.Now().Add(c.at))
			if err != nil {
				t.Fatal(err)
			}
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			status, answer := plain(t, method, signed, body)
			if status != c.status || !strings.Contains(answer, c.says) {
				t.Errorf("answered %d %s, want %d with %q", status, answer, c.status, c.says)
			}
		})
	}
}

// TestSessionTokensOnAllPlanes takes session credentials by header, by presigned
// query, and on the data plane.
func TestSessionTokensOnAllPlanes(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	id, secret := server.Credentials()
	role := named("role")
	muster(t, server, "role", "create", role, "--trust", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"000000000000"},"Action":"sts:AssumeRole"}]}`)
	muster(t, server, "role", "attach", role, "MusterFleetAdmin")
	session := stscreds.NewAssumeRoleProvider(tokens(server, awscredentials.NewStaticCredentialsProvider(id, secret, "")), "arn:aws:iam::000000000000:role/"+role)
	key, err := session.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for service, path := range map[string]string{"iot": "/things", "iotdata": "/retainedMessage"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.HTTPAddr+path+"?X-Amz-Expires=60", nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), key, r, "UNSIGNED-PAYLOAD", service, signingRegion, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := plain(t, http.MethodGet, signed, nil); status != http.StatusOK {
			t.Errorf("%s: %d %s", service, status, answer)
		}
	}
}

// TestKeysOfUsers uses a key until it is taken away.
func TestKeysOfUsers(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	_, key := user(t, server, "MusterViewer")
	k, err := key.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		_, err := as(server, key).ListThings(context.WithoutCancel(t.Context()), &iot.ListThingsInput{})
		code, _ := answered(err)
		return code
	}
	for _, step := range []struct{ do, want string }{
		{"", ""}, {"deactivate", "UnrecognizedClientException"}, {"activate", ""}, {"delete", "UnrecognizedClientException"},
	} {
		if step.do != "" {
			muster(t, server, "key", step.do, k.AccessKeyID)
		}
		if got := ask(); got != step.want {
			t.Errorf("after %q: %q, want %q", step.do, got, step.want)
		}
	}
	if _, err := tokens(server, key).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}); err == nil || !strings.Contains(fmt.Sprint(err), "InvalidClientTokenId") {
		t.Errorf("sts: %v", err)
	}
}

// TestAssumeRoleAcrossAccounts has a user of one account take roles of another:
// both sides must let it, and both trails tell.
func TestAssumeRoleAcrossAccounts(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t)
	const home, north, south = "000000000000", "210000000077", "210000000078"
	for name, id := range map[string]string{"north": north, "south": south} {
		muster(t, server, "account", "create", name, "--id", id, "--save-profile", name)
	}
	name, key := user(t, server)
	me := "arn:aws:iam::" + home + ":user/" + name
	trusted := func(role, principal string) string {
		muster(t, server, "role", "create", role, "--profile", "north", "--trust",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":`+principal+`,"Action":"sts:AssumeRole"}]}`)
		return "arn:aws:iam::" + north + ":role/" + role
	}
	named, account, everybody := trusted("named", `{"AWS":"`+me+`"}`), trusted("account", `{"AWS":"`+home+`"}`), trusted("everybody", `"*"`)
	own, third := trusted("own", `{"AWS":"`+north+`"}`), trusted("third", `{"AWS":["arn:aws:iam::`+south+`:root","arn:aws:iam::`+south+`:user/`+name+`"]}`)
	absent := "arn:aws:iam::" + north + ":role/absent"
	muster(t, server, "role", "attach", "named", "MusterOperator", "--profile", "north")
	take := func(role string) (*sts.AssumeRoleOutput, error) {
		return tokens(server, key).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: new("visit")})
	}
	denied := func(when string, roles ...string) {
		t.Helper()
		for _, role := range roles {
			_, err := take(role)
			if code, message := answered(err); code != "AccessDenied" || message != "User: "+me+" is not authorized to perform: sts:AssumeRole on resource: "+role {
				t.Errorf("%s, %s: %v", when, role, err)
			}
		}
	}
	denied("without own permission", named, account, everybody, own, third, absent)
	muster(t, server, "user", "put-policy", name, "visits", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::`+north+`:role/*"}}`)
	denied("not trusted", own, third, absent)
	for _, role := range []string{account, everybody} {
		if _, err := take(role); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	taken, err := take(named)
	if err != nil {
		t.Fatal(err)
	}
	session := awscredentials.NewStaticCredentialsProvider(*taken.Credentials.AccessKeyId, *taken.Credentials.SecretAccessKey, *taken.Credentials.SessionToken)
	who, err := tokens(server, session).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil || *who.Account != north || *who.Arn != "arn:aws:sts::"+north+":assumed-role/named/visit" {
		t.Fatalf("I am %+v, %v", who, err)
	}
	if _, err := as(server, session).CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("theirs")}); err != nil {
		t.Error(err)
	}
	if out := muster(t, server, "things", "list"); strings.Contains(out, "theirs") {
		t.Errorf("made in the visitor's account: %s", out)
	}
	if out := muster(t, server, "things", "list", "--profile", "north"); !strings.Contains(out, "theirs") {
		t.Errorf("not made in the role's account: %s", out)
	}
	if out := muster(t, server, "key", "list", name, "-o", "json"); !strings.Contains(out, "lastUsedAt") {
		t.Errorf("a key that only takes roles looks unused: %s", out)
	}
	for _, profile := range []string{"default", "north"} {
		out := ""
		testkit.Poll(t, 10*time.Second, "the trail shows the session", func() error {
			out = muster(t, server, "audit", "search", "--profile", profile, "--name", "AssumeRole", "--resource", named, "--error", "none", "-o", "json")
			if !strings.Contains(out, "AssumeRole") {
				return fmt.Errorf("%s: %s", profile, out)
			}
			return nil
		})
		var records []struct {
			Recipient    string `json:"recipientAccountId"`
			UserIdentity struct {
				ARN       string `json:"arn"`
				AccountID string `json:"accountId"`
			} `json:"userIdentity"`
		}
		if err := json.Unmarshal([]byte(out), &records); err != nil || len(records) != 1 {
			t.Fatalf("%s: %v in %s", profile, err, out)
		}
		want := map[string]string{"default": home, "north": north}[profile]
		if r := records[0]; r.Recipient != want || r.UserIdentity.ARN != me || r.UserIdentity.AccountID != home || strings.Contains(out, *taken.Credentials.SessionToken) {
			t.Errorf("%s: %s", profile, out)
		}
	}
	muster(t, server, "account", "close", north)
	denied("closed", named, account, everybody)
	if _, err := tokens(server, session).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}); err == nil {
		t.Error("a session in a closed account is good")
	}
	muster(t, server, "account", "reopen", north)
	muster(t, server, "user", "delete", name)
	if _, err := take(named); err == nil {
		t.Error("a user that is gone takes a role")
	}
	// As with AWS a session outlives who took it; the role's own account ends it.
	if _, err := as(server, session).ListThings(t.Context(), &iot.ListThingsInput{}); err != nil {
		t.Error(err)
	}
	muster(t, server, "role", "revoke-sessions", "named", "--profile", "north")
	if _, err := as(server, session).ListThings(t.Context(), &iot.ListThingsInput{}); err == nil {
		t.Error("a revoked session is good")
	}
}
