package sdk

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/testkit"
)

// aggregateWith makes the same question to all four operations.
type aggregateWith struct {
	query                 string
	field, index, version *string
}

// aggregateCalls are the four operations, the answer as text.
func aggregateCalls() map[string]func(*operator, aggregateWith) (string, error) {
	return map[string]func(*operator, aggregateWith) (string, error){
		"GetStatistics": func(o *operator, in aggregateWith) (string, error) {
			out, err := o.GetStatistics(o.t.Context(), &iot.GetStatisticsInput{
				QueryString: &in.query, AggregationField: in.field, IndexName: in.index, QueryVersion: in.version,
			})
			if err != nil {
				return "", err
			}
			s := out.Statistics
			if s.Average == nil {
				return fmt.Sprint(s.Count), nil
			}
			return fmt.Sprint(s.Count, *s.Average, *s.Sum, *s.Minimum, *s.Maximum, *s.SumOfSquares, *s.Variance, *s.StdDeviation), nil
		},
		"GetCardinality": func(o *operator, in aggregateWith) (string, error) {
			out, err := o.GetCardinality(o.t.Context(), &iot.GetCardinalityInput{
				QueryString: &in.query, AggregationField: in.field, IndexName: in.index, QueryVersion: in.version,
			})
			if err != nil {
				return "", err
			}
			return fmt.Sprint(out.Cardinality), nil
		},
		"GetPercentiles": func(o *operator, in aggregateWith) (string, error) {
			out, err := o.GetPercentiles(o.t.Context(), &iot.GetPercentilesInput{
				QueryString: &in.query, AggregationField: in.field, IndexName: in.index, QueryVersion: in.version,
			})
			if err != nil {
				return "", err
			}
			text := ""
			for _, p := range out.Percentiles {
				text += fmt.Sprint(p.Percent, ":", p.Value, " ")
			}
			return text, nil
		},
		"GetBucketsAggregation": func(o *operator, in aggregateWith) (string, error) {
			field := in.field
			if field == nil {
				field = new("registry.version")
			}
			out, err := o.GetBucketsAggregation(o.t.Context(), &iot.GetBucketsAggregationInput{
				QueryString: &in.query, AggregationField: field, IndexName: in.index, QueryVersion: in.version,
				BucketsAggregationType: &types.BucketsAggregationType{TermsAggregation: &types.TermsAggregation{MaxBuckets: new(int32(3))}},
			})
			if err != nil {
				return "", err
			}
			text := fmt.Sprint(out.TotalCount)
			for _, b := range out.Buckets {
				text += fmt.Sprint(" ", val(b.KeyValue), "=", b.Count)
			}
			return text, nil
		},
	}
}

