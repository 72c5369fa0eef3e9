-- A transaction that writes next to nothing: what it takes is what a commit takes on this disk.
SELECT pg_logical_emit_message(true, 'dispatcher bench', '')
