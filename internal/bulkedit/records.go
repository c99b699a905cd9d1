package bulkedit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account is the second.
//
//	bulk-edit/A/<id>                  record: one edit and how far it is
//	bulk-edit-newest/A/<~time>/<id>   row, newest first
//	bulk-edit-active/A                record: the edits that are not finished, guard of their limit
//	bulk-edit-things/A/<id>/<page>    record: names and ids of the things that are meant
//	bulk-edit-changed/A/<id>/<thing>  record: the receipt of a change, before and after
//	bulk-edit-failed/A/<id>/<thing>   record: why a thing was not changed
const (
	kindEdit    = "bulk-edit"
	kindNewest  = "bulk-edit-newest"
	kindActive  = "bulk-edit-active"
	kindThings  = "bulk-edit-things"
	kindChanged = "bulk-edit-changed"
	kindFailed  = "bulk-edit-failed"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// plainRow is the value of a row.
const plainRow = `{"v":1}`

// editRecord is one edit.
type editRecord struct {
	Schema    int       `json:"v"`
	Status    Status    `json:"status"`
	UndoOf    string    `json:"undoOf,omitempty"`
	Query     string    `json:"query,omitempty"`
	Operation Operation `json:"operation"`
	// Actor started it, and is who changes the things.
	Actor     fleet.Actor `json:"actor"`
	Created   int64       `json:"created"`
	Finished  int64       `json:"finished,omitempty"`
	PerSecond int         `json:"perSecond"`
	// Things is how many are meant, on Pages pages; Page is the next to be worked on.
	Things int `json:"things"`
	Pages  int `json:"pages"`
	Page   int `json:"page"`
	// Done counts the things of the pages before; Partly those of the page itself
	// at the last look, which is counted anew when work goes on.
	Done   Counts `json:"done"`
	Partly Counts `json:"partly"`
	// UndoneBy is the newest edit that takes this one back.
	UndoneBy string `json:"undoneBy,omitempty"`
	// Reason is why it failed.
	Reason string `json:"reason,omitempty"`
}

// activeRecord lists the edits of an account that are not finished.
type activeRecord struct {
	Schema int      `json:"v"`
	IDs    []string `json:"ids"`
}

// pageRecord is a part of the things that are meant.
type pageRecord struct {
	Schema int      `json:"v"`
	Things []target `json:"things"`
}

// target is one life of a name.
type target struct {
	Name string `json:"n"`
	ID   string `json:"i"`
	// Revision is that of the drift which is meant, empty for other operations.
	Revision string `json:"r,omitempty"`
}

// receipt says that a thing was changed. It is written by the commit of the
// change; that of a decommission, which has several, before them, and complete
// after.
type receipt struct {
	Schema int `json:"v"`
	// Pending says that the change is under way.
	Pending bool  `json:"pending,omitempty"`
	At      int64 `json:"at"`
	Before  Image `json:"before"`
	After   Image `json:"after"`
}

// failure says why a thing was not changed.
type failure struct {
	Schema  int        `json:"v"`
	At      int64      `json:"at"`
	Code    fault.Code `json:"code"`
	Message string     `json:"message"`
	// Conflict says that the thing was left alone because somebody else has changed
	// it: since the edit that an undo takes back, or since the edit began.
	Conflict bool `json:"conflict,omitempty"`
}

func editKey(account fleet.Account, id string) store.Key {
	return store.K(kindEdit, string(account), id)
}

func newestKey(account fleet.Account, id string, created int64) store.Key {
	return store.K(kindNewest, string(account), fmt.Sprintf("%012x", 1<<48-1-created), id)
}

func activeKey(account fleet.Account) store.Key { return store.K(kindActive, string(account)) }

func pageKey(account fleet.Account, id string, page int) store.Key {
	return store.K(kindThings, string(account), id, fmt.Sprintf("%08d", page))
}

func changedKey(account fleet.Account, id, thing string) store.Key {
	return store.K(kindChanged, string(account), id, thing)
}

func failedKey(account fleet.Account, id, thing string) store.Key {
	return store.K(kindFailed, string(account), id, thing)
}

// read decodes a record into v and returns its version, 0 when there is none.
func read(ctx context.Context, r store.Reader, key store.Key, v any) (version uint64, err error) {
	stored, err := r.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, store.Fault(fmt.Errorf("read %s: %w", key, err))
	}
	return stored.Version, decode(stored, v)
}

func decode(stored store.Record, v any) error {
	if err := json.Unmarshal(stored.Value, v); err != nil {
		return fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	return nil
}

// put adds a record to a batch.
func put(b *store.Batch, key store.Key, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: key, Value: value})
	return nil
}

func millis(t time.Time) int64 { return t.UnixMilli() }

// moment is the time of a record, zero for 0.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
