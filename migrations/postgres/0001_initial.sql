-- The first schema. Times are milliseconds since 1970 on the store's clock, which is the function rmom_now().
-- There are no foreign keys: a deleted queue is a tombstone whose rows go lazily.

-- The store's clock: the one that decides what has expired.
CREATE FUNCTION rmom_now() RETURNS bigint LANGUAGE sql VOLATILE AS
    'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint';

-- One row per host and port that ever registered. state: 0 up, 1 draining, 2 stopped.
CREATE TABLE broker (
    id          bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host        text     COLLATE "C" NOT NULL,
    port        bigint   NOT NULL,
    incarnation uuid     NOT NULL,
    state       bigint   NOT NULL,
    lease_until bigint   NOT NULL,
    generation  bigint   NOT NULL,
    renewals    bigint   NOT NULL,
    UNIQUE (host, port)
);

CREATE TABLE queue (
    id         bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    label      text    COLLATE "C" NOT NULL,
    assignee   bigint,
    assignment bigint  NOT NULL,
    request    uuid    NOT NULL,
    deleted    boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX queue_live_label ON queue (label) WHERE NOT deleted;
CREATE INDEX queue_live_assignee ON queue (assignee) WHERE NOT deleted;
CREATE INDEX queue_deleted ON queue (id) WHERE deleted;

-- What fences a log: the latest epoch, and the claim that created it. Appends lock this row, claims change it, and
-- nothing else does, so that neither leases nor trims ever wait for it.
CREATE TABLE log (
    queue_id bigint  PRIMARY KEY,
    epoch    bigint  NOT NULL,
    claim    uuid,
    deleted  boolean NOT NULL DEFAULT false
);

-- What a trim leaves behind.
CREATE TABLE log_state (
    queue_id          bigint PRIMARY KEY,
    trimmed_through   bigint NOT NULL DEFAULT 0,
    producers         bytea,
    producers_through bigint NOT NULL DEFAULT 0
);

-- A row per committed batch.
CREATE TABLE batch (
    queue_id      bigint  NOT NULL,
    first_offset  bigint  NOT NULL,
    last_offset   bigint  NOT NULL,
    epoch         bigint  NOT NULL,
    stored_at     bigint  NOT NULL,
    expires_at    bigint  NOT NULL,
    bytes         bigint  NOT NULL,
    checksum      bigint  NOT NULL,
    format        bigint  NOT NULL,
    message_index bytea   NOT NULL,
    frames        bytea   NOT NULL,
    PRIMARY KEY (queue_id, first_offset)
);
-- Frames lie out of line, uncompressed, and the index inline, so that a scan of the headers does not read the frames.
ALTER TABLE batch ALTER frames SET STORAGE EXTERNAL, ALTER message_index SET STORAGE MAIN;
-- Batches that live for ever are not in it.
CREATE INDEX batch_expiry ON batch (queue_id, expires_at) WHERE expires_at < 9223372036854775807;

CREATE TABLE channel (
    id           uuid   PRIMARY KEY,
    queue_id     bigint NOT NULL,
    topic        text   COLLATE "C" NOT NULL,
    start_offset bigint NOT NULL
);
CREATE INDEX channel_queue ON channel (queue_id);

-- The incarnations given to named producers.
CREATE TABLE producer (
    queue_id    bigint NOT NULL,
    producer_id uuid   NOT NULL,
    incarnation bigint NOT NULL,
    PRIMARY KEY (queue_id, producer_id)
);

-- One row: the managers' leader lease.
CREATE TABLE leader (
    id          integer PRIMARY KEY CHECK (id = 1),
    manager     uuid,
    term        bigint NOT NULL,
    lease_until bigint NOT NULL
);
INSERT INTO leader (id, manager, term, lease_until) VALUES (1, NULL, 0, 0);
