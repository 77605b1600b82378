-- What lets a log be taken over without reading what it holds: running totals, and how far expired batches are gone.
ALTER TABLE batch ADD COLUMN bytes_through INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_state ADD COLUMN trimmed_messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_state ADD COLUMN trimmed_bytes INTEGER NOT NULL DEFAULT 0;
-- Of queues that are there nothing is known: their next trim looks. New ones are entered with the greatest time there is.
ALTER TABLE log_state ADD COLUMN next_expiry INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_state ADD COLUMN next_expiry_through INTEGER NOT NULL DEFAULT 0;

-- Batches that are there count as if their totals began at zero with the last of them, so that no row of them is written.
UPDATE log_state SET trimmed_bytes = -t.bytes, trimmed_messages = max(log_state.trimmed_through, t.last) - t.messages
FROM (
    SELECT queue_id, sum(bytes) AS bytes, sum(last_offset - first_offset + 1) AS messages, max(last_offset) AS last
    FROM batch GROUP BY queue_id
) t
WHERE t.queue_id = log_state.queue_id;
UPDATE log_state SET trimmed_messages = trimmed_through
WHERE NOT EXISTS (SELECT 1 FROM batch WHERE batch.queue_id = log_state.queue_id);
