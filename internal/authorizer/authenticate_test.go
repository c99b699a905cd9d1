package authorizer

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// username are credentials as a client puts them behind its user name.
func username(t *testing.T, query string) Credentials {
	t.Helper()
	c, err := FromUsername("pump-7?" + query)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const accepted = `{"isAuthenticated":true,"principalId":"pump7","policyDocuments":[` + allowAll + `],"disconnectAfterInSeconds":3600,"refreshAfterInSeconds":300}`

// AWS developer guide, "Defining your Lambda function": the members that apply,
// and no others.
func TestWhatAFunctionIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create(CreateCommand{Name: "signed", TokenKeyName: "jwt", Keys: map[string]string{"other": publicPEM(&signer().PublicKey)}})
	r.unsigned("plain")
	r.functions.answer = accepted
	ask := func(request Request) {
		t.Helper()
		if _, err := r.Authenticate(t.Context(), account, request); err != nil {
			t.Error(err)
		}
	}
	query := "x-amz-customauthorizer-name=signed&x-amz-customauthorizer-signature=" + url.QueryEscape(sign("a b")) + "&jwt=a+b&SDK=Go&Version=1"
	ask(Request{
		Credentials: username(t, query), ConnectionID: "c1",
		TLS:  &TLSData{ServerName: "localhost"},
		MQTT: &MQTTData{Username: "pump-7?" + query, Password: []byte("secret\xff"), ClientID: "pump-7"},
	})
	byHeader, err := FromHTTP(map[string][]string{"X-Amz-Customauthorizer-Name": {"plain"}}, "x-amz-customauthorizer-name=nobody")
	if err != nil {
		t.Fatal(err)
	}
	ask(Request{Credentials: byHeader, TLS: &TLSData{}, HTTP: &HTTPData{Headers: map[string]string{"Accept": "*"}, QueryString: "?qos=1"}})
	username, err := json.Marshal("pump-7?" + query)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, r.functions.inputs, []string{
		`{"token":"a b","signatureVerified":true,"protocols":["tls","mqtt"],"protocolData":{"tls":{"serverName":"localhost"},"mqtt":{"username":` +
			string(username) + `,"password":"c2VjcmV0/w==","clientId":"pump-7"}},"connectionMetadata":{"id":"c1"}}`,
		`{"signatureVerified":false,"protocols":["tls","http"],"protocolData":{"tls":{},"http":{"headers":{"Accept":"*"},"queryString":"?qos=1"}},"connectionMetadata":{"id":"made"}}`,
	})
}

// A client without a good signature does not reach the function.
func TestSignatures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create(CreateCommand{Name: "signed", TokenKeyName: "jwt", Keys: map[string]string{"k": publicPEM(&signer().PublicKey)}})
	r.functions.answer = accepted
	good := sign("token")
	for name, c := range map[string]struct {
		token, signature string
		refusal          string
	}{
		"good":             {"token", url.QueryEscape(good), ""},
		"good, unescaped":  {"token", good, ""},
		"no token":         {"", url.QueryEscape(good), "needs a token"},
		"no signature":     {"token", "", "needs a signature"},
		"of another token": {"token2", url.QueryEscape(good), "fits no key"},
		"no base64":        {"token", "%25%25", "no base64"},
		"empty base64":     {"token", "AAAA", "fits no key"},
		"long token":       {strings.Repeat("x", 6145), url.QueryEscape(good), "longer"},
		"long signature":   {"token", strings.Repeat("A", 2561), "longer"},
	} {
		before := r.functions.asked()
		grant, err := r.Authenticate(t.Context(), account, Request{
			Credentials: username(t, "x-amz-customauthorizer-name=signed&jwt="+c.token+"&x-amz-customauthorizer-signature="+c.signature),
		})
		switch {
		case c.refusal == "":
			if err != nil || grant.PrincipalID != "pump7" || grant.Account != account || grant.Authorizer != "signed" {
				t.Errorf("%s: %+v, %v", name, grant, err)
			}
		case fault.CodeOf(err) != fault.Unauthorized || !strings.Contains(err.Error(), c.refusal) || r.functions.asked() != before:
			t.Errorf("%s: got %v after %d invocations, want %s", name, err, r.functions.asked()-before, c.refusal)
		}
	}
}

func TestWhichAuthorizerIsAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.unsigned("one")
	r.unsigned("off")
	if _, err := r.Update(t.Context(), account, UpdateCommand{Name: "off", Status: new(StatusInactive)}); err != nil {
		t.Fatal(err)
	}
	r.functions.answer = accepted
	asked := func(query string) (string, error) {
		grant, err := r.Authenticate(t.Context(), account, Request{Credentials: username(t, query)})
		return grant.Authorizer, err
	}
	for query, text := range map[string]string{
		"": "no default one", "x-amz-customauthorizer-name=two": "no authorizer of the name",
		"x-amz-customauthorizer-name=a%00b": "no authorizer of the name", "x-amz-customauthorizer-name=off": "INACTIVE",
	} {
		if _, err := asked(query); fault.CodeOf(err) != fault.Unauthorized || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %v, want %s", query, err, text)
		}
	}
	if name, err := asked("x-amz-customauthorizer-name=one"); name != "one" || err != nil {
		t.Errorf("asked %q, %v", name, err)
	}
	if found, err := r.HasDefault(t.Context(), account); found || err != nil {
		t.Errorf("a default, %v", err)
	}
	if _, err := r.SetDefault(t.Context(), account, "one"); err != nil {
		t.Fatal(err)
	}
	if name, err := asked(""); name != "one" || err != nil {
		t.Errorf("by default: asked %q, %v", name, err)
	}
	if found, err := r.HasDefault(t.Context(), account); !found || err != nil {
		t.Errorf("no default, %v", err)
	}
}

