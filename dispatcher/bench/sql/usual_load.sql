-- The rows of load_messages, in the usual table.
-- $1 how many, $2 whether each has its own text
INSERT INTO usual.message (app, sender, recipient, template_id, params)
SELECT
    'default',
    'csms12345678',
    '+86139' || lpad(n::text, 8, '0'),
    '8ff55eac1d0b478ab3c06c3c6a492300',
    ARRAY[CASE WHEN $2::boolean THEN lpad((n::bigint * 7919 % 1000000)::text, 6, '0') ELSE '062569' END]
FROM generate_series(1, $1::int) AS n
