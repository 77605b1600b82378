-- The first schema. Times are milliseconds since 1970 on the store's clock; ids that are UUIDs are blobs of 16 bytes.
-- There are no foreign keys: a deleted queue is a tombstone whose rows go lazily.

-- One row per host and port that ever registered. state: 0 up, 1 draining, 2 stopped.
CREATE TABLE broker (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    host        TEXT    NOT NULL,
    port        INTEGER NOT NULL,
    incarnation BLOB    NOT NULL,
    state       INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    generation  INTEGER NOT NULL,
    renewals    INTEGER NOT NULL,
    UNIQUE (host, port)
) STRICT;

-- AUTOINCREMENT: the id of a purged queue is never given again.
CREATE TABLE queue (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    label      TEXT    NOT NULL,
    assignee   INTEGER,
    assignment INTEGER NOT NULL,
    request    BLOB    NOT NULL,
    deleted    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX queue_live_label ON queue (label) WHERE deleted = 0;
CREATE INDEX queue_live_assignee ON queue (assignee) WHERE deleted = 0;
CREATE INDEX queue_deleted ON queue (id) WHERE deleted = 1;

-- What fences a log: the latest epoch, and the claim that created it.
CREATE TABLE log (
    queue_id INTEGER PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    claim    BLOB,
    deleted  INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What a trim leaves behind.
CREATE TABLE log_state (
    queue_id          INTEGER PRIMARY KEY,
    trimmed_through   INTEGER NOT NULL DEFAULT 0,
    producers         BLOB,
    producers_through INTEGER NOT NULL DEFAULT 0
) STRICT;

-- A row per committed batch. The frames lie in a table of their own, so that a scan of the headers does not read them.
CREATE TABLE batch (
    queue_id     INTEGER NOT NULL,
    first_offset INTEGER NOT NULL,
    last_offset  INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    format       INTEGER NOT NULL,
    stored_at    INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    checksum     INTEGER NOT NULL,
    body         INTEGER NOT NULL,
    message_index BLOB   NOT NULL,
    PRIMARY KEY (queue_id, first_offset)
) STRICT, WITHOUT ROWID;
-- Batches that live for ever are not in it.
CREATE INDEX batch_expiry ON batch (queue_id, expires_at) WHERE expires_at < 9223372036854775807;

CREATE TABLE body (
    id     INTEGER PRIMARY KEY,
    frames BLOB NOT NULL
) STRICT;

CREATE TABLE channel (
    id           BLOB    PRIMARY KEY,
    queue_id     INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    start_offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX channel_queue ON channel (queue_id);

-- The incarnations given to named producers.
CREATE TABLE producer (
    queue_id    INTEGER NOT NULL,
    producer_id BLOB    NOT NULL,
    incarnation INTEGER NOT NULL,
    PRIMARY KEY (queue_id, producer_id)
) STRICT, WITHOUT ROWID;

-- One row: the managers' leader lease.
CREATE TABLE leader (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    manager     BLOB,
    term        INTEGER NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT;
INSERT INTO leader (id, manager, term, lease_until) VALUES (1, NULL, 0, 0);
