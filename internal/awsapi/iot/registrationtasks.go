package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/registrationtask"
)

// registerRegistrationTasks offers the operations on bulk registration.
func (a *api) registerRegistrationTasks(s *awsapi.Server) {
	const buckets = "inputFileBucket is a folder of objects.dir, or a bucket of objects.s3-url; the role is kept and not assumed"
	offer(s, "StartThingRegistrationTask", awsapi.All, a.startRegistrationTask, awsapi.Partial(buckets))
	offer(s, "DescribeThingRegistrationTask", awsapi.All, a.describeRegistrationTask)
	offer(s, "ListThingRegistrationTasks", awsapi.All, a.listRegistrationTasks)
	offer(s, "StopThingRegistrationTask", awsapi.All, a.stopRegistrationTask)
	offer(s, "ListThingRegistrationTaskReports", awsapi.All, a.listRegistrationTaskReports)
}

func (a *api) startRegistrationTask(
	ctx context.Context, c *awsapi.Call, in *iotwire.StartThingRegistrationTaskInput,
) (*iotwire.StartThingRegistrationTaskOutput, error) {
	begun, err := a.Tasks.Start(ctx, c.Account, registrationtask.StartCommand{
		Body: in.TemplateBody, Bucket: in.InputFileBucket, Key: in.InputFileKey, RoleARN: in.RoleARN,
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.StartThingRegistrationTaskOutput{TaskID: &begun.ID}, nil
}

func (a *api) describeRegistrationTask(
	ctx context.Context, c *awsapi.Call, in *iotwire.DescribeThingRegistrationTaskInput,
) (*iotwire.DescribeThingRegistrationTaskOutput, error) {
	t, err := a.Tasks.Describe(ctx, c.Account, in.TaskID)
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeThingRegistrationTaskOutput{
		TaskID: &t.ID, Status: new(string(t.Status)), TemplateBody: &t.Body, InputFileBucket: &t.Bucket, InputFileKey: &t.Key, RoleARN: &t.RoleARN,
		CreationDate: &t.Created, LastModifiedDate: &t.Modified, Message: optional(t.Message),
		SuccessCount: new(int32(t.Succeeded)), FailureCount: new(int32(t.Failed)),
		PercentageProgress: new(int32(t.Progress)),
	}, nil
}

func (a *api) listRegistrationTasks(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListThingRegistrationTasksInput,
) (*iotwire.ListThingRegistrationTasksOutput, error) {
	status := value(in.Status)
	after, err := c.PageKey(in.NextToken, status)
	if err != nil {
		return nil, err
	}
	ids, next, err := a.Tasks.List(ctx, c.Account, registrationtask.Status(status), after, int(value(in.MaxResults)))
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingRegistrationTasksOutput{TaskIDs: ids, NextToken: c.NextToken(next, status)}, nil
}

func (a *api) stopRegistrationTask(
	ctx context.Context, c *awsapi.Call, in *iotwire.StopThingRegistrationTaskInput,
) (*iotwire.StopThingRegistrationTaskOutput, error) {
	if err := a.Tasks.Stop(ctx, c.Account, in.TaskID); err != nil {
		return nil, err
	}
	return &iotwire.StopThingRegistrationTaskOutput{}, nil
}

// listRegistrationTaskReports has pages of links.
func (a *api) listRegistrationTaskReports(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListThingRegistrationTaskReportsInput,
) (*iotwire.ListThingRegistrationTaskReportsOutput, error) {
	report := registrationtask.ReportType(in.ReportType)
	after, err := c.PageKey(in.NextToken, in.TaskID, in.ReportType)
	if err != nil {
		return nil, err
	}
	parts, err := a.Tasks.Parts(ctx, c.Account, in.TaskID, report)
	if err != nil {
		return nil, err
	}
	links, next := a.Reports.page(c, in.TaskID, report, after, parts, int(value(in.MaxResults)))
	return &iotwire.ListThingRegistrationTaskReportsOutput{
		ResourceLinks: links, ReportType: &in.ReportType, NextToken: c.NextToken(next, in.TaskID, in.ReportType),
	}, nil
}
