-- Progress of file imports.

-- name: begin_import
-- Insert a file whose import begins; one that is known stays as it is. Its messages have ids from
-- first_id on.
-- $1 digest, $2 name, $3 campaign
INSERT INTO dispatcher.file_import (digest, name, campaign, first_id)
SELECT $1, $2, $3, last_value FROM dispatcher.message_id
ON CONFLICT (digest) DO NOTHING

-- name: import_progress
-- How far the load of a file has come.
-- $1 digest
SELECT lines, imported, imported_lines, rejected, left_out, started_at, finished_at, campaign
FROM dispatcher.file_import WHERE digest = $1

-- name: record_import
-- Note how far a load has come, in the transaction of its COPY. The guard keeps two loads of one
-- file apart: no row if the load is not where the caller believes it to be.
-- $1 digest, $2 lines before, $3 lines now, $4 imported, $5 lines of those, $6 rejected, $7 left out
UPDATE dispatcher.file_import
SET lines = $3, imported = $4, imported_lines = $5, rejected = $6, left_out = $7,
    last_id = (SELECT last_value FROM dispatcher.message_id)
WHERE digest = $1 AND lines = $2 AND finished_at IS NULL
RETURNING digest

-- name: record_rejections
-- Note the lines of a batch that were rejected, in the same transaction.
-- $1 digest, $2 first line, $3 last line
INSERT INTO dispatcher.file_import_rejection (digest, line, reason)
SELECT $1, line, reason FROM pg_temp.refused WHERE line BETWEEN $2 AND $3

-- name: import_rejections
-- The rejected lines among some that are done.
-- $1 digest, $2 first line, $3 last line
SELECT line, reason FROM dispatcher.file_import_rejection
WHERE digest = $1 AND line BETWEEN $2 AND $3

-- name: finish_import
-- A file is in, whole.
-- $1 digest
UPDATE dispatcher.file_import SET finished_at = clock_timestamp() WHERE digest = $1 AND finished_at IS NULL

-- name: forget_import
-- Forget a load that did nothing, so that the file is loaded anew; not if it has gone on since. One that
-- left lines out is kept: it shows that they are in by other loads.
-- $1 digest, $2 when it started, $3 its lines
DELETE FROM dispatcher.file_import
WHERE digest = $1 AND started_at = $2 AND lines = $3 AND imported = 0 AND left_out = 0

-- name: file_is_in
-- Whether any load of a file put lines in, or left out lines that are in.
-- $1 digest
SELECT EXISTS (
    SELECT FROM dispatcher.file_import
    WHERE split_part(digest, ' ', 1) = $1 AND imported + left_out > 0
)

-- name: set_import_aside
-- Give a load another name, so that the file is loaded anew, and what this one put in stays known; not
-- if it has gone on since.
-- $1 digest, $2 when it started, $3 its lines
UPDATE dispatcher.file_import SET digest = digest || ' ' || started_at
WHERE digest = $1 AND started_at = $2 AND lines = $3

-- name: dry_run_table
-- A table with the limits of a message and nothing that follows from one: for a dry run.
CREATE TEMPORARY TABLE dry_run (LIKE dispatcher.message INCLUDING CONSTRAINTS)

-- name: dry_run_without_ids
-- No ids are used up by a dry run.
ALTER TABLE pg_temp.dry_run ALTER id DROP NOT NULL, ALTER queued_at DROP NOT NULL

-- name: survey_table
-- The good lines of a file, looked at as a whole before any of them is loaded; they are loaded from
-- here, so that the file is parsed once.
CREATE TEMPORARY TABLE survey (
    line bigint NOT NULL, lines integer NOT NULL, app text NOT NULL, sender text,
    recipient text NOT NULL, template_id text NOT NULL, signature text, idempotency_key text,
    reference text, campaign text, params text[] NOT NULL, priority smallint NOT NULL,
    send_at timestamptz NOT NULL, expires_at timestamptz
)

-- name: refused_table
-- The bad lines of a file, with the reason.
CREATE TEMPORARY TABLE refused (line bigint NOT NULL, lines integer NOT NULL, reason text NOT NULL)

-- name: index_survey
-- Make the good lines quick to find.
CREATE INDEX ON pg_temp.survey (line)

-- name: index_refused
-- Make the bad lines quick to find.
CREATE INDEX ON pg_temp.refused (line)

-- name: left_out_table
-- The lines that are left out on purpose.
CREATE TEMPORARY TABLE left_out (line bigint NOT NULL)

-- name: analyze_survey
-- Let the planner know how many lines there are.
ANALYZE pg_temp.survey

-- name: survey_has_repeats
-- Whether any line repeats the number of an earlier one.
SELECT count(*) > count(DISTINCT recipient) FROM pg_temp.survey

