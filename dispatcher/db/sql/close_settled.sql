-- Close unsure batches of which every message has an outcome by now.
-- $1 batches, $2 settled by
UPDATE dispatcher.batch b
SET state = 'closed', closed_at = clock_timestamp(), settled_by = $2
WHERE b.id = ANY ($1::bigint[]) AND b.state = 'unsure'
  AND NOT EXISTS (
    SELECT FROM unnest(coalesce(b.unsure_ids, b.message_ids)) AS u (id)
    WHERE NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)
  )
RETURNING b.id
