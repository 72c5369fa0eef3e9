-- Operators' actions and the audit log.

-- name: cancel
-- Cancel messages that still wait; return how many. This and what follows writes the audit itself.
-- $1 message ids, $2 actor
SELECT dispatcher.cancel($1, $2)

-- name: requeue
-- Return rejected or expired messages to the queue; return how many.
-- $1 message ids, $2 actor
SELECT dispatcher.requeue($1, $2)

-- name: requeueable
-- Return the messages that may be requeued and have had a code since a time, but for those of cancelled
-- campaigns. Reads all outcomes.
-- $1 code, $2 since
SELECT message_id FROM (
    SELECT message_id FROM dispatcher.outcome
    WHERE state IN ('rejected', 'expired') AND upper(code) = upper($1) AND created_at >= $2
    UNION
    SELECT o.message_id
    FROM dispatcher.report r
    JOIN dispatcher.outcome o ON o.provider_id = r.provider_id AND o.state = 'accepted'
    WHERE upper(r.status) = upper($1) AND r.received_at >= $2
      AND dispatcher.is_refused_by_platform(r.provider_id)
) AS found
WHERE NOT EXISTS (
    SELECT FROM dispatcher.message m JOIN dispatcher.campaign c ON c.name = m.campaign
    WHERE m.id = found.message_id AND c.state = 'cancelled')
ORDER BY message_id

-- name: of_cancelled_campaigns
-- Return which messages are of cancelled campaigns.
-- $1 message ids
SELECT m.id FROM dispatcher.message m JOIN dispatcher.campaign c ON c.name = m.campaign
WHERE m.id = ANY ($1::bigint[]) AND c.state = 'cancelled'

-- name: settle
-- Settle an unsure batch as 'sent' or 'resend'; return how many messages. Raises no_data_found.
-- $1 token, $2 how, $3 actor
SELECT dispatcher.settle($1, $2, $3)

-- name: settle_lost
-- Settle messages that a fail-over has lost as 'sent' or 'resend'; return how many.
-- $1 ids, $2 how, $3 actor
SELECT dispatcher.settle_lost($1, $2, $3)

-- name: count_unsure
-- Return how many unsure batches and messages these conditions choose.
-- $1 app, $2 code, $3 since, $4 until; null: any
SELECT batches, messages FROM dispatcher.count_unsure($1, $2, $3, $4)

-- name: settle_batches
-- Settle at most 1,000 of them as 'sent' or 'resend'; return how many batches and messages.
-- $1 app, $2 code, $3 since, $4 until, $5 how, $6 actor
SELECT batches, messages FROM dispatcher.settle_batches($1, $2, $3, $4, $5, $6)

-- name: pause
-- Stop claiming for an app until an operator resumes it.
-- $1 app, $2 reason, $3 actor
SELECT dispatcher.pause($1, $2, $3)

-- name: resume
-- Claim for an app again, and for all its countries.
-- $1 app, $2 actor
SELECT dispatcher.resume($1, $2)

-- name: end_country_waits
-- Make due now what waits for a country of an app, a bounded number at a time; return how many.
-- $1 app
SELECT dispatcher.end_country_waits($1)

-- name: end_refusal_waits
-- Make due now what an app was refused before it was resumed, a bounded number at a time; return how many.
-- $1 app
SELECT dispatcher.end_refusal_waits(a.name, before => a.resumed_at)
FROM dispatcher.app a WHERE a.name = $1

-- name: suppress
-- Never send to numbers any more; return how many are new.
-- $1 numbers, $2 reason, $3 app (empty: every app), $4 whether only promotional messages, $5 actor
SELECT dispatcher.suppress($1, $2, $3, $4, $5)

-- name: unsuppress
-- Send to numbers again; return how many were suppressed.
-- $1 numbers, $2 app, $3 whether only what stops promotional messages (empty and false: all), $4 actor
SELECT dispatcher.unsuppress($1, $2, $3, $4)

-- name: define_template
-- Define a template, or define it anew.
-- $1 template id, $2 kinds, $3 note, $4 its text, if it is known, $5 whether it is promotional
-- (null: as the app says), $6 actor
SELECT dispatcher.define_template($1, $2, $3, $4, $5, $6)

-- name: drop_template
-- Remove a template; return whether there was one.
-- $1 template id, $2 actor
SELECT dispatcher.drop_template($1, $2)

-- name: set_limits
-- Set the limits of an app; all of them null: nothing is limited any more.
-- $1 app, $2 per minute, $3 per day, $4 same per minute, $5 same per hour, $6 daily limit,
-- $7 quiet from, $8 quiet until, $9 actor
SELECT dispatcher.set_limits($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: set_price
-- Set what a segment to a country costs.
-- $1 country, $2 price, $3 currency, $4 actor
SELECT dispatcher.set_price($1, $2, $3, $4)

-- name: append_audit
-- Write to the audit, in the transaction that does it: what no function of the database does.
-- $1 actor, $2 action, $3 target, $4 detail, $5 result
INSERT INTO dispatcher.audit (actor, action, target, detail, result) VALUES ($1, $2, $3, $4, $5)

-- name: audit_list
-- Return the newest entries of the audit first.
-- $1 how many at most
SELECT created_at, actor, action, target, detail, result
FROM dispatcher.audit ORDER BY id DESC LIMIT $1

-- name: message_as_stored
-- Return all rows about one message as JSON: itself, its outcome, its requests without the other
-- messages in them, and its reports as they came.
-- $1 message id, $2 tokens of its requests
SELECT jsonb_pretty(jsonb_build_object(
    'message', (SELECT to_jsonb(m) FROM dispatcher.message m WHERE m.id = $1),
    'outcome', (SELECT to_jsonb(o) FROM dispatcher.outcome o WHERE o.message_id = $1),
    'requests', (SELECT coalesce(jsonb_agg(
            to_jsonb(b) - 'message_ids' - 'attempts' - 'unsure_ids' ORDER BY b.id), '[]')
        FROM dispatcher.batch b WHERE b.token = ANY ($2::text[])),
    'reports', (SELECT coalesce(jsonb_agg(to_jsonb(r) ORDER BY r.segment), '[]')
        FROM dispatcher.report r
        WHERE r.provider_id = (SELECT o.provider_id FROM dispatcher.outcome o WHERE o.message_id = $1))
))

-- name: export_messages
-- Return everything stored of the messages to a number, oldest first: the rows themselves, as JSON.
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

-- name: export_replies
-- Return the replies of a number, oldest first: the rows themselves, as JSON.
-- $1 the number, as e164() returns it
SELECT jsonb_build_object('reply', to_jsonb(r) - 'digest')::text
FROM dispatcher.reply r WHERE r.number = $1 ORDER BY r.id

-- name: export_suppression
-- Return what the suppression list has of a number, as JSON.
-- $1 the number, as e164() returns it
SELECT jsonb_build_object('suppression', to_jsonb(s))::text
FROM dispatcher.suppression s WHERE s.recipient = $1

-- name: forget
-- Erase a person; return the messages erased, those left because they are on their way, and whether
-- the number is suppressed.
-- $1 spellings of the number, $2 actor
SELECT erased, left_alone, suppressed FROM dispatcher.forget($1, $2)
