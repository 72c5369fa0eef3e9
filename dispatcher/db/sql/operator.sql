-- Operators' actions and the audit log.

-- name: operator_cancel
-- Cancel messages that still wait; returns how many.
-- $1 message ids
SELECT dispatcher.cancel($1)

-- name: operator_requeue
-- Take rejected or expired messages back into the queue; returns how many.
-- $1 message ids
SELECT dispatcher.requeue($1)

-- name: operator_settle
-- Settle an unsure batch as 'sent' or 'resend'; returns how many messages. Raises no_data_found.
-- $1 token, $2 how
SELECT dispatcher.settle($1, $2)

-- name: operator_pause
-- Stop claiming for an app until an operator resumes it.
-- $1 app, $2 reason
SELECT dispatcher.pause($1, $2)

-- name: operator_resume
-- Claim for an app again, and for all its countries.
-- $1 app
SELECT dispatcher.resume($1)

-- name: audit
-- Write down what an operator did, in the transaction that does it.
-- $1 who, $2 action, $3 target, $4 detail, $5 result
INSERT INTO dispatcher.audit (who, action, target, detail, result) VALUES ($1, $2, $3, $4, $5)

-- name: audit_list
-- What was done, the newest first.
-- $1 how many at most
SELECT at, who, action, target, detail, result FROM dispatcher.audit ORDER BY id DESC LIMIT $1

-- name: export_messages
-- Everything kept of the messages to a number, oldest first: the rows themselves, as JSON.
-- $1 spellings of the number
SELECT jsonb_build_object(
    'message', to_jsonb(m),
    'status', to_jsonb(s),
    'reports', coalesce(
        (SELECT jsonb_agg(to_jsonb(r)) FROM dispatcher.report r WHERE r.provider_id = s.provider_id),
        '[]')
)::text
FROM dispatcher.message m
JOIN dispatcher.message_status s ON s.id = m.id
WHERE m.recipient = ANY ($1::text[])
  AND s.id = ANY (ARRAY(SELECT id FROM dispatcher.message WHERE recipient = ANY ($1::text[])))
ORDER BY m.id

-- name: export_suppression
-- What the list of numbers never to send to has of a number, as JSON.
-- $1 the number in canonical form
SELECT jsonb_build_object('suppression', to_jsonb(s))::text
FROM dispatcher.suppression s WHERE s.recipient = $1

-- name: forget
-- Erase a person; returns the messages erased, and those left because they are on their way.
-- $1 spellings of the number
SELECT erased, left_alone FROM dispatcher.forget($1)

-- name: forget_used
-- Forget what a number was sent lately: what limits for one recipient count.
-- $1 the number in canonical form
DELETE FROM dispatcher.sent_to WHERE recipient = $1

-- name: forget_suppressed
-- Keep a number on the list of those never to send to, and nothing else of its person; returns
-- whether it is there.
-- $1 the number in canonical form
WITH kept AS (
    UPDATE dispatcher.suppression SET reason = '' WHERE recipient = $1 RETURNING 1
)
SELECT EXISTS (SELECT FROM kept)
