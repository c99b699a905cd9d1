package sdk

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// bulkBody registers one line of a file.
const bulkBody = `{"Parameters":{"ThingName":{"Type":"String"},"CSR":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"ThingName"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"},"Status":"ACTIVE"}}}}`

// registrationTaskOperations are those that the cases here hold to the model.
func registrationTaskOperations() []string {
	return []string{
		"StartThingRegistrationTask", "DescribeThingRegistrationTask", "ListThingRegistrationTasks", "StopThingRegistrationTask", "ListThingRegistrationTaskReports",
	}
}

// registrationTasksNotReached is a part of notReached.
func registrationTasksNotReached() map[string]string { return map[string]string{} }

// upload puts a file into a bucket of the server's own folder.
func (o *operator) upload(bucket, key string, lines ...string) {
	o.t.Helper()
	path := filepath.Join(o.server.DataDir, "buckets", bucket, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// bulkInput asks for a task over lines, in a bucket of their own.
func (o *operator) bulkInput(lines ...string) *iot.StartThingRegistrationTaskInput {
	o.t.Helper()
	bucket := named("bucket")
	o.upload(bucket, "in/lines.ndjson", lines...)
	return &iot.StartThingRegistrationTaskInput{TemplateBody: new(bulkBody), InputFileBucket: &bucket, InputFileKey: new("in/lines.ndjson"), RoleArn: new(templateRole)}
}

// awaitTask returns a task that has ended.
func (o *operator) awaitTask(id *string) *iot.DescribeThingRegistrationTaskOutput {
	o.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		task := must(o, o.DescribeThingRegistrationTask, &iot.DescribeThingRegistrationTaskInput{TaskId: id})
		if task.Status != types.StatusInProgress && task.Status != types.StatusCancelling {
			return task
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("task is %+v", task)
		}
	}
}

// bulkReport is one line of a report.
type bulkReport struct {
	ErrorMessage *string `json:"errorMessage"`
	LineNumber   int     `json:"lineNumber"`
	Offset       int     `json:"offset"`
	Response     *struct {
		CertificatePEM string            `json:"certificatePem"`
		ResourceARNs   map[string]string `json:"resourceArns"`
	} `json:"response"`
}

// report reads all parts of a report.
func (o *operator) report(id *string, kind types.ReportType) []bulkReport {
	o.t.Helper()
	var all []bulkReport
	in := &iot.ListThingRegistrationTaskReportsInput{TaskId: id, ReportType: kind}
	for {
		page := must(o, o.ListThingRegistrationTaskReports, in)
		for _, link := range page.ResourceLinks {
			all = append(all, o.reportPart(link)...)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return all
		}
	}
}

// reportPart follows a link with no credentials at all.
func (o *operator) reportPart(link string) []bulkReport {
	o.t.Helper()
	request, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, link, http.NoBody)
	if err != nil {
		o.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Cache-Control") != "no-store" {
		o.t.Fatalf("report: %s %v", answer.Status, answer.Header)
	}
	var all []bulkReport
	lines := bufio.NewScanner(answer.Body)
	for lines.Buffer(nil, 1<<20); lines.Scan(); {
		var line bulkReport
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			o.t.Fatalf("report line %q: %v", lines.Text(), err)
		}
		all = append(all, line)
	}
	if err := lines.Err(); err != nil {
		o.t.Fatal(err)
	}
	return all
}

// bulkLine is one line of a file with a fresh request.
func (o *operator) bulkLine(thing string) string {
	o.t.Helper()
	line, err := json.Marshal(map[string]string{"ThingName": thing, "CSR": csr(o.t, thing)})
	if err != nil {
		o.t.Fatal(err)
	}
	return string(line)
}

// registrationTaskAnswers are the cases of bulk registration.
func registrationTaskAnswers() []answerCase {
	return slices.Concat(taskStartAnswers(), taskReadAnswers())
}

func taskStartAnswers() []answerCase {
	const invalid = "InvalidRequestException"
	start := func(change func(*iot.StartThingRegistrationTaskInput)) func(*operator) error {
		return func(o *operator) error {
			in := o.bulkInput(`{}`)
			change(in)
			_, err := o.StartThingRegistrationTask(o.t.Context(), in)
			return err
		}
	}
	return []answerCase{
		{op: "StartThingRegistrationTask", do: func(o *operator) error {
			name := named("thing")
			good, bad := o.bulkLine(name), `{"ThingName":"x y","CSR":"none"}`
			out, err := o.StartThingRegistrationTask(o.t.Context(), o.bulkInput(bad, good))
			if err != nil {
				return err
			}
			task := o.awaitTask(out.TaskId)
			if err := differs("task", []any{task.Status, task.SuccessCount, task.FailureCount, task.PercentageProgress}, []any{types.StatusCompleted, 1, 1, 100}); err != nil {
				return err
			}
			failed, done := o.report(out.TaskId, types.ReportTypeErrors), o.report(out.TaskId, types.ReportTypeResults)
			if len(failed) != 1 || len(done) != 1 || failed[0].ErrorMessage == nil || failed[0].Response != nil || done[0].Response == nil || done[0].ErrorMessage != nil {
				return fmt.Errorf("reports %+v, %+v", failed, done)
			}
			things := must(o, o.ListThingPrincipals, &iot.ListThingPrincipalsInput{ThingName: &name}).Principals
			return differs("lines", []any{failed[0].LineNumber, failed[0].Offset, done[0].LineNumber, done[0].Offset, done[0].Response.ResourceARNs["thing"], things[0]},
				[]any{1, len(bad) + 1, 2, len(bad) + len(good) + 2, arnPrefix + "thing/" + name, done[0].Response.ResourceARNs["certificate"]})
		}},
		{op: "StartThingRegistrationTask", want: invalid, rule: "body", says: "line 1, column 1", do: start(func(in *iot.StartThingRegistrationTaskInput) {
			in.TemplateBody = new("{}")
		})},
		{op: "StartThingRegistrationTask", want: invalid, rule: "bucket", says: "there is no object", do: start(func(in *iot.StartThingRegistrationTaskInput) {
			in.InputFileBucket = new("nowhere")
		})},
		{op: "StartThingRegistrationTask", want: invalid, rule: "key", says: "there is no object", do: start(func(in *iot.StartThingRegistrationTaskInput) {
			in.InputFileKey = new("../../credentials.json")
		})},
		{op: "StartThingRegistrationTask", want: invalid, rule: "role", says: "roleArn", do: start(func(in *iot.StartThingRegistrationTaskInput) {
			in.RoleArn = new("short")
		})},
	}
}

