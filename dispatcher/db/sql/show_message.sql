-- One message: what was asked for, where it is, what became of it.
-- $1 message id
SELECT
    s.id, s.app, s.sender, s.recipient, s.template_id, s.reference, s.priority, s.state,
    s.attempts, s.provider_id, s.code, s.reason, s.segments, s.queued_at, s.due_at,
    s.accepted_at, s.finished_at, s.report_status, s.batch_token,
    m.params, m.signature, m.send_at, m.expires_at, m.idempotency_key,
    CASE WHEN a.paused_at IS NOT NULL THEN coalesce(a.pause_reason, 'no reason was given') END
        AS app_paused,
    a.paused_at AS app_paused_at, a.paused_by AS app_paused_by, a.pause_code AS app_pause_code,
    EXISTS (
        SELECT FROM dispatcher.worker w
        WHERE s.app = ANY (w.apps) AND w.stopped_at IS NULL
          AND w.heartbeat_at > clock_timestamp() - w.lease
    ) AS app_served,
    coalesce(s.due_at > clock_timestamp(), false) AS early,
    o.code AS outcome_code,
    u.reason AS suppressed_because,
    (
        SELECT count(*) FROM dispatcher.report r
        WHERE r.provider_id = s.provider_id AND r.state <> 'interim'
    ) AS segments_reported
FROM dispatcher.message_status s
JOIN dispatcher.message m ON m.id = s.id
LEFT JOIN dispatcher.app a ON a.name = s.app
LEFT JOIN dispatcher.outcome o ON o.message_id = s.id AND o.message_id = $1
LEFT JOIN dispatcher.suppression u ON s.code = 'suppressed'
    AND u.recipient = CASE WHEN s.recipient LIKE '+%' THEN s.recipient ELSE '+86' || s.recipient END
WHERE s.id = $1
