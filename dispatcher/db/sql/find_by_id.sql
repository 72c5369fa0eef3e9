-- The message of an id.
-- $1 id, $2 how many at most (one there is)
SELECT id, app, recipient, reference, state, code, queued_at
FROM dispatcher.message_status WHERE id = $1 LIMIT $2
