-- Hold unsure batches until the end of this transaction; those that somebody else is just
-- settling are left out.
-- $1 batches
SELECT id FROM dispatcher.batch
WHERE id = ANY ($1::bigint[]) AND state = 'unsure'
ORDER BY id
FOR UPDATE SKIP LOCKED
