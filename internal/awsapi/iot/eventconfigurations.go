package iot

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
)

// registerEventConfigurations offers the switches of registry events.
func (a *api) registerEventConfigurations(s *awsapi.Server) {
	offer(s, "UpdateEventConfigurations", awsapi.All, a.updateEventConfigurations,
		awsapi.Partial("JOB, JOB_EXECUTION, POLICY, CERTIFICATE and CA_CERTIFICATE cannot be enabled"))
	offer(s, "DescribeEventConfigurations", awsapi.All, a.describeEventConfigurations)
}

func (a *api) updateEventConfigurations(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateEventConfigurationsInput,
) (*iotwire.UpdateEventConfigurationsOutput, error) {
	changes := map[string]bool{}
	for kind, configuration := range in.EventConfigurations {
		changes[kind] = value(configuration.Enabled)
	}
	return &iotwire.UpdateEventConfigurationsOutput{}, a.Registry.UpdateEventConfigurations(ctx, c.Account, changes)
}

func (a *api) describeEventConfigurations(
	ctx context.Context, c *awsapi.Call, _ *iotwire.DescribeEventConfigurationsInput,
) (*iotwire.DescribeEventConfigurationsOutput, error) {
	found, err := a.Registry.DescribeEventConfigurations(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	out := &iotwire.DescribeEventConfigurationsOutput{
		EventConfigurations: map[string]iotwire.Configuration{}, CreationDate: moment(found.Created), LastModifiedDate: moment(found.Modified),
	}
	for kind, on := range found.Enabled {
		out.EventConfigurations[kind] = iotwire.Configuration{Enabled: &on}
	}
	return out, nil
}

// moment leaves out a time that is not known.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
