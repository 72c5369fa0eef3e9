-- Lists of messages by a filter, read backwards in pieces of bounded size.

-- name: message_piece
-- Read the next rows of message, the newest first; return the last id read, the newest time of
-- insertion among them, and the ids that fit. Bounded by $2, whatever fits.
-- $1 ids below, $2 rows at most, $3 app, $4 template, $5 prefix of the number as e164() returns it,
-- $6 its last digits, $7 since, $8 until, $9 campaign (each null: any)
WITH piece AS MATERIALIZED (
    SELECT id, app, recipient, template_id, queued_at, campaign FROM dispatcher.message
    WHERE id < $1 ORDER BY id DESC LIMIT $2
)
SELECT min(id) AS last_id, max(queued_at) AS newest,
    coalesce(array_agg(id ORDER BY id DESC) FILTER (
        WHERE ($3::text IS NULL OR app = $3)
          AND ($4::text IS NULL OR template_id = $4)
          AND ($5::text IS NULL OR starts_with(dispatcher.e164(recipient), $5))
          AND ($6::text IS NULL OR right(recipient, length($6)) = $6)
          AND ($7::timestamptz IS NULL OR queued_at >= $7)
          AND ($8::timestamptz IS NULL OR queued_at < $8)
          AND ($9::text IS NULL OR campaign = $9)
    ), '{}') AS ids
FROM piece

-- name: queue_piece
-- The same of what waits, in the queue and in bulk rows; those are read in whole blocks of 500 ids.
-- What only one of them was read down to is left for the next piece.
-- $1 ids below, $2 rows at most, $3 app, $4 code, $5 campaign (each null: any)
WITH alone AS MATERIALIZED (
    SELECT id, app, code, campaign FROM dispatcher.queue WHERE id < $1 ORDER BY id DESC LIMIT $2
), together AS MATERIALIZED (
    SELECT id, b.app, b.campaign
    FROM dispatcher.bulk b
    CROSS JOIN LATERAL unnest(b.ids) AS range
    CROSS JOIN LATERAL generate_series(lower(range), upper(range) - 1) AS id
    WHERE b.first_id < $1 AND id < $1 AND b.first_id > (
        SELECT (min(first_id) - 1) / 500 * 500
        FROM (
            SELECT first_id FROM dispatcher.bulk WHERE first_id < $1
            ORDER BY first_id DESC LIMIT ($2 + 499) / 500
        ) AS next)
), piece AS (
    TABLE alone UNION ALL SELECT id, app, NULL, campaign FROM together
), bound AS (
    SELECT greatest((SELECT min(id) FROM alone), (SELECT min(id) FROM together)) AS last_id
)
SELECT b.last_id, NULL::timestamptz AS newest,
    ARRAY(
        SELECT p.id FROM piece p
        WHERE p.id >= b.last_id
          AND ($3::text IS NULL OR p.app = $3) AND ($4::text IS NULL OR p.code = $4)
          AND ($5::text IS NULL OR p.campaign = $5)
        ORDER BY p.id DESC
    ) AS ids
FROM bound b

-- name: request_piece
-- Return the next messages of open ('sending') or unsure requests, the newest first, at most $2.
-- Both kinds of requests are few, and have an index each: two conditions and not one comparison of
-- columns, so that both serve.
-- $1 ids below, $2 rows at most, $3 app, $4 code (each null: any), $5 'sending' or 'unsure'
SELECT DISTINCT u.id
FROM dispatcher.batch b
CROSS JOIN LATERAL unnest(coalesce(b.unsure_ids, b.message_ids)) AS u (id)
WHERE (b.state = 'open' AND $5 = 'sending' OR b.state = 'unsure' AND $5 = 'unsure')
  AND ($3::text IS NULL OR b.app = $3)
  AND ($4::text IS NULL OR b.code = $4)
  AND u.id < $1
ORDER BY u.id DESC
LIMIT $2

