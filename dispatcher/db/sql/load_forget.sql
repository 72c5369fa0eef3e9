-- Forget a load that has ended, so that the file can be loaded once more.
-- $1 digest
DELETE FROM dispatcher.load WHERE digest = $1 AND ended_at IS NOT NULL
