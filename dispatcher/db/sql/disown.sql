-- Open batches whose end their own worker has recorded, and the database has lost, become unsure:
-- a standby was promoted that had the claim and not the record. Whether they were sent, only a
-- report or a person can tell.
-- $1 worker, $2 batches
WITH marked AS (
    UPDATE dispatcher.batch
    SET state = 'unsure', unsure_at = clock_timestamp(), code = 'record-lost',
        description = 'the database has lost the record of its answer'
    WHERE id = ANY ($2::bigint[]) AND worker = $1 AND state = 'open'
    RETURNING id, app, cardinality(message_ids) AS messages
), told AS (
    INSERT INTO dispatcher.feed (app, event, code, batch_id, size)
    SELECT app, 'unsure', 'record-lost', id, messages FROM marked
)
INSERT INTO dispatcher.tally AS t (minute, app, event, code, worker, count)
SELECT date_trunc('minute', now()), app, 'unsure', 'record-lost', $1, sum(messages)
FROM marked GROUP BY app ORDER BY app
ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
