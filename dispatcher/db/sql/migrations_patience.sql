-- How long a statement of a migration waits for a table ($2: in this transaction only), and that
-- a limit the role may have does not end a long one.
SELECT set_config('lock_timeout', $1, $2), set_config('statement_timeout', '0', $2)
