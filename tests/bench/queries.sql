-- name: load_finished
-- Insert messages that were accepted long ago. The queue's trigger is disabled meanwhile.
-- $1 number of messages
WITH made AS (
    SELECT nextval('dispatcher.message_id') AS id, n FROM generate_series(1, $1::int) AS n
), asked AS (
    INSERT INTO dispatcher.message (id, sender, recipient, template_id, params)
    SELECT id, 'csms12345678', '+86138' || lpad((n % 100000000)::text, 8, '0'),
        '8ff55eac1d0b478ab3c06c3c6a492300', ARRAY['062569']
    FROM made
)
INSERT INTO dispatcher.outcome (message_id, state, attempts, segments, batch_id, provider_id, code)
SELECT id, 'accepted', 1, 1, 1, gen_random_uuid()::text || '_1', '000000' FROM made

-- name: insert_rows
-- The INSERT of an application; the VALUES rows are appended.
INSERT INTO dispatcher.message (sender, recipient, template_id, params, priority) VALUES

-- name: single_table_schema
-- The usual shape of a queue: one table with a status column that is updated.
CREATE SCHEMA single_table;
CREATE TABLE single_table.message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app text NOT NULL,
    sender text,
    recipient text NOT NULL,
    template_id text NOT NULL,
    params text[] NOT NULL,
    signature text,
    priority smallint NOT NULL DEFAULT 5,
    send_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL DEFAULT 'queued',
    attempts smallint NOT NULL DEFAULT 0,
    claimed_by integer,
    claimed_at timestamptz,
    finished_at timestamptz,
    provider_id text,
    segments smallint,
    code text
);
CREATE INDEX message_queued ON single_table.message (app, priority, send_at) WHERE status = 'queued';
CREATE INDEX message_claimed ON single_table.message (claimed_at) WHERE status = 'claimed';

-- name: single_table_load
-- The rows of load_messages, in the single table.
-- $1 number of messages, $2 whether each has its own text
INSERT INTO single_table.message (app, sender, recipient, template_id, params)
SELECT
    'default',
    'csms12345678',
    '+86139' || lpad(n::text, 8, '0'),
    '8ff55eac1d0b478ab3c06c3c6a492300',
    ARRAY[CASE WHEN $2::boolean THEN lpad((n::bigint * 7919 % 1000000)::text, 6, '0') ELSE '062569' END]
FROM generate_series(1, $1::int) AS n

-- name: single_table_claim
-- Mark due messages as claimed and return them, in the field order of core.message.Message.
-- $1 app, $2 limit, $3 worker
WITH due AS MATERIALIZED (
    SELECT id
    FROM single_table.message
    WHERE app = $1 AND status = 'queued' AND send_at <= now()
    ORDER BY priority, send_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE single_table.message m
SET status = 'claimed', attempts = m.attempts + 1, claimed_by = $3, claimed_at = now()
FROM due
WHERE m.id = due.id
RETURNING m.id, m.recipient, m.template_id, m.params, m.sender, m.signature, NULL::float8,
    m.priority, m.attempts

-- name: single_table_complete
-- Write the outcomes of claimed messages into their rows.
-- $1 ids, $2 statuses, $3 provider ids, $4 segments, $5 codes
UPDATE single_table.message m
SET status = u.status, provider_id = u.provider_id, segments = u.segments, code = u.code,
    finished_at = now()
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::text[])
    AS u (id, status, provider_id, segments, code)
WHERE m.id = u.id AND m.status = 'claimed'

-- name: console_begin
-- Let ids begin so that the last of some messages are in a partition that is not full. $1 first id
SELECT setval('dispatcher.message_id', $1::bigint - 1)

-- name: console_messages
-- Insert messages that were finished long ago, evenly over 30 days; the queue's trigger is disabled.
-- $1 first of them, $2 last, $3 how many there are in all, $4 what is added for the id
WITH made AS (
    SELECT n, nextval('dispatcher.message_id') AS id, (n - 1) / 500 AS batch,
        now() - make_interval(secs => 30 * 86400.0 * ($3::bigint - n) / $3::bigint) AS at
    FROM generate_series($1::bigint, $2::bigint) AS n
), asked AS (
    INSERT INTO dispatcher.message
        (id, app, sender, recipient, template_id, params, reference, campaign, send_at, queued_at)
    SELECT id, CASE WHEN batch % 10 = 0 THEN 'bank' ELSE 'shop' END, 'csms12345678',
        CASE WHEN n % 100000 = 7 THEN '+8613800000000'
            ELSE '+86138' || lpad((n * 7919 % 100000000)::text, 8, '0') END,
        'template-' || batch % 7, ARRAY['062569'],
        CASE WHEN n % 2 = 0 THEN 'order ' || n END,
        CASE WHEN n / 100000 % 2 = 0 THEN 'campaign ' || n / 100000 END, at, at
    FROM made
)
INSERT INTO dispatcher.outcome
    (message_id, state, attempts, segments, batch_id, created_at, provider_id, code, reason)
