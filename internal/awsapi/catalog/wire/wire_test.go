package wire

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fault"
)

// sample has a member of every kind and place.
type sample struct {
	Name     string            `wire:"name" in:"uri" rule:"Name" required:"true"`
	Version  *int64            `wire:"expectedVersion" in:"query"`
	Small    *int32            `wire:"maxResults" in:"query" rule:"Page"`
	Force    *bool             `wire:"force" in:"query"`
	Since    *time.Time        `wire:"since" in:"query"`
	Owner    *string           `wire:"x-amzn-principal" in:"header"`
	Kind     *string           `wire:"kind" rule:"Kind"`
	Secret   *string           `wire:"secret" rule:"Secret"`
	At       *time.Time        `wire:"at"`
	Ratio    *float64          `wire:"ratio"`
	On       *bool             `wire:"on"`
	Blob     []byte            `wire:"blob"`
	Tags     []inner           `wire:"tags"`
	Words    []string          `wire:"words" rule:"Words"`
	Labels   map[string]string `wire:"labels" rule:"Labels"`
	Child    *inner            `wire:"child"`
	Deep     map[string]inner  `wire:"deep"`
	Nested   [][]string        `wire:"nested"`
	CaseTest *string           `wire:"CaseTest"`
}

// inner has a required member.
type inner struct {
	Key   string `wire:"key" required:"true"`
	Value *int32 `wire:"value" rule:"Page"`
}

// raw carries its body as it is.
type raw struct {
	Name    string `wire:"name" in:"uri" required:"true"`
	Payload []byte `wire:"payload" in:"payload" required:"true"`
}

// document has a struct as its whole body.
type document struct {
	Name string  `wire:"name" in:"uri" required:"true"`
	Tags *string `wire:"x-amz-tagging" in:"header"`
	Body inner   `wire:"body" in:"payload" required:"true"`
}

