-- Campaigns: operators' actions, progress, and export.

-- name: pause_campaign
-- Stop claiming messages of a campaign. Raises no_data_found for one that does not exist.
-- $1 name, $2 reason, $3 actor
SELECT dispatcher.pause_campaign($1, $2, $3)

-- name: resume_campaign
-- Claim messages of a campaign again.
-- $1 name, $2 actor
SELECT dispatcher.resume_campaign($1, $2)

-- name: cancel_campaign
-- Claim no message of a campaign any more; outcomes follow, see cancel_campaign_step.
-- $1 name, $2 reason, $3 actor
SELECT dispatcher.cancel_campaign($1, $2, $3)

-- name: cancel_campaign_step
-- Write the outcomes of some messages of cancelled campaigns; return how many.
SELECT dispatcher.cancel_campaign_step()

-- name: stop_campaigns
-- Pause campaigns of which too many messages failed; return how many.
SELECT dispatcher.stop_campaigns()

-- name: campaign_stop_at
-- Set the share of failed messages at which a campaign pauses by itself.
-- $1 name, $2 share
UPDATE dispatcher.campaign SET stop_at = $2 WHERE name = $1

-- name: requeue_campaign_step
-- Requeue some rejected or expired messages of a campaign.
-- $1 name, $2 last id that was looked at, $3 how many at most, $4 actor
SELECT last_id, requeued FROM dispatcher.requeue_campaign_step($1, $2, $3, $4)

-- name: campaign_claim_name
-- Begin a campaign for a file; return no row if the name is taken.
-- $1 name, $2 file, $3 actor
INSERT INTO dispatcher.campaign (name, file, created_by, first_id)
SELECT $1, $2, $3, last_value FROM dispatcher.message_id
ON CONFLICT (name) DO NOTHING
RETURNING name

-- name: campaigns
-- The campaigns, the newest first, each with how many of its messages wait.
-- $1 how many at most
SELECT c.name, c.state, c.reason, c.file, c.created_by, c.created_at, c.changed_by, c.changed_at,
    (SELECT count(*) FROM dispatcher.queue q WHERE q.campaign = c.name)
        + (SELECT coalesce(sum(b.size), 0) FROM dispatcher.bulk b WHERE b.campaign = c.name)
        AS waiting,
    (SELECT sum(i.imported)::bigint FROM dispatcher.file_import i WHERE i.campaign = c.name) AS imported
FROM dispatcher.campaign c ORDER BY c.created_at DESC LIMIT $1

-- name: campaign
-- One campaign, as in campaigns.
-- $1 name
SELECT c.name, c.state, c.reason, c.file, c.created_by, c.created_at, c.changed_by, c.changed_at,
    (SELECT count(*) FROM dispatcher.queue q WHERE q.campaign = c.name)
        + (SELECT coalesce(sum(b.size), 0) FROM dispatcher.bulk b WHERE b.campaign = c.name)
        AS waiting,
    (SELECT sum(i.imported)::bigint FROM dispatcher.file_import i WHERE i.campaign = c.name) AS imported
FROM dispatcher.campaign c WHERE c.name = $1

-- name: campaign_states
-- How many messages of a campaign are in each state, with their codes, segments, and how many were
-- accepted in the last seconds. Reads every message since it began.
-- $1 name, $2 seconds
SELECT s.state, s.code, min(s.reason) AS reason, count(*) AS messages,
    coalesce(sum(s.segments), 0)::bigint AS segments,
    count(*) FILTER (WHERE s.accepted_at > now() - make_interval(secs => $2)) AS recent
FROM dispatcher.message_status s
WHERE s.id >= (SELECT c.first_id FROM dispatcher.campaign c WHERE c.name = $1) AND s.campaign = $1
GROUP BY s.state, s.code
ORDER BY count(*) DESC

-- name: export_rows
-- Everything an export shows, oldest first.
-- $1 campaign, $2 app, $3 state, $4 since, $5 first id
SELECT id, app, campaign, recipient, template_id, reference, state, code, reason, segments,
    queued_at, accepted_at, finished_at, provider_id
FROM dispatcher.message_status
WHERE id >= $5
  AND ($1::text IS NULL OR campaign = $1)
  AND ($2::text IS NULL OR app = $2)
  AND ($3::text IS NULL OR state = $3)
  AND ($4::timestamptz IS NULL OR queued_at >= $4)
ORDER BY id

-- name: export_from
-- The first id that an export must read.
-- $1 campaign
SELECT coalesce((SELECT first_id FROM dispatcher.campaign WHERE name = $1), 0)

-- name: plan_for_all_rows
-- Let the planner of this transaction's cursors expect that all of their rows are read.
SET LOCAL cursor_tuple_fraction = 1
