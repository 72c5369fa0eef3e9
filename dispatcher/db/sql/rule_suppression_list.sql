-- The numbers that are suppressed, the newest first.
-- $1 how many at most
SELECT recipient, reason, source, added_at FROM dispatcher.suppression
ORDER BY added_at DESC, recipient LIMIT $1
