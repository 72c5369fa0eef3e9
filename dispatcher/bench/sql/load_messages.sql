-- Insert messages as an application would, in one statement: numbers all different.
-- $1 how many, $2 whether each has its own text, $3 priority, $4 seconds until they are due
INSERT INTO dispatcher.message (sender, recipient, template_id, params, priority, send_at)
SELECT
    'csms12345678',
    '+86139' || lpad(n::text, 8, '0'),
    '8ff55eac1d0b478ab3c06c3c6a492300',
    ARRAY[CASE WHEN $2::boolean THEN lpad((n::bigint * 7919 % 1000000)::text, 6, '0') ELSE '062569' END],
    $3::smallint,
    now() + make_interval(secs => $4)
FROM generate_series(1, $1::int) AS n
