// Package apiclient calls a server's public REST interfaces with a signed
// request, for the command line and the simulator. It knows no private door:
// everything here could be done with the AWS CLI. It keeps no state besides
// idle connections and starts no goroutines of its own.
package apiclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/awsapi/sigv4"
)

// Signing names of the services.
const (
	// ServiceControl is the registry, groups, policies and the index.
	ServiceControl = "iot"
	// ServiceData is shadows and publishing.
	ServiceData = "iotdata"
)

// DefaultEndpoint is where a server on this machine listens.
const DefaultEndpoint = "http://127.0.0.1:8080"

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// Options of New.
type Options struct {
	// Endpoint is the server's base URL; empty means DefaultEndpoint.
	Endpoint    string
	Credentials Credentials
	// CAFile holds the authorities of an https endpoint; empty means those
	// of the system.
	CAFile string
	// MaxConns bounds connections to the server; 0 means no bound.
	MaxConns int
	// Now is the clock that dates signatures.
	Now func() time.Time
}

// Client sends requests to one server. It is safe for concurrent use.
type Client struct {
	base        string
	credentials Credentials
	http        *http.Client
	now         func() time.Time
}

// New checks the options. It does not connect.
func New(o Options) (*Client, error) {
	if o.Endpoint == "" {
		o.Endpoint = DefaultEndpoint
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("endpoint %q is not a URL such as %s", o.Endpoint, DefaultEndpoint)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: max(2, o.MaxConns), MaxConnsPerHost: o.MaxConns, IdleConnTimeout: time.Minute}
	if u.Scheme == "https" {
		config, err := tlsConfig(o.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = config
	}
	return &Client{
		base: strings.TrimRight(o.Endpoint, "/"), credentials: o.Credentials,
		http: &http.Client{Transport: transport}, now: o.Now,
	}, nil
}

// tlsConfig trusts the authorities in a file.
func tlsConfig(caFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return config, nil
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	return config, nil
}

// Region is what requests are signed for.
func (c *Client) Region() string { return c.credentials.Region }

// CloseIdle ends connections that nobody uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Request is one call. Path is escaped already; see Path. Without a Service it is
// not signed.
type Request struct {
	Service, Method, Path string
	Query                 url.Values
	Header                http.Header
	Body                  []byte
}

// Path joins segments and escapes each, so that names with ':' or '/' stay
// one segment.
func Path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(segment(s))
	}
	return b.String()
}

// segment escapes a name so that it stays one segment of a path, also one
// that is only dots, which would mean a folder.
func segment(name string) string {
	if strings.Trim(name, ".") == "" {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// Error is a server's refusal.
type Error struct {
	Status int
	// Type is the exception's name.
	Type, Message, RequestID string
}

// Error is the server's own message with what an operator needs to find it in
// the server's log.
func (e *Error) Error() string {
	text := e.Message
	if text == "" {
		text = http.StatusText(e.Status)
	}
	if e.Type != "" {
		text = e.Type + ": " + text
	}
	if e.RequestID != "" {
		text += " (request id " + e.RequestID + ")"
	}
	return text
}

// Is reports whether err is a refusal of the named type.
func Is(err error, exception string) bool {
	var refusal *Error
	return errors.As(err, &refusal) && refusal.Type == exception
}

// Raw sends a request and returns the body of a 2xx answer.
func (c *Client) Raw(ctx context.Context, in Request) ([]byte, error) {
	response, err := c.send(ctx, in)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("answer is larger than %d bytes", maxAnswer)
	}
	return data, nil
}

// Stream sends a request and returns the open body of a 2xx answer, for
// answers of any length. The caller closes it.
func (c *Client) Stream(ctx context.Context, in Request) (io.ReadCloser, error) {
	response, err := c.send(ctx, in)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// send signs and sends, and turns everything but 2xx into *Error.
func (c *Client) send(ctx context.Context, in Request) (*http.Response, error) {
	address := c.base + in.Path
	if len(in.Query) > 0 {
		address += "?" + in.Query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, in.Method, address, bytes.NewReader(in.Body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	maps.Copy(request.Header, in.Header)
	if len(in.Body) > 0 && request.Header.Get("Content-Type") == "" {
		request.Header.Set("Content-Type", "application/json")
	}
	key := sigv4.Key{AccessKeyID: c.credentials.AccessKeyID, Secret: c.credentials.Secret, Token: c.credentials.Token}
	if in.Service == "" {
		return c.do(request)
	}
	if err := sigv4.Sign(request, in.Body, key, sigv4.Scope{Region: c.credentials.Region, Service: in.Service}, c.now()); err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	return c.do(request)
}

// do sends a request as it is, and turns everything but 2xx into *Error.
func (c *Client) do(request *http.Request) (*http.Response, error) {
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reach the server: %w", err)
	}
	if response.StatusCode/100 != 2 {
		return nil, refusal(response)
	}
	return response, nil
}

// refusal reads and closes an error answer.
func refusal(response *http.Response) error {
	defer response.Body.Close() //nolint:errcheck // it was only read
	const maxMessage = 64 << 10
	data, err := io.ReadAll(io.LimitReader(response.Body, maxMessage))
	if err != nil {
		return fmt.Errorf("read answer with status %d: %w", response.StatusCode, err)
	}
	// Services differ in the case of the member; encoding/json does not mind.
	var body struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &body) != nil {
		body.Message = strings.TrimSpace(string(data))
	}
	name, _, _ := strings.Cut(response.Header.Get("x-amzn-ErrorType"), ":")
	return &Error{Status: response.StatusCode, Type: name, Message: body.Message, RequestID: response.Header.Get("x-amzn-RequestId")}
}

// JSON sends in as the body, when it is not nil, and decodes the answer into
// out, when that is not nil.
func (c *Client) JSON(ctx context.Context, request Request, in, out any) error {
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		request.Body = body
	}
	data, err := c.Raw(ctx, request)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode answer of %s %s: %w", request.Method, request.Path, err)
	}
	return nil
}
