-- Close batches, or mark them unsure; return those that this call may write for.
-- The guard makes a repeat harmless and keeps a late worker from writing over anybody: an open
-- batch takes any answer, an unsure one only evidence ($7), which settles what it tells. One that
-- is unsure because its answer did not tell of all (unsure_ids) has had its answer: what that put
-- back may be on its way again, and would be put back a second time.
-- $1 ids, $2 states, $3 HTTP statuses, $4 codes, $5 descriptions, $6 tries, $7 evidence
UPDATE dispatcher.batch b
SET state = u.state,
    closed_at = CASE WHEN u.state = 'closed' THEN clock_timestamp() END,
    unsure_at = CASE WHEN u.state = 'unsure' THEN coalesce(b.unsure_at, clock_timestamp())
        ELSE b.unsure_at END,
    http_status = u.http_status,
    code = u.code,
    description = u.description,
    tries = u.tries,
    settled_by = CASE WHEN b.state = 'unsure' AND u.state = 'closed' THEN 'late answer' END
FROM unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::smallint[],
    $7::boolean[]) AS u (id, state, http_status, code, description, tries, evidence)
WHERE b.id = u.id
  AND b.id = ANY ($1::bigint[])
  AND (b.state = 'open' OR b.state = 'unsure' AND b.unsure_ids IS NULL AND u.evidence)
RETURNING b.id
