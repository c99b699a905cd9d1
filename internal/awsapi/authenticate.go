package awsapi

import (
	"net/http"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/fault"
)

// Authenticate proves by signature who sent a request that is no AWS
// operation, for front ends beside this one. It must be signed for iot. The error is a fault of code
// Unauthorized.
func (s *Server) Authenticate(r *http.Request, body []byte) (Caller, error) {
	signature, err := parseSignature(r)
	if err != nil {
		return Caller{}, fault.Wrap(fault.Unauthorized, err, "%s", signatureProblem(err).message)
	}
	if signature != nil {
		if service, _ := signingService(signature.Service); service != catalog.IoT {
			return Caller{}, fault.New(fault.Unauthorized, "Credential must be scoped to the service iot")
		}
	}
	caller, p := s.authenticate(r, nil, signature, body)
	if p != nil {
		return Caller{}, fault.Wrap(fault.Unauthorized, p.cause, "%s", p.message)
	}
	return caller, nil
}
