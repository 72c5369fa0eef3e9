-- Write the requests that are about to leave; return their ids in the order given.
-- $1 app, $2 worker, $3 tokens, $4 message ids of each (an array as text), $5 attempts of each (the
-- same), $6 bytes, $7 parent (null: claimed from the queue)
INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, parent)
SELECT u.token, $1, $2, u.ids::bigint[], u.attempts::smallint[], u.bytes, $7
FROM unnest($3::text[], $4::text[], $5::text[], $6::int[])
    WITH ORDINALITY AS u (token, ids, attempts, bytes, place)
ORDER BY u.place
RETURNING id
