-- Results of messages.

-- name: append_outcomes
-- Append what the provider answered. A message that has an outcome keeps it.
-- $1 ids, $2 batches, $3 states, $4 attempts, $5 segments, $6 provider ids, $7 codes (null: 000000),
-- $8 reasons
INSERT INTO dispatcher.outcome
    (message_id, batch_id, state, attempts, segments, provider_id, code, reason)
SELECT u.*
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::smallint[], $6::text[],
    $7::text[], $8::text[]) AS u
ON CONFLICT (message_id) DO NOTHING

-- name: write_outcomes
-- Append the outcomes of messages that have no batch: claimed, and never to be sent.
-- $1 ids, $2 states, $3 attempts, $4 codes, $5 reasons
INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)
SELECT u.id, u.state, u.attempts, u.code, u.reason
FROM unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[], $5::text[])
    AS u (id, state, attempts, code, reason)

-- name: have_outcome
-- Return which of these messages have an outcome already. The lowest and the highest id leave out the
-- other partitions.
-- $1 message ids
SELECT message_id FROM dispatcher.outcome
WHERE message_id = ANY ($1::bigint[])
  AND message_id >= (SELECT min(u) FROM unnest($1::bigint[]) AS u)
  AND message_id <= (SELECT max(u) FROM unnest($1::bigint[]) AS u)

-- name: settle_by_reports
-- Write messages as accepted because a report proves it. A message that has an outcome keeps it.
-- Returns what was written, and when.
-- $1 message ids, $2 batches, $3 attempts, $4 segments, $5 provider ids
INSERT INTO dispatcher.outcome
    (message_id, batch_id, state, attempts, segments, provider_id, code, reason)
SELECT u.id, u.batch, 'accepted', u.attempt, u.segments, u.provider_id, 'settled-by-report',
    'settled by a report: the provider has it'
FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[])
    AS u (id, batch, attempt, segments, provider_id)
ON CONFLICT (message_id) DO NOTHING
RETURNING message_id, date_part('epoch', created_at) AS accepted_at

-- name: name_accepted
-- Add the provider ids of accepted messages that were settled without one; return what was written. Of
-- two ids for one message one is.
-- $1 message ids, $2 provider ids
UPDATE dispatcher.outcome o SET provider_id = u.provider_id
FROM unnest($1::bigint[], $2::text[]) AS u (id, provider_id)
WHERE o.message_id = u.id AND o.message_id = ANY ($1::bigint[])
  AND o.state = 'accepted' AND o.provider_id IS NULL
RETURNING o.message_id, o.provider_id

-- name: outcome_counts
-- Return how many messages are finished, by state. Reads every outcome: for a demo, not for history.
SELECT state, count(*) AS messages FROM dispatcher.outcome GROUP BY state ORDER BY state

-- name: outcome_summary
-- Return how many messages are in which state and why, with the id of one of them. Reads every
-- message: for a demo, not for history.
SELECT state, code, min(reason) AS reason, count(*) AS messages, min(id) AS example
FROM dispatcher.message_status
GROUP BY state, code
ORDER BY messages DESC, state, code
