-- Append what the provider answered. Whoever has an outcome keeps it.
-- $1 ids, $2 batches, $3 states, $4 attempts, $5 segments, $6 provider ids, $7 codes, $8 reasons
INSERT INTO dispatcher.outcome
    (message_id, batch_id, state, attempts, segments, provider_id, code, reason)
SELECT u.*
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::smallint[], $6::text[],
    $7::text[], $8::text[]) AS u
ON CONFLICT (message_id) DO NOTHING