// aggregateAnswers are the cases of the aggregations.
func aggregateAnswers() []answerCase {
	var cases []answerCase
	one := map[string]string{
		"GetStatistics": "1 1 1 1 1 1 0 0", "GetCardinality": "1", "GetBucketsAggregation": "1 1=1",
		"GetPercentiles": "1:1 5:1 25:1 50:1 75:1 95:1 99:1 ",
	}
	for op, call := range aggregateCalls() {
		refused := func(want, rule, says string, in aggregateWith) answerCase {
			return answerCase{op: op, want: want, rule: rule, says: says, do: func(o *operator) error { _, err := call(o, in); return err }}
		}
		cases = append(cases,
			answerCase{op: op, do: func(o *operator) error {
				thing := o.aThing()
				testkit.Poll(o.t, 5*time.Second, "the thing", func() error {
					got, err := call(o, aggregateWith{query: "thingName:" + thing})
					if err == nil && got != one[op] {
						err = errors.New("answered " + got)
					}
					return err
				})
				return nil
			}},
			refused("InvalidQueryException", "", "Invalid query", aggregateWith{query: "("}),
			refused("InvalidAggregationException", "undeclared", "aggregationField attributes.none is neither a managed field nor a custom field", aggregateWith{query: "*", field: new("attributes.none")}),
			refused("InvalidRequestException", "version", "queryVersion must be 2017-09-30", aggregateWith{query: "*", version: new("2010-01-01")}),
			refused("ResourceNotFoundException", "name", "index Other does not exist", aggregateWith{query: "*", index: new("Other")}),
			answerCase{op: op, want: "ResourceNotFoundException", rule: "off", says: "index AWS_Things does not exist", do: func(o *operator) error {
				_, err := call(o.alone("--index.default-off"), aggregateWith{query: "*"})
				return err
			}},
			answerCase{op: op, want: "IndexNotReadyException", says: "index AWS_Things is being built", do: func(o *operator) error {
				return aggregateWhileBuilding(o, call)
			}},
		)
	}
	cases = append(cases,
		answerCase{op: "GetPercentiles", want: "InvalidAggregationException", rule: "text", says: "percentiles need a Number", do: func(o *operator) error {
			_, err := o.GetPercentiles(o.t.Context(), &iot.GetPercentilesInput{QueryString: new("*"), AggregationField: new("thingName")})
			return err
		}},
		answerCase{op: "GetPercentiles", want: "InvalidRequestException", rule: "range", says: "percents", do: func(o *operator) error {
			_, err := o.GetPercentiles(o.t.Context(), &iot.GetPercentilesInput{QueryString: new("*"), Percents: []float64{50, 100.5}})
			return err
		}},
		answerCase{op: "GetPercentiles", want: "InvalidRequestException", rule: "many", says: "percents may have at most 100", do: func(o *operator) error {
			_, err := o.GetPercentiles(o.t.Context(), &iot.GetPercentilesInput{QueryString: new("*"), Percents: make([]float64, 101)})
			return err
		}},
	)
	for _, most := range []int32{-1, 10_001} {
		cases = append(cases, answerCase{op: "GetBucketsAggregation", want: "InvalidRequestException", rule: fmt.Sprint(most, " buckets"), says: "maxBuckets", do: func(o *operator) error {
			_, err := o.GetBucketsAggregation(o.t.Context(), &iot.GetBucketsAggregationInput{
				QueryString: new("*"), AggregationField: new("thingName"),
				BucketsAggregationType: &types.BucketsAggregationType{TermsAggregation: &types.TermsAggregation{MaxBuckets: &most}},
			})
			return err
		}})
	}
	return append(cases, answerCase{op: "GetBucketsAggregation", want: "InvalidRequestException", rule: "kind", says: "termsAggregation is required", do: func(o *operator) error {
		_, err := o.GetBucketsAggregation(o.t.Context(), &iot.GetBucketsAggregationInput{
			QueryString: new("*"), AggregationField: new("thingName"), BucketsAggregationType: &types.BucketsAggregationType{},
		})
		return err
	}})
}

// aggregateWhileBuilding asks while the first index of things is built.
func aggregateWhileBuilding(o *operator, call func(*operator, aggregateWith) (string, error)) error {
	own := o.alone()
	for range 200 {
		own.aThing()
	}
	var caught error
	testkit.Poll(own.t, 60*time.Second, "an aggregation while the index is built", func() error {
		if err := own.indexThings(&types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeOff}); err != nil {
			return err
		}
		own.awaitIndex()
		if err := own.indexThings(everySource()); err != nil {
			return err
		}
		if _, caught = call(own, aggregateWith{query: "*"}); caught == nil {
			return errors.New("the build was faster")
		}
		return nil
	})
	return caught
}

