package mqttapi

import (
	"context"

	"github.com/muster-iot/muster/internal/broker"
)

// Bootstrap tells the device behind a publish where to join. The answer is written as
// it is.
type Bootstrap func(ctx context.Context, p *broker.Publish) (answer any, err error)

// bootstrapTopic is where devices ask where to join; the answers lie under it.
const bootstrapTopic = "$muster/bootstrap/get"

// bootstrapTopics are the rows of the table of reserved topics.
func bootstrapTopics() []reservedTopic {
	return []reservedTopic{{bootstrapTopic, input}, {bootstrapTopic + "/accepted", output}, {bootstrapTopic + "/rejected", output}}
}

// isBootstrap reports whether a device asks where to join.
func (h *Handler) isBootstrap(name string) bool { return h.bootstrap != nil && name == bootstrapTopic }

// takeBootstrap puts a question in line, as one to join.
func (h *Handler) takeBootstrap(p *broker.Publish, done broker.Done) (deferred, ok bool) {
	// A device that asks in CBOR is answered so: a map begins with one of these.
	const firstMap, lastMap = 0xa0, 0xbf
	how := formats()["json"]
	if len(p.Payload) > 0 && p.Payload[0] >= firstMap && p.Payload[0] <= lastMap {
		how = formats()["cbor"]
	}
	return h.lineUp(p, how, done, func(ctx context.Context) (any, error) {
		if err := how.readNothing(p.Payload); err != nil {
			return nil, err
		}
		return h.bootstrap(ctx, p)
	})
}

// readNothing takes no payload, or an object without members.
func (f format) readNothing(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	var members map[string]any
	if err := f.read(payload, &members); err != nil {
		return err
	}
	if len(members) > 0 {
		return badPayload(nil, "The payload must be empty or an object without members")
	}
	return nil
}
