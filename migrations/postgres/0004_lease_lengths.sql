-- How long the present lease is, in milliseconds. With lease_until it tells when the lease began; one that begins later than
-- now was given before the clock was set back. The default, for rows that an earlier version writes, is the longest that
-- can be configured.
ALTER TABLE leader ADD COLUMN lease bigint NOT NULL DEFAULT 600000;
ALTER TABLE broker ADD COLUMN lease bigint NOT NULL DEFAULT 600000;
