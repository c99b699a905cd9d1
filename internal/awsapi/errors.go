package awsapi

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/fault"
)

// problem is an error as a client will see it.
type problem struct {
	name    string
	status  int
	message string
	// id and arn name the resource that is in the way.
	id, arn string
	// cause is for the log.
	cause error
}

// Names that no model lists because every service may answer them.
const (
	accessDenied     = "AccessDeniedException"
	unknownOperation = "UnknownOperationException"
	unsupported      = "UnsupportedOperationException"
	internalFailure  = "InternalFailureException"
	invalidRequest   = "InvalidRequestException"
	validation       = "ValidationException"
)

// exceptionsFor returns the exceptions that say the same as a code, best
// first. An operation answers the first that its model lists.
func exceptionsFor(code fault.Code) []string {
	table := map[fault.Code][]string{
		fault.InvalidRequest:              {invalidRequest, validation},
		fault.InvalidQuery:                {"InvalidQueryException", invalidRequest},
		fault.InvalidAggregation:          {"InvalidAggregationException", invalidRequest},
		fault.MalformedPolicy:             {"MalformedPolicyException", invalidRequest},
		fault.ResourceNotFound:            {"ResourceNotFoundException"},
		fault.ResourceAlreadyExists:       {"ResourceAlreadyExistsException", "ConflictException", "TaskAlreadyExistsException"},
		fault.VersionConflict:             {"VersionConflictException", "ConflictException", "ConflictingResourceUpdateException"},
		fault.VersionsLimitExceeded:       {"VersionsLimitExceededException", "LimitExceededException"},
		fault.DeleteConflict:              {"DeleteConflictException", "ConflictException", invalidRequest},
		fault.CertificateState:            {"CertificateStateException"},
		fault.CertificateValidation:       {"CertificateValidationException", invalidRequest},
		fault.CertificateConflict:         {"CertificateConflictException", "ResourceAlreadyExistsException"},
		fault.RegistrationFailure:         {"ResourceRegistrationFailureException", invalidRequest},
		fault.RegistrationCodeValidation:  {"RegistrationCodeValidationException"},
		fault.TransferConflict:            {"TransferConflictException"},
		fault.TransferAlreadyCompleted:    {"TransferAlreadyCompletedException"},
		fault.LimitExceeded:               {"LimitExceededException", "ServiceQuotaExceededException", "ThrottlingException", invalidRequest},
		fault.IndexNotReady:               {"IndexNotReadyException"},
		fault.NotConfigured:               {"NotConfiguredException"},
		fault.Conflict:                    {"ConflictException", "ConflictingResourceUpdateException", "VersionConflictException"},
		fault.RequestEntityTooLarge:       {"RequestEntityTooLargeException"},
		fault.UnsupportedDocumentEncoding: {"UnsupportedDocumentEncodingException"},
		fault.Unauthorized:                {"UnauthorizedException"},
		fault.Forbidden:                   {"ForbiddenException"},
		fault.Throttling:                  {"ThrottlingException"},
		fault.Unavailable:                 {"ServiceUnavailableException", internalFailure, "InternalServerException", "InternalException"},
		fault.Timeout:                     {"GatewayTimeoutException", "ServiceUnavailableException", internalFailure, "InternalServerException", "InternalException"},
		fault.Internal:                    {internalFailure, "InternalServerException", "InternalException"},
		fault.InvalidResponse:             {"InvalidResponseException"},
		fault.NotOffered:                  {invalidRequest, validation},
	}
	return table[code]
}

// outsideModels reports whether a code may be answered although the
// operation's model has no exception for it: the machinery raises these before
// any adapter runs, and every service answers them.
func outsideModels(code fault.Code) bool {
	return slices.Contains([]fault.Code{
		fault.InvalidRequest, fault.RequestEntityTooLarge, fault.Unauthorized, fault.Forbidden,
		fault.Throttling, fault.Unavailable, fault.Internal, fault.NotOffered,
	}, code)
}

// problemOf chooses exception and status for an error of an operation. In a
// strict server, a code that the operation's model cannot express becomes an
// internal failure that says so.
func (s *Server) problemOf(op *catalog.Operation, err error) *problem {
	f := fault.From(err)
	p := &problem{message: f.Message, id: f.ResourceID, arn: f.ResourceARN, cause: err}
	for _, name := range exceptionsFor(f.Code) {
		if op.Lists(name) {
			return s.named(op, p, name)
		}
	}
	if !outsideModels(f.Code) && s.options.Strict {
		p.message = fmt.Sprintf("the adapter of %s answered %s, which its model does not list", op.Name, f.Code)
		return s.named(op, p, internalFailure)
	}
	return s.fallback(op, p, f.Code)
}

// fallback chooses among what the model does not list.
func (s *Server) fallback(op *catalog.Operation, p *problem, code fault.Code) *problem {
	switch code {
	case fault.Forbidden:
		if op.Service == catalog.IoTData {
			return s.named(op, p, "ForbiddenException")
		}
		return p.as(accessDenied, http.StatusForbidden)
	case fault.NotOffered:
		return p.as(unsupported, http.StatusBadRequest)
	case fault.RequestEntityTooLarge:
		// Only the data plane has a word for it.
		if op.Service != catalog.IoTData {
			return s.problemOf(op, fault.New(fault.InvalidRequest, "%s", p.message))
		}
	case fault.Unauthorized:
		return p.as("UnauthorizedException", http.StatusUnauthorized)
	default:
	}
	for _, name := range exceptionsFor(code) {
		if _, ok := s.options.Catalog.Exception(op.Service, name); ok {
			return s.named(op, p, name)
		}
	}
	return s.named(op, p, invalidRequest)
}

// named fills in an exception of the operation's service.
func (s *Server) named(op *catalog.Operation, p *problem, name string) *problem {
	status := http.StatusInternalServerError
	if e, ok := s.options.Catalog.Exception(op.Service, name); ok {
		status = e.Status
	}
	return p.as(name, status)
}

// as fills in name and status.
func (p *problem) as(name string, status int) *problem {
	p.name, p.status = name, status
	return p
}
