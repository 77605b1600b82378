-- When a channel was created, or last in use, if it may be deleted once it is idle for long; null if it may not. Of those that
-- are there nobody knows by which route they were made: they stay.
ALTER TABLE channel ADD COLUMN used_at bigint;
CREATE INDEX channel_idle ON channel (queue_id, used_at) WHERE used_at IS NOT NULL;
