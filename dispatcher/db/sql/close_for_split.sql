-- Close a batch that was refused as a whole, to send it again in parts; only while it is open.
-- $1 id, $2 HTTP status, $3 code, $4 description, $5 tries
UPDATE dispatcher.batch
SET state = 'closed', closed_at = clock_timestamp(), http_status = $2, code = $3,
    description = $4, tries = $5, settled_by = 'split'
WHERE id = $1 AND state = 'open'
RETURNING id