SELECT id,
    CASE WHEN n % 100 = 0 THEN 'rejected' WHEN n % 1000 = 1 THEN 'expired'
        WHEN n % 1000 = 101 THEN 'cancelled' ELSE 'accepted' END,
    1, 1, batch + 1, at + interval '2 s',
    CASE WHEN n % 100 = 0 OR n % 1000 IN (1, 101) THEN NULL ELSE md5(n::text) || '_1' END,
    CASE WHEN n % 100 = 0 THEN 'E200028' WHEN n % 1000 = 1 THEN 'expired'
        WHEN n % 1000 = 101 THEN 'cancelled' ELSE '000000' END,
    NULL
FROM made

-- name: console_reports
-- Insert the reports of those of them that were accepted, but for one in a hundred.
-- $1 first of them, $2 last, $3 how many there are in all
INSERT INTO dispatcher.report
    (provider_id, status, state, token, recipient, received_at)
SELECT md5(n::text) || '_1',
    CASE WHEN n % 100 IN (2, 3, 4) THEN 'MK:0001' ELSE 'DELIVRD' END,
    CASE WHEN n % 100 IN (2, 3, 4) THEN 'undelivered' ELSE 'delivered' END,
    md5('batch ' || (n - 1) / 500 + 1),
    '+86138' || lpad((n * 7919 % 100000000)::text, 8, '0'),
    now() - make_interval(secs => 30 * 86400.0 * ($3::bigint - n) / $3::bigint) + interval '9 s'
FROM generate_series($1::bigint, $2::bigint) AS n
WHERE n % 100 NOT IN (0, 5) AND n % 1000 NOT IN (1, 101)

-- name: console_batches
-- Insert their requests. $1 how many messages there are, $2 what is added for the id
INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes, opened_at,
    closed_at, tries, http_status, code, description)
SELECT md5('batch ' || b), CASE WHEN (b - 1) % 10 = 0 THEN 'bank' ELSE 'shop' END, 1,
    ARRAY(SELECT generate_series((b - 1) * 500 + 1 + $2::bigint, b * 500 + $2::bigint)),
    array_fill(1::smallint, ARRAY[500]), 'closed', 60000, at, at + interval '1 s', 1, 200, '000000',
    'Success'
FROM generate_series(1, $1::bigint / 500) AS b
CROSS JOIN LATERAL (
    SELECT now() - make_interval(secs => 30 * 86400.0 * ($1 - b * 500) / $1::bigint) AS at
) AS t

-- name: console_events
-- Insert their events: an event a request and result, and reports by 100 messages.
-- $1 how many messages there are, $2 what is added for the id
WITH happened AS (
    SELECT b, e.part, e.event, e.code, $2::bigint + (b - 1) * 500 AS below, e.rest
    FROM generate_series(1, $1::bigint / 500) AS b
    CROSS JOIN (VALUES
        (1, 'accepted', '', NULL::bigint), (2, 'rejected', 'E200028', 0), (3, 'undelivered', 'MK:0001', 2)
    ) AS e (part, event, code, rest)
), delivered AS (
    SELECT b, 3 + part AS part, 'delivered' AS event, 'DELIVRD' AS code,
        $2::bigint + (b - 1) * 500 + (part - 1) * 100 AS below, NULL::bigint AS rest
    FROM generate_series(1, $1::bigint / 500) AS b CROSS JOIN generate_series(1, 5) AS part
), listed AS (
    SELECT b, part, event, code, ARRAY(
        SELECT below + n FROM generate_series(1, CASE WHEN event = 'delivered' THEN 100 ELSE 500 END) AS n
        WHERE CASE event WHEN 'accepted' THEN n % 100 <> 0 WHEN 'rejected' THEN n % 100 = 0
            WHEN 'undelivered' THEN n % 100 IN (2, 3, 4) ELSE n % 100 NOT IN (0, 2, 3, 4, 5) END
    ) AS ids
    FROM (TABLE happened UNION ALL TABLE delivered) AS h
)
INSERT INTO dispatcher.event (last_position, created_at, app, event, code, message_ids, message_count)
SELECT sum(cardinality(ids)) OVER (ORDER BY b, part),
    now() - make_interval(secs => 30 * 86400.0 * ($1 - b * 500) / $1::bigint),
    CASE WHEN (b - 1) % 10 = 0 THEN 'bank' ELSE 'shop' END, event, code, ids, cardinality(ids)
