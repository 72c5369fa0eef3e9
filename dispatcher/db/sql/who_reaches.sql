-- Whether other workers are there for an app, and whether one of them reaches its provider: has had
-- a message accepted in this minute, or in that of half a minute ago.
-- $1 app, $2 this worker
WITH others AS (
    SELECT id FROM dispatcher.worker
    WHERE id <> $2 AND stopped_at IS NULL AND heartbeat_at > clock_timestamp() - lease
      AND $1 = ANY (apps)
)
SELECT
    EXISTS (SELECT FROM others) AS there,
    EXISTS (
        SELECT FROM dispatcher.tally t JOIN others o ON o.id = t.worker
        WHERE t.minute >= date_trunc('minute', clock_timestamp() - interval '30 seconds')
          AND t.app = $1 AND t.event = 'accepted'
    ) AS reaching
