-- Progress of file imports.

-- name: load_begin
-- Remember a file whose load begins; one that is known stays as it is.
-- $1 digest, $2 name
INSERT INTO dispatcher.load (digest, name) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING

-- name: load_progress
-- How far the load of a file has come.
-- $1 digest
SELECT lines, taken, refused, rejects_bytes, ended_at FROM dispatcher.load WHERE digest = $1

-- name: load_step
-- Note how far a load has come, in the transaction of its COPY. The guard keeps two loads of one
-- file apart: no row if the load is not where the caller believes it to be.
-- $1 digest, $2 lines before, $3 lines now, $4 taken, $5 refused, $6 bytes of rejects
UPDATE dispatcher.load SET lines = $3, taken = $4, refused = $5, rejects_bytes = $6
WHERE digest = $1 AND lines = $2 AND ended_at IS NULL
RETURNING digest

-- name: load_end
-- A file is in, whole.
-- $1 digest
UPDATE dispatcher.load SET ended_at = clock_timestamp() WHERE digest = $1 AND ended_at IS NULL

-- name: load_forget
-- Forget a load that has ended, so that the file can be loaded once more.
-- $1 digest
DELETE FROM dispatcher.load WHERE digest = $1 AND ended_at IS NOT NULL

-- name: load_dry_table
-- A table with the limits of a message and nothing that follows from one: for a dry run.
CREATE TEMPORARY TABLE dry_run (LIKE dispatcher.message INCLUDING CONSTRAINTS)

-- name: load_dry_id
-- No ids are used up by a dry run.
ALTER TABLE pg_temp.dry_run ALTER id DROP NOT NULL, ALTER queued_at DROP NOT NULL
