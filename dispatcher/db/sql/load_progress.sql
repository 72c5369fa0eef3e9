-- How far the load of a file has come.
-- $1 digest
SELECT lines, taken, refused, rejects_bytes, ended_at FROM dispatcher.load WHERE digest = $1
