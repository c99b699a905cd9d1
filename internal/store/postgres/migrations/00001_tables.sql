-- +goose Up
CREATE TABLE muster_kv (
    key bytea PRIMARY KEY,
    value bytea NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 80);

-- total is the size of all events up to and including this one, so that the
-- size of any stretch of the log is a subtraction.
CREATE TABLE muster_events (
    seq bigint PRIMARY KEY,
    total bigint NOT NULL,
    data bytea NOT NULL
);

-- The one row that every commit locks: it hands out versions and sequences.
CREATE TABLE muster_head (
    id smallint PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL,
    seq bigint NOT NULL,
    total bigint NOT NULL,
    trimmed_seq bigint NOT NULL,
    trimmed_total bigint NOT NULL
) WITH (fillfactor = 20);

INSERT INTO muster_head VALUES (1, 0, 0, 0, 0, 0);

-- The last group that each running committer has committed: what a committer
-- asks when the answer to its COMMIT was lost.
CREATE TABLE muster_writers (
    writer text PRIMARY KEY,
    last_group bigint NOT NULL,
    at timestamptz NOT NULL
) WITH (fillfactor = 20);

-- +goose Down
DROP TABLE muster_writers;
DROP TABLE muster_head;
DROP TABLE muster_events;
DROP TABLE muster_kv;
