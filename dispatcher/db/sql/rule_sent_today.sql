-- How many messages of an app were accepted since 00:00 UTC+8, or may have been: those on their
-- way and unsure count too. From the counters and the indexes of open and unsure batches.
-- $1 app
SELECT
    coalesce((
        SELECT sum(count) FROM dispatcher.tally
        WHERE app = $1 AND event = 'accepted'
          AND minute >= date_trunc('day', now() AT TIME ZONE '+08' ) AT TIME ZONE '+08'
    ), 0)::bigint
    + coalesce((
        SELECT sum(cardinality(message_ids)) FROM dispatcher.batch
        WHERE state = 'open' AND app = $1
    ), 0)::bigint
    + coalesce((
        SELECT sum(cardinality(message_ids)) FROM dispatcher.batch
        WHERE state = 'unsure' AND app = $1 AND opened_at > now() - interval '1 day'
    ), 0)::bigint
