-- The server's settings that figures depend on.
-- $1 names
SELECT name, current_setting(name) AS setting
FROM pg_settings
WHERE name = ANY ($1::text[])
ORDER BY array_position($1::text[], name)