-- name: event_piece
-- Read the next rows of the event log, the newest first; return those that fit with their messages,
-- and a last row without messages: where the reading ended, and the newest time read. The rows are
-- few and narrow (one for all messages that a transaction decided), and only of those that fit are
-- the messages read.
-- $1 event ids below, $2 rows at most, $3 events, $4 app, $5 code (each null: any), $6 how many
-- messages are enough
WITH piece AS MATERIALIZED (
    SELECT id, created_at, app, event, code, message_count
    FROM dispatcher.event WHERE id < $1 ORDER BY id DESC LIMIT $2
), hit AS MATERIALIZED (
    SELECT id, sum(message_count) OVER (ORDER BY id DESC) - message_count AS before
    FROM piece
    WHERE ($3::text[] IS NULL OR event = ANY ($3))
      AND ($4::text IS NULL OR app = $4)
      AND ($5::text IS NULL OR code = $5)
)
SELECT h.id,
    -- Look-ups by key, and not joins, which with few statistics read all of a table.
    (SELECT coalesce(e.message_ids,
        (SELECT b.message_ids FROM dispatcher.batch b WHERE b.id = e.batch_id))
    FROM dispatcher.event e WHERE e.id = h.id) AS ids,
    NULL::timestamptz AS newest
FROM hit h
WHERE h.before < $6
UNION ALL
SELECT
    CASE WHEN EXISTS (SELECT FROM hit WHERE before >= $6)
        THEN (SELECT min(id) FROM hit WHERE before < $6)
        ELSE (SELECT min(id) FROM piece) END,
    NULL,
    (SELECT max(created_at) FROM piece)

-- name: recipient_piece
-- Return the next messages to a number, the newest first. Full partitions have an index on it, and
-- the one being filled is read whole. The order is by an expression: a plan for any limit would read
-- all messages backwards by their ids until enough fit.
-- $1 ids below, $2 rows at most, $3 spellings of the number
SELECT id FROM dispatcher.message
WHERE recipient = ANY ($3::text[]) AND id < $1 ORDER BY id + 0 DESC LIMIT $2

-- name: reference_piece
-- The same with an application's own reference. A list may give one to a million messages: the index
-- has them in the order of their ids, so that a page reads no more than it shows.
-- $1 ids below, $2 rows at most, $3 reference
SELECT id FROM dispatcher.message
WHERE reference = $3 AND id < $1 ORDER BY id DESC LIMIT $2

-- name: campaign_piece
-- The same of a campaign, in partitions that have its index.
-- $1 ids below, $2 rows at most, $3 campaign
SELECT id FROM dispatcher.message
WHERE campaign = $3 AND id < $1 ORDER BY id DESC LIMIT $2

-- name: campaign_start
-- Return when a campaign began, the lowest id that its messages may have, and the id below which all
-- partitions have the index of campaigns.
-- $1 campaign
SELECT c.created_at, c.first_id, (
    SELECT min(split_part(p.relname, '_', 2)::bigint)
    FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
    WHERE i.inhparent = 'dispatcher.message'::regclass
      AND p.relname ~ '^message_[0-9]+_to_[0-9]+$'
      AND to_regclass('dispatcher.' || p.relname || '_campaign') IS NULL
) AS indexed_below
FROM dispatcher.campaign c WHERE c.name = $1

-- name: fitting_messages
-- Return those of some messages that fit a filter now, by their ids.
-- $1 ids, $2 states, $3 code, $4 app, $5 template, $6 spellings of the number, $7 reference, $8 prefix
-- of the number as e164() returns it, $9 its last digits, $10 since, $11 until, $12 campaign (each
-- null: any)
SELECT s.id, s.app, s.recipient, s.reference, s.state, s.code, s.queued_at, s.template_id,
    s.campaign, s.reason, s.segments, s.provider_id, s.accepted_at, s.finished_at