func newCodec(tb testing.TB) *Codec {
	tb.Helper()
	codec, err := NewCodec(map[string]Rule{
		"Name":   {Min: new(float64(1)), Max: new(float64(8)), Pattern: `[a-zA-Z0-9:_-]+`},
		"Page":   {Min: new(float64(1)), Max: new(float64(250))},
		"Kind":   {Enum: []string{"A", "B"}},
		"Secret": {Max: new(float64(3)), Secret: true, Pattern: `[a-z]+`},
		"Word":   {Max: new(float64(4))},
		"Words":  {Max: new(float64(2)), Elem: "Word"},
		"Labels": {Key: "Word", Elem: "Name"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return codec
}

func TestDecodeTakesEveryPlace(t *testing.T) {
	t.Parallel()
	var got sample
	err := newCodec(t).Decode(&got, Request{
		Labels: map[string]string{"name": "T:1"},
		// fleet-management §0: the SDK sends 0 when set to 0; absent and 0 differ.
		Query:  url.Values{"expectedVersion": {"0"}, "maxResults": {"250"}, "force": {"TRUE"}, "since": {"2026-01-31T12:00:00Z"}},
		Header: http.Header{"X-Amzn-Principal": {"arn:x"}},
		Body: []byte(`{"kind":"B","at":1795412345.25,"ratio":0.5,"on":false,"blob":"aGk=","tags":[{"key":"k","value":3}],
			"words":["a"],"labels":{"w":"v"},"child":{"key":"c","other":1},"deep":{"x":{"key":"d"}},"nested":[["n"],[]],
			"casetest":"no","unknown":{"ignored":[true]}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := sample{
		Name: "T:1", Version: new(int64(0)), Small: new(int32(250)), Force: new(true),
		Since: new(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)), Owner: new("arn:x"),
		Kind: new("B"), At: new(time.Unix(1795412345, 250e6).UTC()), Ratio: new(0.5), On: new(false), Blob: []byte("hi"),
		Tags: []inner{{Key: "k", Value: new(int32(3))}}, Words: []string{"a"}, Labels: map[string]string{"w": "v"},
		Child: &inner{Key: "c"}, Deep: map[string]inner{"x": {Key: "d"}}, Nested: [][]string{{"n"}, {}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeNamesTheMember(t *testing.T) {
	t.Parallel()
	codec := newCodec(t)
	cases := map[string]struct {
		label, query, body string
		want               string
	}{
		"missing label":     {label: "", want: "'name' is required"},
		"pattern":           {label: "a b", want: `'name' must match [a-zA-Z0-9:_-]+, not "a b"`},
		"pattern whole":     {label: "ab\n", want: "'name' must match"},
		"too long":          {label: "123456789", want: "'name' must have at most 8 characters"},
		"not a number":      {label: "n", query: "maxResults=many", want: "'maxResults' must be a whole number of 32 bits"},
		"number overflows":  {label: "n", query: "maxResults=4294967296", want: "'maxResults' must be a whole number of 32 bits"},
		"number fraction":   {label: "n", query: "maxResults=1.0", want: "'maxResults' must be a whole number"},
		"below minimum":     {label: "n", query: "maxResults=0", want: "'maxResults' must be at least 1"},
		"above maximum":     {label: "n", query: "maxResults=251", want: "'maxResults' must be at most 250"},
		"given twice":       {label: "n", query: "maxResults=1&maxResults=2", want: "'maxResults' is given more than once"},
		"boolean":           {label: "n", query: "force=yes", want: "'force' must be true or false"},
		"time":              {label: "n", query: "since=yesterday", want: "'since' must be a time"},
		"enumeration":       {label: "n", body: `{"kind":"C"}`, want: `'kind' must be one of A, B, not "C"`},
		"type":              {label: "n", body: `{"kind":7}`, want: "'kind' must be a string"},
		"string time":       {label: "n", body: `{"at":"2026-01-31"}`, want: "'at' must be a number of seconds since 1970"},
		"required in list":  {label: "n", body: `{"tags":[{"key":"k"},{}]}`, want: "'tags[1].key' is required"},
		"null in list":      {label: "n", body: `{"words":[null]}`, want: "'words[0]' must not be null"},
		"rule in list":      {label: "n", body: `{"words":["a","abcde"]}`, want: "'words[1]' must have at most 4 characters"},
		"list length":       {label: "n", body: `{"words":["a","b","c"]}`, want: "'words' must have at most 2 elements"},
		"map key":           {label: "n", body: `{"labels":{"abcde":"v"}}`, want: "'labels key' must have at most 4 characters"},
		"map value":         {label: "n", body: `{"labels":{"a":"v v"}}`, want: "'labels.a' must match"},
		"nested member":     {label: "n", body: `{"deep":{"x":{"key":"k","value":0}}}`, want: "'deep.x.value' must be at least 1"},
		"base64":            {label: "n", body: `{"blob":"%"}`, want: "'blob' must be base64"},
		"number range":      {label: "n", body: `{"ratio":1e999}`, want: "'ratio' must be a finite number"},
		"no object":         {label: "n", body: `[]`, want: "must be a JSON object"},
		"broken":            {label: "n", body: `{"kind":`, want: "not valid JSON"},
		"two values":        {label: "n", body: `{}{}`, want: "more than one JSON value"},
		"too deep":          {label: "n", body: `{"z":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, want: "more than 64 levels"},
		"two at once":       {label: "a b", body: `{"kind":"C"}`, want: "; 'kind' must be one of"},
		"time out of years": {label: "n", body: `{"at":1e300}`, want: "'at' must be a number of seconds"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			query, err := url.ParseQuery(c.query)
			if err != nil {
				t.Fatal(err)
			}
			err = codec.Decode(new(sample), Request{Labels: map[string]string{"name": c.label}, Query: query, Body: []byte(c.body)})
			if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestDecodeKeepsSecretsOut(t *testing.T) {
	t.Parallel()
	err := newCodec(t).Decode(new(sample), Request{Labels: map[string]string{"name": "n"}, Body: []byte(`{"secret":"HUSH"}`)})
	if err == nil || strings.Contains(err.Error(), "HUSH") {
		t.Errorf("got %v", err)
	}
}

func TestDecodeNamesAtMostEight(t *testing.T) {
	t.Parallel()
	body := `{"tags":[` + strings.Repeat("{},", 99) + `{}]}`
	err := newCodec(t).Decode(new(sample), Request{Labels: map[string]string{"name": "n"}, Body: []byte(body)})
	if err == nil || !strings.HasSuffix(err.Error(), "and 92 more") {
		t.Errorf("got %v", err)
	}
}

func TestDecodePayload(t *testing.T) {
	t.Parallel()
	codec := newCodec(t)
	var r raw
	labels := map[string]string{"name": "n"}
	if err := codec.Decode(&r, Request{Labels: labels, Body: []byte("\x00 not json")}); err != nil || string(r.Payload) != "\x00 not json" {
		t.Errorf("raw payload: %q, %v", r.Payload, err)
	}
	if err := codec.Decode(new(raw), Request{Labels: labels}); err == nil {
		t.Error("an empty required payload was accepted")
	}
	var doc document
	if err := codec.Decode(&doc, Request{Labels: labels, Body: []byte(`{"key":"k"}`), Header: http.Header{"X-Amz-Tagging": {"a=b"}}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(document{Name: "n", Tags: new("a=b"), Body: inner{Key: "k"}}, doc); diff != "" {
		t.Error(diff)
	}
	if err := codec.Decode(new(document), Request{Labels: labels, Body: []byte(`{}`)}); err == nil || !strings.Contains(err.Error(), "'body.key' is required") {
		t.Errorf("got %v", err)
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	codec := newCodec(t)
	cases := map[string]struct {
		from any
		want string
	}{
		"nothing set": {new(struct{}), `{}`},
		"absent members are left out, zero ones are not": {
			&struct {
				A *int32  `wire:"a"`
				B *bool   `wire:"b"`
				C *string `wire:"c"`
				D []inner `wire:"d"`
				E []inner `wire:"e"`
			}{A: new(int32(0)), B: new(false), D: []inner{}},
			`{"a":0,"b":false,"d":[]}`,
		},
		// device-plane §0: epoch seconds, fraction allowed, never a string.
		"time": {&struct {
			A *time.Time `wire:"a"`
			B *time.Time `wire:"b"`
		}{new(time.Unix(1795412345, 123456789)), new(time.Unix(1795412345, 0))}, `{"a":1795412345.123,"b":1795412345}`},
		"maps are ordered": {&struct {
			A map[string]int64 `wire:"a"`
		}{map[string]int64{"z": 1, "b": 2}}, `{"a":{"b":2,"z":1}}`},
		"text": {&struct {
			A *string `wire:"a"`
			B []byte  `wire:"b"`
		}{new("<\"\n>"), []byte("hi")}, `{"a":"<\"\n>","b":"aGk="}`},
		"raw payload":    {&raw{Payload: []byte("x")}, "x"},
		"struct payload": {&document{Body: inner{Key: "k"}}, `{"key":"k"}`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := codec.Encode(c.from)
			if err != nil || string(got.Body) != c.want {
				t.Errorf("got %s, %v; want %s", got.Body, err, c.want)
			}
		})
	}
	if _, err := codec.Encode(&struct {
		A float64 `wire:"a"`
	}{func() float64 { zero := 0.0; return 1 / zero }()}); err == nil {
		t.Error("infinity was encoded")
	}
}

// FuzzDecode checks that no body makes the decoder panic, and that what it
// accepts survives a round trip.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"kind":"A","at":1.5,"deep":{"x":{"key":"d"}}}`, `{"tags":[{"key":"k","value":3}],"nested":[[]]}`, `{"blob":"aGk="}`, `{"labels":{"a":null}}`, `[[[[`, `"\`} {
		f.Add([]byte(seed))
	}
	codec := newCodec(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		labels := map[string]string{"name": "n"}
		var first, second sample
		if codec.Decode(&first, Request{Labels: labels, Body: body}) != nil {
			return
		}
		reply, err := codec.Encode(&first)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		if err := codec.Decode(&second, Request{Labels: labels, Body: reply.Body}); err != nil {
			t.Fatalf("decode what was encoded %s: %v", reply.Body, err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Error(diff)
		}
	})
}
