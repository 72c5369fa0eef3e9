-- The batches that a worker has open.
-- $1 worker
SELECT id, token FROM dispatcher.batch WHERE worker = $1 AND state = 'open'
