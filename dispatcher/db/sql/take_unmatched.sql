-- Take reports that are to be looked at again: those that are due, and those of $1 and $2, of
-- which news has come.
-- $1 provider ids, $2 segments, $3 limit of those that are due
WITH due AS (
    SELECT provider_id, segment FROM dispatcher.unmatched
    WHERE due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $3
), taken AS (
    DELETE FROM dispatcher.unmatched m
    WHERE (m.provider_id, m.segment) IN (
        SELECT provider_id, segment FROM due
        UNION SELECT * FROM unnest($1::text[], $2::smallint[])
    )
    RETURNING m.provider_id, m.segment, m.fresh, m.looks
)
SELECT r.provider_id, r.segment, r.total, r.state, r.status, r.token, r.recipient, t.fresh, t.looks
FROM taken t
JOIN dispatcher.report r ON r.provider_id = t.provider_id AND r.segment = t.segment
