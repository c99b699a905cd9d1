// Package fault holds the one error type that crosses subsystem borders.
// Domains raise it; only the adapters (awsapi, mqttapi) turn its code into a
// status and a wire shape. It imports the standard library only.
package fault

import (
	"errors"
	"fmt"
)

// Code classifies an error by what the caller did or met. The names are those
// of the AWS IoT exceptions without the suffix "Exception"; which exception
// and status an operation answers is chosen at the edge.
type Code string

// Codes.
const (
	InvalidRequest        Code = "InvalidRequest"
	InvalidQuery          Code = "InvalidQuery"
	InvalidAggregation    Code = "InvalidAggregation"
	MalformedPolicy       Code = "MalformedPolicy"
	ResourceNotFound      Code = "ResourceNotFound"
	ResourceAlreadyExists Code = "ResourceAlreadyExists"
	VersionConflict       Code = "VersionConflict"
	VersionsLimitExceeded Code = "VersionsLimitExceeded"
	DeleteConflict        Code = "DeleteConflict"
	CertificateState      Code = "CertificateState"
	CertificateValidation Code = "CertificateValidation"
	CertificateConflict   Code = "CertificateConflict"
	// RegistrationFailure is a template that cannot be carried out for a device.
	RegistrationFailure Code = "ResourceRegistrationFailure"
	// RegistrationCodeValidation is a verification certificate that does not
	// carry the account's registration code.
	RegistrationCodeValidation Code = "RegistrationCodeValidation"
	// TransferConflict is a certificate whose transfer would meet another.
	TransferConflict Code = "TransferConflict"
	// TransferAlreadyCompleted is a step of a transfer that is over.
	TransferAlreadyCompleted Code = "TransferAlreadyCompleted"
	LimitExceeded            Code = "LimitExceeded"
	IndexNotReady            Code = "IndexNotReady"
	NotConfigured            Code = "NotConfigured"
	// Conflict is the shadow's "Version conflict" on the data plane.
	Conflict Code = "Conflict"
	// RequestEntityTooLarge is a document over its size limit.
	RequestEntityTooLarge Code = "RequestEntityTooLarge"
	// UnsupportedDocumentEncoding is a document that is not UTF-8.
	UnsupportedDocumentEncoding Code = "UnsupportedDocumentEncoding"
	// Unauthorized is a caller whose identity could not be proven.
	Unauthorized Code = "Unauthorized"
	// Forbidden is a known caller without the permission.
	Forbidden   Code = "Forbidden"
	Throttling  Code = "Throttling"
	Unavailable Code = "ServiceUnavailable"
	Internal    Code = "InternalFailure"
	// Timeout is an answer that did not come in time from somebody else.
	Timeout Code = "GatewayTimeout"
	// InvalidResponse is an answer of a customer's function that breaks its
	// contract.
	InvalidResponse Code = "InvalidResponse"
	// NotOffered is an operation or a field that Muster does not model.
	NotOffered Code = "NotOffered"
)

// Error is a coded error. Message is safe for callers; Cause is for the log
// only and never leaves the process.
type Error struct {
	Code    Code
	Message string
	// ResourceID and ResourceARN name the resource that is in the way; set
	// with ResourceAlreadyExists.
	ResourceID  string
	ResourceARN string
	Cause       error
}

// Error returns code, message and cause for the log.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns an error with a formatted message that callers may see.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns an error whose cause is kept for the log.
func Wrap(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// From turns any error into a coded one: a coded error anywhere in the chain is
// returned as it is, everything else becomes Internal with a text that
// discloses nothing.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if coded, ok := errors.AsType[*Error](err); ok {
		return coded
	}
	return &Error{Code: Internal, Message: "Internal failure", Cause: err}
}

// CodeOf returns the code of err, Internal for an uncoded error and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return From(err).Code
}
