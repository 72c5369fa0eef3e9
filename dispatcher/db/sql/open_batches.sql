-- Write the requests that are about to leave; return their ids in the order given.
-- The ids and attempts of all batches come as one array each, cut at the ends given in $4.
-- $1 app, $2 worker, $3 tokens, $4 where each ends (1-based, inclusive), $5 message ids,
-- $6 attempts, $7 bytes, $8 parents (null: claimed from the queue)
INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, parent)
SELECT
    t.token, $1, $2,
    ($5::bigint[])[t.first:t.last], ($6::smallint[])[t.first:t.last],
    t.bytes, t.parent
FROM (
    SELECT u.*, coalesce(lag(u.last) OVER (ORDER BY u.place), 0) + 1 AS first
    FROM unnest($3::text[], $4::int[], $7::int[], $8::bigint[])
        WITH ORDINALITY AS u (token, last, bytes, parent, place)
) AS t
ORDER BY t.place
RETURNING id
