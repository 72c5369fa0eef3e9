-- Reports that belong to no message, newest first.
-- $1 limit
SELECT m.provider_id, m.segment, m.why, m.since, m.due_at IS NOT NULL AS again,
    r.status, r.state, r.token, r.recipient
FROM dispatcher.unmatched m
JOIN dispatcher.report r ON r.provider_id = m.provider_id AND r.segment = m.segment
ORDER BY m.since DESC
LIMIT $1
