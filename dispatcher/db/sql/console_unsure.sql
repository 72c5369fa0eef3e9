-- The requests that may have been sent, oldest first.
-- $1 how many at most
SELECT token, app, cardinality(message_ids), unsure_at, code, description
FROM dispatcher.batch
WHERE state = 'unsure'
ORDER BY unsure_at
LIMIT $1
