-- The idempotency keys of that month.
-- $1 first id, $2 how many
INSERT INTO dispatcher.idempotency (app, key, message_id)
SELECT app, idempotency_key, id FROM dispatcher.message
WHERE id >= $1::bigint AND id < $1::bigint + $2::int AND idempotency_key IS NOT NULL
