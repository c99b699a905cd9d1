package cli_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// bulkBody is a template's body for registration tasks.
const bulkBody = `{"Parameters":{"ThingName":{"Type":"String"},"SerialNumber":{"Type":"String"},"CSR":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"ThingName"},"AttributePayload":{"serial":{"Ref":"SerialNumber"}}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"pump"}}}}`

// bulkLines is how many lines the file of the test has; MUSTER_BULK_LINES asks
// for others, such as the 100,000 of make soak.
func bulkLines(t *testing.T) int {
	t.Helper()
	text := os.Getenv("MUSTER_BULK_LINES")
	if text == "" {
		return 2000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("MUSTER_BULK_LINES is %q, want a number of at least 1000", text)
	}
	return n
}

// writeBulk writes a file of n lines of which every n/100th is bad, each kind of
// badness in turn, and returns where the bad ones end in the file.
func writeBulk(t *testing.T, path string, n int) map[int]int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(file)
	bad, offset := map[int]int{}, 0
	for i := 1; i <= n; i++ {
		// Devices have keys of their own; one for all keeps the test quick.
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		request := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
		fields := map[string]any{"ThingName": fmt.Sprintf("bulk-%06d", i), "SerialNumber": fmt.Sprintf("S-%d", i), "CSR": request}
		line, wrong := []byte(nil), i%(n/100) == 0
		if wrong {
			switch i / (n / 100) % 4 {
			case 0:
				fields["CSR"] = "none"
			case 1:
				fields["ThingName"] = "not a name"
			case 2:
				delete(fields, "CSR")
			default:
				line = []byte("{\"ThingName\":")
			}
		}
		if line == nil {
			if line, err = json.Marshal(fields); err != nil {
				t.Fatal(err)
			}
		}
		offset += len(line) + 1
		if wrong {
			bad[i] = offset
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return bad
}

// TestBulkRegistration: the AWS command line registers a file of devices of which
// a hundred are bad, and the reports name exactly those.
func TestBulkRegistration(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	server := testkit.StartServer(t)
	o := newOperator(t, server)
	o.must("iot", "create-policy", "--policy-name", "pump", "--policy-document", ownTopics)
	bucket := filepath.Join(server.DataDir, "buckets", "devices")
	if err := os.MkdirAll(bucket, 0o700); err != nil {
		t.Fatal(err)
	}
	n := bulkLines(t)
	bad := writeBulk(t, filepath.Join(bucket, "lines.ndjson"), n)
	id, _ := o.must("iot", "start-thing-registration-task", "--template-body", bulkBody, "--input-file-bucket", "devices", "--input-file-key", "lines.ndjson",
		"--role-arn", "arn:aws:iam::000000000000:role/registration")["taskId"].(string)
	o.refused("is running", "iot", "start-thing-registration-task", "--template-body", bulkBody, "--input-file-bucket", "devices", "--input-file-key", "lines.ndjson",
		"--role-arn", "arn:aws:iam::000000000000:role/registration")
	begun := time.Now()
	var task map[string]any
	testkit.Poll(t, 20*time.Minute, "the task ends", func() error {
		if task = o.must("iot", "describe-thing-registration-task", "--task-id", id); task["status"] != "Completed" {
			return fmt.Errorf("it is %v, %v%%", task["status"], task["percentageProgress"])
		}
		return nil
	})
	t.Logf("%d lines in %v", n, time.Since(begun))
	if got := fmt.Sprint(task["successCount"], task["failureCount"], task["percentageProgress"]); got != fmt.Sprint(n-len(bad), len(bad), 100) {
		t.Errorf("counts %s", got)
	}
	failed := map[int]int{}
	for _, line := range o.report(id, "ERRORS") {
		if line.ErrorMessage == nil || *line.ErrorMessage == "" || line.Response != nil {
			t.Errorf("line %d is reported as %+v", line.LineNumber, line)
		}
		failed[line.LineNumber] = line.Offset
	}
	if fmt.Sprint(failed) != fmt.Sprint(bad) {
		t.Errorf("lines that failed, with their ends:\n%v, want\n%v", failed, bad)
	}
	done := 0
	for _, line := range o.report(id, "RESULTS") {
		done++
		if line.ErrorMessage != nil || line.Response == nil || line.Response.ResourceARNs["thing"] != fmt.Sprintf("arn:aws:iot:us-east-1:000000000000:thing/bulk-%06d", line.LineNumber) ||
			line.Response.CertificatePEM == "" {
			t.Fatalf("line %d is reported as %+v", line.LineNumber, line)
		}
	}
	if done != n-len(bad) {
		t.Errorf("%d lines are reported as done, want %d", done, n-len(bad))
	}
	if got := names(o.must("iot", "list-thing-registration-tasks", "--status", "Completed"), "taskIds", ""); !slices.Contains(got, id) {
		t.Errorf("tasks %v", got)
	}
	if got := names(o.must("iot", "list-thing-principals", "--thing-name", "bulk-000001"), "principals", ""); len(got) != 1 {
		t.Errorf("principals %v", got)
	}
}

// reportLine is one line of a report.
type reportLine struct {
	ErrorMessage *string `json:"errorMessage"`
	LineNumber   int     `json:"lineNumber"`
	Offset       int     `json:"offset"`
	Response     *struct {
		CertificatePEM string            `json:"certificatePem"`
		ResourceARNs   map[string]string `json:"resourceArns"`
	} `json:"response"`
}

// report follows the links of a report.
func (o *operator) report(task, kind string) []reportLine {
	o.t.Helper()
	var all []reportLine
	for _, link := range names(o.must("iot", "list-thing-registration-task-reports", "--task-id", task, "--report-type", kind), "resourceLinks", "") {
		request, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, link, http.NoBody)
		if err != nil {
			o.t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			o.t.Fatal(err)
		}
		lines := json.NewDecoder(answer.Body)
		for lines.More() {
			var line reportLine
			if err := lines.Decode(&line); err != nil {
				o.t.Fatal(err)
			}
			all = append(all, line)
		}
		if err := answer.Body.Close(); err != nil {
			o.t.Fatal(err)
		}
	}
	return all
}
