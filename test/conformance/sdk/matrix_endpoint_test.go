package sdk

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/iot"
)

// endpointAnswers are the cases of DescribeEndpoint.
func endpointAnswers() []answerCase {
	describe := func(kind string) func(*operator) error {
		return func(o *operator) error {
			out, err := o.DescribeEndpoint(o.t.Context(), &iot.DescribeEndpointInput{EndpointType: &kind})
			if err == nil && *out.EndpointAddress != "localhost" {
				err = fmt.Errorf("%s is at %q", kind, *out.EndpointAddress)
			}
			return err
		}
	}
	return []answerCase{
		{op: "DescribeEndpoint", do: describe("iot:Data-ATS")},
		{op: "DescribeEndpoint", want: "InvalidRequestException", says: "endpointType", do: describe("iot:Moon")},
	}
}
