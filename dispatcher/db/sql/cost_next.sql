-- The last batch of the next piece of a day; none: there is no more.
-- $1 from, $2 until, $3 the last batch of the piece before, $4 batches in a piece
SELECT max(id) FROM (
    SELECT id FROM dispatcher.batch
    WHERE opened_at >= $1 AND opened_at < $2 AND id > $3
    ORDER BY id LIMIT $4
) AS piece
