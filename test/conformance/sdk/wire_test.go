package sdk

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/catalog/wire"
)

// exchange is what the client of one call sent, and what it is sent back.
type exchange struct {
	request *http.Request
	body    []byte
	reply   wire.Reply
}

// ServeHTTP keeps the request and answers.
func (x *exchange) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.request = r
	x.body, _ = io.ReadAll(r.Body)
	maps.Copy(w.Header(), x.reply.Header)
	_, _ = w.Write(x.reply.Body)
}

// unmodelled are members that a client has and that do not travel as members.
var unmodelled = map[string]bool{
	".StatusCode": true, // The status line itself.
}

// TestWireStructsMatchTheSDK has the SDK send every operation with every
// member set, and answers with every member set. What our structs take in must
// be all that was sent, and the client must find a value for each of its
// members.
func TestWireStructsMatchTheSDK(t *testing.T) {
	t.Parallel()
	x := &exchange{}
	server := httptest.NewServer(x)
	t.Cleanup(server.Close)
	known, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clientsAt(t, server.URL) {
		codec := known.Codec(c.service)
		for _, name := range c.operations() {
			op, ok := known.Operation(c.service, name)
			if !ok {
				continue // TestCatalogHasEveryOperation reports it.
			}
			reply := op.Output()
			fill(reflect.ValueOf(reply).Elem(), 0)
			if x.reply, err = codec.Encode(reply); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got, err := c.call(t.Context(), name)
			if err != nil {
				t.Errorf("%s: the client refuses our reply %s: %v", name, x.reply.Body, err)
				continue
			}
			for _, hole := range holes(got, "", 0) {
				if !unmodelled[hole] {
					t.Errorf("%s: the client finds nothing for %s", name, hole)
				}
			}
			checkRequest(t, codec, op, x)
		}
	}
}

// checkRequest decodes what was sent and compares it with its own encoding.
func checkRequest(t *testing.T, codec *wire.Codec, op *catalog.Operation, x *exchange) {
	t.Helper()
	labels := map[string]string{}
	path := strings.Split(strings.Trim(x.request.URL.EscapedPath(), "/"), "/")
	for i, segment := range strings.Split(strings.Trim(op.URI, "/"), "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			labels[strings.TrimRight(name, "+}")], _ = url.PathUnescape(path[i])
		}
	}
	in := op.Input()
	err := codec.Decode(in, wire.Request{Labels: labels, Query: x.request.URL.Query(), Header: x.request.Header, Body: x.body})
	if err != nil && !strings.Contains(err.Error(), "must match") && !strings.Contains(err.Error(), "must be one of") &&
		!strings.Contains(err.Error(), "must have at") && !strings.Contains(err.Error(), "must be at") {
		t.Errorf("%s: %v", op.Name, err)
	}
	for query := range x.request.URL.Query() {
		if !hasMember(in, "query", query) {
			t.Errorf("%s: query parameter %s is unknown", op.Name, query)
		}
	}
	encoded, err := codec.Encode(in)
	if err != nil {
		t.Errorf("%s: %v", op.Name, err)
		return
	}
	if diff := cmp.Diff(tree(x.body), tree(encoded.Body)); diff != "" {
		t.Errorf("%s: request differs (-sent +understood):\n%s", op.Name, diff)
	}
}

// hasMember looks for a field by place and name.
func hasMember(in any, place, name string) bool {
	for field := range reflect.TypeOf(in).Elem().Fields() {
		if tag := field.Tag; tag.Get("in") == place && tag.Get("wire") == name {
			return true
		}
	}
	return false
}

// tree parses JSON; anything else is compared as it is, and nothing equals {}.
func tree(text []byte) any {
	var node any
	switch {
	case len(text) == 0:
		return map[string]any{}
	case json.Unmarshal(text, &node) == nil:
		return node
	default:
		return string(text)
	}
}
