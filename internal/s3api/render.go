package s3api

import (
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/objectstore"
)

// namespace is that of S3's documents.
const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// problem is an error in S3's terms.
type problem struct {
	status        int
	code, message string
}

func (p *problem) Error() string { return p.code + ": " + p.message }

func problemf(status int, code, format string, args ...any) error {
	return &problem{status, code, fmt.Sprintf(format, args...)}
}

// errorBody is S3's document of an error.
type errorBody struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string   `xml:"Code"`
	Message   string   `xml:"Message"`
	Resource  string   `xml:"Resource"`
	RequestID string   `xml:"RequestId"`
}

// fail answers an error, unless an answer is under way.
func (c *call) fail(err error) {
	p := c.problemOf(err)
	c.trail.Fail(p.code, p.message)
	c.trail.Finish()
	if p.status >= http.StatusInternalServerError && p.code != "NotImplemented" {
		c.o.Logger.ErrorContext(c.r.Context(), "request failed", slog.String("request", c.id), slog.Any("err", err))
	}
	text, err := xml.Marshal(errorBody{Code: p.code, Message: p.message, Resource: c.r.URL.Path, RequestID: c.id})
	if err != nil {
		text = nil
	}
	c.w.Header().Set("Content-Type", "application/xml")
	// What is left of a body would be taken for the next request.
	c.w.Header().Set("Connection", "close")
	c.w.WriteHeader(p.status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(append([]byte(xml.Header), text...)) // the caller may have left
	}
}

// problemOf finds S3's words for an error.
func (c *call) problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	for _, known := range []struct {
		is     error
		status int
		code   string
		// message is empty where the error says more.
		message string
	}{
		{objectstore.ErrNoBucket, http.StatusNotFound, "NoSuchBucket", "The bucket does not exist"},
		{objectstore.ErrNotFound, http.StatusNotFound, "NoSuchKey", "The object does not exist"},
		{objectstore.ErrExists, http.StatusConflict, "BucketAlreadyOwnedByYou", "The account has the bucket already"},
		{objectstore.ErrNotEmpty, http.StatusConflict, "BucketNotEmpty", "The bucket has objects"},
		{objectstore.ErrName, http.StatusBadRequest, "InvalidArgument", ""},
		{objectstore.ErrTooLarge, http.StatusBadRequest, "EntityTooLarge", ""},
		{objectstore.ErrNoUpload, http.StatusNotFound, "NoSuchUpload", "The upload does not exist, or is over"},
		{objectstore.ErrPart, http.StatusBadRequest, "InvalidPart", ""},
		{objectstore.ErrFull, http.StatusInsufficientStorage, "InsufficientStorage", "The server's disk is full"},
		{sigv4.ErrMismatch, http.StatusForbidden, "SignatureDoesNotMatch", "The signature is not the one of this request"},
		{sigv4.ErrSkew, http.StatusForbidden, "RequestTimeTooSkewed", "The clocks of client and server differ by more than five minutes"},
	} {
		if !errors.Is(err, known.is) {
			continue
		}
		if known.message == "" {
			known.message = err.Error()
		}
		return &problem{known.status, known.code, known.message}
	}
	f := fault.From(err)
	switch f.Code { //nolint:exhaustive // the others do not come about here
	case fault.Unauthorized, fault.Forbidden:
		return &problem{http.StatusForbidden, "AccessDenied", f.Message}
	case fault.NotOffered:
		return &problem{http.StatusNotImplemented, "NotImplemented", f.Message}
	case fault.Unavailable:
		return &problem{http.StatusServiceUnavailable, "ServiceUnavailable", f.Message}
	case fault.InvalidRequest:
		return &problem{http.StatusBadRequest, "InvalidRequest", f.Message}
	}
	return &problem{http.StatusInternalServerError, "InternalError", "The server failed; its log says why"}
}

// answer writes a document.
func (c *call) answer(document any) error {
	text, err := xml.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	c.trail.Finish()
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(append([]byte(xml.Header), text...)) // the caller may have left
	return nil
}

// done answers without a document.
func (c *call) done(status int) error {
	c.trail.Finish()
	c.w.WriteHeader(status)
	return nil
}
