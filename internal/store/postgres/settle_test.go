package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/store"
)

// A commit that a killed process has left under way is over before the next process
// reads: else it would find the state before, and the commit would come behind it.
func TestOpenWaitsForACommitUnderWay(t *testing.T) {
	t.Parallel()
	url := shared.Get(t).Database(t)
	if err := openAt(t, url).Close(); err != nil {
		t.Fatal(err)
	}
	ghost, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer ghost.Close(t.Context())
	for _, statement := range []string{
		"BEGIN", "SELECT id FROM muster_head WHERE id = 1 FOR UPDATE",
		"INSERT INTO muster_kv VALUES ('late', 'x', 1)", "UPDATE muster_head SET version = 1, seq = seq",
	} {
		if _, err := ghost.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	committed := make(chan error, 1)
	go func() {
		<-time.After(300 * time.Millisecond)
		_, err := ghost.Exec(t.Context(), "COMMIT")
		committed <- err
	}()
	e := openAt(t, url)
	defer e.Close()
	if _, err := e.Get(t.Context(), store.Key("late")); err != nil {
		t.Errorf("the commit under way is not seen: %v", err)
	}
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
}
