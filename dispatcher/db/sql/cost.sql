-- Prices and what was billed.

-- name: prices
-- Return what a segment costs, by country.
SELECT country, price, currency FROM dispatcher.price ORDER BY country

-- name: next_billed_batch
-- Return the last batch of the next piece of a day; null: there is no more.
-- $1 from, $2 until, $3 the last batch of the piece before, $4 batches in a piece
SELECT max(id) FROM (
    SELECT id FROM dispatcher.batch
    WHERE opened_at >= $1 AND opened_at < $2 AND id > $3
    ORDER BY id LIMIT $4
) AS piece

-- name: billed_messages
-- Return the accepted messages of requests that were opened in a day, a piece at a time, by batch id,
-- with the segments that are charged by now, and those that may still be.
-- $1 from, $2 until, $3 the last batch of the piece before, $4 batches in a piece
WITH piece AS MATERIALIZED (
    SELECT id, app, message_ids FROM dispatcher.batch
    WHERE opened_at >= $1 AND opened_at < $2 AND id > $3
    ORDER BY id LIMIT $4
)
SELECT p.id AS batch, p.app, m.recipient, m.template_id, m.params, m.signature,
    coalesce(o.segments, r.total)::integer AS segments,
    dispatcher.charged_segments(b.mode, o.segments, r.total, r.delivered, r.uncharged) AS charged,
    dispatcher.open_segments(b.mode, o.segments, r.total, r.final) AS open
FROM piece p
CROSS JOIN LATERAL unnest(p.message_ids) AS u (id)
-- OFFSET 0: each is looked up by its key, whatever statistics say.
CROSS JOIN LATERAL (
    SELECT segments, provider_id FROM dispatcher.outcome o
    WHERE o.message_id = u.id AND o.batch_id = p.id AND o.state = 'accepted' OFFSET 0
) AS o
CROSS JOIN LATERAL (
    SELECT recipient, template_id, params, signature FROM dispatcher.message m
    WHERE m.id = u.id OFFSET 0
) AS m
LEFT JOIN dispatcher.app a ON a.name = p.app
CROSS JOIN LATERAL (SELECT dispatcher.billing_mode(a.billing, m.recipient) AS mode) AS b
CROSS JOIN LATERAL dispatcher.report_parts(o.provider_id) AS r
