package provtemplate

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Bodies of one certificate that each kind accepts.
const (
	ownCertificate = `"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}`
	csrCertificate = `"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"P"}}}`
)

// fleetBody returns a fleet provisioning template with a thing of these
// properties, the parameter P and a map M.
func fleetBody(properties string) string {
	return `{"Parameters":{"P":{"Type":"String"}},"Mappings":{"M":{"a":{"x":"1"}}},"Resources":{` + ownCertificate +
		`,"t":{"Type":"AWS::IoT::Thing","Properties":{` + properties + `}}}}`
}

// valueBody returns a template with one value under test, and its pointer.
func valueBody(value string) string { return fleetBody(`"ThingName":` + value) }

const valuePointer = "/Resources/t/Properties/ThingName"

// resourceBody returns a bulk template with one resource.
func resourceBody(resource string) string {
	return `{"Parameters":{"P":{"Type":"String"}},"Resources":{"r":` + resource + `}}`
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	many := strings.TrimSuffix(strings.Repeat("1,", 257), ",")
	tests := []struct {
		name, body string
		kind       Kind
		rule       Rule
		pointer    string
	}{
		{"empty", "", Bulk, RuleSyntax, ""},
		{"cut", `{"Resources":`, Bulk, RuleSyntax, ""},
		{"second value", `{} {}`, Bulk, RuleSyntax, ""},
		{"encoding", "{\"Resources\xff\":1}", Bulk, RuleSyntax, ""},
		{"too long", `{"Resources":{}}` + strings.Repeat(" ", 10_240), Bulk, RuleSize, ""},
		{"too deep", `{"Resources":` + deep + `}`, Bulk, RuleDepth, "/Resources" + strings.Repeat("/0", 31)},
		{"too many elements", `{"Resources":[` + many + `]}`, Bulk, RuleSize, "/Resources"},
		{"too many members", `{"Resources":{` + manyMembers(257) + `}}`, Bulk, RuleSize, "/Resources"},
		{"member twice", `{"Resources":{},"Resources":{}}`, Bulk, RuleDuplicate, "/Resources"},
		{"member twice by escape", `{"Resources":{"a":1,"\u0061":2}}`, Bulk, RuleDuplicate, "/Resources/a"},
		{"member twice deep in a policy", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"1","Version":"2"}}}`), Bulk, RuleDuplicate, "/Resources/r/Properties/PolicyDocument/Version"},

		{"not an object", `[]`, Bulk, RuleType, ""},
		{"no resources", `{}`, Bulk, RuleMissing, ""},
		{"empty resources", `{"Resources":{}}`, Bulk, RuleMissing, "/Resources"},
		{"resources as list", `{"Resources":[]}`, Bulk, RuleType, "/Resources"},
		{"unknown section", `{"Conditions":{},"Resources":{}}`, Bulk, RuleUnknown, "/Conditions"},
		{"section in other case", `{"resources":{}}`, Bulk, RuleUnknown, "/resources"},
		{"pointer with escapes", `{"a/b~c":1,"Resources":{}}`, Bulk, RuleUnknown, "/a~1b~0c"},
		{"mappings in bulk", `{"Mappings":{},"Resources":{}}`, Bulk, RuleKind, "/Mappings"},
		{"mappings in JITP", `{"Mappings":{},"Resources":{}}`, JITP, RuleKind, "/Mappings"},
		{"device configuration in JITP", `{"DeviceConfiguration":{},"Resources":{}}`, JITP, RuleKind, "/DeviceConfiguration"},

		{"parameters as list", `{"Parameters":[],"Resources":{}}`, Bulk, RuleType, "/Parameters"},
		{"parameter without name", `{"Parameters":{"":{"Type":"String"}},"Resources":{}}`, Bulk, RuleValue, "/Parameters/"},
		{"parameter with long name", `{"Parameters":{"` + strings.Repeat("n", 257) + `":{"Type":"String"}},"Resources":{}}`, Bulk, RuleValue, "/Parameters/" + strings.Repeat("n", 257)},
		{"parameter as text", `{"Parameters":{"P":"String"},"Resources":{}}`, Bulk, RuleType, "/Parameters/P"},
		{"parameter without type", `{"Parameters":{"P":{}},"Resources":{}}`, Bulk, RuleMissing, "/Parameters/P"},
		{"parameter of other type", `{"Parameters":{"P":{"Type":"Number"}},"Resources":{}}`, Bulk, RuleValue, "/Parameters/P/Type"},
		{"parameter with type list", `{"Parameters":{"P":{"Type":["String"]}},"Resources":{}}`, Bulk, RuleValue, "/Parameters/P/Type"},
		{"parameter with unknown member", `{"Parameters":{"P":{"Type":"String","Pattern":"x"}},"Resources":{}}`, Bulk, RuleUnknown, "/Parameters/P/Pattern"},
		{"default number", `{"Parameters":{"P":{"Type":"String","Default":1}},"Resources":{}}`, Bulk, RuleType, "/Parameters/P/Default"},
		{"default function", `{"Parameters":{"P":{"Type":"String","Default":{"Ref":"P"}}},"Resources":{}}`, Bulk, RuleType, "/Parameters/P/Default"},
		{"default too long", `{"Parameters":{"P":{"Type":"String","Default":"` + strings.Repeat("é", 4097) + `"}},"Resources":{}}`, Bulk, RuleSize, "/Parameters/P/Default"},
		{"reserved name", `{"Parameters":{"AWS::Region":{"Type":"String"}},"Resources":{}}`, Bulk, RuleUnknown, "/Parameters/AWS::Region"},
		{"subject in fleet provisioning", `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"}},"Resources":{}}`, FleetProvisioning, RuleKind, "/Parameters/AWS::IoT::Certificate::CommonName"},
		{"free parameter in JITP", `{"Parameters":{"P":{"Type":"String"}},"Resources":{}}`, JITP, RuleKind, "/Parameters/P"},
		{"default certificate", `{"Parameters":{"AWS::IoT::Certificate::Id":{"Type":"String","Default":"x"}},"Resources":{}}`, FleetProvisioning, RuleValue, "/Parameters/AWS::IoT::Certificate::Id/Default"},

		{"mapping as text", `{"Mappings":{"M":"x"},"Resources":{}}`, FleetProvisioning, RuleType, "/Mappings/M"},
		{"mapping of one level", `{"Mappings":{"M":{"a":"x"}},"Resources":{}}`, FleetProvisioning, RuleType, "/Mappings/M/a"},
		{"mapping with function", `{"Mappings":{"M":{"a":{"x":{"Ref":"P"}}}},"Resources":{}}`, FleetProvisioning, RuleType, "/Mappings/M/a/x"},
		{"mapping with list", `{"Mappings":{"M":{"a":{"x":["1"]}}},"Resources":{}}`, FleetProvisioning, RuleType, "/Mappings/M/a/x"},

		{"resource as text", resourceBody(`"x"`), Bulk, RuleType, "/Resources/r"},
		{"resource without type", resourceBody(`{"Properties":{}}`), Bulk, RuleMissing, "/Resources/r"},
		{"resource type number", resourceBody(`{"Type":1,"Properties":{}}`), Bulk, RuleType, "/Resources/r/Type"},
		{"resource of unknown type", resourceBody(`{"Type":"AWS::IoT::Topic","Properties":{}}`), Bulk, RuleUnknown, "/Resources/r/Type"},
		{"resource without properties", resourceBody(`{"Type":"AWS::IoT::Thing"}`), Bulk, RuleMissing, "/Resources/r"},
		{"resource with unknown member", resourceBody(`{"Type":"AWS::IoT::Thing","Properties":{},"DependsOn":"x"}`), Bulk, RuleUnknown, "/Resources/r/DependsOn"},
		{"properties as list", resourceBody(`{"Type":"AWS::IoT::Thing","Properties":[]}`), Bulk, RuleType, "/Resources/r/Properties"},
		{"two things", `{"Resources":{"a":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"a"}},"b":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"b"}}}}`, Bulk, RuleDuplicate, "/Resources/b/Type"},
		{"two certificates", `{"Resources":{` + ownCertificate + `,"b":{"Type":"AWS::IoT::Certificate","Properties":{}}}}`, FleetProvisioning, RuleDuplicate, "/Resources/b/Type"},
		{"no certificate", `{"Resources":{"a":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"a"}}}}`, FleetProvisioning, RuleMissing, "/Resources"},

		{"thing without name", resourceBody(`{"Type":"AWS::IoT::Thing","Properties":{}}`), Bulk, RuleMissing, "/Resources/r/Properties"},
		{"thing with unknown property", fleetBody(`"ThingName":"a","Owner":"b"`), FleetProvisioning, RuleUnknown, "/Resources/t/Properties/Owner"},
		{"package versions", fleetBody(`"ThingName":"a","PackageVersions":"b"`), FleetProvisioning, RuleUnknown, "/Resources/t/Properties/PackageVersions"},
		{"bad thing name", valueBody(`"a b"`), FleetProvisioning, RuleValue, valuePointer},
		{"empty thing name", valueBody(`""`), FleetProvisioning, RuleValue, valuePointer},
		{"long thing name", valueBody(`"` + strings.Repeat("a", 129) + `"`), FleetProvisioning, RuleValue, valuePointer},
		{"bad type name", fleetBody(`"ThingName":"a","ThingTypeName":"a b"`), FleetProvisioning, RuleValue, "/Resources/t/Properties/ThingTypeName"},
		{"bad billing group", fleetBody(`"ThingName":"a","BillingGroup":"a b"`), FleetProvisioning, RuleValue, "/Resources/t/Properties/BillingGroup"},
		{"groups as text", fleetBody(`"ThingName":"a","ThingGroups":"g"`), FleetProvisioning, RuleType, "/Resources/t/Properties/ThingGroups"},
		{"groups as reference", fleetBody(`"ThingName":"a","ThingGroups":{"Ref":"P"}`), FleetProvisioning, RuleType, "/Resources/t/Properties/ThingGroups/Ref"},
		{"bad group name", fleetBody(`"ThingName":"a","ThingGroups":["g","a b"]`), FleetProvisioning, RuleValue, "/Resources/t/Properties/ThingGroups/1"},
		{"null group", fleetBody(`"ThingName":"a","ThingGroups":[null]`), FleetProvisioning, RuleType, "/Resources/t/Properties/ThingGroups/0"},
		{"group list in list", fleetBody(`"ThingName":"a","ThingGroups":[["g"]]`), FleetProvisioning, RuleType, "/Resources/t/Properties/ThingGroups/0"},
		{"attributes as list", fleetBody(`"ThingName":"a","AttributePayload":[]`), FleetProvisioning, RuleType, "/Resources/t/Properties/AttributePayload"},
		{"attributes as function", fleetBody(`"ThingName":"a","AttributePayload":{"Ref":"P"}`), FleetProvisioning, RuleType, "/Resources/t/Properties/AttributePayload/Ref"},
		{"attribute without name", fleetBody(`"ThingName":"a","AttributePayload":{"":"x"}`), FleetProvisioning, RuleValue, "/Resources/t/Properties/AttributePayload/"},
		{"attributes of the API", fleetBody(`"ThingName":"a","AttributePayload":{"attributes":{"a":"b","c":"d"}}`), FleetProvisioning, RuleType, "/Resources/t/Properties/AttributePayload/attributes"},
		{"null attribute", fleetBody(`"ThingName":"a","AttributePayload":{"a":null}`), FleetProvisioning, RuleType, "/Resources/t/Properties/AttributePayload/a"},

		{"certificate without source", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"Status":"ACTIVE"}}`), Bulk, RuleMissing, "/Resources/r/Properties"},
		{"certificate with two sources", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":"a","CertificateSigningRequest":"b"}}`), Bulk, RuleExclusive, "/Resources/r/Properties"},
		{"certificate with id twice", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"P"},"CertificateID":{"Ref":"P"}}}`), Bulk, RuleExclusive, "/Resources/r/Properties"},
		{"authority without certificate", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CACertificatePem":"a","CertificateSigningRequest":"b"}}`), Bulk, RuleExclusive, "/Resources/r/Properties/CACertificatePem"},
		{"certificate with unknown property", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"Mode":"a"}}`), Bulk, RuleUnknown, "/Resources/r/Properties/Mode"},
		{"literal certificate id", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":"abc"}}`), Bulk, RuleValue, "/Resources/r/Properties/CertificateId"},
		{"unknown status", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":"a","Status":"REVOKED"}}`), Bulk, RuleValue, "/Resources/r/Properties/Status"},
		{"request in fleet provisioning", `{"Parameters":{"P":{"Type":"String"}},"Resources":{` + csrCertificate + `}}`, FleetProvisioning, RuleKind, "/Resources/c/Properties"},
		{"other certificate in fleet provisioning", `{"Parameters":{"P":{"Type":"String"}},"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"P"}}}}}`, FleetProvisioning, RuleKind, "/Resources/c/Properties/CertificateId"},
		{"literal certificate in fleet provisioning", `{"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":"` + someID + `"}}}}`, FleetProvisioning, RuleKind, "/Resources/c/Properties/CertificateId"},
		{"undeclared certificate in JITP", `{"Resources":{` + ownCertificate + `}}`, JITP, RuleReference, "/Resources/c/Properties/CertificateId/Ref"},

		{"empty policy", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{}}`), Bulk, RuleMissing, "/Resources/r/Properties"},
		{"policy with both", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"a","PolicyDocument":{}}}`), Bulk, RuleExclusive, "/Resources/r/Properties"},
		{"policy with unknown property", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"Name":"a"}}`), Bulk, RuleUnknown, "/Resources/r/Properties/Name"},
		{"bad policy name", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"a/b"}}`), Bulk, RuleValue, "/Resources/r/Properties/PolicyName"},
		{"policy document as list", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":[]}}`), Bulk, RuleType, "/Resources/r/Properties/PolicyDocument"},
		{"policy document not JSON", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":"{"}}`), Bulk, RuleValue, "/Resources/r/Properties/PolicyDocument"},
		{"policy document is a list in text", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":"[]"}}`), Bulk, RuleValue, "/Resources/r/Properties/PolicyDocument"},
		{"policy document with a member twice in text", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":"{\"a\":1,\"a\":2}"}}`), Bulk, RuleValue, "/Resources/r/Properties/PolicyDocument"},
		{"policy document with function beside others", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"a":{"Ref":"P","b":1}}}}`), Bulk, RuleFunction, "/Resources/r/Properties/PolicyDocument/a/Ref"},
		{"policy document with undeclared reference", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"a":[{"Ref":"Q"}]}}}`), Bulk, RuleReference, "/Resources/r/Properties/PolicyDocument/a/0/Ref"},
		{"policy overrides", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"a"},"OverrideSettings":{}}`), Bulk, RuleUnknown, "/Resources/r/OverrideSettings"},

		{"overrides as list", overrideBody(`[]`), Bulk, RuleType, "/Resources/r/OverrideSettings"},
		{"unknown override", overrideBody(`{"BillingGroup":"REPLACE"}`), Bulk, RuleUnknown, "/Resources/r/OverrideSettings/BillingGroup"},
		{"override of the other resource", overrideBody(`{"Status":"REPLACE"}`), Bulk, RuleUnknown, "/Resources/r/OverrideSettings/Status"},
		{"unknown action", overrideBody(`{"ThingGroups":"ADD"}`), Bulk, RuleValue, "/Resources/r/OverrideSettings/ThingGroups"},
		{"action in lower case", overrideBody(`{"ThingGroups":"merge"}`), Bulk, RuleValue, "/Resources/r/OverrideSettings/ThingGroups"},
		{"merge a type", overrideBody(`{"ThingTypeName":"MERGE"}`), Bulk, RuleValue, "/Resources/r/OverrideSettings/ThingTypeName"},
		{"override by function", overrideBody(`{"ThingGroups":{"Ref":"P"}}`), Bulk, RuleType, "/Resources/r/OverrideSettings/ThingGroups"},
		{"override in both spellings", overrideBody(`{"ThingGroups":"FAIL","THING_GROUPS":"FAIL"}`), Bulk, RuleDuplicate, "/Resources/r/OverrideSettings/THING_GROUPS"},
		{"merge a status", resourceBody(`{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":"a"},"OverrideSettings":{"Status":"MERGE"}}`), Bulk, RuleValue, "/Resources/r/OverrideSettings/Status"},

		{"device configuration as list", `{"Resources":{` + ownCertificate + `},"DeviceConfiguration":[]}`, FleetProvisioning, RuleType, "/DeviceConfiguration"},
		{"device configuration as function", `{"Resources":{` + ownCertificate + `},"DeviceConfiguration":{"Ref":"x"}}`, FleetProvisioning, RuleType, "/DeviceConfiguration/Ref"},
		{"nested device configuration", `{"Resources":{` + ownCertificate + `},"DeviceConfiguration":{"a":{"b":"c"}}}`, FleetProvisioning, RuleType, "/DeviceConfiguration/a"},
		{"list in device configuration", `{"Resources":{` + ownCertificate + `},"DeviceConfiguration":{"a":["b"]}}`, FleetProvisioning, RuleType, "/DeviceConfiguration/a"},

		{"unknown function", valueBody(`{"Fn::GetAtt":["a","b"]}`), FleetProvisioning, RuleUnknown, valuePointer + "/Fn::GetAtt"},
		{"function with one colon", valueBody(`{"Fn:Join":["",["a"]]}`), FleetProvisioning, RuleType, valuePointer},
		{"two functions", valueBody(`{"Ref":"P","Fn::Sub":"x"}`), FleetProvisioning, RuleType, valuePointer},
		{"no function", valueBody(`{}`), FleetProvisioning, RuleType, valuePointer},
		{"null", valueBody(`null`), FleetProvisioning, RuleType, valuePointer},
		{"undeclared reference", valueBody(`{"Ref":"Q"}`), FleetProvisioning, RuleReference, valuePointer + "/Ref"},
		{"reference in other case", valueBody(`{"Ref":"p"}`), FleetProvisioning, RuleReference, valuePointer + "/Ref"},
		{"reference to a resource", valueBody(`{"Ref":"c"}`), FleetProvisioning, RuleReference, valuePointer + "/Ref"},
		{"reference to itself", valueBody(`{"Ref":"t"}`), FleetProvisioning, RuleReference, valuePointer + "/Ref"},
		{"reference by function", valueBody(`{"Ref":{"Ref":"P"}}`), FleetProvisioning, RuleFunction, valuePointer + "/Ref"},
		{"join without list", valueBody(`{"Fn::Join":["-","a"]}`), FleetProvisioning, RuleType, valuePointer + "/Fn::Join/1"},
		{"join of one argument", valueBody(`{"Fn::Join":["-"]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Join"},
		{"join of a text", valueBody(`{"Fn::Join":"-"}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Join"},
		{"join of null", valueBody(`{"Fn::Join":["-",["a",null]]}`), FleetProvisioning, RuleType, valuePointer + "/Fn::Join/1/1"},
		{"split as text", valueBody(`{"Fn::Split":["-","a-b"]}`), FleetProvisioning, RuleType, valuePointer + "/Fn::Split"},
		{"split at nothing", valueBody(`{"Fn::Select":[0,{"Fn::Split":["","a"]}]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Select/1/Fn::Split/0"},
		{"split of a list", valueBody(`{"Fn::Select":[0,{"Fn::Split":["-",["a"]]}]}`), FleetProvisioning, RuleType, valuePointer + "/Fn::Select/1/Fn::Split/1"},
		{"split of three", valueBody(`{"Fn::Select":[0,{"Fn::Split":["-","a","b"]}]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Select/1/Fn::Split"},
		{"select at minus one", valueBody(`{"Fn::Select":[-1,["a"]]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Select/0"},
		{"select at a fraction", valueBody(`{"Fn::Select":[1.0,["a"]]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Select/0"},
		{"select at a word", valueBody(`{"Fn::Select":["one",["a"]]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Select/0"},
		{"select from a text", valueBody(`{"Fn::Select":[0,"a"]}`), FleetProvisioning, RuleType, valuePointer + "/Fn::Select/1"},
		{"select without list", valueBody(`{"Fn::Select":[0]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Select"},
		{"find in two", valueBody(`{"Fn::FindInMap":["M","a"]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::FindInMap"},
		{"find a list", valueBody(`{"Fn::FindInMap":["M","a",["x"]]}`), FleetProvisioning, RuleType, valuePointer + "/Fn::FindInMap/2"},
		{"find in no map", valueBody(`{"Fn::FindInMap":["N","a","x"]}`), FleetProvisioning, RuleReference, valuePointer + "/Fn::FindInMap/0"},
		{"find no first key", valueBody(`{"Fn::FindInMap":["M","b",{"Ref":"P"}]}`), FleetProvisioning, RuleReference, valuePointer + "/Fn::FindInMap/1"},
		{"find no second key", valueBody(`{"Fn::FindInMap":["M","a","y"]}`), FleetProvisioning, RuleReference, valuePointer + "/Fn::FindInMap/2"},
		{"find in bulk", resourceBody(`{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::FindInMap":["M","a","x"]}}}`), Bulk, RuleReference, "/Resources/r/Properties/ThingName/Fn::FindInMap/0"},
		{"sub of a number", valueBody(`{"Fn::Sub":1}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Sub"},
		{"sub of a function", valueBody(`{"Fn::Sub":{"Ref":"P"}}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Sub"},
		{"sub of one", valueBody(`{"Fn::Sub":["a"]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Sub"},
		{"sub with variables as list", valueBody(`{"Fn::Sub":["a",["b"]]}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Sub/1"},
		{"sub with null variable", valueBody(`{"Fn::Sub":["a",{"x":null}]}`), FleetProvisioning, RuleType, valuePointer + "/Fn::Sub/1/x"},
		{"sub of no name", valueBody(`{"Fn::Sub":"a${Q}"}`), FleetProvisioning, RuleReference, valuePointer + "/Fn::Sub"},
		{"sub of an empty name", valueBody(`{"Fn::Sub":"a${}"}`), FleetProvisioning, RuleReference, valuePointer + "/Fn::Sub"},
		{"sub left open", valueBody(`{"Fn::Sub":"a${P"}`), FleetProvisioning, RuleFunction, valuePointer + "/Fn::Sub"},
		{"sub with a variable in itself", valueBody(`{"Fn::Sub":["${x}",{"x":{"Fn::Sub":"${x}"}}]}`), FleetProvisioning, RuleReference, valuePointer + "/Fn::Sub/1/x/Fn::Sub"},
		{"sub with variables in a circle", valueBody(`{"Fn::Sub":["${x}",{"x":{"Fn::Sub":"${y}"},"y":{"Fn::Sub":"${x}"}}]}`), FleetProvisioning, RuleReference, valuePointer + "/Fn::Sub/1/x/Fn::Sub"},
	}
	seen := map[Rule]bool{}
	for _, tt := range tests {
		seen[tt.rule] = true
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			template, err := Parse([]byte(tt.body), tt.kind, Limits{})
			found := (*SyntaxError)(nil)
			if !errors.As(err, &found) || template != nil {
				t.Fatalf("Parse = %v, %v, want a SyntaxError", template, err)
			}
			if found.Rule != tt.rule || found.Pointer != tt.pointer {
				t.Errorf("Parse: %s %q (%v), want %s %q", found.Rule, found.Pointer, err, tt.rule, tt.pointer)
			}
			if found.Problem == "" || found.Line < 1 || found.Column < 1 || found.Offset < 0 || found.Offset > len(tt.body) {
				t.Errorf("Parse: incomplete error %+v", found)
			}
		})
	}
	for _, rule := range []Rule{RuleSize, RuleSyntax, RuleDepth, RuleDuplicate, RuleUnknown, RuleMissing, RuleExclusive, RuleType, RuleReference, RuleFunction, RuleValue, RuleKind} {
		if !seen[rule] {
			t.Errorf("no case for rule %s", rule)
		}
	}
}

// manyMembers returns so many different members.
func manyMembers(count int) string {
	var members []string
	for i := range count {
		members = append(members, fmt.Sprintf(`"m%d":1`, i))
	}
	return strings.Join(members, ",")
}

// overrideBody returns a thing with override settings.
func overrideBody(settings string) string {
	return resourceBody(`{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"a"},"OverrideSettings":` + settings + `}`)
}

func TestParseSaysWhere(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body           string
		offset, line, column int
	}{
		{"a value", "{\n \"Resources\": {\n  \"é\": {\"Type\": \"X\", \"Properties\": {}}\n }\n}", 35, 3, 17},
		{"a name", "{\"Resources\":{},\n\t\"More\":{}}", 18, 2, 2},
		{"syntax", "{\n\"Resources\": tru}", 18, 2, 17},
		{"the end", "{\n\"Resources\": ", 14, 2, 13},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tt.body), Bulk, Limits{})
			found := (*SyntaxError)(nil)
			if !errors.As(err, &found) {
				t.Fatalf("Parse = %v", err)
			}
			if found.Offset != tt.offset || found.Line != tt.line || found.Column != tt.column {
				t.Errorf("at %d, line %d, column %d, want %d, %d, %d (%v)", found.Offset, found.Line, found.Column, tt.offset, tt.line, tt.column, err)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		kind       Kind
	}{
		{"only a policy", resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"a"}}`), Bulk},
		{"subject in bulk", `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"}},"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}}}}`, Bulk},
		{"default in JITP", `{"Parameters":{"AWS::IoT::Certificate::Id":{"Type":"String"},"Site":{"Type":"String","Default":"north"}},"Resources":{` + ownCertificate + `}}`, JITP},
		{"overrides in upper case", overrideBody(`{"ATTRIBUTE_PAYLOAD":"MERGE","THING_TYPE_NAME":"FAIL","THING_GROUPS":"REPLACE"}`), Bulk},
		{"as long as allowed", strings.Repeat("\t", 10_240-len(`{"Resources":{`+ownCertificate+`}}`)) + `{"Resources":{` + ownCertificate + `}}`, FleetProvisioning},
		{"attribute called as a function, beside others", fleetBody(`"ThingName":"a","AttributePayload":{"Ref":"x","b":"y"}`), FleetProvisioning},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			template, err := Parse([]byte(tt.body), tt.kind, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if template.Kind() != tt.kind {
				t.Errorf("Kind = %s", template.Kind())
			}
		})
	}
}

func TestParseDoesNotRepeatLongNames(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte(`{"`+strings.Repeat("é", 5000)+`":1}`), Bulk, Limits{})
	found := (*SyntaxError)(nil)
	if !errors.As(err, &found) || len(found.Problem) > 400 || !strings.Contains(found.Problem, "…") {
		t.Errorf("Parse = %v", err)
	}
}

func TestParametersAreReported(t *testing.T) {
	t.Parallel()
	template, err := Parse([]byte(`{"Parameters":{"B":{"Type":"String"},"A":{"Type":"String","Default":""},"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{`+ownCertificate+`}}`), FleetProvisioning, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got := template.Parameters()
	want := []Parameter{{Name: "B"}, {Name: "A", HasDefault: true}, {Name: CertificateID, FromService: true}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Parameters = %+v, want %+v", got, want)
	}
	got[0].Name = "changed"
	if template.Parameters()[0].Name != "B" {
		t.Error("a caller changed the template")
	}
}