-- name: survey_repeats
-- Some lines that repeat a number and are not left out, each with the first line that has it, and how
-- many they are.
-- $1 how many
SELECT line, first, count(*) OVER () AS repeats FROM (
    SELECT line, min(line) OVER (PARTITION BY recipient) AS first FROM pg_temp.survey
) AS s
WHERE line > first AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
ORDER BY line LIMIT $1

-- name: leave_out_repeats
-- Leave out the lines that repeat the number of an earlier line.
INSERT INTO pg_temp.left_out
SELECT line FROM (
    SELECT line, min(line) OVER (PARTITION BY recipient) AS first FROM pg_temp.survey
) AS s
WHERE line > first

-- name: earlier_loads
-- The loads of the same file, however old; the last one only if the file is loaded anew. And the loads
-- of other files that began lately, or shortly before a load of this file left lines out. Retention has
-- dropped messages of a load that begins before the first partition.
-- $1 digest, $2 days, $3 whether the file is loaded anew
CREATE TEMPORARY TABLE earlier_load AS
SELECT row_number() OVER (ORDER BY started_at) AS load, split_part(digest, ' ', 1) AS file, digest, name,
    campaign, started_at, lines, imported, first_id, last_id,
    first_id + 1 < (SELECT min(first) FROM dispatcher.partitions()) AS dropped
FROM dispatcher.file_import
WHERE CASE
    WHEN digest = $1 THEN $3
    WHEN split_part(digest, ' ', 1) = $1 THEN true
    ELSE started_at > least(now(), (
        SELECT min(f.started_at) FROM dispatcher.file_import f
        WHERE split_part(f.digest, ' ', 1) = $1 AND f.left_out > 0
    )) - make_interval(days => $2)
END

-- name: find_earlier
-- Their messages to numbers of this list. The variables of one that is wiped are not known: null.
CREATE TEMPORARY TABLE earlier AS
SELECT l.load, m.app, m.sender, m.recipient, m.template_id, m.signature, m.reference,
    CASE WHEN m.wiped_at IS NULL THEN m.params END AS params,
    EXISTS (
        SELECT FROM dispatcher.outcome o WHERE o.message_id = m.id AND o.state = 'cancelled'
    ) AS cancelled
FROM pg_temp.earlier_load l
JOIN dispatcher.message m ON m.id BETWEEN l.first_id AND l.last_id
WHERE EXISTS (SELECT FROM pg_temp.survey s WHERE s.recipient = m.recipient)

-- name: find_already
-- The lines not done yet that are in already, each once for each load: all but the times is the same,
-- and the message was not cancelled. Where the variables are wiped, all else decides; not if two files
-- sent such a message to the number, as a list of each day does, unless these lines are asked for too.
-- $1 lines that are done, $2 whether they are asked for
CREATE TEMPORARY TABLE already AS
SELECT s.line, e.load, false AS wiped
FROM pg_temp.survey s
JOIN pg_temp.earlier e USING (recipient, template_id, params, app)
WHERE s.line > $1 AND NOT e.cancelled
  AND (s.sender, s.signature, s.reference) IS NOT DISTINCT FROM (e.sender, e.signature, e.reference)
UNION
SELECT s.line, unnest(e.wiped_in), true
FROM pg_temp.survey s
JOIN (
    SELECT recipient, template_id, app, sender, signature, reference,
        array_agg(DISTINCT load) FILTER (WHERE params IS NULL) AS wiped_in
    FROM pg_temp.earlier JOIN pg_temp.earlier_load USING (load)
    WHERE NOT cancelled
    GROUP BY recipient, template_id, app, sender, signature, reference
    HAVING $2 OR min(file) = max(file)
) AS e USING (recipient, template_id, app)
WHERE s.line > $1
  AND (s.sender, s.signature, s.reference) IS NOT DISTINCT FROM (e.sender, e.signature, e.reference)

-- name: find_taken_before
-- Where retention has dropped messages of a load of the same file: the other lines that it came to and
-- did not refuse, and whose message was not cancelled.
-- $1 digest, $2 lines that are done
INSERT INTO pg_temp.already
SELECT s.line, l.load, false
FROM pg_temp.earlier_load l
JOIN pg_temp.survey s ON s.line > $2 AND s.line <= l.lines
WHERE l.file = $1 AND l.dropped AND l.imported > 0
  AND NOT EXISTS (SELECT FROM pg_temp.already a WHERE a.line = s.line AND a.load = l.load)
  AND NOT EXISTS (
      SELECT FROM dispatcher.file_import_rejection r WHERE r.digest = l.digest AND r.line = s.line
  )
  AND NOT EXISTS (
      SELECT FROM pg_temp.earlier e
      WHERE e.load = l.load AND e.cancelled
        AND (e.recipient, e.template_id, e.app) = (s.recipient, s.template_id, s.app)
        AND (e.sender, e.signature, e.reference)
            IS NOT DISTINCT FROM (s.sender, s.signature, s.reference)
        AND coalesce(e.params, s.params) = s.params
  )

