-- Statements for indexes that full partitions lack; none where we are not their owner, and may not.
SELECT m.* FROM dispatcher.missing_indexes() AS m
WHERE pg_has_role(
    current_user, (SELECT relowner FROM pg_class WHERE oid = 'dispatcher.message'::regclass), 'USAGE'
)
