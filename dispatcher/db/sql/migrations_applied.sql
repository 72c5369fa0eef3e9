-- What is applied. A table that dbmate made has the version alone.
SELECT
    version,
    to_jsonb(m) ->> 'checksum' AS checksum,
    (to_jsonb(m) ->> 'applied_at')::timestamptz AS applied_at
FROM dispatcher.schema_migrations m
