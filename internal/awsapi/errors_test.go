package awsapi

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/fault"
)

func TestExceptionByOperation(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	lenient := *s
	lenient.options.Strict = false
	for _, c := range []struct {
		service catalog.Service
		op      string
		code    fault.Code
		status  int
		want    string
	}{
		// fleet-management §0: the statuses that surprise.
		{catalog.IoT, "CreateThing", fault.Throttling, 400, "ThrottlingException"},
		{catalog.IoTData, "Publish", fault.Throttling, 429, "ThrottlingException"},
		{catalog.IoT, "AttachPolicy", fault.LimitExceeded, 410, "LimitExceededException"},
		{catalog.IoT, "CreatePackage", fault.LimitExceeded, 402, "ServiceQuotaExceededException"},
		{catalog.IoT, "SearchIndex", fault.IndexNotReady, 400, "IndexNotReadyException"},
		{catalog.IoT, "SearchIndex", fault.InvalidQuery, 400, "InvalidQueryException"},
		{catalog.IoT, "DeleteCertificate", fault.CertificateState, 406, "CertificateStateException"},
		{catalog.IoT, "UpdateThing", fault.VersionConflict, 409, "VersionConflictException"},
		{catalog.IoTData, "UpdateThingShadow", fault.Conflict, 409, "ConflictException"},
		{catalog.IoTData, "UpdateThingShadow", fault.UnsupportedDocumentEncoding, 415, "UnsupportedDocumentEncodingException"},
		// house-style §7: the internal error is named by operation.
		{catalog.IoT, "CreateThing", fault.Internal, 500, "InternalFailureException"},
		{catalog.IoT, "CreatePackage", fault.Internal, 500, "InternalServerException"},
		{catalog.IoT, "CreateTopicRule", fault.Internal, 500, "InternalException"},
		{catalog.IoT, "CreateThing", fault.Unavailable, 503, "ServiceUnavailableException"},
		{catalog.IoT, "CreatePackage", fault.InvalidRequest, 400, "ValidationException"},
		{catalog.IoT, "GetV2LoggingOptions", fault.InvalidRequest, 400, "InvalidRequestException"},
		{catalog.IoT, "CreateThing", fault.Forbidden, 403, "AccessDeniedException"},
		{catalog.IoTData, "GetThingShadow", fault.Forbidden, 403, "ForbiddenException"},
		// device-plane §8: Publish does not list 413, but answers it.
		{catalog.IoTData, "Publish", fault.RequestEntityTooLarge, 413, "RequestEntityTooLargeException"},
		{catalog.IoTData, "SendDirectMessage", fault.Timeout, 504, "GatewayTimeoutException"},
		{catalog.IoTData, "SendDirectMessage", fault.Throttling, 429, "ThrottlingException"},
		{catalog.IoTData, "SendDirectMessage", fault.Forbidden, 403, "ForbiddenException"},
		{catalog.IoTData, "SendDirectMessage", fault.RequestEntityTooLarge, 413, "RequestEntityTooLargeException"},
		{catalog.IoTData, "GetConnection", fault.ResourceNotFound, 404, "ResourceNotFoundException"},
		{catalog.IoTData, "DeleteConnection", fault.Forbidden, 403, "ForbiddenException"},
		{catalog.IoTData, "ListSubscriptions", fault.Unavailable, 500, "InternalFailureException"},
		{catalog.IoTData, "GetRetainedMessage", fault.Timeout, 503, "ServiceUnavailableException"},
		{catalog.IoT, "DeleteThingGroup", fault.DeleteConflict, 400, "InvalidRequestException"},
		{catalog.IoT, "DeletePolicy", fault.DeleteConflict, 409, "DeleteConflictException"},
		{catalog.IoT, "DescribeEventConfigurations", fault.NotOffered, 400, "UnsupportedOperationException"},
	} {
		op, ok := s.options.Catalog.Operation(c.service, c.op)
		if !ok {
			t.Fatalf("no operation %s", c.op)
		}
		for _, server := range []*Server{s, &lenient} {
			p := server.problemOf(op, fault.New(c.code, "x"))
			if p.name != c.want || p.status != c.status || p.message != "x" {
				t.Errorf("%s %s: got %d %s %q, want %d %s", c.op, c.code, p.status, p.name, p.message, c.status, c.want)
			}
		}
	}
	// Where the model has no word for it, the closest of the service is used.
	op, _ := s.options.Catalog.Operation(catalog.IoT, "DescribeEndpoint")
	if p := lenient.problemOf(op, fault.New(fault.ResourceNotFound, "x")); p.name != "ResourceNotFoundException" || p.status != http.StatusNotFound {
		t.Errorf("got %+v", p)
	}
}

