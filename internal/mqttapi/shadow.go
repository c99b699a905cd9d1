package mqttapi

import (
	"context"
	"log/slog"
	"net"
	"strconv"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
)

// takeShadow puts a shadow request in line. The publish is acknowledged after
// the commit and just before the answer: devices expect the acknowledgement of
// a request before its answer, as AWS IoT sends them.
func (h *Handler) takeShadow(p *broker.Publish, request shadowTopic, done func(error)) (deferred, ok bool) {
	key := laneKey{thingKey{p.Account, request.thing}, request.shadow}
	err := h.executor.submit(key, task{
		bytes: len(p.Payload) + len(p.Topic),
		run:   func(ctx context.Context) { h.serveShadow(ctx, p, request, done) },
	})
	if err == nil {
		return true, true
	}
	h.reject(context.Background(), p, request, err)
	return false, true
}

// serveShadow carries one request out, acknowledges it and publishes the
// answer. The error of done is for the publisher's acknowledgement: a refused
// request is answered and has none.
func (h *Handler) serveShadow(ctx context.Context, p *broker.Publish, request shadowTopic, done func(error)) {
	ctx = fleet.WithActor(ctx, actorOf(p))
	var err error
	switch request.operation {
	case opGet:
		err = h.getShadow(ctx, p, request, done)
	case opUpdate:
		_, err = h.shadows.Update(ctx, shadow.UpdateCommand{
			Account: p.Account, Thing: request.thing, Shadow: request.shadow, Body: p.Payload,
			Committed: func(u *shadow.Updated) {
				done(nil)
				h.AnnounceUpdate(ctx, u)
			},
		})
	case opDelete:
		err = h.deleteShadow(ctx, p, request, done)
	}
	if err == nil {
		h.requests.WithLabelValues(request.operation, "200").Inc()
		return
	}
	if ours(err) {
		h.log.ErrorContext(ctx, "shadow request failed", slog.String("topic", p.Topic), slog.String("client_id", p.ClientID), slog.Any("err", err))
		h.reject(ctx, p, request, err)
		done(err)
		return
	}
	done(nil)
	h.reject(ctx, p, request, err)
}

// getShadow answers with the whole document.
func (h *Handler) getShadow(ctx context.Context, p *broker.Publish, request shadowTopic, done func(error)) error {
	token, err := shadow.ParseToken(p.Payload)
	if err != nil {
		return err
	}
	document, err := h.shadows.Get(ctx, p.Account, request.thing, request.shadow)
	if err != nil {
		return err
	}
	done(nil)
	h.send(ctx, p.Account, p.Topic+"/accepted", document.GetDocument(token, h.now().Unix()))
	return nil
}

// deleteShadow deletes; of the body only the client token matters.
func (h *Handler) deleteShadow(ctx context.Context, p *broker.Publish, request shadowTopic, done func(error)) error {
	token, _ := shadow.ParseToken(p.Payload)
	_, err := h.shadows.Delete(ctx, shadow.DeleteCommand{
		Account: p.Account, Thing: request.thing, Shadow: request.shadow,
		Committed: func(d *shadow.Deleted) {
			done(nil)
			h.AnnounceDelete(ctx, d, token)
		},
	})
	return err
}

// reject publishes why a request was refused. A document that cannot be read
// may still show its token.
func (h *Handler) reject(ctx context.Context, p *broker.Publish, request shadowTopic, err error) {
	token, _ := shadow.ParseToken(p.Payload)
	code, message := shadowError(err)
	h.requests.WithLabelValues(request.operation, strconv.Itoa(code)).Inc()
	h.send(ctx, p.Account, p.Topic+"/rejected", shadow.RejectedDocument(code, message, h.now().Unix(), token))
}

// AnnounceUpdate publishes what an update by any way tells: accepted, the
// remaining delta if there is one, and the documents before and after. Call it
// from UpdateCommand.Committed, so that announcements have the order of
// versions.
func (h *Handler) AnnounceUpdate(ctx context.Context, u *shadow.Updated) {
	prefix := shadowPrefix(u.Thing, u.Shadow) + opUpdate
	h.send(ctx, u.Account, prefix+"/accepted", u.AcceptedDocument())
	if u.HasDelta() {
		h.send(ctx, u.Account, prefix+"/delta", u.DeltaDocument())
	}
	h.send(ctx, u.Account, prefix+"/documents", u.DocumentsDocument())
}

// AnnounceDelete publishes that a shadow is gone.
func (h *Handler) AnnounceDelete(ctx context.Context, d *shadow.Deleted, token shadow.Token) {
	h.send(ctx, d.Account, shadowPrefix(d.Thing, d.Shadow)+opDelete+"/accepted", d.AcceptedDocument(token))
}

// actorOf returns who is behind a publish.
func actorOf(p *broker.Publish) fleet.Actor {
	address, _, err := net.SplitHostPort(p.RemoteAddr)
	if err != nil {
		address = p.RemoteAddr
	}
	return fleet.Actor{Principal: p.Principal, SourceAddress: address, ClientID: p.ClientID}
}
