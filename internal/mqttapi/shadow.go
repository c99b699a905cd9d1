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
func (h *Handler) takeShadow(p *broker.Publish, request shadowTopic, done broker.Done) (deferred, ok bool) {
	key := laneKey{thingKey{p.Account, request.thing}, request.shadow}
	err := h.executor.submit(key, task{
		bytes: len(p.Payload) + len(p.Topic),
		run:   func(ctx context.Context) { h.serveShadow(ctx, p, request, done) },
	})
	if err == nil {
		return true, true
	}
	h.send(context.Background(), p.Account, h.rejection(p, request, err))
	return false, true
}

// serveShadow carries one request out, acknowledges it and publishes the
// answer. The error of done is for the publisher's acknowledgement: a refused
// request is answered and has none.
func (h *Handler) serveShadow(ctx context.Context, p *broker.Publish, request shadowTopic, done broker.Done) {
	ctx = fleet.WithActor(ctx, actorOf(p))
	var err error
	switch request.operation {
	case opGet:
		err = h.getShadow(ctx, p, request, done)
	case opUpdate:
		_, err = h.shadows.Update(ctx, shadow.UpdateCommand{
			Account: p.Account, Thing: request.thing, Shadow: request.shadow, Body: p.Payload,
			Committed: func(u *shadow.Updated) {
				done(nil, updateMessages(u)...)
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
		done(err, h.rejection(p, request, err))
		return
	}
	done(nil, h.rejection(p, request, err))
}

// getShadow answers with the whole document.
func (h *Handler) getShadow(ctx context.Context, p *broker.Publish, request shadowTopic, done broker.Done) error {
	token, err := shadow.ParseToken(p.Payload)
	if err != nil {
		return err
	}
	document, err := h.shadows.Get(ctx, p.Account, request.thing, request.shadow)
	if err != nil {
		return err
	}
	done(nil, message(p.Topic+"/accepted", document.GetDocument(token, h.now().Unix())))
	return nil
}

// deleteShadow deletes; of the body only the client token matters.
func (h *Handler) deleteShadow(ctx context.Context, p *broker.Publish, request shadowTopic, done broker.Done) error {
	token, _ := shadow.ParseToken(p.Payload)
	_, err := h.shadows.Delete(ctx, shadow.DeleteCommand{
		Account: p.Account, Thing: request.thing, Shadow: request.shadow,
		Committed: func(d *shadow.Deleted) {
			done(nil, deleteMessage(d, token))
		},
	})
	return err
}

// rejection tells why a request was refused. A document that cannot be read may
// still show its token.
func (h *Handler) rejection(p *broker.Publish, request shadowTopic, err error) broker.Message {
	token, _ := shadow.ParseToken(p.Payload)
	code, text := shadowError(err)
	h.requests.WithLabelValues(request.operation, strconv.Itoa(code)).Inc()
	return message(p.Topic+"/rejected", shadow.RejectedDocument(code, text, h.now().Unix(), token))
}

// AnnounceUpdate publishes what an update by any way tells: accepted, the
// remaining delta if there is one, and the documents before and after. Call it
// from UpdateCommand.Committed, so that announcements have the order of
// versions.
func (h *Handler) AnnounceUpdate(ctx context.Context, u *shadow.Updated) {
	h.send(ctx, u.Account, updateMessages(u)...)
}

// updateMessages are what an update tells.
func updateMessages(u *shadow.Updated) []broker.Message {
	prefix := shadowPrefix(u.Thing, u.Shadow) + opUpdate
	messages := make([]broker.Message, 1, 3) //nolint:mnd // accepted, delta, documents
	messages[0] = message(prefix+"/accepted", u.AcceptedDocument())
	if u.HasDelta() {
		messages = append(messages, message(prefix+"/delta", u.DeltaDocument()))
	}
	return append(messages, message(prefix+"/documents", u.DocumentsDocument()))
}

// AnnounceDelete publishes that a shadow is gone.
func (h *Handler) AnnounceDelete(ctx context.Context, d *shadow.Deleted, token shadow.Token) {
	h.send(ctx, d.Account, deleteMessage(d, token))
}

// deleteMessage is what a deletion tells.
func deleteMessage(d *shadow.Deleted, token shadow.Token) broker.Message {
	return message(shadowPrefix(d.Thing, d.Shadow)+opDelete+"/accepted", d.AcceptedDocument(token))
}

// actorOf returns who is behind a publish.
func actorOf(p *broker.Publish) fleet.Actor {
	address, _, err := net.SplitHostPort(p.RemoteAddr)
	if err != nil {
		address = p.RemoteAddr
	}
	return fleet.Actor{Principal: p.Principal, SourceAddress: address, ClientID: p.ClientID}
}
