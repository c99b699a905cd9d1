//go:build bench

package peers_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-iot/muster/internal/testkit"
)

// schema is how one would index the fleet in PostgreSQL: a document with an
// inverted index, and an index for each expression that ranges ask for.
const schema = `
CREATE INDEX things_doc ON things USING gin (doc jsonb_path_ops);
CREATE INDEX things_name ON things (name text_pattern_ops);
CREATE INDEX things_battery ON things (((doc #>> '{shadow,reported,battery}')::float8));
CREATE INDEX things_rssi ON things (((doc #>> '{shadow,reported,rssi}')::float8));
CREATE INDEX things_firmware ON things ((doc #>> '{shadow,reported,firmware}') text_pattern_ops);
CREATE INDEX things_place ON things USING gist (place);
ANALYZE things;`

// fillPostgres stores n devices and returns how long loading and indexing took.
func fillPostgres(t *testing.T, n int) (*pgx.Conn, time.Duration, time.Duration) {
	t.Helper()
	cluster := testkit.StartPostgres(t)
	conn, err := pgx.Connect(t.Context(), cluster.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	if _, err := conn.Exec(t.Context(), "CREATE TABLE things (name text PRIMARY KEY, doc jsonb NOT NULL, place point)"); err != nil {
		t.Fatal(err)
	}
	r, i := rand.New(rand.NewPCG(1, 1)), 0
	begun := time.Now()
	_, err = conn.CopyFrom(t.Context(), pgx.Identifier{"things"}, []string{"name", "doc", "place"}, pgx.CopyFromFunc(func() ([]any, error) {
		if i == n {
			return nil, nil
		}
		d := newDevice(r, i)
		i++
		document, err := json.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("encode a device: %w", err)
		}
		return []any{d.Name, document, pgPoint(d)}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	loaded := time.Since(begun)
	begun = time.Now()
	if _, err := conn.Exec(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	return conn, loaded, time.Since(begun)
}

// askPostgres counts the hits and reads the first hundred.
func askPostgres(t *testing.T, conn *pgx.Conn, q question) answer {
	t.Helper()
	var a answer
	a.count = median(t, func() error {
		return conn.QueryRow(t.Context(), "SELECT count(*) FROM things WHERE "+q.where).Scan(&a.hits)
	})
	a.first = median(t, func() error {
		rows, err := conn.Query(t.Context(), "SELECT name FROM things WHERE "+q.where+" LIMIT 100")
		if err != nil {
			return err
		}
		_, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return a
}

// aggregations are what dashboards ask of the connected devices.
func aggregations() []question {
	const connected = ` WHERE doc @> '{"connectivity":{"connected":true}}'`
	return []question{
		{"versions, buckets", "shadow.reported.firmware", "SELECT doc #>> '{shadow,reported,firmware}', count(*) FROM things" + connected + " GROUP BY 1 ORDER BY 2 DESC LIMIT 10"},
		{
			"battery, statistics", "shadow.reported.battery",
			"SELECT count(b)::text, (avg(b) + sum(b) + min(b) + max(b) + var_pop(b) + stddev_pop(b))::bigint FROM (SELECT (doc #>> '{shadow,reported,battery}')::float8 AS b FROM things" + connected + ") x",
		},
		{
			"battery, percentiles", "shadow.reported.battery",
			"SELECT 'p', percentile_cont(0.5) WITHIN GROUP (ORDER BY (doc #>> '{shadow,reported,battery}')::float8)::bigint FROM things" + connected,
		},
		{"sites, cardinality", "attributes.site", "SELECT 'n', count(DISTINCT doc #>> '{attributes,site}') FROM things" + connected},
	}
}

// aggregatePostgres returns the median time of an aggregation, which is dear
// enough to be run three times only.
func aggregatePostgres(t *testing.T, conn *pgx.Conn, q question) time.Duration {
	t.Helper()
	return median(t, func() error {
		rows, err := conn.Query(t.Context(), q.where)
		if err != nil {
			return err
		}
		for rows.Next() {
			var text string
			var n int64
			if err := rows.Scan(&text, &n); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// pgPoint is a place as PostgreSQL has it: longitude first.
func pgPoint(d *device) pgtype.Point {
	return pgtype.Point{P: pgtype.Vec2{X: d.Shadow.Reported.lon, Y: d.Shadow.Reported.lat}, Valid: true}
}
