-- Note what the reports of messages come to by now; returns those of which that is news, and
-- whether it is the first. Delivered when every segment is, undelivered when one is not.
-- $1 provider ids
INSERT INTO dispatcher.report_sum AS s (provider_id, state, status)
SELECT r.provider_id,
    CASE
        WHEN bool_or(r.state = 'undelivered') THEN 'undelivered'
        WHEN count(*) FILTER (WHERE r.state = 'delivered') >= max(r.total) THEN 'delivered'
        ELSE 'interim'
    END,
    coalesce(
        min(r.status) FILTER (WHERE r.state = 'undelivered'),
        min(r.status) FILTER (WHERE r.state = 'delivered'),
        min(r.status)
    )
FROM dispatcher.report r
WHERE r.provider_id = ANY ($1::text[])
GROUP BY r.provider_id
ORDER BY r.provider_id
ON CONFLICT (provider_id) DO UPDATE SET state = excluded.state, status = excluded.status,
    at = now()
WHERE s.state = 'interim' AND excluded.state <> 'interim'
RETURNING provider_id, state, status, xmax = 0 AS fresh
