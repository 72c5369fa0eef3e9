-- Replies (uplink): stored with what follows from them, listed.

-- name: store_replies
-- Write replies, stop promotional messages to those that unsubscribe, and tell the event log; safe to
-- repeat. Returns how many were new. A reply belongs to the app of its address; else to the only app there
-- is; else to the one whose channel number it was sent to. A longer number may be that one with an
-- extension of the carrier, or one that another app's messages name: then it is unknown, and counts for
-- every app, if it is verified: too much is stopped, never too little. A forged one could stop any number
-- for all apps, so an unverified one counts for the app whose channel number its own begins with; else for
-- the only app that workers had in the last hour, for rows of former apps and of misspelt ones stay; else
-- for none.
-- The caller sorts the digests, so that two receivers cannot lock crosswise, and gives each once.
-- $1 digests, $2 provider ids, $3 apps of the addresses (empty: none), $4 numbers, $5 channels,
-- $6 texts, $7 whether each unsubscribes, $8 seconds since it came, $9 times of the provider, $10 raw,
-- $11 whether each is verified
WITH given AS (
    SELECT u.*,
        coalesce(
            (SELECT a.name FROM dispatcher.app a WHERE a.name = u.address),
            (SELECT min(a.name) FROM dispatcher.app a HAVING count(*) = 1),
            (SELECT min(a.name) FROM dispatcher.app a WHERE a.sender = u.channel HAVING count(*) = 1),
            (SELECT CASE WHEN count(*) = 1 THEN min(f.name) END
             FROM (
                SELECT a.name, rank() OVER (ORDER BY length(a.sender) DESC) AS place
                FROM dispatcher.app a WHERE NOT u.verified AND starts_with(u.channel, a.sender)
             ) AS f WHERE f.place = 1),
            (SELECT CASE WHEN count(DISTINCT r.name) = 1 THEN min(r.name) END
             FROM dispatcher.worker w CROSS JOIN unnest(w.apps) AS r (name)
             WHERE NOT u.verified AND w.heartbeat_at > clock_timestamp() - interval '1 hour'),
            '') AS app
    FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
        $7::boolean[], $8::float8[], $9::timestamptz[], $10::text[], $11::boolean[])
        AS u (digest, provider_id, address, number, channel, text, unsubscribes, age, replied_at, raw,
            verified)
), written AS (
    INSERT INTO dispatcher.reply (digest, provider_id, app, number, channel, text, unsubscribed,
        received_at, replied_at, raw)
    SELECT g.digest, g.provider_id, g.app, g.number, g.channel, g.text,
        g.unsubscribes AND g.number ~ '^[+][0-9]{5,20}$' AND (g.app <> '' OR g.verified),
        clock_timestamp() - make_interval(secs => g.age), g.replied_at, g.raw::jsonb
    FROM given g
    ON CONFLICT (digest) DO NOTHING
    RETURNING id, app, number, unsubscribed
), stopped AS (
    INSERT INTO dispatcher.suppression (recipient, app, promotional, reason, source)
    SELECT DISTINCT w.number, w.app, true, 'unsubscribed by a reply', 'reply'
    FROM written w WHERE w.unsubscribed ORDER BY w.number, w.app
    ON CONFLICT (recipient, app, promotional) DO NOTHING
), news AS (
    SELECT coalesce(nullif(w.app, ''), '-') AS app,
        CASE WHEN w.unsubscribed THEN 'unsubscribed' ELSE '' END AS code,
        array_agg(w.id ORDER BY w.id) AS ids
    FROM written w GROUP BY 1, 2 ORDER BY 1, 2
), told AS (
    INSERT INTO dispatcher.event (app, event, code, reply_ids, message_count)
    SELECT app, 'replied', code, ids, cardinality(ids) FROM news
), counted AS (
    INSERT INTO dispatcher.event_count AS t (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()), app, 'replied', code, 0, cardinality(ids) FROM news
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
)
SELECT count(*) FROM written

-- name: replies
-- Return replies, the newest first.
-- $1 how many at most
SELECT id, app, number, channel, text, unsubscribed, received_at, replied_at
FROM dispatcher.reply ORDER BY received_at DESC, id DESC LIMIT $1

-- name: replies_of_number
-- Return the replies of one number, the newest first.
-- $1 number, as e164() returns it, $2 how many at most
SELECT id, app, number, channel, text, unsubscribed, received_at, replied_at
FROM dispatcher.reply WHERE number = $1 ORDER BY received_at DESC, id DESC LIMIT $2
