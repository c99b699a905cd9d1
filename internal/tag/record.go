package tag

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// kindTags is the first part of the package's keys; the account is the second.
const kindTags = "tags"

// schemaVersion is written into every record.
const schemaVersion = 1

// tagsRecord is the stored form of a set.
type tagsRecord struct {
	Schema int `json:"v"`
	Tags   Set `json:"tags"`
}

// keyOf is where a resource's tags are.
func keyOf(resource fleet.ARN) store.Key {
	return store.K(kindTags, string(resource.Account), resource.Kind, resource.Name)
}

// text is the resource's name on the wire.
func text(resource fleet.ARN) string { return resource.ARN(resource.Kind, resource.Name) }

// Read returns a resource's tags with what a batch that decides on them has to
// expect. It does not ask whether there is such a resource.
func Read(ctx context.Context, r store.Reader, resource fleet.ARN) (Set, store.Expect, error) {
	k := keyOf(resource)
	found, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return nil, store.Expect{Key: k}, nil
	}
	if err != nil {
		return nil, store.Expect{}, fmt.Errorf("read record %s: %w", k, err)
	}
	var record tagsRecord
	if err := json.Unmarshal(found.Value, &record); err != nil {
		return nil, store.Expect{}, fmt.Errorf("decode record %s: %w", k, err)
	}
	if record.Schema != schemaVersion {
		return nil, store.Expect{}, fmt.Errorf("decode record %s: its schema version is not known to this program", k)
	}
	return record.Tags, store.Expect{Key: k, Version: found.Version}, nil
}

// Attach adds the tags of a resource to the batch that creates it: their record
// and, with the origin of the batch's other events, their event. Without tags
// it adds nothing. The set must come from Check.
func Attach(b *store.Batch, origin event.Envelope, resource fleet.ARN, tags Set) error {
	if len(tags) == 0 {
		return nil
	}
	if err := write(b, resource, tags); err != nil {
		return err
	}
	origin.Event = event.TagsChanged{ResourceARN: text(resource), Set: tags}
	b.Events = append(b.Events, origin)
	return nil
}

// Remove adds the end of a resource's tags to the batch that deletes it. The
// deletion's own event tells of it.
func Remove(b *store.Batch, resource fleet.ARN) {
	b.Writes = append(b.Writes, store.Write{Key: keyOf(resource), Delete: true})
}

// write puts a set, or removes the record when nothing is left.
func write(b *store.Batch, resource fleet.ARN, tags Set) error {
	if len(tags) == 0 {
		Remove(b, resource)
		return nil
	}
	k := keyOf(resource)
	data, err := json.Marshal(tagsRecord{Schema: schemaVersion, Tags: tags})
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: k, Value: data})
	return nil
}
