package s3api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/objectstore"
)

// eventSource is how the audit trail names this front end.
const eventSource = "s3.amazonaws.com"

// Store is where buckets are written; errors are those of objectstore.
type Store interface {
	objectstore.Store
	CreateBucket(account fleet.Account, bucket string) error
	DeleteBucket(account fleet.Account, bucket string) error
	HasBucket(account fleet.Account, bucket string) error
	Buckets(account fleet.Account) ([]objectstore.Bucket, error)
	List(ctx context.Context, account fleet.Account, bucket, prefix string) ([]objectstore.Info, error)
	Put(ctx context.Context, account fleet.Account, bucket, key string, r io.Reader) (objectstore.Info, error)
	Delete(ctx context.Context, account fleet.Account, bucket, key string) error
	Begin(account fleet.Account, bucket, key string) (string, error)
	PutPart(ctx context.Context, account fleet.Account, bucket, key, id string, number int, r io.Reader) (string, error)
	Complete(ctx context.Context, account fleet.Account, bucket, key, id string, parts []objectstore.Part) (objectstore.Info, error)
	Abort(account fleet.Account, bucket, key, id string) error
}

// Options are what a Handler needs; all are required.
type Options struct {
	// Store is nil when the buckets are elsewhere; then everything is refused.
	Store Store
	// Region answers GetBucketLocation.
	Region string
	// Prove finds by the head of a request who sent it.
	Prove func(r *http.Request) (*http.Request, fleet.Account, error)
	// Permit asks whether the caller may do an action on a resource.
	Permit   func(ctx context.Context, action, resource string) error
	Recorder *audit.Recorder
	Now      func() time.Time
	Logger   *slog.Logger
}

// Handler serves requests that are signed for s3. It is safe for concurrent use.
type Handler struct{ o Options }

// New returns a Handler.
func New(o Options) *Handler { return &Handler{o} }

// call is one request on its way.
type call struct {
	*Handler

	w       http.ResponseWriter
	r       *http.Request
	trail   *audit.Call
	account fleet.Account
	// bucket and key are empty for a request about all buckets or a whole bucket.
	bucket, key string
	id          string
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Handler: h, w: w, r: r, id: uuid.NewString()}
	c.bucket, c.key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	w.Header().Set("X-Amz-Request-Id", c.id)
	op, refused := c.operation()
	address := r.RemoteAddr
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	c.trail = h.o.Recorder.Begin("", fleet.Actor{SourceAddress: address, RequestID: c.id}, event.APICalled{
		Source: eventSource, Name: op.name, UserAgent: r.UserAgent(), ReadOnly: op.reads,
	})
	if r.TLS != nil {
		c.trail.Secured(r.TLS.Version, r.TLS.CipherSuite, r.TLS.ServerName)
	}
	c.trail.Ask(map[string]any{"bucketName": c.bucket, "key": c.key})
	defer c.trail.Finish()
	if err := c.carryOut(op, refused); err != nil { //nolint:contextcheck // as below
		c.fail(err) //nolint:contextcheck // the request in the call has it
	}
}

// carryOut does what is asked for, if the caller may.
func (c *call) carryOut(op operation, refused error) error {
	if err := c.enter(op, refused); err != nil {
		return err
	}
	return op.do(c)
}

// enter proves the caller and asks for its permission, whatever else is wrong with
// the request.
func (c *call) enter(op operation, refused error) error {
	r, account, err := c.o.Prove(c.r.WithContext(c.trail.In(c.r.Context())))
	if err != nil {
		return err
	}
	c.r, c.account = r, account
	if refused != nil {
		return refused
	}
	if err := c.o.Permit(c.r.Context(), "s3:"+op.action, c.resource(op)); err != nil {
		return err
	}
	if c.o.Store == nil {
		return fault.New(fault.NotOffered, "The buckets of this server are in another store (objects.s3-url); ask that one")
	}
	return nil
}

// resource is the ARN that an operation is about.
func (c *call) resource(op operation) string {
	const prefix = "arn:" + fleet.Partition + ":s3:::"
	switch {
	case c.bucket == "":
		return "*"
	case c.key == "" || op.onBucket:
		return prefix + c.bucket
	}
	return prefix + c.bucket + "/" + c.key
}
