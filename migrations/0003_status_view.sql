-- The state of a message, from the tables that it is in.

-- migrate:up

-- Everything known of one message: what was asked for, where it is, its result, its reports.
CREATE VIEW dispatcher.message_status AS
SELECT
    m.id,
    m.app,
    m.sender,
    m.recipient,
    m.template_id,
    m.reference,
    m.priority,
    CASE
        WHEN o.state = 'accepted' THEN coalesce(r.state, 'accepted')
        WHEN o.state IS NOT NULL THEN o.state
        WHEN coalesce(q.due_at, k.due_at) IS NOT NULL THEN 'queued'
        WHEN live.state = 'open' THEN 'sending'
        WHEN live.state = 'unsure' THEN 'unsure'
        ELSE 'lost'
    END AS state,
    coalesce(o.attempts, q.attempt, k.attempt, live.attempt)::integer AS attempts,
    o.provider_id,
    -- Of a message that is delivered or undelivered: the carrier's status, and its meaning.
    CASE
        WHEN r.state IS NOT NULL THEN r.status
        WHEN o.state = 'accepted' THEN coalesce(o.code, '000000')
        ELSE coalesce(o.code, q.code, live.code)
    END AS code,
    CASE WHEN r.state IS NOT NULL THEN coalesce(w.meaning, r.description)
        -- What an answer says of the request ("Success") is not what it says of this number.
        ELSE coalesce(o.reason, CASE WHEN live.code <> '000000' THEN live.description END,
            CASE WHEN q.code = coalesce(last.code, q.code) THEN last.description END)
    END AS reason,
    coalesce(o.segments, r.total)::integer AS segments,
    m.queued_at,
    coalesce(q.due_at, k.due_at) AS due_at,
    CASE WHEN o.state = 'accepted' THEN o.created_at END AS accepted_at,
    CASE WHEN o.state <> 'accepted' THEN o.created_at WHEN r.state IS NOT NULL THEN r.finished_at END
        AS finished_at,
    r.status AS report_status,
    coalesce(live.token, last.token) AS batch_token,
    m.campaign
FROM dispatcher.message m
LEFT JOIN dispatcher.outcome o ON o.message_id = m.id
LEFT JOIN dispatcher.queue q ON q.id = m.id
LEFT JOIN LATERAL (
    SELECT b.due_at, 0 AS attempt
    FROM dispatcher.bulk b
    WHERE o.message_id IS NULL AND q.id IS NULL
      -- A row holds ids of one block of 500.
      AND b.first_id > m.id - 500 AND b.first_id <= m.id AND b.ids @> m.id
    LIMIT 1
) AS k ON true
LEFT JOIN LATERAL (
    SELECT b.token, b.state, b.code, b.description,
        b.attempts[array_position(b.message_ids, m.id)] AS attempt
    FROM dispatcher.batch b
    WHERE o.message_id IS NULL AND q.id IS NULL AND k.due_at IS NULL
      -- Two conditions and not one IN: so both partial indexes serve, and the closed are not read.
      AND (b.state = 'open' OR b.state = 'unsure')
      AND coalesce(b.unsure_ids, b.message_ids) @> ARRAY[m.id]
    LIMIT 1
) AS live ON true
LEFT JOIN dispatcher.batch last ON last.id = coalesce(o.batch_id, q.last_batch)
LEFT JOIN LATERAL (
    -- A long message is delivered when every segment is, and undelivered when one is not.
    SELECT
        CASE
            WHEN bool_or(p.state = 'undelivered') THEN 'undelivered'
            WHEN count(*) FILTER (WHERE p.state = 'delivered') >= max(p.total) THEN 'delivered'
        END AS state,
        coalesce(
            min(p.status) FILTER (WHERE p.state = 'undelivered'),
            min(p.status) FILTER (WHERE p.state = 'delivered'),
            min(p.status)
        ) AS status,
        max(p.total) AS total,
        min(p.description) FILTER (WHERE p.state <> 'interim') AS description,
        max(p.received_at) FILTER (WHERE p.state <> 'interim') AS finished_at
    FROM dispatcher.report p
    WHERE p.provider_id = o.provider_id
) AS r ON true
LEFT JOIN dispatcher.carrier_status w ON w.status = upper(r.status);

COMMENT ON VIEW dispatcher.message_status IS
    'Everything known of one message: its state, result and report. For look-ups by id; other'
    ' conditions read whole partitions.';

-- migrate:down

DROP VIEW dispatcher.message_status;