FROM dispatcher.message_status s
WHERE s.id = ANY ($1::bigint[])
  AND ($2::text[] IS NULL OR s.state = ANY ($2))
  AND ($3::text IS NULL OR s.code = $3)
  AND ($4::text IS NULL OR s.app = $4)
  AND ($5::text IS NULL OR s.template_id = $5)
  AND ($6::text[] IS NULL OR s.recipient = ANY ($6))
  AND ($7::text IS NULL OR s.reference = $7)
  AND ($8::text IS NULL OR starts_with(dispatcher.e164(s.recipient), $8))
  AND ($9::text IS NULL OR right(s.recipient, length($9)) = $9)
  AND ($10::timestamptz IS NULL OR s.queued_at >= $10)
  AND ($11::timestamptz IS NULL OR s.queued_at < $11)
  AND ($12::text IS NULL OR s.campaign = $12)

-- name: chosen_messages
-- The same for an action on many: only what decides whether it is for them, so that PostgreSQL leaves
-- out the joins that serve other columns.
-- $1 ids, $2 states, $3 code, $4 app, $5 template, $6 spellings of the number, $7 reference, $8 prefix
-- of the number as e164() returns it, $9 its last digits, $10 since, $11 until, $12 campaign (each
-- null: any)
SELECT s.id, s.app, s.state, m.wiped, s.recipient = '0' AS erased,
    s.state = 'undelivered' AND dispatcher.is_refused_by_platform(s.provider_id) AS refused,
    EXISTS (SELECT FROM dispatcher.campaign c
        WHERE c.name = s.campaign AND c.state = 'cancelled') AS campaign_cancelled
FROM dispatcher.message_status s
CROSS JOIN LATERAL (
    SELECT wiped_at IS NOT NULL AS wiped FROM dispatcher.message WHERE id = s.id LIMIT 1
) AS m
WHERE s.id = ANY ($1::bigint[])
  AND ($2::text[] IS NULL OR s.state = ANY ($2))
  AND ($3::text IS NULL OR s.code = $3)
  AND ($4::text IS NULL OR s.app = $4)
  AND ($5::text IS NULL OR s.template_id = $5)
  AND ($6::text[] IS NULL OR s.recipient = ANY ($6))
  AND ($7::text IS NULL OR s.reference = $7)
  AND ($8::text IS NULL OR starts_with(dispatcher.e164(s.recipient), $8))
  AND ($9::text IS NULL OR right(s.recipient, length($9)) = $9)
  AND ($10::timestamptz IS NULL OR s.queued_at >= $10)
  AND ($11::timestamptz IS NULL OR s.queued_at < $11)
  AND ($12::text IS NULL OR s.campaign = $12)

-- name: message_at
-- Return the first message from an id on, with its time of insertion.
-- $1 id
SELECT id, queued_at FROM dispatcher.message WHERE id >= $1 ORDER BY id LIMIT 1

-- name: message_bounds
-- Return the first and the last id of all messages.
SELECT (SELECT id FROM dispatcher.message ORDER BY id LIMIT 1) AS first_id,
    (SELECT id FROM dispatcher.message ORDER BY id DESC LIMIT 1) AS last_id

-- name: message_recipient
-- Return the number of a message.
-- $1 message id
SELECT recipient FROM dispatcher.message WHERE id = $1

-- name: counted_events
-- Return how often an event occurred since a time, from the counters.
-- $1 events, $2 app, $3 code (each null: any), $4 since (null: as far as counters are kept)
SELECT coalesce(sum(count), 0)::bigint
FROM (
    SELECT minute AS at, app, event, code, count FROM dispatcher.event_count
    UNION ALL
    SELECT hour, app, event, code, count FROM dispatcher.hour_count
) AS c
WHERE event = ANY ($1::text[])
  AND ($2::text IS NULL OR app = $2)
  AND ($3::text IS NULL OR code = $3)
  AND ($4::timestamptz IS NULL OR at >= date_trunc('minute', $4))

