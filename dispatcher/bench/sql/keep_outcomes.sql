-- What became of them: of a thousand 970 accepted, 20 rejected, 6 expired, 4 cancelled.
-- $1 first id, $2 how many
INSERT INTO dispatcher.outcome
    (message_id, state, attempts, segments, batch_id, at, provider_id, code, reason)
SELECT id,
    CASE WHEN id % 1000 < 970 THEN 'accepted' WHEN id % 1000 < 990 THEN 'rejected'
        WHEN id % 1000 < 996 THEN 'expired' ELSE 'cancelled' END,
    1,
    CASE WHEN id % 1000 < 970 THEN 1 END,
    CASE WHEN id % 1000 < 990 THEN (id - 1) / 500 + 1 END,
    queued_at + interval '1 s',
    CASE WHEN id % 1000 < 970
        THEN md5('request ' || (id - 1) / 500)::uuid::text || '_' || (id - 1) % 500 + 1 END,
    CASE WHEN id % 1000 < 970 THEN '000000' WHEN id % 1000 < 990 THEN 'E200028' END,
    CASE WHEN id % 1000 BETWEEN 970 AND 989 THEN 'the template does not fit the variables' END
FROM dispatcher.message
WHERE id >= $1::bigint AND id < $1::bigint + $2::int
