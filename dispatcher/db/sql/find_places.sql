-- What lies under the tokens and numbers of reports: one row for each whose token is known, with
-- its place in $1. Numbers are in their one form (core.message.canonical).
-- $1 tokens, $2 numbers
WITH wanted AS MATERIALIZED (
    SELECT w.token, w.number, w.place
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (token, number, place)
), request AS MATERIALIZED (
    SELECT b.id, b.token, b.app, b.state, b.settled_by, b.message_ids, b.attempts, b.unsure_ids
    FROM (SELECT DISTINCT token FROM wanted) AS t
    JOIN dispatcher.batch b ON b.token = t.token
), member AS MATERIALIZED (
    SELECT r.id AS batch_id, u.id, u.attempt,
        r.unsure_ids IS NULL OR u.id = ANY (r.unsure_ids) AS in_question
    FROM request r
    CROSS JOIN LATERAL unnest(r.message_ids, r.attempts) AS u (id, attempt)
), named AS MATERIALIZED (
    SELECT e.batch_id, e.id, e.attempt, e.in_question,
        CASE WHEN m.recipient LIKE '+%' THEN m.recipient ELSE '+86' || m.recipient END AS number
    FROM member e
    JOIN dispatcher.message m ON m.id = e.id
    WHERE m.id = ANY (ARRAY(SELECT id FROM member))
), found AS MATERIALIZED (
    SELECT w.place, r.id AS batch_id, r.app, r.state, r.settled_by, n.id, n.attempt, n.in_question
    FROM wanted w
    JOIN request r ON r.token = w.token
    LEFT JOIN named n ON n.batch_id = r.id AND n.number = w.number
)
SELECT f.place, f.batch_id, f.app, f.state, f.settled_by, f.id, f.attempt,
    coalesce(f.in_question, false), o.state, o.provider_id, o.batch_id, o.at
FROM found f
LEFT JOIN dispatcher.outcome o
    ON o.message_id = f.id AND o.message_id = ANY (ARRAY(SELECT id FROM found))
