-- A file is in, whole.
-- $1 digest
UPDATE dispatcher.load SET ended_at = clock_timestamp() WHERE digest = $1 AND ended_at IS NULL
