-- What lets a log be taken over without reading what it holds: running totals, and how far expired batches are gone.
ALTER TABLE batch ADD COLUMN bytes_through bigint NOT NULL DEFAULT 0;
ALTER TABLE log_state
    ADD COLUMN trimmed_messages    bigint NOT NULL DEFAULT 0,
    ADD COLUMN trimmed_bytes       bigint NOT NULL DEFAULT 0,
    ADD COLUMN next_expiry         bigint NOT NULL DEFAULT 0,
    ADD COLUMN next_expiry_through bigint NOT NULL DEFAULT 0;
-- A queue that is created from now on begins with nothing that expires. Of those that are there nothing is known: their next
-- trim looks.
ALTER TABLE log_state ALTER COLUMN next_expiry SET DEFAULT 9223372036854775807;

-- Batches that are there count as if their totals began at zero with the last of them, so that no row of them is written.
UPDATE log_state SET trimmed_bytes = -t.bytes, trimmed_messages = greatest(log_state.trimmed_through, t.last) - t.messages
FROM (
    SELECT queue_id, sum(bytes)::bigint AS bytes, sum(last_offset - first_offset + 1)::bigint AS messages,
           max(last_offset) AS last
    FROM batch GROUP BY queue_id
) t
WHERE t.queue_id = log_state.queue_id;
UPDATE log_state SET trimmed_messages = trimmed_through
WHERE NOT EXISTS (SELECT 1 FROM batch WHERE batch.queue_id = log_state.queue_id);
