package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
)

// describeEndpoint tells devices where to connect.
func (a *api) describeEndpoint(_ context.Context, c *awsapi.Call, in *iotwire.DescribeEndpointInput) (*iotwire.DescribeEndpointOutput, error) {
	address, err := a.Registry.DescribeEndpoint(c.Account, value(in.EndpointType))
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeEndpointOutput{EndpointAddress: &address}, nil
}