-- name: already_imported
-- How many lines are in already, and of how many of them this is known without their variables.
SELECT count(*) AS lines, count(*) FILTER (WHERE wiped) AS wiped
FROM (SELECT bool_and(wiped) AS wiped FROM pg_temp.already GROUP BY line) AS a

-- name: already_imported_by
-- The loads that put them in, the one with most of them first.
SELECT l.name, l.campaign, l.started_at, l.imported, count(DISTINCT a.line) AS lines,
    count(DISTINCT a.line) FILTER (WHERE NOT a.wiped) AS compared
FROM pg_temp.already a JOIN pg_temp.earlier_load l USING (load)
GROUP BY l.load, l.name, l.campaign, l.started_at, l.imported
ORDER BY count(DISTINCT a.line) DESC, l.load DESC

-- name: leave_out_imported
-- Leave out the lines that are in already.
INSERT INTO pg_temp.left_out SELECT DISTINCT line FROM pg_temp.already

-- name: import_lines
-- Insert the messages of some lines, in their order; each is due some time after the one before.
-- $1 first line, $2 last line, $3 campaign of those that name none, $4 that time (seconds), $5 messages before these
INSERT INTO dispatcher.message (app, sender, recipient, template_id, signature, idempotency_key,
    reference, params, priority, send_at, expires_at, campaign)
SELECT app, sender, recipient, template_id, signature, idempotency_key, reference, params, priority,
    send_at + $4::double precision * ($5 + row_number() OVER (ORDER BY line) - 1) * interval '1 s',
    expires_at,
    coalesce(s.campaign, $3)
FROM pg_temp.survey s
WHERE line BETWEEN $1 AND $2
  AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
ORDER BY line

-- name: check_lines
-- The same for a dry run: constraints are checked, and nothing follows.
-- $1 first line, $2 last line, $3 campaign of those that name none, $4 that time (seconds), $5 messages before these
INSERT INTO pg_temp.dry_run (app, sender, recipient, template_id, signature, idempotency_key,
    reference, params, priority, send_at, expires_at, campaign)
SELECT app, sender, recipient, template_id, signature, idempotency_key, reference, params, priority,
    send_at + $4::double precision * ($5 + row_number() OVER (ORDER BY line) - 1) * interval '1 s',
    expires_at,
    coalesce(s.campaign, $3)
FROM pg_temp.survey s
WHERE line BETWEEN $1 AND $2
  AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
ORDER BY line

-- name: refuse_lines
-- Note good lines that the database has refused.
-- $1 lines, $2 reasons
INSERT INTO pg_temp.refused (line, lines, reason)
SELECT s.line, s.lines, u.reason
FROM unnest($1::bigint[], $2::text[]) AS u (line, reason) JOIN pg_temp.survey s ON s.line = u.line

-- name: refuse_used_keys
-- Refuse the lines of a dry run with an idempotency_key that a message has, or a line before.
-- $1 first line, $2 last line, $3 lines that are refused for something else, $4 reason
INSERT INTO pg_temp.refused (line, lines, reason)
SELECT s.line, s.lines, $4 FROM pg_temp.survey s
WHERE s.line BETWEEN $1 AND $2 AND s.idempotency_key IS NOT NULL AND s.line <> ALL ($3::bigint[])
  AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
  AND (
      EXISTS (
          SELECT FROM dispatcher.idempotency i WHERE i.app = s.app AND i.key = s.idempotency_key
      ) OR EXISTS (
          SELECT FROM pg_temp.survey e
          WHERE e.idempotency_key = s.idempotency_key AND e.app = s.app AND e.line < s.line
            AND e.line <> ALL ($3::bigint[])
            AND NOT EXISTS (SELECT FROM pg_temp.refused r WHERE r.line = e.line)
            AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = e.line)
      )
  )

-- name: index_survey_keys
-- Make lines quick to find by their key; most lists have none.
CREATE INDEX ON pg_temp.survey (idempotency_key) WHERE idempotency_key IS NOT NULL

-- name: count_lines
-- How many physical lines of a batch are refused, left out, and in.
-- $1 first line, $2 last line
SELECT
    (SELECT coalesce(sum(r.lines), 0) FROM pg_temp.refused r WHERE r.line BETWEEN $1 AND $2) AS refused,
    coalesce(sum(s.lines) FILTER (WHERE l.left_out), 0) AS left_out,
    coalesce(sum(s.lines) FILTER (WHERE NOT l.left_out AND NOT l.refused), 0) AS taken
