-- Messages that were accepted, in batches of 500: what reports are then about. Message n of those
-- loaded has the number +86138<n>, the token bench-<(n - 1) / 500> and a provider id that is as
-- random as the provider's, for that is what its index gets (bench.posting makes the same).
-- $1 batches
WITH added AS (
    INSERT INTO dispatcher.message (recipient, template_id)
    SELECT '+86138' || lpad(n::text, 8, '0'), 'bench' FROM generate_series(1, $1 * 500) AS n
    RETURNING id, substr(recipient, 7)::int AS n
), request AS (
    INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes, closed_at)
    SELECT 'bench-' || (n - 1) / 500, 'default', 0, array_agg(id ORDER BY n),
        array_agg(1::smallint), 'closed', 60000, now()
    FROM added GROUP BY (n - 1) / 500
    RETURNING id, token
)
INSERT INTO dispatcher.outcome (message_id, batch_id, state, attempts, provider_id, code)
SELECT a.id, r.id, 'accepted', 1, md5(a.n::text)::uuid || '_1', '000000'
FROM added a JOIN request r ON r.token = 'bench-' || (a.n - 1) / 500
