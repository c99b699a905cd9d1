package provtemplate

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	someID = "6f1ed002ab5595859014ebf0951522d9a1b2c3d4e5f60718293a4b5c6d7e8f90"
	// pumpTemplate has every section and function.
	pumpTemplate = `{
 "Parameters": {
  "SerialNumber": {"Type": "String"},
  "Site": {"Type": "String", "Default": "unassigned"},
  "AWS::IoT::Certificate::Id": {"Type": "String"}
 },
 "Mappings": {"Endpoints": {
  "leeds": {"ntp": "ntp.leeds.example"},
  "unassigned": {"ntp": "ntp.example"}
 }},
 "Resources": {
  "thing": {
   "Type": "AWS::IoT::Thing",
   "Properties": {
    "ThingName": {"Fn::Join": ["-", ["pump", {"Ref": "SerialNumber"}]]},
    "ThingTypeName": "pump-g2",
    "AttributePayload": {
     "serial": {"Ref": "SerialNumber"},
     "site": {"Ref": "Site"},
     "batch": {"Fn::Select": ["0", {"Fn::Split": ["-", {"Ref": "SerialNumber"}]}]}
    },
    "ThingGroups": ["pumps", {"Ref": "Site"}],
    "BillingGroup": "ops"
   },
   "OverrideSettings": {"AttributePayload": "MERGE", "ThingTypeName": "DO_NOTHING", "ThingGroups": "REPLACE"}
  },
  "certificate": {
   "Type": "AWS::IoT::Certificate",
   "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}
  },
  "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "pump-device"}}
 },
 "DeviceConfiguration": {
  "ntp": {"Fn::FindInMap": ["Endpoints", {"Ref": "Site"}, "ntp"]},
  "ota": {"Fn::Sub": "pumps/${SerialNumber}"},
  "port": 8883,
  "tls": true
 }
}`
	// lampTemplate is a body as bulk registration takes it.
	lampTemplate = `{
 "Parameters": {
  "Name": {"Type": "String"}, "Serial": {"Type": "String"},
  "Floor": {"Type": "String", "Default": "ground"}, "CSR": {"Type": "String"}
 },
 "Resources": {
  "lamp": {
   "Type": "AWS::IoT::Thing",
   "Properties": {
    "ThingName": {"Ref": "Name"},
    "AttributePayload": {"revision": "r2", "serial": {"Ref": "Serial"}},
    "ThingTypeName": "lamp-r2",
    "ThingGroups": ["lamps-r2", {"Ref": "Floor"}]
   },
   "OverrideSettings": {"AttributePayload": "MERGE", "ThingTypeName": "REPLACE", "ThingGroups": "DO_NOTHING"}
  },
  "identity": {
   "Type": "AWS::IoT::Certificate",
   "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "INACTIVE"},
   "OverrideSettings": {"Status": "REPLACE"}
  },
  "rights": {
   "Type": "AWS::IoT::Policy",
   "Properties": {"PolicyDocument": "{ \"Version\": \"2012-10-17\", \"Statement\": [{ \"Effect\": \"Allow\", \"Action\": [\"iot:Publish\"], \"Resource\": [\"arn:aws:iot:eu-local-1:000000000001:topic/lamps/state\"] }] }"}
  }
 }
}`
	// sensorTemplate is one that a certificate's subject fills.
	sensorTemplate = `{
 "Parameters": {
  "AWS::IoT::Certificate::CommonName": {"Type": "String"},
  "AWS::IoT::Certificate::SerialNumber": {"Type": "String"},
  "AWS::IoT::Certificate::Country": {"Type": "String", "Default": "NL"},
  "AWS::IoT::Certificate::Id": {"Type": "String"}
 },
 "Resources": {
  "sensor": {
   "Type": "AWS::IoT::Thing",
   "Properties": {
    "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
    "AttributePayload": {"serial": {"Ref": "AWS::IoT::Certificate::SerialNumber"}},
    "ThingGroups": ["sensors", {"Ref": "AWS::IoT::Certificate::Country"}]
   }
  },
  "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}},
  "rights": {
   "Type": "AWS::IoT::Policy",
   "Properties": {"PolicyDocument": {"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Action": "iot:Publish",
    "Resource": {"Fn::Join": ["/", ["arn:aws:iot:eu-local-1:000000000001:topic", "sensors", {"Ref": "AWS::IoT::Certificate::CommonName"}]]}
   }]}}
  }
 }
}`
)

