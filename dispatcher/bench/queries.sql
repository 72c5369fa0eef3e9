-- name: server_settings
-- The server settings that figures depend on.
-- $1 names
SELECT name, current_setting(name) AS setting
FROM pg_settings
WHERE name = ANY ($1::text[])
ORDER BY array_position($1::text[], name)

-- name: make_partitions
-- Make the partitions that the next messages need.
SELECT dispatcher.make_partitions()

-- name: load_messages
-- Insert messages with distinct numbers in one statement, as an application would.
-- $1 number of messages, $2 whether each has its own text, $3 priority, $4 seconds until due
INSERT INTO dispatcher.message (sender, recipient, template_id, params, priority, send_at)
SELECT
    'csms12345678',
    '+86139' || lpad(n::text, 8, '0'),
    '8ff55eac1d0b478ab3c06c3c6a492300',
    ARRAY[CASE WHEN $2::boolean THEN lpad((n::bigint * 7919 % 1000000)::text, 6, '0') ELSE '062569' END],
    $3::smallint,
    now() + make_interval(secs => $4)
FROM generate_series(1, $1::int) AS n

-- name: count_running_workers
-- Number of workers that registered and did not stop.
SELECT count(*)::int FROM dispatcher.worker WHERE stopped_at IS NULL

-- name: count_outcomes
-- Number of messages with an outcome, from the counters that the recorder updates.
SELECT coalesce(sum(count), 0)::int FROM dispatcher.event_count WHERE event IN ('accepted', 'rejected')

-- name: wal_position
-- Current end of the write-ahead log.
SELECT pg_current_wal_insert_lsn()::text

-- name: wal_bytes_since
-- Bytes of write-ahead log since a position.
-- $1 position
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::bigint

-- name: insert_message
-- One message, as load_messages inserts many.
-- $1 its number
INSERT INTO dispatcher.message (sender, recipient, template_id, params)
VALUES ('csms12345678', '+86139' || lpad($1::int::text, 8, '0'),
    '8ff55eac1d0b478ab3c06c3c6a492300',
    ARRAY[lpad(($1::int::bigint * 7919 % 1000000)::text, 6, '0')])

-- name: insert_urgent_message
-- One urgent message, as an application sends a verification code.
-- $1 recipient
INSERT INTO dispatcher.message (sender, recipient, template_id, params, priority)
VALUES ('csms12345678', $1, '8ff55eac1d0b478ab3c06c3c6a492300', ARRAY['062569'], 0)

-- name: has_due_messages
-- Whether a message of the backlog is due and not claimed yet.
SELECT EXISTS (SELECT FROM dispatcher.queue WHERE app = 'default' AND priority = 5 AND due_at <= now())
    OR EXISTS (SELECT FROM dispatcher.bulk WHERE app = 'default' AND priority = 5 AND due_at <= now())

-- name: load_accepted_batches
-- Accepted messages in batches of 500, for reports to match. Message n has the number
-- +86138<n>, the token bench-<(n - 1) / 500> and a provider id as random as the provider's,
-- because that randomness is what its index has to bear (bench.posting makes the same ids).
-- $1 number of batches
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

-- name: count_matched_reports
-- Number of reports matched to their messages.
SELECT coalesce(sum(count), 0)::bigint FROM dispatcher.event_count WHERE event = 'delivered'

-- name: commit_only
-- A transaction that writes almost nothing: its duration is that of one commit on this disk.
SELECT pg_logical_emit_message(true, 'dispatcher bench', '')

-- name: history_messages
-- Messages of a month, queued evenly over it. The queue's trigger is disabled.
-- $1 first id, $2 number of messages, $3 days since the month began, $4 days that it lasts
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

-- name: history_keys
-- The idempotency keys of a month.
-- $1 first id, $2 number of messages
INSERT INTO dispatcher.idempotency (app, key, message_id)
SELECT app, idempotency_key, id FROM dispatcher.message
WHERE id >= $1::bigint AND id < $1::bigint + $2::int AND idempotency_key IS NOT NULL

-- name: history_batches
-- The requests of a month, 500 messages each. Messages that were never sent are in one too,
-- which does not affect the measurement.
-- $1 first id, $2 number of messages
INSERT INTO dispatcher.batch
    (id, token, app, worker, message_ids, attempts, state, bytes, opened_at, closed_at, tries,
    http_status, code)
SELECT (id - 1) / 500 + 1, md5('token ' || ((id - 1) / 500 + 1)), 'default', 0,
    array_agg(id ORDER BY id), array_agg(1::smallint), 'closed', 60000, max(queued_at),
    max(queued_at) + interval '1 s', 1, 200, '000000'
FROM dispatcher.message
WHERE id >= $1::bigint AND id < $1::bigint + $2::int
GROUP BY (id - 1) / 500

-- name: history_outcomes
-- Outcomes of a month: of 1,000 messages 970 accepted, 20 rejected, 6 expired, 4 cancelled.
-- $1 first id, $2 number of messages
INSERT INTO dispatcher.outcome
    (message_id, state, attempts, segments, batch_id, created_at, provider_id, code, reason)
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

-- name: history_reports
-- Reports of the accepted messages of a month; one message of 50 has none.
-- $1 first id, $2 number of messages
INSERT INTO dispatcher.report
    (provider_id, status, state, token, recipient, received_at, updated_at, source, raw)
SELECT o.provider_id,
    CASE WHEN m.id % 25 = 0 THEN 'UNDELIV' ELSE 'DELIVRD' END,
    CASE WHEN m.id % 25 = 0 THEN 'undelivered' ELSE 'delivered' END,
    md5('token ' || o.batch_id), m.recipient, o.created_at + interval '5 s', o.created_at + interval '4 s', 1,
    jsonb_build_object('orgCode', '1', 'to', m.recipient)
FROM dispatcher.message m JOIN dispatcher.outcome o ON o.message_id = m.id
WHERE m.id >= $1::bigint AND m.id < $1::bigint + $2::int
  AND o.message_id >= $1::bigint AND o.message_id < $1::bigint + $2::int
  AND o.state = 'accepted' AND m.id % 50 <> 7

-- name: start_next_partition
-- Skip the ids left in the current partition, as maintenance does where one lasts too long;
-- returns the first id of the next one.
-- $1 last id of the month
SELECT setval('dispatcher.message_id', p.past - 1) + 1
FROM dispatcher.partitions() p,
    LATERAL (SELECT setval('dispatcher.batch_id', max(id)) FROM dispatcher.batch) AS b
WHERE p.first <= $1::bigint AND $1::bigint < p.past

-- name: count_history_months
-- Number of months of the history that still have messages.
SELECT count(*)::int FROM dispatcher.partitions() p
WHERE EXISTS (SELECT FROM dispatcher.message m
    WHERE m.id >= p.first AND m.id < p.past AND m.queued_at < now() - interval '9 days')

-- name: table_sizes
-- Size on disk in bytes: tables and their indexes, partitions under their parent's name.
SELECT coalesce(parent.relname, c.relname) AS name, sum(pg_table_size(c.oid))::bigint AS heap,
    sum(pg_indexes_size(c.oid))::bigint AS indexes
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class parent ON parent.oid = i.inhparent
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r'
GROUP BY 1 ORDER BY 2 DESC

-- name: insert_scheduled_message
-- A message that is not due before the benchmark ends, inserted by an application meanwhile.
INSERT INTO dispatcher.message (sender, recipient, template_id, params, send_at)
VALUES ('csms12345678', '+8613812345678', '8ff55eac1d0b478ab3c06c3c6a492300', ARRAY['062569'],
    now() + interval '1 day')
