-- Keep reports that belong to no message, yet or ever; one that is looked at again waits longer.
-- $1 provider ids, $2 segments, $3 reasons, $4 fresh, $5 looks, $6 whether to look again
INSERT INTO dispatcher.unmatched AS m (provider_id, segment, why, fresh, looks, due_at)
SELECT u.provider_id, u.segment, u.why, u.fresh, u.looks,
    CASE WHEN u.again
        THEN clock_timestamp() + least(interval '1 second' * u.looks * u.looks, '10 minutes') END
FROM unnest($1::text[], $2::smallint[], $3::text[], $4::boolean[], $5::smallint[], $6::boolean[])
    AS u (provider_id, segment, why, fresh, looks, again)
ON CONFLICT (provider_id, segment) DO UPDATE SET why = excluded.why, due_at = excluded.due_at
