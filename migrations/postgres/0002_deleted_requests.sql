-- The requests whose queues were deleted since, for a while: one that is made again, after an answer was lost, must not
-- create its queue a second time.
CREATE TABLE deleted_request (
    request    uuid   PRIMARY KEY,
    deleted_at bigint NOT NULL
);
CREATE INDEX deleted_request_age ON deleted_request (deleted_at);
