-- Progress of file imports.

-- name: load_begin
-- Remember a file whose load begins; one that is known stays as it is. Its messages have ids from
-- first_id on.
-- $1 digest, $2 name
INSERT INTO dispatcher.load (digest, name, first_id)
SELECT $1, $2, last_value FROM dispatcher.message_id
ON CONFLICT (digest) DO NOTHING

-- name: load_progress
-- How far the load of a file has come.
-- $1 digest
SELECT lines, taken, taken_lines, refused, left_out, begun_at, ended_at
FROM dispatcher.load WHERE digest = $1

-- name: load_step
-- Note how far a load has come, in the transaction of its COPY. The guard keeps two loads of one
-- file apart: no row if the load is not where the caller believes it to be.
-- $1 digest, $2 lines before, $3 lines now, $4 taken, $5 lines of those, $6 refused, $7 left out
UPDATE dispatcher.load
SET lines = $3, taken = $4, taken_lines = $5, refused = $6, left_out = $7,
    last_id = (SELECT last_value FROM dispatcher.message_id)
WHERE digest = $1 AND lines = $2 AND ended_at IS NULL
RETURNING digest

-- name: load_refuse
-- Note the lines that were refused, in the same transaction.
-- $1 digest, $2 lines, $3 reasons
INSERT INTO dispatcher.load_refusal (digest, line, reason)
SELECT $1, u.line, u.reason FROM unnest($2::bigint[], $3::text[]) AS u (line, reason)

-- name: load_refusals
-- The refused lines among some that are done.
-- $1 digest, $2 first line, $3 last line
SELECT line, reason FROM dispatcher.load_refusal
WHERE digest = $1 AND line BETWEEN $2 AND $3

-- name: load_end
-- A file is in, whole.
-- $1 digest
UPDATE dispatcher.load SET ended_at = clock_timestamp() WHERE digest = $1 AND ended_at IS NULL

-- name: load_forget
-- Forget a load that has ended, so that the file can be loaded once more.
-- $1 digest
DELETE FROM dispatcher.load WHERE digest = $1 AND ended_at IS NOT NULL

-- name: load_dry_table
-- A table with the limits of a message and nothing that follows from one: for a dry run.
CREATE TEMPORARY TABLE dry_run (LIKE dispatcher.message INCLUDING CONSTRAINTS)

-- name: load_dry_id
-- No ids are used up by a dry run.
ALTER TABLE pg_temp.dry_run ALTER id DROP NOT NULL, ALTER queued_at DROP NOT NULL

-- name: load_survey_table
-- The good lines of a file, looked at as a whole before any of them is loaded.
CREATE TEMPORARY TABLE survey (
    line bigint NOT NULL, app text NOT NULL, sender text, recipient text NOT NULL,
    template_id text NOT NULL, signature text, reference text, params text[] NOT NULL
)

-- name: load_left_out_table
-- The lines that are left out on purpose.
CREATE TEMPORARY TABLE left_out (line bigint NOT NULL)

-- name: load_survey_analyze
ANALYZE pg_temp.survey

-- name: load_repeats
-- How many lines repeat the number of an earlier one.
SELECT count(*) - count(DISTINCT recipient) FROM pg_temp.survey

-- name: load_repeats_shown
-- Some lines that repeat a number, each with the first line that has it.
-- $1 how many
SELECT line, first FROM (
    SELECT line, min(line) OVER (PARTITION BY recipient) AS first FROM pg_temp.survey
) AS s
WHERE line > first ORDER BY line LIMIT $1

-- name: load_leave_out_repeats
INSERT INTO pg_temp.left_out
SELECT line FROM (
    SELECT line, min(line) OVER (PARTITION BY recipient) AS first FROM pg_temp.survey
) AS s
WHERE line > first

-- name: load_earlier
-- Messages of other loads that began lately, without those that were cancelled: the same number,
-- template, variables and all else but times. No row: none did.
-- $1 digest, $2 days
CREATE TEMPORARY TABLE earlier AS
SELECT l.name, l.begun_at, m.app, m.sender, m.recipient, m.template_id, m.signature, m.reference,
    m.params
FROM dispatcher.load l
JOIN dispatcher.message m ON m.id BETWEEN l.first_id AND l.last_id
WHERE l.digest <> $1 AND l.begun_at > now() - make_interval(days => $2)
  AND EXISTS (SELECT FROM pg_temp.survey s WHERE s.recipient = m.recipient)
  AND NOT EXISTS (
      SELECT FROM dispatcher.outcome o WHERE o.message_id = m.id AND o.state = 'cancelled'
  )

-- name: load_already_in
-- How many lines that are not done yet are in already, by an earlier load; of the load with most
-- of them, its name and when it began.
-- $1 lines that are done
WITH found AS (
    SELECT DISTINCT s.line, e.name, e.begun_at
    FROM pg_temp.survey s
    JOIN pg_temp.earlier e USING (recipient, template_id, params, app)
    WHERE s.line > $1
      AND (s.sender, s.signature, s.reference) IS NOT DISTINCT FROM (e.sender, e.signature, e.reference)
)
SELECT (SELECT count(DISTINCT line) FROM found), name, begun_at
FROM found GROUP BY name, begun_at ORDER BY count(*) DESC LIMIT 1

-- name: load_leave_out_already_in
-- $1 lines that are done
INSERT INTO pg_temp.left_out
SELECT DISTINCT s.line
FROM pg_temp.survey s
JOIN pg_temp.earlier e USING (recipient, template_id, params, app)
WHERE s.line > $1
  AND (s.sender, s.signature, s.reference) IS NOT DISTINCT FROM (e.sender, e.signature, e.reference)

-- name: load_left_out
-- The lines to leave out among some.
-- $1 first line, $2 last line
SELECT DISTINCT line FROM pg_temp.left_out WHERE line BETWEEN $1 AND $2

-- name: load_left_out_index
CREATE INDEX ON pg_temp.left_out (line)

-- name: load_suppressed
-- How many lines name a number that is suppressed: the worker rejects their messages.
SELECT count(*) FROM pg_temp.survey JOIN dispatcher.suppression USING (recipient)

-- name: load_apps
-- How many lines each app has.
SELECT app, count(*) FROM pg_temp.survey GROUP BY app ORDER BY app

-- name: load_unknown_templates
-- Templates that no operator has defined, while others are.
SELECT template_id, count(*) FROM pg_temp.survey
WHERE NOT EXISTS (SELECT FROM dispatcher.template t WHERE t.template_id = survey.template_id)
  AND EXISTS (SELECT FROM dispatcher.template)
GROUP BY template_id ORDER BY template_id
