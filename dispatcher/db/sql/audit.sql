-- The audit log, as the console reads it.

-- name: audit_page
-- Return entries of the audit log, the newest first. It is small: an entry an action of an operator.
-- $1 ids below (null: the newest), $2 how many at most, $3 actors, $4 action, $5 part of the target,
-- $6 since, $7 until (each null: any)
SELECT id, created_at, actor, action, target, detail, result
FROM dispatcher.audit
WHERE ($1::bigint IS NULL OR id < $1)
  AND ($3::text[] IS NULL OR actor = ANY ($3))
  AND ($4::text IS NULL OR action = $4)
  AND ($5::text IS NULL OR strpos(lower(target), lower($5)) > 0)
  AND ($6::timestamptz IS NULL OR created_at >= $6)
  AND ($7::timestamptz IS NULL OR created_at < $7)
ORDER BY id DESC
LIMIT $2
