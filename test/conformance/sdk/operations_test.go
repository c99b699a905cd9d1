package sdk

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go/aws/awserr"               //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/aws/aws-sdk-go/service/iotdataplane"     //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/aws/aws-sdk-go/service/iotjobsdataplane" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/aws/smithy-go"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
)

// operationsPage is the page that TestOperationsPage keeps current.
const operationsPage = "../../../docs/operations.md"

var update = flag.Bool("update", false, "write docs/operations.md instead of comparing")

// client is an SDK client whose methods are the published operations.
type client struct {
	service catalog.Service
	value   reflect.Value
	// newer are the operations that the client does not have yet.
	newer []string
}

// clients connects to a server that listens until the test ends.
func clients(t *testing.T, s *awsapi.Server) []client {
	t.Helper()
	return clientsAt(t, listen(t, s))
}

// clientsAt connects to an address. For the data planes there are only clients
// of the older SDK, which lack what came after it.
func clientsAt(t *testing.T, address string) []client {
	t.Helper()
	session := oldSession(t, address)
	return []client{
		{service: catalog.IoT, value: reflect.ValueOf(newIoT(address))},
		{
			service: catalog.IoTData, value: reflect.ValueOf(iotdataplane.New(session)),
			newer: []string{"DeleteConnection", "GetConnection", "ListSubscriptions", "SendDirectMessage"},
		},
		{service: catalog.IoTJobsData, value: reflect.ValueOf(iotjobsdataplane.New(session)), newer: []string{"StartCommandExecution"}},
	}
}

// operations returns the names of the client's operations: methods that take
// an input and answer an output and an error.
func (c client) operations() []string {
	var names []string
	for i := range c.value.NumMethod() {
		name, kind := c.value.Type().Method(i).Name, c.value.Method(i).Type()
		if kind.NumOut() == 2 && kind.Out(1) == reflect.TypeFor[error]() && kind.Out(0).Kind() == reflect.Pointer &&
			kind.Out(0).Elem().Name() == name+"Output" {
			names = append(names, name)
		}
	}
	return names
}

// call fills an input with something for every member and sends it.
func (c client) call(ctx context.Context, name string) (reflect.Value, error) {
	method := c.value.MethodByName(name)
	var in []reflect.Value
	for in0 := range method.Type().Ins() {
		switch t := in0; {
		case t == reflect.TypeFor[context.Context]():
			in = append(in, reflect.ValueOf(ctx))
		case t.Kind() == reflect.Pointer:
			input := reflect.New(t.Elem())
			fill(input.Elem(), 0)
			in = append(in, input)
		}
	}
	out := method.Call(in)
	err, _ := reflect.TypeAssert[error](out[1])
	return out[0], err
}

// TestCatalogHasEveryOperation compares the catalog with what the SDK clients
// can call, in both directions.
func TestCatalogHasEveryOperation(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	known, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients(t, s) {
		published := c.operations()
		for _, name := range published {
			if _, ok := known.Operation(c.service, name); !ok {
				t.Errorf("%s: the catalog lacks %s", c.service, name)
			}
		}
		for _, op := range known.Operations(c.service) {
			if !slices.Contains(published, op.Name) && !slices.Contains(c.newer, op.Name) {
				t.Errorf("%s: no client can call %s", c.service, op.Name)
			}
		}
	}
}

// TestRefusedThroughTheSDK calls every operation of every client on a server
// without adapters. Each must come back as a refusal that names the operation.
func TestRefusedThroughTheSDK(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, c := range clients(t, s) {
		for _, name := range c.operations() {
			_, err := c.call(t.Context(), name)
			want := "The operation " + name + " is not offered by this version of Muster"
			code, message := answered(err)
			if message != want || code != "InvalidRequestException" && code != "ValidationException" && code != "UnsupportedOperationException" {
				t.Errorf("%s %s: %v", c.service, name, err)
			}
		}
	}
}

// answered takes exception and message from an error of either SDK.
func answered(err error) (code, message string) {
	var newer smithy.APIError
	var older awserr.Error
	switch {
	case errors.As(err, &newer):
		return newer.ErrorCode(), newer.ErrorMessage()
	case errors.As(err, &older):
		return older.Code(), older.Message()
	default:
		return "", ""
	}
}

// TestTypedRefusal checks that the SDK turns our answer into its own type.
func TestTypedRefusal(t *testing.T) {
	t.Parallel()
	_, err := newIoT(listen(t, newServer(t))).ListThings(t.Context(), &iot.ListThingsInput{})
	if _, ok := errors.AsType[interface {
		error
		ErrorFault() smithy.ErrorFault
	}](err); !ok {
		t.Errorf("got %v", err)
	}
	if code, _ := answered(err); code != "InvalidRequestException" {
		t.Errorf("got %q", code)
	}
}

// TestOperationsPage compares docs/operations.md with the catalog and the
// adapters that are registered.
func TestOperationsPage(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	register(s)
	var want bytes.Buffer
	if err := s.WriteOperations(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(operationsPage, want.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(operationsPage)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is out of date (%v); run make generate", operationsPage, err)
	}
}
