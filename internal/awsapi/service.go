package awsapi

import (
	"net"
	"net/http"
	"strings"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
)

// credentials is the credential provider, which has its own endpoint name but
// no operation in any model.
const credentials catalog.Service = "credentials"

// hostService tells a service by the endpoint name that a client used. Names
// that say nothing, such as localhost, give false. The region is part of what
// makes a name one of ours: a server may well be called iot.plant.example or
// edge.iot.plant.example and answer for all services there.
//
//	iot.<region>…                control plane
//	<prefix>.jobs.iot.<region>…  jobs data plane
//	<prefix>.credentials.iot.…   credential provider
//	<prefix>[-ats].iot.<region>… data plane
func hostService(host, region string) (catalog.Service, bool) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	prefix, _, ok := strings.Cut("."+strings.ToLower(host)+".", ".iot."+region+".")
	prefix = strings.TrimPrefix(prefix, ".")
	switch {
	case !ok || strings.HasPrefix(host, "."):
		return "", false
	case prefix == "":
		return catalog.IoT, true
	case prefix == "jobs" || strings.HasSuffix(prefix, ".jobs"):
		return catalog.IoTJobsData, true
	case prefix == "credentials" || strings.HasSuffix(prefix, ".credentials"):
		return credentials, true
	default:
		return catalog.IoTData, true
	}
}

// signingService tells a service by the name that clients sign for.
func signingService(name string) (catalog.Service, bool) {
	switch name {
	case "iot", "execute-api":
		// Clients of before 2024, such as the AWS command line 2.9 of Debian 12,
		// sign the control plane for the gateway that was in front of it.
		return catalog.IoT, true
	case "iotdata", "iotdevicegateway":
		return catalog.IoTData, true
	case "iot-jobs-data":
		return catalog.IoTJobsData, true
	case "monitoring", "sns", "firehose", "logs", "sts", "s3":
		return catalog.Service(name), true
	default:
		return "", false
	}
}

// family reports whether a service is one of those that have endpoint names.
func family(service catalog.Service) bool {
	return service == catalog.IoT || service == catalog.IoTData || service == catalog.IoTJobsData
}

// candidates returns the services whose operations a request can mean, most
// likely first. signed is the service name of the signature, empty without
// one. The host decides where it can; the data endpoint also answers for jobs,
// whose paths differ from its own. A signature for a service outside the family
// means nothing at an endpoint of it: what was signed for one service cannot be
// used at another, whose rules for signing differ.
func candidates(r *http.Request, signed, region string) []catalog.Service {
	dataPlane := []catalog.Service{catalog.IoTData, catalog.IoTJobsData}
	byName, named := signingService(signed)
	if byHost, ok := hostService(r.Host, region); ok && (signed == "" || family(byName)) {
		if byHost != catalog.IoTData {
			return []catalog.Service{byHost}
		}
		if byName == catalog.IoTJobsData {
			return []catalog.Service{catalog.IoTJobsData}
		}
		return dataPlane
	}
	switch {
	case named:
		return []catalog.Service{byName}
	case signed == "":
		return dataPlane
	default:
		return nil
	}
}
