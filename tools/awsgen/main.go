// Command awsgen writes the operation catalog and the wire structs of the AWS
// services that Muster answers for.
//
// Its inputs are the machine-readable models inside the module
// github.com/aws/aws-sdk-go, the Go source of aws-sdk-go-v2/service/iot for
// whatever is newer than those models, and the small files under data/ for
// what neither has. It copies names, bindings, patterns, ranges, enumerations
// and error lists, and no documentation text. The same inputs always give the
// same bytes. It starts no goroutines.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
)

func main() {
	out := flag.String("out", "../internal/awsapi/catalog", "folder of the catalog package")
	flag.Parse()
	if err := run(context.Background(), *out); err != nil {
		fmt.Fprintln(os.Stderr, "awsgen:", err)
		os.Exit(1)
	}
}

// modelled lists the services whose operations get wire structs. Name is the
// folder of the model, which is also how operations.md calls the service.
var modelled = []service{
	{Name: "iot", Const: "IoT", Package: "iotwire", SDKv2: true},
	{Name: "iot-data", Const: "IoTData", Package: "iotdatawire"},
	{Name: "iot-jobs-data", Const: "IoTJobsData", Package: "iotjobswire"},
}

// named lists the services of which only the operation names are needed.
var named = []service{
	{Name: "monitoring", Const: "Monitoring"},
	{Name: "sns", Const: "SNS"},
	{Name: "firehose", Const: "Firehose"},
	{Name: "logs", Const: "Logs"},
	{Name: "sts", Const: "STS"},
	{Name: "s3", Const: "S3"},
}

// service is one entry of the lists above.
type service struct {
	Name    string
	Const   string
	Package string
	// SDKv2 marks the service that is topped up from the newer SDK.
	SDKv2 bool
}

// run generates everything below out.
func run(ctx context.Context, out string) error {
	models, err := moduleDir(ctx, "github.com/aws/aws-sdk-go")
	if err != nil {
		return err
	}
	scopes, err := loadScopes()
	if err != nil {
		return err
	}
	for _, svc := range modelled {
		m, err := loadService(ctx, models, svc)
		if err != nil {
			return fmt.Errorf("%s: %w", svc.Name, err)
		}
		if err := assignScopes(m, svc.Name, scopes); err != nil {
			return err
		}
		if err := emitService(out, svc, m); err != nil {
			return fmt.Errorf("%s: %w", svc.Name, err)
		}
	}
	return emitNames(out, models)
}

// loadService reads a model and adds what is newer than it.
func loadService(ctx context.Context, models string, svc service) (*model, error) {
	m, err := loadModel(models, svc.Name)
	if err != nil {
		return nil, err
	}
	if svc.SDKv2 {
		newer, err := loadSDKv2(ctx, "github.com/aws/aws-sdk-go-v2/service/"+svc.Name)
		if err != nil {
			return nil, err
		}
		newer.addTo(m)
	}
	if err := m.overlay(svc.Name); err != nil {
		return nil, err
	}
	return m, m.check()
}
