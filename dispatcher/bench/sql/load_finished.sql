-- Make messages that were accepted long ago; the queue's trigger is switched off meanwhile.
-- $1 how many
WITH made AS (
    SELECT nextval('dispatcher.message_id') AS id, n FROM generate_series(1, $1::int) AS n
), asked AS (
    INSERT INTO dispatcher.message (id, sender, recipient, template_id, params)
    SELECT id, 'csms12345678', '+86138' || lpad((n % 100000000)::text, 8, '0'),
        '8ff55eac1d0b478ab3c06c3c6a492300', ARRAY['062569']
    FROM made
)
INSERT INTO dispatcher.outcome (message_id, state, attempts, segments, batch_id, provider_id, code)
SELECT id, 'accepted', 1, 1, 1, gen_random_uuid()::text || '_1', '000000' FROM made
