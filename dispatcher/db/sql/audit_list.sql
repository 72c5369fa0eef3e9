-- What was done, the newest first.
-- $1 how many at most
SELECT at, who, action, target, detail, result FROM dispatcher.audit ORDER BY id DESC LIMIT $1
