-- Write what became of claimed messages into their rows.
-- $1 ids, $2 statuses, $3 provider ids, $4 segments, $5 codes
UPDATE usual.message m
SET status = u.status, provider_id = u.provider_id, segments = u.segments, code = u.code,
    finished_at = now()
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::text[])
    AS u (id, status, provider_id, segments, code)
WHERE m.id = u.id AND m.status = 'claimed'
