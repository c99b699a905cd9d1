package sdk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/testkit"
)

// manufacturePlan says where facts of manufacture go, and what type a model has.
const manufacturePlan = `id: pumps
name: Pumps
appliesTo: {thingTypes: [pump-g1, pump-g2]}
deviceKey: THING_NAME
metadata:
  uniqueId: {attribute: serial, required: true}
  manufacturer: {attribute: manufacturer}
  modelNumber: {attribute: model, required: true, thingTypes: {P-100: pump-g1, P-200: pump-g2}}
  generation: {attribute: generation}
  manufacturingDate: {attribute: manufacturingDate, required: true}
stages:
- id: make
  kind: MANUFACTURE
  actor: {role: Maker}
  steps: [{id: test, title: Test, mode: MANUAL, instruction: Test it.}]
`

// manufactureBody states the name only: the rest is known from manufacture.
const manufactureBody = `{"Parameters":{"Serial":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"}}}}}`

// TestManufactureMetadata: what was said of devices at their manufacture becomes
// attributes and types of things when they join, and is found by model and by range
// of dates: in searches, statistics and dynamic groups, also after a restart.
// Mission M22, security-provisioning §5.1.
func TestManufactureMetadata(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	run := func(args ...string) {
		t.Helper()
		if _, err := server.Muster(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	must(o, o.UpdateIndexingConfiguration, &iot.UpdateIndexingConfigurationInput{ThingIndexingConfiguration: &types.ThingIndexingConfiguration{
		ThingIndexingMode: types.ThingIndexingModeRegistry, CustomFields: []types.Field{{Name: new("attributes.model"), Type: types.FieldTypeString}},
	}})
	for _, name := range []string{"pump-g1", "pump-g2"} {
		must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: &name})
	}
	plan := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(plan, []byte(manufacturePlan), 0o600); err != nil {
		t.Fatal(err)
	}
	run("plan", "create", "-f", plan)
	run("plan", "publish", "pumps")
	const autumn = "attributes.manufacturingDate:[2026-10-01 TO 2026-11-30] AND thingTypeName:pump-g2"
	// The group exists before the devices do.
	must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("autumn-g2"), QueryString: new(autumn)})
	for serial, facts := range map[string][3]string{
		"S-1": {"P-200", "2026-09-30", "2"}, "S-2": {"P-200", "2026-10-01", "2"}, "S-3": {"P-200", "2026-11-09", "2"},
		"S-4": {"P-200", "2026-11-30", "3"}, "S-5": {"P-200", "2026-12-01", "3"}, "S-6": {"P-100", "2026-11-09", "1"},
	} {
		run("onboarding", "expect", serial, "--plan", "pumps", "--metadata", "uniqueId="+serial, "--metadata", "manufacturer=acme",
			"--metadata", "modelNumber="+facts[0], "--metadata", "manufacturingDate="+facts[1], "--metadata", "generation="+facts[2])
		must(o, o.RegisterThing, &iot.RegisterThingInput{TemplateBody: new(manufactureBody), Parameters: map[string]string{"Serial": serial}})
	}
	// A device that nobody has announced is what its template says.
	must(o, o.RegisterThing, &iot.RegisterThingInput{TemplateBody: new(manufactureBody), Parameters: map[string]string{"Serial": "S-7"}})
	made := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: new("S-3")})
	if *made.ThingTypeName != "pump-g2" || fmt.Sprint(made.Attributes) != "map[generation:2 manufacturer:acme manufacturingDate:2026-11-09 model:P-200 serial:S-3]" {
		t.Errorf("it is %s with %v", *made.ThingTypeName, made.Attributes)
	}
	if plain := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: new("S-7")}); len(plain.Attributes) != 0 || plain.ThingTypeName != nil {
		t.Errorf("the device that nobody announced has %v", plain.Attributes)
	}
	check := func() {
		t.Helper()
		o.comesToFind(autumn, "S-2", "S-3", "S-4")
		o.comesToFind("attributes.model:P-200 AND attributes.manufacturingDate:{2026-10-01 TO 2026-11-30}", "S-3")
		o.comesToFind("attributes.manufacturingDate>=2026-11-30", "S-4", "S-5")
		o.comesToFind("attributes.manufacturingDate<2026-10-01", "S-1")
		o.comesToFind("attributes.generation:1 OR attributes.generation:3", "S-4", "S-5", "S-6")
		counted := must(o, o.GetStatistics, &iot.GetStatisticsInput{QueryString: new(autumn), AggregationField: new("attributes.model")})
		if counted.Statistics.Count != 3 {
			t.Errorf("statistics count %d", counted.Statistics.Count)
		}
		kinds := must(o, o.GetCardinality, &iot.GetCardinalityInput{QueryString: new("attributes.manufacturingDate:2026-11-09"), AggregationField: new("attributes.model")})
		if kinds.Cardinality != 2 {
			t.Errorf("things of one day have %d models", kinds.Cardinality)
		}
		testkit.Poll(t, 10*time.Second, "the dynamic group", func() error {
			listed := must(o, o.ListThingsInThingGroup, &iot.ListThingsInThingGroupInput{ThingGroupName: new("autumn-g2")})
			slices.Sort(listed.Things)
			if got := strings.Join(listed.Things, " "); got != "S-2 S-3 S-4" {
				return fmt.Errorf("members are %s", got)
			}
			return nil
		})
	}
	check()
	server.Kill()
	server.Start()
	o = newOperator(t, server)
	check()
}