FROM listed ORDER BY b, part

-- name: console_counters
-- Insert counters: by minute for four days, and by hour for 13 months.
WITH counted AS (
    SELECT a.app, e.event, e.code, e.share
    FROM (VALUES ('shop'), ('bank')) AS a (app)
    CROSS JOIN (VALUES ('accepted', '', 230), ('reported', '', 228), ('delivered', 'DELIVRD', 218),
        ('undelivered', 'MK:0001', 7), ('rejected', 'E200028', 2), ('deferred', 'E200015', 5))
        AS e (event, code, share)
), minutes AS (
    INSERT INTO dispatcher.event_count (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()) - make_interval(mins => m), app, event, code, worker, share / 2
    FROM generate_series(0, 4 * 1440) AS m CROSS JOIN generate_series(1, 2) AS worker, counted
)
INSERT INTO dispatcher.hour_count (hour, app, event, code, count)
SELECT date_trunc('hour', now()) - make_interval(hours => h), app, event, code, share * 60
FROM generate_series(97, 24 * 395) AS h, counted

-- name: console_waiting
-- Insert requests whose result is not known, and those on their way.
INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes, unsure_at)
SELECT md5(b || ' ' || clock_timestamp()), 'shop', 1,
    -- With b in it, so that each request has ids of its own.
    ARRAY(SELECT nextval('dispatcher.message_id') FROM generate_series(b, b + 499)),
    array_fill(1::smallint, ARRAY[500]), CASE WHEN b <= 20 THEN 'unsure' ELSE 'open' END, 60000,
    CASE WHEN b <= 20 THEN now() END
FROM generate_series(1, 30) AS b

-- name: console_messages_of_requests
-- Insert the messages of those requests.
INSERT INTO dispatcher.message (id, app, sender, recipient, template_id)
SELECT u.id, 'shop', 'csms12345678', '+86139' || lpad((u.id % 100000000)::text, 8, '0'), 'template-1'
FROM dispatcher.batch b CROSS JOIN LATERAL unnest(b.message_ids) AS u (id) WHERE b.state <> 'closed'

-- name: console_rules
-- Insert campaigns, rules and an audit log of years.
-- $1 how many messages there are, $2 what is added for the id
WITH campaigns AS (
    INSERT INTO dispatcher.campaign (name, first_id, created_by, created_at)
    SELECT 'campaign ' || c, c * 100000 + $2::bigint, 'Ana',
        now() - make_interval(secs => 30 * 86400.0 * ($1::bigint - c * 100000) / $1::bigint)
    FROM generate_series(0, $1 / 100000, 2) AS c
), templates AS (
    INSERT INTO dispatcher.template (template_id, kinds, text)
    SELECT 'template-' || t, '{NUM_6}', 'Your code is ${NUM_6}.' FROM generate_series(0, 199) AS t
), numbers AS (
    INSERT INTO dispatcher.suppression (recipient, reason)
    SELECT '+86137' || lpad(n::text, 8, '0'), 'asked for it' FROM generate_series(1, 100000) AS n
), limits AS (
    INSERT INTO dispatcher.app_limit (app, per_day, daily_limit) VALUES ('shop', 5, 1000000)
), apps AS (
    INSERT INTO dispatcher.app (name, numbers_per_second) VALUES ('shop', 500), ('bank', 500)
), unmatched AS (
    INSERT INTO dispatcher.unmatched_report (provider_id, segment, reason)
    SELECT provider_id, segment, 'no-token' FROM dispatcher.report LIMIT 1000
)
INSERT INTO dispatcher.audit (created_at, actor, action, target, detail, result)
SELECT now() - make_interval(mins => 100000 - n), 'Ana', 'pause', 'app ' || n % 50, 'texts look odd',
    'paused'
FROM generate_series(1, 100000) AS n