func taskReadAnswers() []answerCase {
	const (
		invalid  = "InvalidRequestException"
		notFound = "ResourceNotFoundException"
	)
	nobody := new("00000000-0000-4000-8000-000000000000")
	tooLong := new(strings.Repeat("x", 41))
	describe := func(id *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.DescribeThingRegistrationTask(o.t.Context(), &iot.DescribeThingRegistrationTaskInput{TaskId: id})
			return err
		}
	}
	stop := func(id *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.StopThingRegistrationTask(o.t.Context(), &iot.StopThingRegistrationTaskInput{TaskId: id})
			return err
		}
	}
	return []answerCase{
		{op: "DescribeThingRegistrationTask", do: func(o *operator) error {
			in := o.bulkInput(o.bulkLine(named("thing")))
			id := must(o, o.StartThingRegistrationTask, in).TaskId
			task := o.awaitTask(id)
			if task.CreationDate == nil || task.LastModifiedDate == nil || task.Message != nil {
				return fmt.Errorf("task %+v", task)
			}
			return differs("task", []string{*task.TaskId, *task.TemplateBody, *task.InputFileBucket, *task.InputFileKey, *task.RoleArn},
				[]string{*id, *in.TemplateBody, *in.InputFileBucket, *in.InputFileKey, *in.RoleArn})
		}},
		{op: "DescribeThingRegistrationTask", want: notFound, says: "does not exist", do: describe(nobody)},
		{op: "DescribeThingRegistrationTask", want: invalid, says: "taskId", do: describe(tooLong)},
		{op: "ListThingRegistrationTasks", do: func(o *operator) error {
			first := must(o, o.StartThingRegistrationTask, o.bulkInput(`{}`)).TaskId
			second := must(o, o.StartThingRegistrationTask, o.bulkInput(`{}`)).TaskId
			o.awaitTask(first)
			o.awaitTask(second)
			var found []string
			in := &iot.ListThingRegistrationTasksInput{MaxResults: new(int32(1)), Status: types.StatusCompleted}
			for {
				out, err := o.ListThingRegistrationTasks(o.t.Context(), in)
				if err != nil {
					return err
				}
				for _, id := range out.TaskIds {
					if id == *first || id == *second {
						found = append(found, id)
					}
				}
				if in.NextToken = out.NextToken; in.NextToken == nil {
					return differs("tasks, the newest first", found, []string{*second, *first})
				}
			}
		}},
		{op: "ListThingRegistrationTasks", want: invalid, says: "status", do: func(o *operator) error {
			_, err := o.ListThingRegistrationTasks(o.t.Context(), &iot.ListThingRegistrationTasksInput{Status: "Done"})
			return err
		}},
		{op: "StopThingRegistrationTask", do: func(o *operator) error {
			lines := make([]string, 0, 2000)
			for range cap(lines) {
				lines = append(lines, o.bulkLine(named("thing")))
			}
			id := must(o, o.StartThingRegistrationTask, o.bulkInput(lines...)).TaskId
			if err := stop(id)(o); err != nil {
				return err
			}
			task := o.awaitTask(id)
			if task.Status != types.StatusCancelled || task.SuccessCount >= int32(len(lines)) {
				return fmt.Errorf("stopped task %+v", task)
			}
			return differs("done lines", len(o.report(id, types.ReportTypeResults)), task.SuccessCount)
		}},
		{op: "StopThingRegistrationTask", want: notFound, says: "does not exist", do: stop(nobody)},
		{op: "StopThingRegistrationTask", want: invalid, rule: "ended", says: "is Completed", do: func(o *operator) error {
			id := must(o, o.StartThingRegistrationTask, o.bulkInput(`{}`)).TaskId
			o.awaitTask(id)
			return stop(id)(o)
		}},
		{op: "ListThingRegistrationTaskReports", do: func(o *operator) error {
			id := must(o, o.StartThingRegistrationTask, o.bulkInput(`{}`, "", "none", `{"CSR":7}`)).TaskId
			o.awaitTask(id)
			failed := o.report(id, types.ReportTypeErrors)
			if len(failed) != 3 || len(o.report(id, types.ReportTypeResults)) != 0 {
				return fmt.Errorf("reports %+v", failed)
			}
			var numbers []int
			for i, says := range []string{"ThingName", "no JSON object", "must be a text"} {
				numbers = append(numbers, failed[i].LineNumber)
				if !strings.Contains(*failed[i].ErrorMessage, says) {
					return errors.New(*failed[i].ErrorMessage)
				}
			}
			return differs("lines", numbers, []int{1, 3, 4})
		}},
		{op: "ListThingRegistrationTaskReports", want: invalid, says: "reportType", do: func(o *operator) error {
			_, err := o.ListThingRegistrationTaskReports(o.t.Context(), &iot.ListThingRegistrationTaskReportsInput{TaskId: nobody, ReportType: "ALL"})
			return err
		}},
	}
}
