-- The open batches of workers that are dead, or have left them behind, become unsure: whether
-- their requests went out, nobody knows. Never back to the queue by itself.
WITH lost AS (
    SELECT b.id
    FROM dispatcher.worker w
    JOIN dispatcher.batch b ON b.worker = w.id AND b.state = 'open'
    WHERE w.stopped_at IS NOT NULL OR w.heartbeat_at < clock_timestamp() - w.lease
    ORDER BY b.id
    LIMIT 1000
    FOR UPDATE OF b SKIP LOCKED
), marked AS (
    UPDATE dispatcher.batch b
    SET state = 'unsure', unsure_at = clock_timestamp(), code = 'worker-lost',
        description = 'the worker stopped before it wrote an answer'
    FROM lost
    WHERE b.id = lost.id AND b.state = 'open'
    RETURNING b.id, b.app, cardinality(b.message_ids) AS messages
), told AS (
    INSERT INTO dispatcher.feed (app, event, code, batch_id, size)
    SELECT app, 'unsure', 'worker-lost', id, messages FROM marked
), counted AS (
    INSERT INTO dispatcher.tally AS t (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()), app, 'unsure', 'worker-lost', $1, sum(messages)
    FROM marked GROUP BY app ORDER BY app
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
)
SELECT count(*)::int AS batches, coalesce(sum(messages), 0)::int AS messages FROM marked