// TestAggregationsThroughTheSDK: custom fields of the registry, of classic and
// named shadows and of groups, over a fleet with values of every kind, as
// fleet-management §4.5 has them.
func TestAggregationsThroughTheSDK(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	config := everySource()
	for name, of := range map[string]types.FieldType{
		"attributes.hw": types.FieldTypeString, "attributes.floor": types.FieldTypeNumber, "shadow.reported.temp": types.FieldTypeNumber,
		"shadow.reported.on": types.FieldTypeBoolean, "shadow.reported.mode": types.FieldTypeString,
	} {
		config.CustomFields = append(config.CustomFields, types.Field{Name: &name, Type: of})
	}
	if _, err := o.UpdateIndexingConfiguration(t.Context(), &iot.UpdateIndexingConfigurationInput{
		ThingIndexingConfiguration: config, ThingGroupIndexingConfiguration: &types.ThingGroupIndexingConfiguration{
			ThingGroupIndexingMode: types.ThingGroupIndexingModeOn, CustomFields: []types.Field{{Name: new("attributes.owner"), Type: types.FieldTypeString}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	for i, reported := range []string{`{"temp":-125,"on":true,"mode":"ECO"}`, `{"temp":75,"on":false,"mode":"ECO"}`, `{"temp":150,"on":true,"mode":"Boost"}`, `{"temp":"150","on":1,"mode":2}`} {
		name := fmt.Sprint("pump-", i)
		must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name, AttributePayload: &types.AttributePayload{
			Attributes: map[string]string{"hw": []string{"R1", "R2", "R1", "R1"}[i], "floor": []string{"1", "2.5", "x", "1.0"}[i]},
		}})
		o.updateShadow(name, `{"state":{"reported":`+reported+`}}`)
	}
	must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("North"), ThingGroupProperties: &types.ThingGroupProperties{
		AttributePayload: &types.AttributePayload{Attributes: map[string]string{"owner": "Ops"}},
	}})
	must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: new("pump-0"), ThingGroupName: new("North")})
	testkit.Poll(t, 10*time.Second, "the fleet", func() error {
		found, err := o.search("shadow.reported.mode:* OR thingGroupNames:north")
		if grouped, also := o.search("thingGroupNames:north"); err == nil && (also != nil || len(found) != 4 || len(grouped) != 1) {
			err = fmt.Errorf("%v, %v", found, grouped)
		}
		return err
	})
	deviation := math.Sqrt(13472 + 2.0/9)
	for _, c := range []struct{ op, query, field, index, want string }{
		{op: "GetStatistics", query: "thingName:none", field: "shadow.reported.temp", want: "0"},
		{op: "GetStatistics", query: "*", field: "attributes.hw", want: "4"},
		{op: "GetStatistics", query: "*", field: "shadow.reported.on", want: "3 0.6666666666666666 2 0 1 2 0.22222222222222224 0.4714045207910317"},
		{op: "GetStatistics", query: "*", field: "attributes.floor", want: "3 1.5 4.5 1 2.5 8.25 0.5 " + fmt.Sprint(math.Sqrt(0.5))},
		{op: "GetStatistics", query: "*", index: "AWS_ThingGroups", field: "attributes.owner", want: "1"},
		{op: "GetCardinality", query: "*", field: "attributes.floor", want: "2"},
		{op: "GetCardinality", query: "*", field: "shadow.reported.mode", want: "2"},
		{op: "GetCardinality", query: "thingName:none", field: "shadow.reported.mode", want: "0"},
		{op: "GetPercentiles", query: "*", field: "shadow.reported.temp", want: "1:-121 5:-105 25:-25 50:75 75:112.5 95:142.5 99:148.5 "},
		{op: "GetPercentiles", query: "thingName:none", field: "shadow.reported.temp", want: ""},
		{op: "GetBucketsAggregation", query: "*", field: "attributes.hw", want: "4 R1=3 R2=1"},
		{op: "GetBucketsAggregation", query: "*", field: "attributes.floor", want: "4 1=2 2.5=1"},
		{op: "GetBucketsAggregation", query: "*", field: "shadow.reported.mode", want: "4 ECO=2 Boost=1"},
		{op: "GetBucketsAggregation", query: "*", field: "shadow.reported.on", want: "4 true=2 false=1"},
		{op: "GetBucketsAggregation", query: "thingName:pump-0", field: "registry.thingGroupNames", want: "1 North=1"},
		{op: "GetBucketsAggregation", query: "*", index: "AWS_ThingGroups", field: "thingGroupName", want: "1 North=1"},
	} {
		in := aggregateWith{query: c.query, field: &c.field}
		if c.index != "" {
			in.index = &c.index
		}
		if got, err := aggregateCalls()[c.op](o, in); err != nil || got != c.want {
			t.Errorf("%s %s of %s: got %q, %v, want %q", c.op, c.field, c.query, got, err, c.want)
		}
	}
	out := must(o, o.GetStatistics, &iot.GetStatisticsInput{QueryString: new("*"), AggregationField: new("shadow.reported.temp")}).Statistics
	if out.Count != 3 || *out.Sum != 100 || *out.SumOfSquares != 43750 || math.Abs(*out.Variance-13472.2222) > 1e-3 || math.Abs(*out.StdDeviation-deviation) > 1e-9 {
		t.Errorf("statistics %+v", out)
	}
}
