package mqttapi

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/topic"
)

// Shadows is what the shadow topics ask for.
type Shadows interface {
	Get(ctx context.Context, account fleet.Account, thing, name string) (shadow.Document, error)
	Update(ctx context.Context, cmd shadow.UpdateCommand) (*shadow.Updated, error)
	Delete(ctx context.Context, cmd shadow.DeleteCommand) (*shadow.Deleted, error)
}

// Options of a Handler; all but Connectivity, Bootstrap, Limits and Registerer are
// required.
type Options struct {
	Shadows Shadows
	// Connectivity takes in what devices declare about themselves. Without it
	// declarations are answered as by a server that has just started.
	Connectivity Connectivity
	// Provisioning lets devices join.
	Provisioning Provisioning
	// Bootstrap tells devices where; nil where that is not offered.
	Bootstrap Bootstrap
	// Publish sends a message of the server to subscribers. It must not block.
	Publish func(ctx context.Context, account fleet.Account, m broker.Message) error
	// Region is the one region of this installation, a part of every ARN.
	Region string
	Now    func() time.Time
	Logger *slog.Logger
	Limits ExecutorLimits
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
}

// Handler serves the reserved topics of all accounts. It is the broker's
// Service and a consumer of the event log.
type Handler struct {
	shadows  Shadows
	declared Connectivity
	publish  func(ctx context.Context, account fleet.Account, m broker.Message) error
	now      func() time.Time
	log      *slog.Logger
	table    []reservedTopic
	warned   []atomic.Bool
	executor *executor
	// provisioner carries out what takes long, apart from shadows.
	provisioning Provisioning
	provisioner  *executor
	bootstrap    Bootstrap
	requests     *prometheus.CounterVec
	// declarations counts what devices say about themselves.
	declarations *prometheus.CounterVec
	// registryEvents belongs to the goroutine that calls Apply and
	// LoadEventConfigurations.
	registryEvents registryEvents
}

var _ broker.Service = (*Handler)(nil)

// New returns a handler.
func New(o Options) *Handler {
	table := reservedTopics()
	if o.Bootstrap != nil {
		table = append(bootstrapTopics(), table...)
	}
	waiting := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "muster_reserved_requests_waiting",
		Help: "Requests to reserved topics that wait or are being carried out.",
	})
	h := &Handler{
		shadows: o.Shadows, declared: o.Connectivity, publish: o.Publish, now: o.Now, log: o.Logger,
		table: table, warned: make([]atomic.Bool, len(table)),
		executor: newExecutor(o.Limits, waiting), provisioning: o.Provisioning, bootstrap: o.Bootstrap,
		provisioner: newExecutor(ExecutorLimits{
			Workers: provisioningWorkers, Waiting: provisioningWaiting, PerThing: provisioningPerClient,
		}, waiting),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_shadow_mqtt_requests_total",
			Help: "Shadow requests by MQTT, by operation and the code of the answer.",
		}, []string{"operation", "code"}),
		declarations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_connectivity_declarations_total",
			Help: "Declarations of devices about themselves, by operation and the code of the answer.",
		}, []string{"operation", "code"}),
		registryEvents: registryEvents{region: o.Region},
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(waiting, h.requests, h.declarations)
	}
	return h
}

// Drain refuses new requests and waits until those in line are answered.
func (h *Handler) Drain(ctx context.Context) error {
	for _, e := range []*executor{h.executor, h.provisioner} {
		if err := e.drain(ctx); err != nil {
			return fmt.Errorf("finish requests to reserved topics: %w", err)
		}
	}
	return nil
}

// Private implements broker.Service: requests to join are nobody else's business.
func (h *Handler) Private(name string) bool {
	_, isProvisioning := parseProvisioningTopic(name)
	return isProvisioning || h.isBootstrap(name)
}

// CanSubscribeReserved implements broker.Service.
func (h *Handler) CanSubscribeReserved(filter string) bool {
	for i := range h.table {
		if h.table[i].use != ingest && topic.Intersects(filter, h.table[i].filter, topic.AWS) {
			return true
		}
	}
	return false
}

// CanPublishReserved implements broker.Service.
func (h *Handler) CanPublishReserved(name string) bool {
	if _, isShadow := parseShadowTopic(name); isShadow {
		return true
	}
	row := rowOf(h.table, name)
	return row >= 0 && h.table[row].use == passed
}

// Reserved implements broker.Service.
func (h *Handler) Reserved(p *broker.Publish, done broker.Done) (deferred, ok bool) {
	if request, isShadow := parseShadowTopic(p.Topic); isShadow {
		return h.takeShadow(p, request, done)
	}
	if request, isProvisioning := parseProvisioningTopic(p.Topic); isProvisioning {
		return h.takeProvisioning(p, request, done)
	}
	if h.isBootstrap(p.Topic) {
		return h.takeBootstrap(p, done)
	}
	if thing, operation, ok := parseDeclarationTopic(p.Topic); ok {
		return h.takeDeclaration(p, thing, operation, done)
	}
	row := rowOf(h.table, p.Topic)
	if row < 0 {
		return false, false
	}
	switch h.table[row].use {
	case passed:
		return false, true
	case later, ingest:
		if !h.warned[row].Swap(true) {
			h.log.Warn("reserved topic is not offered by this version, publishes to it are refused",
				slog.String("topics", h.table[row].filter), slog.String("client_id", p.ClientID), slog.String("topic", p.Topic))
		}
		return false, false
	default:
		return false, false
	}
}

// publishable reports whether a client id can be a level of a topic. It may
// hold slashes, which make more levels, as on AWS.
func publishable(clientID string) bool { return !strings.ContainsAny(clientID, "+#") }

// message is one of the server's messages.
func message(name string, payload []byte) broker.Message {
	return broker.Message{Topic: name, Payload: payload, QoS: 1}
}

// send publishes the server's messages. A failure is a mistake in a topic; it is
// logged, since nobody can be told.
func (h *Handler) send(ctx context.Context, account fleet.Account, messages ...broker.Message) {
	for _, m := range messages {
		if err := h.publish(ctx, account, m); err != nil {
			h.log.ErrorContext(ctx, "message of the server is not published", slog.String("topic", m.Topic), slog.Any("err", err))
		}
	}
}

// PublishReserved carries out a publish to a reserved topic that came by HTTP
// and returns when it is done. A topic that does not exist is a fault.
func (h *Handler) PublishReserved(ctx context.Context, p *broker.Publish) error {
	if h.Private(p.Topic) {
		return fault.New(fault.InvalidRequest, "topic %q is answered to an MQTT connection only", p.Topic)
	}
	done := make(chan error, 1)
	//nolint:contextcheck // a request in line is carried out also when its sender has gone
	deferred, ok := h.Reserved(p, func(err error, answers ...broker.Message) {
		h.send(ctx, p.Account, answers...)
		done <- err
	})
	if !ok {
		return fault.New(fault.InvalidRequest, "topic %q is reserved and cannot be published to", p.Topic)
	}
	if !deferred {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
