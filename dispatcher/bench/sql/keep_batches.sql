-- Its requests, 500 messages each; what was never sent is in one too, which changes nothing here.
-- $1 first id, $2 how many
INSERT INTO dispatcher.batch
    (id, token, app, worker, message_ids, attempts, state, bytes, opened_at, closed_at, tries,
    http_status, code)
SELECT (id - 1) / 500 + 1, md5('token ' || ((id - 1) / 500 + 1)), 'default', 0,
    array_agg(id ORDER BY id), array_agg(1::smallint), 'closed', 60000, max(queued_at),
    max(queued_at) + interval '1 s', 1, 200, '000000'
FROM dispatcher.message
WHERE id >= $1::bigint AND id < $1::bigint + $2::int
GROUP BY (id - 1) / 500
