-- How many reports wait to be matched, and for how long the oldest has; the inbox is small.
SELECT coalesce(sum(size), 0)::bigint AS reports,
    coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float8 AS oldest_seconds
FROM dispatcher.report_inbox
