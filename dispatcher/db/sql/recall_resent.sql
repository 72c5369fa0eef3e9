-- Take messages of a batch that was given up for lost, and that wait to be sent again, out of the
-- queue: its answer has come after all, and tells that they were sent.
-- $1 message ids, $2 batch
DELETE FROM dispatcher.queue
WHERE id = ANY ($1::bigint[]) AND last_batch = $2 AND code IN ('resend', 'settled')
RETURNING id
