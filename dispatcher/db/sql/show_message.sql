-- One message: what was asked for, where it is, what became of it.
-- $1 message id
SELECT
    s.id, s.app, s.sender, s.recipient, s.template_id, s.reference, s.priority, s.state,
    s.attempts, s.provider_id, s.code, s.reason, s.segments, s.queued_at, s.due_at,
    s.accepted_at, s.finished_at, s.report_status, s.batch_token,
    m.params, m.signature, m.send_at, m.expires_at, m.idempotency_key,
    CASE WHEN a.paused_at IS NOT NULL THEN coalesce(a.pause_reason, 'no reason was given') END
        AS app_paused,
    (
        SELECT count(*) FROM dispatcher.report r
        WHERE r.provider_id = s.provider_id AND r.state <> 'interim'
    ) AS segments_reported
FROM dispatcher.message_status s
JOIN dispatcher.message m ON m.id = s.id
LEFT JOIN dispatcher.app a ON a.name = s.app
WHERE s.id = $1
