-- Hold the unsure batches that the policy `resend` may send again, until the end of this
-- transaction; those that somebody else is just settling are left out. A statement of its own:
-- whoever was faster has committed before the next one looks.
SELECT b.id
FROM dispatcher.batch b
JOIN dispatcher.app a ON a.name = b.app
WHERE a.on_unsure = 'resend'
  AND b.state = 'unsure' AND b.unsure_at < clock_timestamp() - a.resend_after
  AND NOT EXISTS (SELECT FROM dispatcher.report r WHERE r.token = b.token)
ORDER BY b.id
LIMIT 1000
FOR UPDATE OF b SKIP LOCKED
