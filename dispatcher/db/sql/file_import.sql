-- Progress of file imports.

-- name: begin_import
-- Insert a file whose import begins; one that is known stays as it is.
-- $1 digest, $2 name
INSERT INTO dispatcher.file_import (digest, name) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING

-- name: import_progress
-- Return how far the import of a file has come.
-- $1 digest
SELECT lines, imported, rejected, rejects_bytes, finished_at
FROM dispatcher.file_import WHERE digest = $1

-- name: record_import
-- Record how far an import has come, in the transaction of its COPY. The guard keeps two imports of
-- one file apart: no row if the import is not where the caller believes it to be.
-- $1 digest, $2 lines before, $3 lines now, $4 imported, $5 rejected, $6 bytes of rejects
UPDATE dispatcher.file_import SET lines = $3, imported = $4, rejected = $5, rejects_bytes = $6
WHERE digest = $1 AND lines = $2 AND finished_at IS NULL
RETURNING digest

-- name: finish_import
-- Record that a file was imported as a whole.
-- $1 digest
UPDATE dispatcher.file_import SET finished_at = clock_timestamp()
WHERE digest = $1 AND finished_at IS NULL

-- name: forget_import
-- Delete an import that has finished, so that the file can be imported once more.
-- $1 digest
DELETE FROM dispatcher.file_import WHERE digest = $1 AND finished_at IS NOT NULL

-- name: dry_run_table
-- Create a table with the constraints of a message and no trigger: for a dry run.
CREATE TEMPORARY TABLE dry_run (LIKE dispatcher.message INCLUDING CONSTRAINTS)

-- name: dry_run_without_ids
-- A dry run uses up no ids.
ALTER TABLE pg_temp.dry_run ALTER id DROP NOT NULL, ALTER queued_at DROP NOT NULL
