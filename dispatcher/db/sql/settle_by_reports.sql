-- Write messages as accepted because a report has told so; whoever has an outcome keeps it.
-- Returns what was written, and when.
-- $1 message ids, $2 batches, $3 attempts, $4 segments, $5 provider ids
INSERT INTO dispatcher.outcome
    (message_id, batch_id, state, attempts, segments, provider_id, code, reason)
SELECT u.id, u.batch, 'accepted', u.attempt, u.segments, u.provider_id, 'report',
    'settled by a report: the provider has it'
FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[])
    AS u (id, batch, attempt, segments, provider_id)
ON CONFLICT (message_id) DO NOTHING
RETURNING message_id, at
