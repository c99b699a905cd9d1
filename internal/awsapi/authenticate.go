package awsapi

import (
	"net/http"
	"slices"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
)

// Authenticate proves by signature who sent a request that is no AWS
// operation, for front ends beside this one. It must be signed for iot. The error
// is a fault of code Unauthorized, or Unavailable when it is ours.
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
		return Caller{}, unproven(p)
	}
	if err := s.misdirectedFault(r, &caller); err != nil {
		return Caller{}, err
	}
	return caller, nil
}

// AuthenticateHead refuses a request whose signature cannot be right whatever
// body follows, so that nobody unknown has a large one taken in. The request must
// state its body's hash, and Authenticate is still to be asked.
func (s *Server) AuthenticateHead(r *http.Request) error {
	signature, err := parseSignature(r)
	if err == nil && signature == nil {
		err = sigv4.ErrMissing
	}
	if err != nil {
		return fault.Wrap(fault.Unauthorized, err, "%s", signatureProblem(err).message)
	}
	if _, p := s.authenticate(r, nil, signature.HeadOnly(), nil); p != nil {
		return fault.Wrap(fault.Unauthorized, p.cause, "%s", p.message)
	}
	return nil
}

// SignedForS3 reports whether a request bears a signature for s3.
func SignedForS3(r *http.Request) bool {
	signature, err := parseSignature(r)
	return err == nil && signature != nil && signature.Service == string(catalog.S3)
}

// AuthenticateS3 proves by the head of a request for s3 who sent it. The body is as
// X-Amz-Content-Sha256 says: a hash that is still to be compared, or not signed. The
// error is as Authenticate's.
func (s *Server) AuthenticateS3(r *http.Request) (Caller, error) {
	signature, err := parseSignature(r)
	if err != nil || signature == nil {
		return Caller{}, fault.Wrap(fault.Unauthorized, err, "The request must be signed for the service s3")
	}
	caller, p := s.authenticate(r, nil, signature.HeadOnly(), nil)
	if p != nil {
		return Caller{}, unproven(p)
	}
	if err := s.misdirectedFault(r, &caller); err != nil {
		return Caller{}, err
	}
	return caller, nil
}

// AuthenticateUpgrade proves by presigned query or by header who opens a
// WebSocket. Beside the host as sent, the signature is tried with each of
// hosts. It returns nil without error for a request that bears no signature; the
// error is a fault of code Unauthorized, or Unavailable when it is ours.
func (s *Server) AuthenticateUpgrade(r *http.Request, hosts ...string) (*Caller, error) {
	signature, err := parseSignature(r)
	if err != nil {
		return nil, fault.Wrap(fault.Unauthorized, err, "%s", signatureProblem(err).message)
	}
	if signature == nil {
		return nil, nil //nolint:nilnil // absent is neither.
	}
	if !slices.Contains([]string{"iotdevicegateway", "iotdata"}, signature.Service) {
		return nil, fault.New(fault.Unauthorized, "Credential must be scoped to the service iotdevicegateway or iotdata, not %q", signature.Service)
	}
	caller, p := s.bySignature(r, Caller{SourceAddress: sourceAddress(r), Secure: r.TLS != nil}, signature, nil, hosts...)
	if p == nil {
		if err := s.misdirectedFault(r, &caller); err != nil {
			return nil, err
		}
		return &caller, nil
	}
	return nil, unproven(p)
}

// unproven is the fault of a caller who could not be proven: the caller's, or
// ours.
func unproven(p *problem) error {
	if p.status >= http.StatusInternalServerError {
		return fault.Wrap(fault.Unavailable, p.cause, "%s", p.message)
	}
	return fault.Wrap(fault.Unauthorized, p.cause, "%s", p.message)
}