FROM pg_temp.survey s
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line) AS left_out,
        EXISTS (SELECT FROM pg_temp.refused r WHERE r.line = s.line) AS refused
) AS l
WHERE s.line BETWEEN $1 AND $2

-- name: taken_lines
-- What the messages of a dry run would cost and say depends on this, among some lines.
-- $1 first line, $2 last line
SELECT s.line, s.app, s.recipient, s.template_id, s.params, s.signature
FROM pg_temp.survey s
WHERE s.line BETWEEN $1 AND $2
  AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
  AND NOT EXISTS (SELECT FROM pg_temp.refused r WHERE r.line = s.line)
ORDER BY s.line

-- name: due_times
-- When the first and the last message of a dry run would be due.
-- $1 seconds from one message to the next, $2 lines that are done, $3 messages that are in
SELECT min(due), max(due) FROM (
    SELECT send_at
        + $1::double precision * ($3 + row_number() OVER (ORDER BY line) - 1) * interval '1 s' AS due
    FROM pg_temp.survey s
    WHERE line > $2 AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
      AND NOT EXISTS (SELECT FROM pg_temp.refused r WHERE r.line = s.line)
) AS taken

-- name: refused_lines
-- The lines refused by this load, among some.
-- $1 first line, $2 last line
SELECT line, reason FROM pg_temp.refused WHERE line BETWEEN $1 AND $2

-- name: index_left_out
-- Make the lines to leave out quick to find.
CREATE INDEX ON pg_temp.left_out (line)

-- name: count_left_out
-- How many lines are left out; each may be for two reasons.
SELECT count(DISTINCT line) FROM pg_temp.left_out

-- name: survey_suppressed
-- How many lines name a number that is suppressed: the worker rejects their messages. Of what is left
-- out nothing is said, here and in the statements below.
SELECT count(*) FROM pg_temp.survey v
LEFT JOIN dispatcher.template t ON t.template_id = v.template_id
LEFT JOIN dispatcher.app a ON a.name = v.app
WHERE NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = v.line) AND EXISTS (
    SELECT FROM dispatcher.suppression s
    WHERE s.recipient = v.recipient AND s.app IN ('', v.app)
      AND (NOT s.promotional OR coalesce(t.promotional, a.promotional, false)))

-- name: survey_past
-- How many messages are due before a time.
-- $1 time
SELECT count(*) FROM pg_temp.survey s
WHERE send_at < $1 AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)

-- name: survey_variable_counts
-- Templates that no operator has defined, and whose lines differ in how many variables they have: how
-- many most of them have, and the first of the other lines.
-- $1 how many lines of each, $2 how many templates
WITH counted AS (
    SELECT template_id, cardinality(params) AS variables, count(*) AS lines
    FROM pg_temp.survey s
    WHERE NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
      AND NOT EXISTS (SELECT FROM dispatcher.template t WHERE t.template_id = s.template_id)
    GROUP BY template_id, cardinality(params)
), usual AS (
    SELECT template_id, (array_agg(variables ORDER BY lines DESC, variables DESC))[1] AS variables
    FROM counted GROUP BY template_id HAVING count(*) > 1
)
SELECT u.template_id, u.variables, (array_agg(s.line ORDER BY s.line))[:$1] AS shown, count(*) AS lines
FROM usual u JOIN pg_temp.survey s USING (template_id)
WHERE cardinality(s.params) <> u.variables
  AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
GROUP BY u.template_id, u.variables ORDER BY min(s.line) LIMIT $2

-- name: survey_cancelled
-- A cancelled campaign that lines name.
SELECT name FROM dispatcher.campaign
WHERE state = 'cancelled' AND name IN (SELECT campaign FROM pg_temp.survey) LIMIT 1

-- name: survey_campaigns
-- The campaigns that lines name.
SELECT DISTINCT campaign FROM pg_temp.survey s
WHERE campaign IS NOT NULL AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
ORDER BY campaign

-- name: survey_apps
-- How many lines each app has.
SELECT app, count(*) FROM pg_temp.survey s
WHERE NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = s.line)
GROUP BY app ORDER BY app

-- name: survey_unknown_templates
-- Templates that no operator has defined, while others are.
SELECT template_id, count(*) FROM pg_temp.survey
WHERE NOT EXISTS (SELECT FROM dispatcher.template t WHERE t.template_id = survey.template_id)
  AND EXISTS (SELECT FROM dispatcher.template)
  AND NOT EXISTS (SELECT FROM pg_temp.left_out o WHERE o.line = survey.line)
GROUP BY template_id ORDER BY template_id
