-- Operators' rules: templates, limits, suppression.

-- name: rule_templates
-- The templates that operators have defined.
SELECT template_id, kinds FROM dispatcher.template

-- name: rule_template_list
-- The templates that operators have defined, with their notes.
SELECT template_id, kinds, note FROM dispatcher.template ORDER BY template_id

-- name: rule_template_set
-- Define a template, or define it anew.
-- $1 template id, $2 kinds, $3 note, $4 its text, if it is known
INSERT INTO dispatcher.template (template_id, kinds, note, text) VALUES ($1, $2, $3, $4)
ON CONFLICT (template_id) DO UPDATE
SET kinds = excluded.kinds, note = excluded.note, text = excluded.text

-- name: rule_template_drop
-- Forget a template; a row if there was one.
-- $1 template id
DELETE FROM dispatcher.template WHERE template_id = $1 RETURNING template_id

-- name: rule_limits
-- What apps allow themselves, in the order of core.rules.Limits.
SELECT app, per_minute, per_day, same_per_minute, same_per_hour, ceiling, quiet_from, quiet_until
FROM dispatcher.app_limit

-- name: rule_limits_set
-- Set what an app allows itself; all of it null: nothing is limited any more.
-- $1 app, $2 per minute, $3 per day, $4 same per minute, $5 same per hour, $6 ceiling,
-- $7 quiet from, $8 quiet until
WITH gone AS (
    DELETE FROM dispatcher.app_limit
    WHERE app = $1 AND num_nonnulls($2::int, $3::int, $4::int, $5::int, $6::bigint, $7::time) = 0
)
INSERT INTO dispatcher.app_limit AS l
SELECT $1, $2, $3, $4, $5, $6, $7, $8::time
WHERE num_nonnulls($2::int, $3::int, $4::int, $5::int, $6::bigint, $7::time) > 0
ON CONFLICT (app) DO UPDATE SET per_minute = excluded.per_minute, per_day = excluded.per_day,
    same_per_minute = excluded.same_per_minute, same_per_hour = excluded.same_per_hour,
    ceiling = excluded.ceiling, quiet_from = excluded.quiet_from, quiet_until = excluded.quiet_until

-- name: rule_suppressing
-- Whether any number is suppressed.
SELECT EXISTS (SELECT FROM dispatcher.suppression)

-- name: rule_suppressed
-- Which of these numbers are suppressed.
-- $1 numbers in canonical form
SELECT recipient FROM dispatcher.suppression WHERE recipient = ANY ($1::text[])

-- name: rule_suppress
-- Suppress numbers; returns how many were not suppressed before.
-- $1 numbers in canonical form, $2 reason, $3 source
WITH added AS (
    INSERT INTO dispatcher.suppression (recipient, reason, source)
    SELECT DISTINCT u, $2, $3 FROM unnest($1::text[]) AS u ORDER BY u
    ON CONFLICT (recipient) DO NOTHING
    RETURNING 1
)
SELECT count(*)::int FROM added

-- name: rule_unsuppress
-- Take numbers off the list; returns how many were on it.
-- $1 numbers in canonical form
WITH gone AS (
    DELETE FROM dispatcher.suppression WHERE recipient = ANY ($1::text[]) RETURNING 1
)
SELECT count(*)::int FROM gone

-- name: rule_suppression_list
-- The numbers that are suppressed, the newest first.
-- $1 how many at most
SELECT recipient, reason, source, added_at FROM dispatcher.suppression
ORDER BY added_at DESC, recipient LIMIT $1

-- name: rule_lock
-- One claim of an app with limits at a time, until the end of the transaction: what two of them
-- let pass at once would be too much.
-- $1 app
SELECT pg_advisory_xact_lock(hashtext('dispatcher.app_limit'), hashtext($1))

-- name: rule_use
-- Note what numbers are sent now; a message that comes by again keeps one row.
-- $1 app, $2 message ids, $3 numbers in canonical form, $4 digests of texts
INSERT INTO dispatcher.sent_to AS s (message_id, app, recipient, text)
SELECT u.id, $1, u.recipient, u.text
FROM unnest($2::bigint[], $3::text[], $4::bigint[]) AS u (id, recipient, text)
ON CONFLICT (message_id) DO UPDATE SET at = excluded.at

-- name: rule_used
-- What these numbers were sent by an app in the last day, all but the messages that are claimed.
-- $1 app, $2 numbers in canonical form, $3 message ids
SELECT recipient, text,
    count(*) FILTER (WHERE at > clock_timestamp() - interval '1 minute') AS minute,
    count(*) FILTER (WHERE at > clock_timestamp() - interval '1 hour') AS hour,
    count(*) AS day
FROM dispatcher.sent_to
WHERE recipient = ANY ($2::text[]) AND app = $1 AND at > clock_timestamp() - interval '1 day'
  AND message_id <> ALL ($3::bigint[])
GROUP BY recipient, text

-- name: rule_forget_used
-- Forget what was sent over a day ago, a bounded number at a time; returns how many.
WITH old AS (
    SELECT message_id FROM dispatcher.sent_to
    WHERE at < clock_timestamp() - interval '1 day'
    ORDER BY at LIMIT 10000
), gone AS (
    DELETE FROM dispatcher.sent_to WHERE message_id IN (SELECT message_id FROM old) RETURNING 1
)
SELECT count(*)::int FROM gone

-- name: rule_sent_today
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

-- name: rule_ceiling
-- Pause an app that has reached its own ceiling, until the next day begins at the provider. An
-- operator's pause stays.
-- $1 app, $2 code, $3 reason, $4 seconds until then
UPDATE dispatcher.app
SET paused_at = coalesce(paused_at, clock_timestamp()),
    pause_code = $2,
    pause_reason = $3,
    paused_by = 'worker',
    probe_at = clock_timestamp() + make_interval(secs => $4),
    probe_wait = interval '1 minute',
    probe_max = interval '1 hour'
WHERE name = $1 AND paused_by IS DISTINCT FROM 'operator'
