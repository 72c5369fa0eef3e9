-- Take the oldest reports of the inbox, whole rows of it, some $1 reports in all. They are gone
-- from it when the caller commits.
-- $1 about how many reports
WITH oldest AS (
    SELECT i.id, sum(i.size) OVER (ORDER BY i.id) - i.size AS before
    FROM (SELECT id, size FROM dispatcher.report_inbox ORDER BY id LIMIT 2000) AS i
), taken AS (
    DELETE FROM dispatcher.report_inbox
    WHERE id = ANY (ARRAY(SELECT id FROM oldest WHERE before < $1))
    RETURNING *
)
SELECT u.provider_id, u.segment, u.total, u.state, u.status, nullif(u.token, ''),
    nullif(u.recipient, ''), u.fresh, 0,
    extract(epoch FROM clock_timestamp() - t.received_at)::float8
FROM taken t
CROSS JOIN LATERAL unnest(t.provider_ids, t.segments, t.totals, t.states, t.statuses, t.tokens,
    t.recipients, t.fresh) WITH ORDINALITY
    AS u (provider_id, segment, total, state, status, token, recipient, fresh, place)
ORDER BY t.id, u.place
