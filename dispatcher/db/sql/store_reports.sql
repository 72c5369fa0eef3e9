-- Write reports, and leave for the matching what is new in them; safe to repeat. A report only
-- moves forward: an interim one becomes final, and a final one never changes.
-- Returns how many were news, or no row if none was.
-- The caller sorts the keys, so that two receivers cannot lock crosswise, and gives each once.
-- $1 provider ids, $2 segments, $3 totals, $4 statuses, $5 states, $6 tokens, $7 recipients,
-- $8 seconds since it came, $9 times of the carrier, $10 sources, $11 descriptions,
-- $12 codes of the carrier, $13 raw
WITH written AS (
    INSERT INTO dispatcher.report AS r (provider_id, segment, total, status, state, token,
        recipient, received_at, updated_at, source, description, org_code, raw)
    SELECT u.provider_id, u.segment, u.total, u.status, u.state, u.token, u.recipient,
        clock_timestamp() - make_interval(secs => u.age), u.updated_at, u.source, u.description,
        u.org_code, u.raw::jsonb
    FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::text[], $5::text[], $6::text[],
        $7::text[], $8::float8[], $9::timestamptz[], $10::smallint[], $11::text[], $12::text[],
        $13::text[])
        AS u (provider_id, segment, total, status, state, token, recipient, age, updated_at,
            source, description, org_code, raw)
    ON CONFLICT (provider_id, segment) DO UPDATE SET
        total = greatest(r.total, excluded.total),
        status = excluded.status,
        state = excluded.state,
        token = coalesce(r.token, excluded.token),
        recipient = coalesce(r.recipient, excluded.recipient),
        received_at = excluded.received_at,
        updated_at = excluded.updated_at,
        source = excluded.source,
        description = excluded.description,
        org_code = excluded.org_code,
        raw = excluded.raw,
        earlier = jsonb_build_object(
            'status', r.status, 'received_at', r.received_at, 'updated_at', r.updated_at,
            'raw', r.raw)
    WHERE r.state = 'interim' AND excluded.state <> 'interim'
    RETURNING provider_id, segment, total, state, status, coalesce(token, '') AS token,
        coalesce(recipient, '') AS recipient, xmax = 0 AS fresh
)
INSERT INTO dispatcher.report_inbox
    (provider_ids, segments, totals, states, statuses, tokens, recipients, fresh)
SELECT array_agg(provider_id), array_agg(segment), array_agg(total), array_agg(state),
    array_agg(status), array_agg(token), array_agg(recipient), array_agg(fresh)
FROM written
HAVING count(*) > 0
RETURNING size
