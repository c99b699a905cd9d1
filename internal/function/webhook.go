package function

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Headers of a request to a web service.
const (
	// HeaderFunction names the function that is meant.
	HeaderFunction = "Muster-Function"
	// HeaderSignature is t=<seconds since 1970>,v1=<hexadecimal HMAC-SHA256
	// under the secret of those seconds, a full stop and the body>.
	HeaderSignature = "Muster-Signature"
)

// maxAnswerHeader bounds the header of an answer in bytes.
const maxAnswerHeader = 16 << 10

// webClient calls web services.
type webClient struct {
	http   *http.Client
	secret []byte
	now    func() time.Time
}

// newWebClient follows no redirect: the answer of somebody else decides
// nothing. There is no proxy either.
func newWebClient(secret []byte, now func() time.Time) *webClient {
	return &webClient{
		secret: secret, now: now,
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				MaxIdleConnsPerHost: maxRunning, IdleConnTimeout: time.Minute,
				MaxResponseHeaderBytes: maxAnswerHeader, DisableCompression: true,
			},
		},
	}
}

// post sends the input and reads the answer.
func (c *webClient) post(ctx context.Context, d Definition, input []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, bytes.NewReader(input))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Muster")
	r.Header.Set(HeaderFunction, d.Name)
	r.Header.Set(HeaderSignature, Sign(c.secret, c.now(), input))
	answer, err := c.http.Do(r)
	if err != nil {
		// Without the address, which may hold a secret.
		if of, ok := errors.AsType[*url.Error](err); ok {
			err = of.Err
		}
		return nil, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	defer answer.Body.Close() //nolint:errcheck // nothing was written
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: it answered %s", ErrFailed, answer.Status)
	}
	output, err := io.ReadAll(io.LimitReader(answer.Body, maxOutput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrFailed, err)
	case len(output) > maxOutput:
		return nil, fmt.Errorf("%w: it answered more than %d bytes", ErrFailed, maxOutput)
	}
	return output, nil
}

// close drops idle connections, whose goroutines would outlive the server.
func (c *webClient) close() { c.http.CloseIdleConnections() }

// Sign makes the value of HeaderSignature.
func Sign(secret []byte, at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
