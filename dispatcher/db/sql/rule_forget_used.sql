-- Forget what was sent over a day ago, a bounded number at a time; returns how many.
WITH old AS (
    SELECT message_id FROM dispatcher.sent_to
    WHERE at < clock_timestamp() - interval '1 day'
    ORDER BY at LIMIT 10000
), gone AS (
    DELETE FROM dispatcher.sent_to WHERE message_id IN (SELECT message_id FROM old) RETURNING 1
)
SELECT count(*)::int FROM gone
