package registry

import (
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Endpoints are the bare host names, without scheme and port, that devices are
// told to connect to. Each function may give every account its own name.
type Endpoints struct {
	Data        func(fleet.Account) string
	Jobs        func(fleet.Account) string
	Credentials func(fleet.Account) string
}

// DescribeEndpoint returns the host name of an endpoint type. Without a type
// it is the data endpoint, as with iot:Data, whose separate certificate chain
// has no counterpart here.
func (s *Service) DescribeEndpoint(account fleet.Account, endpointType string) (string, error) {
	var name func(fleet.Account) string
	switch endpointType {
	case "", "iot:Data", "iot:Data-ATS":
		name = s.endpoints.Data
	case "iot:Jobs":
		name = s.endpoints.Jobs
	case "iot:CredentialProvider":
		name = s.endpoints.Credentials
	default:
		return "", fault.New(fault.InvalidRequest,
			"endpointType must be iot:Data, iot:Data-ATS, iot:CredentialProvider or iot:Jobs")
	}
	if name == nil {
		return "", fault.New(fault.NotOffered, "endpointType: %s is not offered by this version of Muster", endpointType)
	}
	return name(account), nil
}
