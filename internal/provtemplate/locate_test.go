package provtemplate_test

import (
	"errors"
	"testing"

	"github.com/muster-iot/muster/internal/provtemplate"
)

// TestLocate: a pointer leads to the line and column of its value, through
// lists, escaped names and characters of several bytes.
func TestLocate(t *testing.T) {
	t.Parallel()
	body := []byte("{\"a/b\": {\"c~d\": [\n  1, \"é\", {\"x\":\n   true}]},\n \"é\": \"y\", \"z\": 2}")
	for _, c := range []struct {
		pointer      string
		line, column int
	}{
		{"/a~1b", 1, 9},
		{"/a~1b/c~0d", 1, 17},
		{"/a~1b/c~0d/1", 2, 6},
		{"/a~1b/c~0d/2/x", 3, 4},
		{"/z", 4, 17},
		{"", 0, 0},
		{"/nothing", 0, 0},
		{"/a~1b/c~0d/3", 0, 0},
		{"/a~1b/c~0d/-1", 0, 0},
		{"/z/deeper", 0, 0},
	} {
		line, column, found := provtemplate.Locate(body, c.pointer, provtemplate.Limits{})
		if line != c.line || column != c.column || found != (c.line != 0) {
			t.Errorf("%q is at %d:%d, %v, want %d:%d", c.pointer, line, column, found, c.line, c.column)
		}
	}
	if _, _, found := provtemplate.Locate([]byte("{"), "/z", provtemplate.Limits{}); found {
		t.Error("found something in a body that is no JSON")
	}
}

// TestLocateEvaluationError: what Evaluate blames can be found.
func TestLocateEvaluationError(t *testing.T) {
	t.Parallel()
	body := []byte(`{"Parameters":{"S":{"Type":"String"}},
"Resources":{"t":{"Type":"AWS::IoT::Thing",
  "Properties":{"ThingName":{"Fn::Join":["-",["pump",{"Ref":"S"}]]}}},
 "c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`)
	parsed, err := provtemplate.Parse(body, provtemplate.FleetProvisioning, provtemplate.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = parsed.Evaluate(map[string]string{"S": "no name"}, map[string]string{provtemplate.CertificateID: "x"})
	wrong, ok := errors.AsType[*provtemplate.EvaluationError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if line, column, found := provtemplate.Locate(body, wrong.Pointer, provtemplate.Limits{}); !found || line != 3 || column != 29 {
		t.Errorf("%q is at %d:%d, %v", wrong.Pointer, line, column, found)
	}
}