-- name: live_counts
-- Return how many messages wait (up to 10,001), are being sent, and are unsure.
-- $1 app (null: all)
SELECT
    least(10001,
        (SELECT count(*) FROM (
            SELECT FROM dispatcher.queue q WHERE $1::text IS NULL OR q.app = $1 LIMIT 10001) AS w)
        + (SELECT coalesce(sum(size), 0) FROM (
            SELECT b.size FROM dispatcher.bulk b WHERE $1::text IS NULL OR b.app = $1
            LIMIT 10001) AS w)
    ) AS queued,
    (SELECT coalesce(sum(cardinality(message_ids)), 0) FROM dispatcher.batch b
        WHERE b.state = 'open' AND ($1::text IS NULL OR b.app = $1)) AS sending,
    (SELECT coalesce(sum(dispatcher.count_in_question(coalesce(b.unsure_ids, b.message_ids))), 0)
        FROM dispatcher.batch b
        WHERE b.state = 'unsure' AND ($1::text IS NULL OR b.app = $1)) AS unsure

-- name: unsure_requests_of
-- Return the unsure requests that hold any of some messages, each with its open messages.
-- $1 message ids
SELECT b.id, coalesce(b.unsure_ids, b.message_ids) AS ids
FROM dispatcher.batch b
WHERE b.state = 'unsure' AND coalesce(b.unsure_ids, b.message_ids) && $1::bigint[]
ORDER BY b.id

-- name: add_message_action
-- Keep an action on many messages for confirmation; drop those that nobody confirmed for a day.
-- $1 actor, $2 action, $3 filter in words, $4 address of the list, $5 counts as JSON, $6 messages,
-- $7 targets, $8 whether all that fit were found
WITH dropped AS (
    DELETE FROM dispatcher.message_action
    WHERE started_at IS NULL AND created_at < now() - interval '1 day'
)
INSERT INTO dispatcher.message_action
    (created_by, action, filter, address, counts, messages, targets, complete)
VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8)
RETURNING id

-- name: message_action
-- Return an action on many messages with its progress.
-- $1 id
SELECT id, created_at, created_by, action, filter, address, counts::text AS counts, messages,
    cardinality(targets) AS targets, complete, position, changed, started_at, started_by,
    finished_at, ended_early
FROM dispatcher.message_action WHERE id = $1

-- name: start_message_action
-- Confirm an action on many messages, and write the audit; return whether this call started it.
-- $1 id, $2 actor
SELECT dispatcher.start_message_action($1, $2)

-- name: message_action_step
-- Do the next part of a started action; return whether more is left.
-- $1 id
SELECT dispatcher.message_action_step($1)

-- name: actions_to_continue
-- Return the actions that were started and are not finished. The console does the steps of an action,
-- until its process ends. Those of over an hour ago go on from their page only: in a restored backup, or
-- when their operator has forgotten them, they would change what is meant no more.
SELECT id FROM dispatcher.message_action
WHERE started_at > clock_timestamp() - interval '1 hour'
  AND started_at < clock_timestamp() - interval '1 minute' AND finished_at IS NULL
ORDER BY id LIMIT 20

-- name: continue_message_action
-- Do the next part of an action, unless another session does one now; return how many parts it did.
-- $1 id
SELECT count(dispatcher.message_action_step(a.id))
FROM (
    SELECT id FROM dispatcher.message_action WHERE id = $1 AND finished_at IS NULL
    FOR UPDATE SKIP LOCKED
) AS a

-- name: text_and_price
-- Return the text of a template, if it is known, and what a segment to a country costs, if it is.
-- $1 template id, $2 country
SELECT t.text, p.price, coalesce(p.currency, '') AS currency
FROM (SELECT 1) AS one
LEFT JOIN dispatcher.template t ON t.template_id = $1
LEFT JOIN dispatcher.price p ON p.country = $2
