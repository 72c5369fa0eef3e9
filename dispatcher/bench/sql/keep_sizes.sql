-- What lies on disk, in bytes: tables with their indexes, partitions under their parent's name.
SELECT coalesce(parent.relname, c.relname) AS name, sum(pg_table_size(c.oid))::bigint AS heap,
    sum(pg_indexes_size(c.oid))::bigint AS indexes
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class parent ON parent.oid = i.inhparent
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r'
GROUP BY 1 ORDER BY 2 DESC
