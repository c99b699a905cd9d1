package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/fleet"
)

// joiningAtOnce is how many devices join at a time.
const joiningAtOnce = 8

// devicePolicy lets a device be itself and nobody else. It is attached to the
// group above all sites, and devices inherit it.
const devicePolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"ARN:client/${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"ARN:topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"ARN:topicfilter/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"}]}`

// operatorPolicy is for people who look at the traffic.
const operatorPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"ARN:client/operator-*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"ARN:topic/*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"ARN:topicfilter/*"}]}`

// dynamicGroup is a standing query worth watching.
type dynamicGroup struct{ name, query, description string }

// dynamicGroups are made beside the fleet.
func dynamicGroups() []dynamicGroup {
	return []dynamicGroup{
		{"low-battery", "shadow.reported.battery<20", "devices whose battery is below 20 percent"},
		{"charging", "shadow.reported.charging:true", "devices that charge now"},
		{"offline", "thingTypeName:" + typeName + " AND connectivity.connected:false", "devices that dropped off"},
		{"outdated", "shadow.reported.firmware:1.2.*", "devices with firmware 1.2"},
	}
}

// exists treats what is already there as made.
func exists(err error) error {
	if apiclient.Is(err, "ResourceAlreadyExistsException") {
		return nil
	}
	return err
}

// policyDocument fills in region and account.
func policyDocument(template string, scope fleet.Scope) string {
	arn := "arn:" + fleet.Partition + ":iot:" + scope.Region + ":" + string(scope.Account)
	return strings.ReplaceAll(template, "ARN:", arn+":")
}

// prepareFleet makes what devices share: type, sites, policy and dynamic
// groups.
func prepareFleet(ctx context.Context, o *Options) error {
	if err := exists(o.API.CreateThingType(ctx, typeName, "pump of the simulator", []string{"site"})); err != nil {
		return fmt.Errorf("create thing type: %w", err)
	}
	if err := exists(o.API.CreateGroup(ctx, rootGroup, "", "all sites")); err != nil {
		return fmt.Errorf("create group %s: %w", rootGroup, err)
	}
	for i := range o.Sites {
		if err := exists(o.API.CreateGroup(ctx, siteName(i), rootGroup, "a site")); err != nil {
			return fmt.Errorf("create group %s: %w", siteName(i), err)
		}
	}
	scope, arn, err := groupScope(ctx, o.API)
	if err != nil {
		return err
	}
	if err := exists(o.API.CreatePolicy(ctx, policyName, policyDocument(devicePolicy, scope))); err != nil {
		return fmt.Errorf("create policy: %w", err)
	}
	if err := o.API.AttachPolicy(ctx, policyName, arn); err != nil {
		return fmt.Errorf("attach policy: %w", err)
	}
	for _, g := range dynamicGroups() {
		if err := exists(o.API.CreateDynamicGroup(ctx, g.name, g.query, g.description)); err != nil {
			return fmt.Errorf("create dynamic group %s: %w", g.name, err)
		}
	}
	return nil
}

// groupScope learns region and account from the root group's ARN.
func groupScope(ctx context.Context, api *apiclient.Client) (scope fleet.Scope, arn string, err error) {
	group, err := api.DescribeGroup(ctx, rootGroup)
	if err != nil {
		return scope, "", fmt.Errorf("describe group %s: %w", rootGroup, err)
	}
	parsed, ok := fleet.ParseARN(group.ARN)
	if !ok {
		return scope, "", fmt.Errorf("the server answers %q, which is not an ARN", group.ARN)
	}
	return parsed.Scope, group.ARN, nil
}

// prepareDevices lets every device join that has not, and returns their
// certificates in order.
func (f *Fleet) prepareDevices(ctx context.Context) ([]tls.Certificate, error) {
	o := &f.options
	dir := filepath.Join(o.StateDir, "devices")
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	scope, _, err := groupScope(ctx, o.API)
	if err != nil {
		return nil, err
	}
	if f.claim, err = ensureClaim(ctx, o, scope); err != nil {
		return nil, err
	}
	out := make([]tls.Certificate, o.Devices)
	var done atomic.Int64
	o.progress("provision", 0, o.Devices)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(joiningAtOnce)
	for i := range o.Devices {
		g.Go(func() error {
			id, err := f.prepareDevice(ctx, dir, i)
			if err != nil {
				return fmt.Errorf("provision %s: %w", deviceName(o.Prefix, i), err)
			}
			out[i] = id.certificate
			o.progress("provision", int(done.Add(1)), o.Devices)
			return nil
		})
	}
	return out, g.Wait() //nolint:wrapcheck // each error names its device
}

// prepareDevice loads a device, or lets it join. Its certificate is saved last: a
// run that was cut short starts that device over.
func (f *Fleet) prepareDevice(ctx context.Context, dir string, i int) (identity, error) {
	o := &f.options
	name := deviceName(o.Prefix, i)
	certFile, keyFile := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	id, err := loadIdentity(ctx, o.API, certFile, keyFile)
	if !errors.Is(err, errNoIdentity) {
		return id, err
	}
	m := newModel(o.Seed, i, o.Interval)
	id, err = f.join(ctx, name, map[string]string{
		"Name": name, "Site": siteName(i % o.Sites), "Hardware": m.hardware(), "SerialNumber": fmt.Sprintf("SN%08d", 10_000_000+i),
	})
	if err != nil {
		return identity{}, err
	}
	return id, id.save(certFile, keyFile)
}

// EnsureOperator makes, in a folder, the certificate with which people watch
// the demo's traffic. It needs a prepared fleet.
func EnsureOperator(ctx context.Context, api *apiclient.Client, certFile, keyFile string) error {
	_, err := loadIdentity(ctx, api, certFile, keyFile)
	if !errors.Is(err, errNoIdentity) {
		return err
	}
	scope, _, err := groupScope(ctx, api)
	if err != nil {
		return err
	}
	if err := exists(api.CreatePolicy(ctx, OperatorPolicy, policyDocument(operatorPolicy, scope))); err != nil {
		return fmt.Errorf("create policy: %w", err)
	}
	id, err := newIdentity(ctx, api, "operator")
	if err != nil {
		return err
	}
	if err := api.AttachPolicy(ctx, OperatorPolicy, id.arn); err != nil {
		return fmt.Errorf("attach policy: %w", err)
	}
	return id.save(certFile, keyFile)
}
