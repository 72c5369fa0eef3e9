-- The messages of one request, in the order they were sent.
-- $1 batch id
SELECT s.id, s.app, s.recipient, s.reference, s.state, s.code, s.queued_at
FROM dispatcher.batch b
CROSS JOIN LATERAL unnest(b.message_ids) WITH ORDINALITY AS u (id, place)
JOIN dispatcher.message_status s ON s.id = u.id
WHERE b.id = $1
  AND s.id = ANY (ARRAY(SELECT unnest(message_ids) FROM dispatcher.batch WHERE id = $1))
ORDER BY u.place
