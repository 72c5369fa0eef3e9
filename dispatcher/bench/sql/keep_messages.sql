-- A month of history: messages that were asked for evenly over it. The queue's trigger is off.
-- $1 first id, $2 how many, $3 days ago that it began, $4 days that it lasted
INSERT INTO dispatcher.message
    (id, sender, recipient, template_id, params, reference, idempotency_key, send_at, queued_at)
SELECT id, 'csms12345678', '+86138' || lpad((id % 100000000)::text, 8, '0'),
    '8ff55eac1d0b478ab3c06c3c6a492300', ARRAY[lpad((id * 7919 % 1000000)::text, 6, '0')],
    CASE WHEN id % 2 = 0 THEN 'order-' || id END,
    CASE WHEN id % 5 = 0 THEN 'order-' || id || '-shipped' END,
    at, at
FROM generate_series($1::bigint, $1::bigint + $2::int - 1) AS id
CROSS JOIN LATERAL (
    SELECT now() - make_interval(secs => 86400 * ($3::float8 - $4::float8 * (id - $1::bigint) / $2::int)) AS at
) AS t