// TestEveryCodeHasAnException keeps the table whole: no code may end as an
// exception that the service does not have.
func TestEveryCodeHasAnException(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, code := range []fault.Code{
		fault.InvalidRequest, fault.InvalidQuery, fault.InvalidAggregation, fault.MalformedPolicy, fault.ResourceNotFound, fault.ResourceAlreadyExists,
		fault.VersionConflict, fault.VersionsLimitExceeded, fault.DeleteConflict, fault.CertificateState, fault.CertificateValidation, fault.CertificateConflict,
		fault.LimitExceeded, fault.IndexNotReady, fault.NotConfigured, fault.Conflict, fault.RequestEntityTooLarge, fault.UnsupportedDocumentEncoding,
		fault.Unauthorized, fault.Forbidden, fault.Throttling, fault.Unavailable, fault.Internal, fault.NotOffered,
	} {
		names := exceptionsFor(code)
		known := false
		for _, name := range names {
			for _, service := range s.options.Catalog.Services() {
				_, ok := s.options.Catalog.Exception(service, name)
				known = known || ok
			}
		}
		if !known {
			t.Errorf("%s: none of %v exists", code, names)
		}
	}
}

// TestCauseStaysInside checks that text of ours never reaches a caller.
func TestCauseStaysInside(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	op, _ := s.options.Catalog.Operation(catalog.IoT, "CreateThing")
	p := s.problemOf(op, fault.Wrap(fault.ResourceNotFound, io.ErrClosedPipe, "Thing x does not exist"))
	if strings.Contains(p.message, "pipe") {
		t.Errorf("got %q", p.message)
	}
	if p = s.problemOf(op, io.ErrClosedPipe); strings.Contains(p.message, "pipe") {
		t.Errorf("got %q", p.message)
	}
}

// TestOtherServices refuses services without wire structs in their own shapes.
func TestOtherServices(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	t.Run("query", func(t *testing.T) {
		t.Parallel()
		got := do(t, s, signed(t, "monitoring", http.MethodPost, "/", "Action=PutMetricData&Version=2010-08-01"))
		var body struct {
			XMLName xml.Name `xml:"ErrorResponse"`
			Code    string   `xml:"Error>Code"`
			Message string   `xml:"Error>Message"`
			ID      string   `xml:"RequestId"`
		}
		if err := xml.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		if got.status != 400 || body.Code != "UnsupportedOperation" || !strings.Contains(body.Message, "PutMetricData of monitoring is not offered") || body.ID != got.header.Get("X-Amzn-Requestid") {
			t.Errorf("got %+v", body)
		}
	})
	t.Run("json", func(t *testing.T) {
		t.Parallel()
		r := request(t, http.MethodPost, "/", "{}")
		r.Header.Set("X-Amz-Target", "Firehose_20150804.PutRecord")
		r = resign(t, r, "firehose", "{}")
		got := do(t, s, r)
		name, message := got.error(t)
		if got.status != 400 || name != "UnsupportedOperationException" || !strings.Contains(message, "PutRecord of firehose is not offered") || !strings.Contains(got.body, `"__type"`) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("cbor", func(t *testing.T) {
		t.Parallel()
		r := request(t, http.MethodPost, "/service/GraniteServiceVersion20100801/operation/PutMetricDatum", "")
		r.Header.Set("Smithy-Protocol", "rpc-v2-cbor")
		got := do(t, s, resign(t, r, "monitoring", ""))
		want := []byte{0xa2, 0x79, 0, 6}
		if got.status != 400 || !bytes.HasPrefix([]byte(got.body), want) || !strings.Contains(got.body, "has no operation PutMetricDatum") {
			t.Errorf("got %d %q", got.status, got.body)
		}
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		got := do(t, s, signed(t, "s3", http.MethodGet, "/bucket/key", ""))
		if got.status != 400 || !strings.Contains(got.body, "<Error><Code>UnsupportedOperation</Code>") {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a bad signature in the shape of the service", func(t *testing.T) {
		t.Parallel()
		r := resign(t, request(t, http.MethodPost, "/", "Action=Publish"), "sns", "Action=Other")
		got := do(t, s, r)
		if got.status != 403 || !strings.Contains(got.body, "<Code>SignatureDoesNotMatch</Code>") {
			t.Errorf("got %+v", got)
		}
	})
}

func TestMetricsCountByOperation(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	s.metrics = m
	do(t, s, signed(t, "iot", http.MethodGet, "/things", ""))
	var metric dto.Metric
	if err := m.requests.WithLabelValues("iot", "ListThings", "InvalidRequestException").Write(&metric); err != nil || metric.GetCounter().GetValue() != 1 {
		t.Errorf("counter %v, %v", metric.GetCounter(), err)
	}
}

func TestWriteOperations(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	op, _ := s.options.Catalog.Operation(catalog.IoT, "CreateThing")
	s.handlers[op] = &handler{}
	op, _ = s.options.Catalog.Operation(catalog.IoT, "ListThings")
	s.handlers[op] = &handler{gap: "no filters"}
	var out bytes.Buffer
	if err := s.WriteOperations(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| CreateThing | `POST /things/{thingName}` | registry | core | offered |",
		"| ListThings | `GET /things` | registry | core | partial: no filters |",
		"| DeleteThing | `DELETE /things/{thingName}` | registry | core | not offered |",
		"| registry | 1 | 1 | 17 |",
		"| **all** | 1 | 1 | 288 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %s", want)
		}
	}
}

func TestTraceParent(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for text, want := range map[string]string{good: good, "": "", good + "0": "", strings.ToUpper(good): "", strings.Replace(good, "-", "0", 1): ""} {
		if got := traceParent(text); got != want {
			t.Errorf("%q: got %q", text, got)
		}
	}
}
