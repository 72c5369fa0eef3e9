-- Operators' rules: templates, limits, suppression.

-- name: templates
-- Return the templates that operators have defined; text is null where it is not known.
SELECT template_id, kinds, note, text, promotional FROM dispatcher.template ORDER BY template_id

-- name: template_kinds
-- Return what a claim needs of the templates.
SELECT template_id, kinds, promotional FROM dispatcher.template

-- name: limits
-- Return the limits of apps, in the order of core.rules.Limits. The hours are texts: one that Python
-- does not take would make all rows unreadable.
SELECT app, per_minute, per_day, same_per_minute, same_per_hour, daily_limit,
    quiet_from::text, quiet_until::text
FROM dispatcher.app_limit

-- name: any_suppressed
-- Return whether any number is suppressed.
SELECT EXISTS (SELECT FROM dispatcher.suppression)

-- name: promotional_apps
-- Return the apps whose messages are promotional, unless their template says otherwise.
SELECT name FROM dispatcher.app WHERE promotional

-- name: suppressed
-- Return which of these numbers are suppressed for messages of an app, and whether that is for all of
-- them or only for promotional ones.
-- $1 numbers, as e164() returns them, $2 app
SELECT recipient, bool_or(NOT promotional) AS entirely FROM dispatcher.suppression
WHERE recipient = ANY ($1::text[]) AND app IN ('', $2)
GROUP BY recipient

-- name: suppress_reported
-- Suppress numbers that are reported as on a block list, for promotional messages of an app. One that
-- is too short or too long for a phone is left out.
-- $1 apps, $2 numbers, as e164() returns them, $3 reasons
INSERT INTO dispatcher.suppression (recipient, app, promotional, reason, source)
SELECT DISTINCT ON (u.number, u.app) u.number, u.app, true, u.reason, 'report'
FROM unnest($1::text[], $2::text[], $3::text[]) AS u (app, number, reason)
WHERE u.number ~ '^[+][0-9]{5,20}$' ORDER BY u.number, u.app
ON CONFLICT (recipient, app, promotional) DO NOTHING

-- name: suppression_list
-- Return the numbers that are suppressed, the newest first.
-- $1 how many at most
SELECT recipient, reason, source, added_at, app, promotional FROM dispatcher.suppression
ORDER BY added_at DESC, recipient LIMIT $1

-- name: suppressions_of
-- Return the entries of a number in the suppression list.
-- $1 number, as e164() returns it
SELECT recipient, reason, source, added_at, app, promotional FROM dispatcher.suppression
WHERE recipient = $1 ORDER BY added_at DESC

-- name: lock_limits
-- Let one claim of an app with limits run at a time, until the end of the transaction: what two of
-- them let pass at once would be too much.
-- $1 app
SELECT pg_advisory_xact_lock(hashtext('dispatcher.app_limit'), hashtext($1))

-- name: record_usage
-- Record what numbers are sent now; a message that is claimed again keeps one row.
-- $1 app, $2 message ids, $3 numbers, as e164() returns them, $4 digests of texts
INSERT INTO dispatcher.recipient_usage AS s (message_id, app, recipient, text)
SELECT u.id, $1, u.recipient, u.text
FROM unnest($2::bigint[], $3::text[], $4::bigint[]) AS u (id, recipient, text)
ON CONFLICT (message_id) DO UPDATE SET sent_at = excluded.sent_at

-- name: recipient_usage
-- Return what these numbers were sent by an app in the last day, except by the messages that are
-- claimed. A time over an hour ahead was written by a clock that was ahead, and counts for nothing: a
-- step back of seconds forgets nobody.
-- $1 app, $2 numbers, as e164() returns them, $3 message ids
SELECT recipient, text,
    count(*) FILTER (WHERE sent_at > clock_timestamp() - interval '1 minute') AS minute,
    count(*) FILTER (WHERE sent_at > clock_timestamp() - interval '1 hour') AS hour,
    count(*) AS day
FROM dispatcher.recipient_usage
WHERE recipient = ANY ($2::text[]) AND app = $1
  AND sent_at BETWEEN clock_timestamp() - interval '1 day' AND clock_timestamp() + interval '1 hour'
  AND message_id <> ALL ($3::bigint[])
GROUP BY recipient, text

-- name: forget_old_usage
-- Delete what was sent over a day ago, a bounded number at a time; return how many. What lies over a day
-- ahead, by a clock that was ahead, would stay until then.
WITH old AS (
    (SELECT message_id FROM dispatcher.recipient_usage
    WHERE sent_at < (SELECT clock_timestamp()) - interval '1 day'
    ORDER BY sent_at LIMIT 10000)
    UNION ALL
    (SELECT message_id FROM dispatcher.recipient_usage
    WHERE sent_at > (SELECT clock_timestamp()) + interval '1 day'
    ORDER BY sent_at LIMIT 10000)
), gone AS (
    DELETE FROM dispatcher.recipient_usage
    WHERE message_id IN (SELECT message_id FROM old)
      AND sent_at NOT BETWEEN clock_timestamp() - interval '1 day'  -- not sent again meanwhile
        AND clock_timestamp() + interval '1 day'
    RETURNING 1
)
SELECT count(*)::int FROM gone

-- name: sent_today
-- Return how many messages of each of these apps were accepted since 00:00 UTC+8, or may have been: those
-- on their way and unsure count too, and those that an operator settled today as sent. From the counters
-- and the indexes of open and unsure batches. Of an unsure batch, what reports have settled is among the
-- accepted; outcomes are looked up only where a report came. No row for an app without any. Nothing of
-- later days, which a clock that was ahead wrote.
-- An interval, because PostgreSQL reads the text '+08' as a zone in the west.
-- $1 apps, $2 the time (null: now)
WITH today AS (
    SELECT began AT TIME ZONE interval '08:00' AS began,
        (began + interval '1 day') AT TIME ZONE interval '08:00' AS ended
    FROM date_trunc('day', coalesce($2, clock_timestamp()) AT TIME ZONE interval '08:00') AS began
), sent AS (
    SELECT app, count AS messages FROM dispatcher.event_count
    WHERE app = ANY ($1::text[]) AND (event = 'accepted' OR event = 'settled' AND code = 'sent')
      AND minute >= (SELECT began FROM today) AND minute < (SELECT ended FROM today)
    UNION ALL
    SELECT app, cardinality(message_ids) FROM dispatcher.batch
    WHERE state = 'open' AND app = ANY ($1)
    UNION ALL
    SELECT b.app, CASE
        -- Not EXISTS, for which all reports might be read and hashed.
        WHEN (SELECT true FROM dispatcher.report r WHERE r.token = b.token LIMIT 1)
        THEN dispatcher.count_in_question(i.ids) ELSE cardinality(i.ids) END
    FROM dispatcher.batch b
    CROSS JOIN LATERAL (SELECT coalesce(b.unsure_ids, b.message_ids) AS ids) AS i
    WHERE b.state = 'unsure' AND b.app = ANY ($1)
      AND b.opened_at >= (SELECT began FROM today) AND b.opened_at < (SELECT ended FROM today)
)
SELECT app, sum(messages)::bigint FROM sent GROUP BY app

-- name: pause_at_daily_limit
-- Pause an app that has reached its daily limit, until the next day begins at the provider. An
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
WHERE name = $1 AND coalesce(paused_by, 'worker') = 'worker'