// Whatever a function does wrong, nobody gets in.
func TestFunctionsThatFail(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.unsigned("gate")
	many := strings.TrimSuffix(strings.Repeat(allowAll+",", 11), ",")
	long := strings.Replace(allowAll, `"*"`, `"iot:`+strings.Repeat("x", 2048)+`"`, 1)
	answer := func(principal, documents, rest string) string {
		return `{"isAuthenticated":true,"principalId":"` + principal + `","policyDocuments":[` + documents + `]` + rest + `}`
	}
	for name, c := range map[string]struct {
		answer string
		err    error
		code   fault.Code
		text   string
	}{
		"says no":              {`{"isAuthenticated":false,"principalId":"!"}`, nil, fault.Unauthorized, "does not know"},
		"fails":                {"", errors.New("exit status 1"), fault.Unavailable, "no answer"},
		"has no time":          {"", errBusy, fault.Throttling, "busy"},
		"says nothing":         {``, nil, fault.InvalidResponse, "no JSON object"},
		"says two things":      {`{"isAuthenticated":true}{}`, nil, fault.InvalidResponse, "no JSON object"},
		"says a list":          {`[]`, nil, fault.InvalidResponse, "no JSON object"},
		"says null":            {`null`, nil, fault.InvalidResponse, "isAuthenticated"},
		"is not sure":          {`{"isAuthenticated":"true"}`, nil, fault.InvalidResponse, "no JSON object"},
		"forgets to say":       {`{"principalId":"a"}`, nil, fault.InvalidResponse, "isAuthenticated"},
		"names nobody":         {answer("", allowAll, ""), nil, fault.InvalidResponse, "principalId"},
		"names oddly":          {answer("a-b", allowAll, ""), nil, fault.InvalidResponse, "principalId"},
		"names at length":      {answer(strings.Repeat("x", 129), allowAll, ""), nil, fault.InvalidResponse, "principalId"},
		"eleven documents":     {answer("a", many, ""), nil, fault.InvalidResponse, "at most 10"},
		"long document":        {answer("a", long, ""), nil, fault.InvalidResponse, "policyDocuments[0]"},
		"document of nonsense": {answer("a", allowAll+`,"{}"`, ""), nil, fault.InvalidResponse, "policyDocuments[1]"},
		"document of a number": {answer("a", `7`, ""), nil, fault.InvalidResponse, "policyDocuments[0]"},
		"short connection":     {answer("a", allowAll, `,"disconnectAfterInSeconds":299`), nil, fault.InvalidResponse, "disconnectAfterInSeconds"},
		"long connection":      {answer("a", allowAll, `,"disconnectAfterInSeconds":86401`), nil, fault.InvalidResponse, "disconnectAfterInSeconds"},
		"short refresh":        {answer("a", allowAll, `,"refreshAfterInSeconds":0`), nil, fault.InvalidResponse, "refreshAfterInSeconds"},
		"huge refresh":         {answer("a", allowAll, `,"refreshAfterInSeconds":1e99`), nil, fault.InvalidResponse, "no JSON object"},
	} {
		r.functions.answer, r.functions.err = c.answer, c.err
		grant, err := r.Authenticate(t.Context(), account, Request{Credentials: username(t, "x-amz-customauthorizer-name=gate")})
		if fault.CodeOf(err) != c.code || !strings.Contains(fault.From(err).Message, c.text) || grant.PrincipalID != "" {
			t.Errorf("%s: got %+v, %v; want %s %s", name, grant, err, c.code, c.text)
		}
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(allowAll)
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseAnswer("gate", []byte(`{"isAuthenticated":true,"principalId":"p","policyDocuments":[`+allowAll+`,`+string(text)+`],"context":{"any":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, a.Documents, []string{allowAll, allowAll})
	if len(a.Policies) != 2 || a.Policies[1].Name != "gate[1]" || a.Policies[0].Document == nil {
		t.Errorf("policies %+v", a.Policies)
	}
	if a.DisconnectAfter != 24*time.Hour || a.RefreshAfter != 24*time.Hour {
		t.Errorf("lasts %v, refreshed after %v; want a day", a.DisconnectAfter, a.RefreshAfter)
	}
}

// enableCachingForHttp: the answer counts for later requests on the connection,
// for refreshAfterInSeconds, as long as nothing has changed.
func TestMemoryOfAConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create(CreateCommand{Name: "cached", SigningDisabled: true, TokenKeyName: "jwt", CacheHTTP: true})
	r.create(CreateCommand{Name: "fresh", SigningDisabled: true, TokenKeyName: "jwt"})
	r.create(CreateCommand{Name: "tokenless", SigningDisabled: true, CacheHTTP: true})
	r.functions.answer = accepted
	var memory Memory
	ask := func(authorizer, token string, memory *Memory, wantAsked bool) {
		t.Helper()
		before := r.functions.asked()
		c, err := FromHTTP(nil, "x-amz-customauthorizer-name="+authorizer+"&jwt="+token)
		if err != nil {
			t.Fatal(err)
		}
		grant, err := r.Authenticate(t.Context(), account, Request{Credentials: c, HTTP: &HTTPData{}, Memory: memory})
		if err != nil || grant.PrincipalID != "pump7" {
			t.Fatalf("%+v, %v", grant, err)
		}
		if asked := r.functions.asked() != before; asked != wantAsked {
			t.Errorf("asked %v, want %v", asked, wantAsked)
		}
	}
	ask("cached", "a", &memory, true)
	ask("cached", "a", &memory, false)
	ask("cached", "b", &memory, true)
	ask("cached", "b", new(Memory), true)
	ask("cached", "b", nil, true)
	ask("cached", "b", &memory, false)
	r.now = r.now.Add(300 * time.Second)
	ask("cached", "b", &memory, true)
	if _, err := r.Update(t.Context(), account, UpdateCommand{Name: "cached"}); err != nil {
		t.Fatal(err)
	}
	ask("cached", "b", &memory, true)
	for _, name := range []string{"fresh", "tokenless"} {
		ask(name, "a", &memory, true)
		ask(name, "a", &memory, true)
	}
	ask("cached", "b", &memory, false)
	if _, err := r.Update(t.Context(), account, UpdateCommand{Name: "cached", Status: new(StatusInactive)}); err != nil {
		t.Fatal(err)
	}
	c, err := FromHTTP(nil, "x-amz-customauthorizer-name=cached&jwt=b")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Authenticate(t.Context(), account, Request{Credentials: c, HTTP: &HTTPData{}, Memory: &memory})
	wantCode(t, err, fault.Unauthorized)
}

func TestOperatorsTest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create(CreateCommand{Name: "signed", TokenKeyName: "jwt", Keys: map[string]string{"k": publicPEM(&signer().PublicKey)}, Status: StatusInactive})
	test := func(c TestCommand) (Answer, error) { return r.Test(t.Context(), account, c) }
	_, err := test(TestCommand{Name: "nobody"})
	wantCode(t, err, fault.ResourceNotFound)
	_, err = test(TestCommand{Name: "signed", Token: "a"})
	wantCode(t, err, fault.InvalidRequest)
	if a, err := test(TestCommand{Name: "signed", Token: "a", Signature: sign("a")}); err != nil || a.Authenticated {
		t.Errorf("%+v, %v", a, err)
	}
	r.functions.answer = accepted
	if a, err := test(TestCommand{Name: "signed", Token: "a", Signature: sign("a")}); err != nil || !a.Authenticated || a.RefreshAfter != 5*time.Minute {
		t.Errorf("%+v, %v", a, err)
	}
	r.functions.answer = "{"
	_, err = test(TestCommand{Name: "signed", Token: "a", Signature: sign("a")})
	wantCode(t, err, fault.InvalidResponse)
}

func TestMalformedQueries(t *testing.T) {
	t.Parallel()
	_, err := FromUsername("a?b=%zz")
	wantCode(t, err, fault.Unauthorized)
	_, err = FromHTTP(nil, "a=%zz")
	wantCode(t, err, fault.Unauthorized)
	c, err := FromUsername("no query")
	if err != nil || c.Authorizer() != "" {
		t.Errorf("%q, %v", c.Authorizer(), err)
	}
	// A device SDK says what it is, with semicolons.
	described := "SDK=NodeJSv2&Metadata=(Version=1;Feature=F/5,I/6)&x-amz-customauthorizer-name=gate"
	if c, err := FromUsername("u?" + described); err != nil || c.Authorizer() != "gate" {
		t.Errorf("%q, %v", c.Authorizer(), err)
	}
	if c, err := FromHTTP(nil, described); err != nil || c.Authorizer() != "gate" {
		t.Errorf("%q, %v", c.Authorizer(), err)
	}
	more, err := FromUsername("u?x-amz-customauthorizer-name=later")
	if err != nil || c.Or(more).Authorizer() != "later" {
		t.Errorf("%v", err)
	}
}

// An answer that is taken keeps to every rule.
func FuzzParseAnswer(f *testing.F) {
	for _, seed := range []string{accepted, `{"isAuthenticated":false}`, `{"isAuthenticated":true,"principalId":"p","policyDocuments":["{}"]}`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAnswer("gate", data)
		if err != nil || !a.Authenticated {
			if a.PrincipalID != "" || len(a.Policies) > 0 || err != nil && fault.CodeOf(err) != fault.InvalidResponse {
				t.Errorf("%+v, %v", a, err)
			}
			return
		}
		if !principalPattern.MatchString(a.PrincipalID) || len(a.Policies) > maxDocuments || len(a.Policies) != len(a.Documents) ||
			a.DisconnectAfter < 5*time.Minute || a.DisconnectAfter > 24*time.Hour || a.RefreshAfter < 5*time.Minute || a.RefreshAfter > 24*time.Hour {
			t.Errorf("taken: %+v", a)
		}
	})
}

// What is remembered of a connection is of one account, though authorizers of
// two have the same name and their records the same version.
func TestMemoryIsOfOneAccount(t *testing.T) {
	t.Parallel()
	a := &Authorizer{Name: "gate", version: 7}
	if digest("000000000001", a, "t") == digest("000000000002", a, "t") {
		t.Error("two accounts share what is remembered")
	}
}
