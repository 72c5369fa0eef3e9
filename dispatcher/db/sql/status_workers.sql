-- Workers that run, or died within the last day without saying so.
SELECT
    id,
    host,
    pid,
    version,
    apps,
    started_at,
    extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_seconds,
    heartbeat_at > clock_timestamp() - lease AS alive,
    cut_off
FROM dispatcher.worker
WHERE stopped_at IS NULL AND heartbeat_at > clock_timestamp() - interval '1 day'
ORDER BY id