// mustParse parses a body that is right.
func mustParse(t *testing.T, body string, kind Kind) *Template {
	t.Helper()
	template, err := Parse([]byte(body), kind, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return template
}

func TestEvaluateWholeTemplates(t *testing.T) {
	t.Parallel()
	lampPolicy := `{ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": ["iot:Publish"], "Resource": ["arn:aws:iot:eu-local-1:000000000001:topic/lamps/state"] }] }`
	tests := []struct {
		name, body     string
		kind           Kind
		given, service map[string]string
		want           Plan
	}{
		{
			"fleet provisioning", pumpTemplate, FleetProvisioning,
			map[string]string{"SerialNumber": "B7-0042", "Site": "leeds", "Colour": "ignored"},
			map[string]string{CertificateID: someID},
			Plan{
				Thing: &Thing{
					LogicalName: "thing", Name: "pump-B7-0042", TypeName: "pump-g2", BillingGroup: "ops",
					Attributes: map[string]string{"serial": "B7-0042", "site": "leeds", "batch": "B7"}, Groups: []string{"pumps", "leeds"},
					OnAttributes: Merge, OnType: DoNothing, OnGroups: Replace,
				},
				Certificate:         &Certificate{LogicalName: "certificate", ID: someID, Active: true, OnStatus: DoNothing},
				Policies:            []Policy{{LogicalName: "policy", Name: "pump-device"}},
				DeviceConfiguration: map[string]string{"ntp": "ntp.leeds.example", "ota": "pumps/B7-0042", "port": "8883", "tls": "true"},
			},
		},
		{
			"bulk", lampTemplate, Bulk,
			map[string]string{"Name": "lamp-1", "Serial": "L1", "CSR": "-----BEGIN…"},
			nil,
			Plan{
				Thing: &Thing{
					LogicalName: "lamp", Name: "lamp-1", TypeName: "lamp-r2",
					Attributes: map[string]string{"revision": "r2", "serial": "L1"}, Groups: []string{"lamps-r2", "ground"},
					OnAttributes: Merge, OnType: Replace, OnGroups: DoNothing,
				},
				Certificate: &Certificate{LogicalName: "identity", CSR: "-----BEGIN…", OnStatus: Replace},
				Policies: []Policy{{
					LogicalName: "rights", Document: lampPolicy,
					Name: "6f75694126363ceb74568fd75ace5373ea10c18142ec504ceb8cf1ed5da3cf65",
				}},
				DeviceConfiguration: map[string]string{},
			},
		},
		{
			"just in time", sensorTemplate, JITP, nil,
			map[string]string{
				"AWS::IoT::Certificate::CommonName": "s-9", "AWS::IoT::Certificate::SerialNumber": "9", CertificateID: someID,
				"AWS::IoT::Certificate::StateName": "not declared",
			},
			Plan{
				Thing: &Thing{
					LogicalName: "sensor", Name: "s-9", Attributes: map[string]string{"serial": "9"}, Groups: []string{"sensors", "NL"},
					OnAttributes: DoNothing, OnType: DoNothing, OnGroups: DoNothing,
				},
				Certificate: &Certificate{LogicalName: "certificate", ID: someID, Active: true, OnStatus: DoNothing},
				Policies: []Policy{{
					LogicalName: "rights", Name: "",
					Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:eu-local-1:000000000001:topic/sensors/s-9"}]}`,
				}},
				DeviceConfiguration: map[string]string{},
			},
		},
		{
			"certificate and authority", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":{"Ref":"P"},"CACertificatePem":"ca"}}`), Bulk,
			map[string]string{"P": "pem"},
			nil,
			Plan{Certificate: &Certificate{LogicalName: "r", PEM: "pem", AuthorityPEM: "ca", Active: true, OnStatus: DoNothing}, DeviceConfiguration: map[string]string{}},
		},
		{
			"empty properties", resourceBody(`{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"a","AttributePayload":{},"ThingGroups":[]}}`), Bulk,
			map[string]string{"P": ""},
			nil,
			Plan{Thing: &Thing{LogicalName: "r", Name: "a", Attributes: map[string]string{}, Groups: []string{}, OnAttributes: DoNothing, OnType: DoNothing, OnGroups: DoNothing}, DeviceConfiguration: map[string]string{}},
		},
		{
			"groups by split, once each", resourceBody(`{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"a","ThingGroups":{"Fn::Split":[",",{"Ref":"P"}]}}}`), Bulk,
			map[string]string{"P": "g1,g2,g1"},
			nil,
			Plan{Thing: &Thing{LogicalName: "r", Name: "a", Groups: []string{"g1", "g2"}, OnAttributes: DoNothing, OnType: DoNothing, OnGroups: DoNothing}, DeviceConfiguration: map[string]string{}},
		},
		{
			"only a certificate, id undeclared and repeated", `{"Resources":{` + ownCertificate + `}}`, FleetProvisioning,
			map[string]string{CertificateID: someID},
			map[string]string{CertificateID: someID},
			Plan{Certificate: &Certificate{LogicalName: "c", ID: someID, Active: true, OnStatus: DoNothing}, DeviceConfiguration: map[string]string{}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			template := mustParse(t, tt.body, tt.kind)
			got, err := template.Evaluate(tt.given, tt.service)
			if err != nil {
				t.Fatal(err)
			}
			for i := range tt.want.Policies {
				if tt.want.Policies[i].Name == "" && len(got.Policies[i].Name) == 64 {
					got.Policies[i].Name = ""
				}
			}
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEvaluateValues(t *testing.T) {
	t.Parallel()
	given := map[string]string{"P": "p-1", "One": "1", "Empty": ""}
	tests := []struct{ name, value, want string }{
		{"text", `"x"`, "x"},
		{"number as written", `1.50`, "1.50"},
		{"boolean", `false`, "false"},
		{"reference", `{"Ref":"P"}`, "p-1"},
		{"empty value, not the default", `{"Ref":"Empty"}`, ""},
		{"default", `{"Ref":"Gone"}`, "default"},
		{"join", `{"Fn::Join":["-",["a",{"Ref":"P"},3]]}`, "a-p-1-3"},
		{"join without delimiter", `{"Fn::Join":["",["a","b"]]}`, "ab"},
		{"join of nothing", `{"Fn::Join":["-",[]]}`, ""},
		{"join of a split", `{"Fn::Join":[":",{"Fn::Split":["-",{"Ref":"P"}]}]}`, "p:1"},
		{"join by a function", `{"Fn::Join":[{"Ref":"One"},["a","b"]]}`, "a1b"},
		{"select by number", `{"Fn::Select":[1,["a","b"]]}`, "b"},
		{"select by digits", `{"Fn::Select":["1",["a","b"]]}`, "b"},
		{"select by reference", `{"Fn::Select":[{"Ref":"One"},["a","b"]]}`, "b"},
		{"select beside null", `{"Fn::Select":[1,[null,"b"]]}`, "b"},
		{"select from split", `{"Fn::Select":[1,{"Fn::Split":["-",{"Ref":"P"}]}]}`, "1"},
		{"select after the last delimiter", `{"Fn::Select":[1,{"Fn::Split":["-","a-"]}]}`, ""},
		{"split of the empty text", `{"Fn::Select":[0,{"Fn::Split":["-",{"Ref":"Empty"}]}]}`, ""},
		{"find", `{"Fn::FindInMap":["M",{"Fn::Select":[0,["a"]]},"x"]}`, "1"},
		{"find a number", `{"Fn::FindInMap":["M","a","n"]}`, "7"},
		{"find with all keys resolved", `{"Fn::FindInMap":[{"Fn::Sub":"M"},{"Fn::Sub":"a"},{"Fn::Sub":"x"}]}`, "1"},
		{"sub", `{"Fn::Sub":"a/${P}/${P}b"}`, "a/p-1/p-1b"},
		{"sub of the certificate", `{"Fn::Sub":"${AWS::IoT::Certificate::Id}"}`, someID},
		{"sub without variables", `{"Fn::Sub":"a$b{c}"}`, "a$b{c}"},
		{"sub with variables", `{"Fn::Sub":["${x}${y}",{"x":{"Ref":"P"},"y":2}]}`, "p-12"},
		{"sub with a variable that hides a parameter", `{"Fn::Sub":["${P}",{"P":"hidden"}]}`, "hidden"},
		{"sub with a variable from the parameter that it hides", `{"Fn::Sub":["${P}",{"P":{"Fn::Sub":"<${P}>"}}]}`, "<p-1>"},
		{"sub leaves what is escaped", `{"Fn::Sub":"${!iot:ClientId}${P}"}`, "${iot:ClientId}p-1"},
		{"sub does not look at values again", `{"Fn::Sub":["${x}",{"x":"${P}"}]}`, "${P}"},
		{"deep", `{"Fn::Join":["",[{"Fn::Select":[0,[{"Fn::Sub":["${v}",{"v":{"Fn::FindInMap":["M","a",{"Fn::Join":["",["x"]]}]}}]}]]}]]}`, "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := evaluateValue(t, tt.value, given)
			if err != nil || got != tt.want {
				t.Errorf("= %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// evaluateValue resolves a value of the device configuration.
func evaluateValue(t *testing.T, value string, given map[string]string) (string, error) {
	t.Helper()
	body := `{"Parameters":{"P":{"Type":"String"},"One":{"Type":"String"},"Empty":{"Type":"String","Default":"x"},"Gone":{"Type":"String","Default":"default"}},` +
		`"Mappings":{"M":{"a":{"x":"1","n":7}}},"Resources":{` + ownCertificate + `},"DeviceConfiguration":{"v":` + value + `}}`
	plan, err := mustParse(t, body, FleetProvisioning).Evaluate(given, map[string]string{CertificateID: someID})
	if err != nil {
		return "", err
	}
	return plan.DeviceConfiguration["v"], nil
}

func TestEvaluateRefuses(t *testing.T) {
	t.Parallel()
	service := map[string]string{CertificateID: someID}
	sensor := func(without string) map[string]string {
		subject := map[string]string{"AWS::IoT::Certificate::CommonName": "s", "AWS::IoT::Certificate::SerialNumber": "9", CertificateID: someID}
		delete(subject, without)
		return subject
	}
	big := strings.Repeat("x", 4096)
	p := func(value string) map[string]string { return map[string]string{"P": value} }
	policyText := func(document string) string {
		return `{"Parameters":{"P":{"Type":"String"}},"Resources":{` + ownCertificate + `,"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":` + document + `}}}}`
	}
	tests := []struct {
		name, body         string
		kind               Kind
		given, service     map[string]string
		parameter, pointer string
		function           string
	}{
		{"missing", pumpTemplate, FleetProvisioning, nil, service, "SerialNumber", "", ""},
		{"missing and not used", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"a"}}`), Bulk, nil, nil, "P", "", ""},
		{"given in other case", pumpTemplate, FleetProvisioning, map[string]string{"serialnumber": "x"}, service, "SerialNumber", "", ""},
		{"too long", pumpTemplate, FleetProvisioning, map[string]string{"SerialNumber": big + "x"}, service, "SerialNumber", "", ""},
		{"not UTF-8", pumpTemplate, FleetProvisioning, map[string]string{"SerialNumber": "\xff"}, service, "SerialNumber", "", ""},
		{"no certificate from the service", pumpTemplate, FleetProvisioning, map[string]string{"SerialNumber": "x"}, nil, CertificateID, "", ""},
		{"certificate of somebody else", pumpTemplate, FleetProvisioning, map[string]string{"SerialNumber": "x", CertificateID: strings.Repeat("0", 64)}, service, CertificateID, "", ""},
		{"certificate of somebody else, undeclared", `{"Resources":{` + ownCertificate + `}}`, FleetProvisioning, map[string]string{CertificateID: strings.Repeat("0", 64)}, service, CertificateID, "", ""},
		{"bad certificate from the service", `{"Resources":{` + ownCertificate + `}}`, FleetProvisioning, nil, map[string]string{CertificateID: "x"}, CertificateID, "/Resources/c/Properties/CertificateId", fnRef},
		{"subject without a field", sensorTemplate, JITP, nil, sensor("AWS::IoT::Certificate::SerialNumber"), "AWS::IoT::Certificate::SerialNumber", "", ""},
		{"subject given by the device", sensorTemplate, JITP, map[string]string{"AWS::IoT::Certificate::CommonName": "other"}, sensor(""), "AWS::IoT::Certificate::CommonName", "", ""},
		{"no key in the map", pumpTemplate, FleetProvisioning, map[string]string{"SerialNumber": "x", "Site": "york"}, service, "", "/DeviceConfiguration/ntp", fnFindInMap},
		{"bad thing name", valueBody(`{"Ref":"P"}`), FleetProvisioning, p("a b"), service, "P", valuePointer, fnRef},
		{"empty thing name", valueBody(`{"Fn::Join":["",[]]}`), FleetProvisioning, p(""), service, "", valuePointer, fnJoin},
		{"bad group name", fleetBody(`"ThingName":"a","ThingGroups":["g",{"Ref":"P"}]`), FleetProvisioning, p("a b"), service, "P", "/Resources/t/Properties/ThingGroups/1", fnRef},
		{"bad group name by split", fleetBody(`"ThingName":"a","ThingGroups":{"Fn::Split":[",",{"Ref":"P"}]}`), FleetProvisioning, p("a,"), service, "", "/Resources/t/Properties/ThingGroups", fnSplit},
		{"select too far", valueBody(`{"Fn::Select":[2,["a","b"]]}`), FleetProvisioning, p(""), service, "", valuePointer, fnSelect},
		{"select too far in a split", valueBody(`{"Fn::Select":[1,{"Fn::Split":["-",{"Ref":"P"}]}]}`), FleetProvisioning, p("x"), service, "", valuePointer, fnSelect},
		{"select null", valueBody(`{"Fn::Select":[0,[null]]}`), FleetProvisioning, p(""), service, "", valuePointer, fnSelect},
		{"select at a word", valueBody(`{"Fn::Select":[{"Ref":"P"},["a"]]}`), FleetProvisioning, p("+1"), service, "", valuePointer, fnSelect},
		{"select at a huge number", valueBody(`{"Fn::Select":[{"Ref":"P"},["a"]]}`), FleetProvisioning, p("18446744073709551616"), service, "", valuePointer, fnSelect},
		{"split at nothing", valueBody(`{"Fn::Select":[0,{"Fn::Split":[{"Ref":"P"},"a"]}]}`), FleetProvisioning, p(""), service, "", valuePointer + "/Fn::Select/1", fnSplit},
		{"find in no map", valueBody(`{"Fn::FindInMap":[{"Ref":"P"},"a","x"]}`), FleetProvisioning, p("N"), service, "", valuePointer, fnFindInMap},
		{"find no second key", valueBody(`{"Fn::FindInMap":["M","a",{"Ref":"P"}]}`), FleetProvisioning, p("y"), service, "", valuePointer, fnFindInMap},
		{"long sub", valueBody(`{"Fn::Sub":"${P}${P}${P}${P}${P}"}`), FleetProvisioning, p(big), service, "", valuePointer, fnSub},
		{"long join", valueBody(`{"Fn::Join":[{"Ref":"P"},["","","","","",""]]}`), FleetProvisioning, p(big), service, "", valuePointer, fnJoin},
		{"long split", valueBody(`{"Fn::Select":[0,{"Fn::Split":["x",{"Fn::Sub":"${P}${P}${P}${P}"}]}]}`), FleetProvisioning, p(big), service, "", valuePointer + "/Fn::Select/1", fnSplit},
		{"much in all", fleetBody(`"ThingName":"a","AttributePayload":{` + manyValues(33, `{"Ref":"P"}`) + `}`), FleetProvisioning, p(big), service, "P", "/Resources/t/Properties/AttributePayload/a32", fnRef},
		{"doubling", valueBody(doubling(9)), FleetProvisioning, p(big), service, "", valuePointer + strings.Repeat("/Fn::Sub/1/x", 6), fnSub},
		{"bad status", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":"a","Status":{"Ref":"P"}}}`), Bulk, p("PENDING_ACTIVATION"), nil, "P", "/Resources/r/Properties/Status", fnRef},
		{"empty request", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"P"}}}`), Bulk, p(""), nil, "P", "/Resources/r/Properties/CertificateSigningRequest", fnRef},
		{"bad certificate id", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"P"}}}`), Bulk, p(strings.ToUpper(someID)), nil, "P", "/Resources/r/Properties/CertificateId", fnRef},
		{"bad policy name", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":{"Ref":"P"}}}`), Bulk, p("a/b"), nil, "P", "/Resources/r/Properties/PolicyName", fnRef},
		{"policy document not JSON", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Ref":"P"}}}`), Bulk, p("{"), nil, "P", "/Resources/r/Properties/PolicyDocument", fnRef},
		{"policy document too deep", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Ref":"P"}}}`), Bulk, p(`{"a":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `}`), nil, "P", "/Resources/r/Properties/PolicyDocument", fnRef},
		{"quote into a policy", policyText(`{"Fn::Sub":"{\"Resource\":\"t/${P}\"}"}`), FleetProvisioning, p(`x","Action":"iot:*`), service, "P", "/Resources/p/Properties/PolicyDocument", fnSub},
		{"wildcard into a policy", policyText(`{"Resource":{"Fn::Join":["/",["t",{"Ref":"P"}]]}}`), FleetProvisioning, p("*"), service, "P", "/Resources/p/Properties/PolicyDocument/Resource/Fn::Join/1/1", fnRef},
		{"variable into a policy", policyText(`{"Resource":{"Fn::Sub":"t/${P}"}}`), FleetProvisioning, p("${iot:ClientId}"), service, "P", "/Resources/p/Properties/PolicyDocument/Resource", fnSub},
		{"certificate name as wildcard", sensorTemplate, JITP, nil, map[string]string{"AWS::IoT::Certificate::CommonName": "*", "AWS::IoT::Certificate::SerialNumber": "9", CertificateID: someID}, "AWS::IoT::Certificate::CommonName", "/Resources/sensor/Properties/ThingName", fnRef},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plan, err := mustParse(t, tt.body, tt.kind).Evaluate(tt.given, tt.service)
			found := (*EvaluationError)(nil)
			if !errors.As(err, &found) || plan != nil {
				t.Fatalf("Evaluate = %+v, %v, want an EvaluationError", plan, err)
			}
			if found.Parameter != tt.parameter || found.Pointer != tt.pointer || found.Function != tt.function || found.Problem == "" {
				t.Errorf("Evaluate: %+v, want parameter %q, pointer %q, function %q", *found, tt.parameter, tt.pointer, tt.function)
			}
			if strings.Contains(err.Error(), big) {
				t.Error("the error repeats a value")
			}
		})
	}
}

// manyValues returns so many members with one value.
func manyValues(count int, value string) string {
	var members []string
	for i := range count {
		members = append(members, fmt.Sprintf(`"a%d":%s`, i, value))
	}
	return strings.Join(members, ",")
}

// doubling returns a Sub whose length doubles with each level.
func doubling(levels int) string {
	if levels == 0 {
		return `{"Ref":"P"}`
	}
	return `{"Fn::Sub":["${x}${x}",{"x":` + doubling(levels-1) + `}]}`
}

func TestPolicyDocuments(t *testing.T) {
	t.Parallel()
	document := func(document, value string) Policy {
		body := `{"Parameters":{"P":{"Type":"String","Default":"*"}},"Resources":{"r":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":` + document + `}}}}`
		given := map[string]string{}
		if value != "" {
			given["P"] = value
		}
		plan, err := mustParse(t, body, Bulk).Evaluate(given, nil)
		if err != nil {
			t.Fatal(err)
		}
		return plan.Policies[0]
	}
	object, text := document(`{"a": [1, true, null, "x<y"]}`, ""), document(`"{\"a\":[1,true,  null,\"x<y\"]}"`, "")
	if want := `{"a":[1,true,null,"x<y"]}`; object.Document != want {
		t.Errorf("document %s, want %s", object.Document, want)
	}
	if object.Name != text.Name || len(object.Name) != 64 {
		t.Errorf("the same document is called %s and %s", object.Name, text.Name)
	}
	if other := document(`{"a":[1,true,null,"x>y"]}`, ""); other.Name == object.Name {
		t.Error("two documents have one name")
	}
	if got := document(`{"R":{"Fn::Split":[",",{"Ref":"P"}]},"S":{"Fn::Sub":"t/${P}/${!iot:ClientId}"}}`, `a,"b`).Document; got != `{"R":["a","\"b"],"S":"t/a,\"b/${iot:ClientId}"}` {
		t.Errorf("document %s", got)
	}
	// The Default is the author's, who may widen.
	if got := document(`{"R":{"Ref":"P"}}`, "").Document; got != `{"R":"*"}` {
		t.Errorf("document %s", got)
	}
	if got := document(`{"Fn::Sub":"{\"R\":\"${P}\"}"}`, "").Document; got != `{"R":"*"}` {
		t.Errorf("document %s", got)
	}
}

func TestDefaultsAreTrustedInPolicies(t *testing.T) {
	t.Parallel()
	body := `{"Parameters":{"P":{"Type":"String","Default":"*"}},"Resources":{` + ownCertificate + `,"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"R":{"Ref":"P"}}}}}}`
	template := mustParse(t, body, FleetProvisioning)
	service := map[string]string{CertificateID: someID}
	plan, err := template.Evaluate(nil, service)
	if err != nil || plan.Policies[0].Document != `{"R":"*"}` {
		t.Errorf("with the Default: %+v, %v", plan, err)
	}
	if _, err := template.Evaluate(map[string]string{"P": "*"}, service); err == nil {
		t.Error("a device gave the wildcard itself")
	}
}

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	_, syntax := Parse([]byte(valueBody(`{"Ref":"Q"}`)), FleetProvisioning, Limits{})
	_, evaluation := mustParse(t, valueBody(`{"Ref":"P"}`), FleetProvisioning).Evaluate(map[string]string{"P": "a b"}, map[string]string{CertificateID: someID})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{syntax, `line 1, column 252, /Resources/t/Properties/ThingName/Ref: the parameter "Q" is not declared`},
		{evaluation, `parameter "P" Ref at /Resources/t/Properties/ThingName: the result is no valid name: 1 to 128 letters, digits, _, - and :`},
		{&EvaluationError{Problem: "why"}, "why"},
	} {
		if tt.err == nil || tt.err.Error() != tt.want {
			t.Errorf("%v, want %s", tt.err, tt.want)
		}
	}
}
