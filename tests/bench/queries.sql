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
RETURNING m.id, m.recipient, m.template_id, m.params, m.sender, m.signature, m.priority, m.attempts

-- name: single_table_complete
-- Write the outcomes of claimed messages into their rows.
-- $1 ids, $2 statuses, $3 provider ids, $4 segments, $5 codes
UPDATE single_table.message m
SET status = u.status, provider_id = u.provider_id, segments = u.segments, code = u.code,
    finished_at = now()
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::text[])
    AS u (id, status, provider_id, segments, code)
WHERE m.id = u.id AND m.status = 'claimed'
