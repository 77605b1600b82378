-- A queue's channels are listed page by page, in order of their ids.
CREATE INDEX channel_queue_id ON channel (queue_id, id);
DROP INDEX channel_queue;
