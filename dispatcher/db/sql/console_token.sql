-- Tokens of the console.

-- name: add_console_token
-- Add a token, and write the audit. Raises unique_violation if the name is in use.
-- $1 name, $2 role, $3 digest, $4 actor
SELECT dispatcher.add_console_token($1, $2, $3, $4)

-- name: revoke_console_token
-- Revoke a token; return whether there was one of this name.
-- $1 name, $2 actor
SELECT dispatcher.revoke_console_token($1, $2)

-- name: console_tokens
-- Return all tokens, the newest first.
SELECT id, name, role, created_at, created_by, used_at, revoked_at, revoked_by
FROM dispatcher.console_token ORDER BY id DESC

-- name: valid_console_tokens
-- Return the tokens that are not revoked.
SELECT id, name, role, digest FROM dispatcher.console_token WHERE revoked_at IS NULL

-- name: note_console_token_use
-- Note a login with a token.
-- $1 id
UPDATE dispatcher.console_token SET used_at = clock_timestamp() WHERE id = $1
